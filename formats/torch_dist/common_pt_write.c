/* common_pt_write.c: writes common.pt for Megatron's loaders. */
#include "common_pt.h"

#include <stdlib.h>

#include "libckpt/buffer.h"
#include "pickle_write.h"
#include "zip_build.h"

enum { ARCHIVE_EXTRA = 2048 };   /* headers, padding, directory and the two short records */

static int add_bytes(void *context, const void *bytes, size_t size)
{
    return byte_buffer_add(context, bytes, size);
}

/* Anything but a list. */
static void put_scalar(pickle_writer *w, const common_arg *arg)
{
    switch (arg->kind) {
    case COMMON_BOOL:
        pickle_put_bool(w, arg->integer != 0);
        break;
    case COMMON_INT:
        pickle_put_i64(w, arg->integer);
        break;
    case COMMON_FLOAT:
        pickle_put_double(w, arg->number);
        break;
    case COMMON_TEXT:
        pickle_put_text(w, arg->text);
        break;
    default:
        pickle_put_op(w, PICKLE_OP_NONE);
        break;
    }
}

static void put_value(pickle_writer *w, const common_arg *arg)
{
    if (arg->kind != COMMON_LIST) {
        put_scalar(w, arg);
        return;
    }
    pickle_put_op(w, PICKLE_OP_EMPTY_LIST);
    pickle_put_op(w, PICKLE_OP_MARK);
    for (size_t i = 0; i < arg->item_count; i++)
        put_scalar(w, &arg->items[i]);
    pickle_put_op(w, PICKLE_OP_APPENDS);
}

static void put_common(pickle_writer *w, const common_pt *common)
{
    pickle_put_op(w, PICKLE_OP_EMPTY_DICT);
    pickle_put_op(w, PICKLE_OP_MARK);
    pickle_put_text(w, "args");
    pickle_put_object(w, "argparse Namespace");
    for (size_t i = 0; i < common->arg_count; i++) {
        pickle_put_text(w, common->args[i].name);
        put_value(w, &common->args[i]);
    }
    pickle_put_object_end(w);
    pickle_put_text(w, "checkpoint_version");
    pickle_put_double(w, 3.0);
    if (common->iteration >= 0) {
        pickle_put_text(w, "iteration");
        pickle_put_i64(w, common->iteration);
    }
    pickle_put_text(w, "num_floating_point_operations_so_far");
    pickle_put_i64(w, 0);
    pickle_put_text(w, "content_metadata");
    pickle_put_op(w, PICKLE_OP_EMPTY_DICT);
    pickle_put_op(w, PICKLE_OP_MARK);
    pickle_put_text(w, "singleton_local_shards");
    pickle_put_bool(w, 0);
    pickle_put_text(w, "chained_optim_avoid_prefix");
    pickle_put_bool(w, 1);
    pickle_put_op(w, PICKLE_OP_SETITEMS);
    pickle_put_op(w, PICKLE_OP_SETITEMS);
}

/* Refuse the kinds of values that only the reader supports. */
static ckpt_code check(const common_pt *common, ckpt_error *err)
{
    for (size_t i = 0; i < common->arg_count; i++) {
        const common_arg *arg = &common->args[i];
        int fits = arg->kind != COMMON_OTHER;

        for (size_t k = 0; arg->kind == COMMON_LIST && k < arg->item_count; k++)
            fits &= arg->items[k].kind != COMMON_OTHER && arg->items[k].kind != COMMON_LIST;
        if (!fits)
            return ckpt_fail(err, CKPT_E_USAGE, "argument '%s' cannot be written to common.pt",
                             arg->name);
    }
    return CKPT_OK;
}

static ckpt_code build(const byte_buffer *object, unsigned char **out, size_t *out_bytes,
                       ckpt_error *err)
{
    const size_t capacity = object->used + ARCHIVE_EXTRA;
    zip_builder b;
    size_t tail_bytes;
    size_t unused;

    *out = malloc(capacity);
    if (*out == NULL)
        return ckpt_fail_memory(err, "common.pt", capacity);
    zip_build_begin(&b, "common", *out, capacity);
    zip_build_record_add(&b, "version", "3\n", 2);
    zip_build_record_add(&b, "byteorder", "little", 6);
    zip_build_record_add(&b, "data.pkl", object->bytes, object->used);
    tail_bytes = zip_build_tail(&b, b.used, *out + b.used, capacity - b.used, &unused);
    *out_bytes = b.used + tail_bytes;
    if (tail_bytes != 0)
        return CKPT_OK;
    free(*out);
    *out = NULL;
    return ckpt_fail(err, CKPT_E_USAGE, "common.pt of %zu bytes is too large", object->used);
}

ckpt_code common_pt_write(const common_pt *common, unsigned char **out, size_t *out_bytes,
                          ckpt_error *err)
{
    byte_buffer object = { .bytes = NULL };
    pickle_writer w;
    ckpt_code code = check(common, err);

    *out = NULL;
    if (code != CKPT_OK)
        return code;
    pickle_writer_begin(&w, add_bytes, &object);
    put_common(&w, common);
    if ((code = pickle_writer_end(&w, err)) == CKPT_OK)
        code = build(&object, out, out_bytes, err);
    free(object.bytes);
    return code;
}
