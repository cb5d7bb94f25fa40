/* common_pt.c: reads the options of a run from common.pt or a common_state entry. */
#include "common_pt.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/arena.h"
#include "pickle.h"
#include "zip_archive.h"

enum { OBJECT_BYTES_MAX = 64 << 20, TEXT_MAX = 1 << 20 };

/* The result. The public part is its first member, so that common_pt_free gets the whole. */
typedef struct {
    common_pt common;
    arena memory;
} common_read;

typedef struct {
    common_read *out;
    uint64_t memory_limit;
    const char *subject;
    ckpt_error *err;
} reader;

static ckpt_code fail(const reader *r, const char *what)
{
    return ckpt_fail(r->err, CKPT_E_FORMAT, "'%s': %s", r->subject, what);
}

/* Texts and lists can be shared in the pickle, but their copies are not, so they are charged. */
static ckpt_code allocate(reader *r, uint64_t count, size_t item_bytes, void **out)
{
    arena *memory = &r->out->memory;

    *out = count > r->memory_limit / item_bytes
               ? NULL : arena_calloc(memory, (size_t)count, item_bytes);
    if (*out == NULL || memory->total_bytes > r->memory_limit)
        return ckpt_fail(r->err, CKPT_E_MEMORY, "'%s' needs more memory than allowed",
                         r->subject);
    return CKPT_OK;
}

/* A NUL-terminated copy; *out is NULL if the value is not a text or contains NUL. */
static ckpt_code copy_text(reader *r, const pickle_value *v, const char **out)
{
    size_t length;
    const char *text = pickle_text(v, &length);
    void *memory = NULL;
    ckpt_code code;

    *out = NULL;
    if (text == NULL || length > TEXT_MAX || memchr(text, '\0', length) != NULL)
        return CKPT_OK;
    if ((code = allocate(r, length + 1, 1, &memory)) != CKPT_OK)
        return code;
    memcpy(memory, text, length);
    *out = memory;
    return CKPT_OK;
}

/* A value that is not a list. */
static ckpt_code read_scalar(reader *r, const pickle_value *v, common_arg *out)
{
    int flag;
    ckpt_code code;

    out->kind = COMMON_OTHER;
    if (pickle_is(v, PICKLE_NULL)) {
        out->kind = COMMON_NONE;
    } else if (pickle_bool(v, &flag)) {
        out->kind = COMMON_BOOL;
        out->integer = flag;
    } else if (pickle_i64(v, &out->integer)) {
        out->kind = COMMON_INT;
    } else if (pickle_double(v, &out->number)) {
        out->kind = COMMON_FLOAT;
    } else if (pickle_is(v, PICKLE_TEXT)) {
        if ((code = copy_text(r, v, &out->text)) != CKPT_OK)
            return code;
        if (out->text != NULL)
            out->kind = COMMON_TEXT;
    }
    return CKPT_OK;
}

static ckpt_code read_value(reader *r, const pickle_value *v, common_arg *out)
{
    const size_t count = pickle_count(v);
    void *memory = NULL;
    common_arg *items;
    ckpt_code code;

    if (!pickle_is(v, PICKLE_LIST) && !pickle_is(v, PICKLE_TUPLE))
        return read_scalar(r, v, out);
    if ((code = allocate(r, count, sizeof *items, &memory)) != CKPT_OK)
        return code;
    items = memory;
    for (size_t i = 0; i < count; i++)
        if ((code = read_scalar(r, pickle_item(v, i), &items[i])) != CKPT_OK)
            return code;
    out->kind = COMMON_LIST;
    out->items = items;
    out->item_count = count;
    return CKPT_OK;
}

static ckpt_code read_args(reader *r, const pickle_value *args)
{
    const pickle_value *state = pickle_state(args);
    const size_t count = pickle_count(state);
    common_pt *common = &r->out->common;
    void *memory = NULL;
    common_arg *list;
    ckpt_code code;

    if (!pickle_class_is(args, "argparse Namespace") || !pickle_is(state, PICKLE_DICT))
        return fail(r, "'args' is not an argparse.Namespace");
    if ((code = allocate(r, count, sizeof *list, &memory)) != CKPT_OK)
        return code;
    list = memory;
    common->args = list;
    common->has_args = 1;
    for (size_t i = 0; i < count; i++) {
        if ((code = copy_text(r, pickle_key(state, i), &list[i].name)) != CKPT_OK)
            return code;
        if (list[i].name == NULL)
            return fail(r, "'args' has a name that is not a text");
        if ((code = read_value(r, pickle_item(state, i), &list[i])) != CKPT_OK)
            return code;
        common->arg_count++;
    }
    return CKPT_OK;
}

/* The dict itself, or the one in a list of length 1. */
static ckpt_code read_root(reader *r, const pickle_value *root)
{
    common_pt *common = &r->out->common;
    const pickle_value *args;
    const pickle_value *value;
    int64_t integer;

    if (pickle_is(root, PICKLE_LIST) && pickle_count(root) == 1)
        root = pickle_item(root, 0);
    if (!pickle_is(root, PICKLE_DICT))
        return fail(r, "expected a dict of common state");
    common->iteration = -1;
    value = pickle_find(root, "iteration");
    if (value != NULL && !pickle_is(value, PICKLE_NULL) &&
        (!pickle_i64(value, &common->iteration) || common->iteration < 0))
        return fail(r, "'iteration' is not a step number");
    value = pickle_find(root, "checkpoint_version");
    if (value != NULL && !pickle_double(value, &common->checkpoint_version)) {
        if (!pickle_i64(value, &integer))
            return fail(r, "'checkpoint_version' is not a number");
        common->checkpoint_version = (double)integer;
    }
    args = pickle_find(root, "args");
    return args == NULL || pickle_is(args, PICKLE_NULL) ? CKPT_OK : read_args(r, args);
}

static ckpt_code read_bytes(reader *r, const unsigned char *bytes, size_t size)
{
    pickle *p;
    ckpt_code code = pickle_read(bytes, size, NULL, r->subject, &p, r->err);

    if (code != CKPT_OK)
        return code;
    code = read_root(r, pickle_root(p));
    pickle_free(p);
    return code;
}

/* The pickle of the archive at range[0] of range[1] bytes; *object is malloc'd, yours to free. */
static ckpt_code load_object(const ckpt_file *file, const uint64_t range[2],
                             unsigned char **object, size_t *size, ckpt_error *err)
{
    zip_record record;
    zip_archive a;
    ckpt_code code;

    *object = NULL;
    if ((code = zip_archive_open(file, range[0], range[1], &a, err)) == CKPT_OK &&
        (code = zip_archive_find(&a, "data.pkl", &record, err)) == CKPT_OK &&
        (code = zip_archive_load(&a, &record, OBJECT_BYTES_MAX, object, err)) == CKPT_OK)
        *size = (size_t)record.size_bytes;
    zip_archive_close(&a);
    return code;
}

ckpt_code common_pt_check(const ckpt_file *file, uint64_t offset, uint64_t length,
                          ckpt_error *err)
{
    const uint64_t range[2] = { offset, length };
    unsigned char *object;
    size_t size;
    const ckpt_code code = load_object(file, range, &object, &size, err);

    free(object);
    return code;
}

ckpt_code common_pt_read(const ckpt_file *file, uint64_t offset, uint64_t length, common_pt **out,
                         ckpt_error *err)
{
    reader r = { .memory_limit = PICKLE_MEMORY, .subject = file_path(file), .err = err };
    const uint64_t range[2] = { offset, length };
    unsigned char *object;
    size_t size;
    ckpt_code code;

    *out = NULL;
    r.out = calloc(1, sizeof *r.out);
    if (r.out == NULL)
        return ckpt_fail_memory(err, "common.pt", sizeof *r.out);
    arena_init(&r.out->memory);
    if ((code = load_object(file, range, &object, &size, err)) == CKPT_OK)
        code = read_bytes(&r, object, size);
    free(object);
    if (code != CKPT_OK)
        common_pt_free(&r.out->common);
    else
        *out = &r.out->common;
    return code;
}

void common_pt_free(common_pt *common)
{
    common_read *all = (common_read *)(void *)common;

    if (common == NULL)
        return;
    arena_release(&all->memory);
    free(all);
}

const common_arg *common_pt_find(const common_pt *common, const char *name)
{
    for (size_t i = 0; i < common->arg_count; i++)
        if (strcmp(common->args[i].name, name) == 0)
            return &common->args[i];
    return NULL;
}
