/*
 * The modules that a checkpoint leaves unquantised, as expected by the servers that read the list.
 *
 * With an FP8 quantization_config, vLLM, SGLang and transformers assume that every linear layer
 * and routed expert is quantised, unless modules_to_not_convert or ignored_layers names its
 * module; BF16 weights would silently be cast into FP8 parameters.
 */
#include <stdlib.h>
#include <string.h>

#include "libckpt/buffer.h"
#include "config_private.h"
#include "libckpt/file.h"
#include "libckpt/tensor_class.h"
#include "libckpt/text.h"

int config_is_weight(const config_change *change, size_t i)
{
    const ckpt_tensor *t = ckpt_catalog_at(change->targets, i);
    const int64_t o = change->official == NULL ? CKPT_NOT_FOUND
                                               : ckpt_catalog_find(change->official, t->name);

    return t->scale_dtype != CKPT_NONE ||
           (change->from != NULL &&
            ckpt_catalog_at(change->from, i)->scale_dtype != CKPT_NONE) ||
           (o >= 0 && ckpt_catalog_at(change->official, (size_t)o)->scale_dtype != CKPT_NONE) ||
           (change->lists_matrices && t->rank == 2 && !ckpt_tensor_is_int(t) &&
            text_ends_with(t->name, ".weight"));
}

/* ---- the modules of all weights ---- */

typedef struct {
    const config_change *change;
    encoding_id id;           /* modules without it are listed; ENCODING_COUNT: plain ones */
    file_list names;
    size_t *weights;          /* by name: index of one of its weights in the targets */
    table index;              /* name -> index in names */
} modules;

static ckpt_code fail_divided(const config_change *change, const char *module, size_t a, size_t b,
                              ckpt_error *err)
{
    const ckpt_tensor *one = ckpt_catalog_at(change->targets, a);
    const ckpt_tensor *other = ckpt_catalog_at(change->targets, b);

    return ckpt_fail(err, CKPT_E_USAGE,
                     "'%s' would be %s and '%s' %s, but config.json has one encoding for '%s': use "
                     "the same for both", one->name, ckpt_dtype_name(one->dtype),
                     other->name, ckpt_dtype_name(other->dtype), module);
}

static int is_listed(const modules *m, const ckpt_tensor *t)
{
    return m->id == ENCODING_COUNT ? t->scale_dtype == CKPT_NONE : !encoding_is(t, m->id);
}

/* Names repeat, because the experts of a layer are one module. */
static ckpt_code add_module(modules *m, const char *name, size_t weight, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(m->change->targets, weight);
    uint64_t place;
    ckpt_code code;

    if (table_find(&m->index, name, &place)) {
        const ckpt_tensor *first = ckpt_catalog_at(m->change->targets, m->weights[place]);

        return is_listed(m, first) == is_listed(m, t)
                   ? CKPT_OK
                   : fail_divided(m->change, name, m->weights[place], weight, err);
    }
    if ((code = file_list_add(&m->names, name, err)) != CKPT_OK)
        return code;
    m->weights[m->names.count - 1] = weight;
    if (table_add(&m->index, m->names.names[m->names.count - 1], m->names.count - 1) !=
        TABLE_ADDED)
        return ckpt_fail_memory(err, "a list of modules", m->names.count);
    return CKPT_OK;
}

int config_module_of(const char *weight, char out[MAP_NAME_BYTES])
{
    static const char ending[] = ".weight";
    size_t length = strlen(weight);
    size_t digits;
    const char *number = tensor_expert_number(weight, &digits);

    if (number != NULL)
        length = (size_t)(number - weight) - 1;
    else if (text_ends_with(weight, ending))
        length -= sizeof ending - 1;
    if (length >= MAP_NAME_BYTES)
        return 0;
    memcpy(out, weight, length);
    out[length] = '\0';
    return 1;
}

static ckpt_code add_weight(modules *m, size_t i, ckpt_error *err)
{
    const config_change *change = m->change;
    const char *weight = ckpt_catalog_at(change->targets, i)->name;
    map_captures captures = { .count = 0 };
    const map_module *module =
        change->modules == NULL ? NULL : map_find_module(change->modules, weight, &captures);
    char name[MAP_NAME_BYTES];
    ckpt_code code = CKPT_OK;

    for (size_t n = 0; module != NULL && n < module->name_count && code == CKPT_OK; n++)
        if (map_expand(module->names[n], &captures, name))
            code = add_module(m, name, i, err);
    if (module == NULL && config_module_of(weight, name))
        code = add_module(m, name, i, err);
    return code;
}

static ckpt_code find_modules(modules *m, ckpt_error *err)
{
    const config_change *change = m->change;
    const size_t count = ckpt_catalog_count(change->targets);
    ckpt_code code = CKPT_OK;

    m->weights = calloc(count * MAP_MODULE_NAMES_MAX + 1, sizeof *m->weights);
    if (m->weights == NULL)
        return ckpt_fail_memory(err, "a list of modules", count);
    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        if (config_is_weight(change, i))
            code = add_weight(m, i, err);
    return code;
}

/* Is the module of this name plain (1), quantised (0) or unknown (-1)? */
static int is_plain(const modules *m, const char *name)
{
    static const char prefix[] = "model.";
    uint64_t place;

    if (!table_find(&m->index, name, &place) &&
        (strncmp(name, prefix, sizeof prefix - 1) != 0 ||
         !table_find(&m->index, name + sizeof prefix - 1, &place)))
        return -1;
    return is_listed(m, ckpt_catalog_at(m->change->targets, m->weights[place]));
}

/* ---- the list ---- */

/* Keep entries of the old list that are still true or about unknown modules, then add what is
 * missing. */
static ckpt_code collect(const modules *m, const json_value *old, file_list *out,
                         ckpt_error *err)
{
    table seen;
    ckpt_code code = CKPT_OK;

    table_init(&seen);
    for (const json_value *v = json_first(old); v != NULL && code == CKPT_OK; v = json_next(v)) {
        const char *name = json_string(v);

        if (name == NULL || is_plain(m, name) == 0)
            continue;
        if (table_add(&seen, name, 0) == TABLE_NO_MEMORY)
            code = ckpt_fail_memory(err, "a list of modules", m->names.count);
        else
            code = file_list_add(out, name, err);
    }
    for (size_t i = 0; i < m->names.count && code == CKPT_OK; i++) {
        uint64_t unused;

        if (is_plain(m, m->names.names[i]) == 1 &&
            !table_find(&seen, m->names.names[i], &unused))
            code = file_list_add(out, m->names.names[i], err);
    }
    table_release(&seen);
    return code;
}

static int same_list(const json_value *old, const file_list *now)
{
    size_t i = 0;

    for (const json_value *v = json_first(old); v != NULL; v = json_next(v), i++)
        if (i >= now->count || json_string(v) == NULL ||
            strcmp(json_string(v), now->names[i]) != 0)
            return 0;
    return i == now->count;
}

static ckpt_code edit_list(char **text, const char *key, const file_list *names, ckpt_error *err)
{
    byte_buffer list = { .bytes = NULL };
    ckpt_code code;
    json_writer w;

    json_writer_begin(&w, byte_buffer_write, &list, 0);
    json_put_array(&w);
    for (size_t i = 0; i < names->count; i++)
        json_put_string(&w, names->names[i]);
    json_put_array_end(&w);
    if (!json_writer_end(&w) || byte_buffer_write(&list, "", 1) != 0)
        code = ckpt_fail_memory(err, "a list of modules", names->count);
    else
        code = config_edit(text, key, names->count == 0 ? NULL : list.bytes, err);
    free(list.bytes);
    return code;
}

/* One key of quantization_config; it is added only when `adds`. */
static ckpt_code rewrite_key(const modules *m, char **text, const char *key, int adds,
                             ckpt_error *err)
{
    json_document *document = NULL;
    file_list now = { NULL, 0 };
    const json_value *old;
    ckpt_code code;

    if ((code = json_parse(*text, strlen(*text), "config.json", &document, err)) != CKPT_OK)
        return code;
    old = json_member(json_root(document), key);
    if (old != NULL || adds)
        code = collect(m, old, &now, err);
    if (code == CKPT_OK && (old != NULL || adds) && !same_list(old, &now))
        code = edit_list(text, key, &now, err);
    file_list_free(&now);
    json_free(document);
    return code;
}

static int has_member(const char *text, const char *key)
{
    char *value = NULL;
    const int has = json_member_text(text, key, &value, NULL) == CKPT_OK && value != NULL;

    free(value);
    return has;
}

ckpt_code config_list_modules(const config_change *change, char **text, ckpt_error *err)
{
    static const char first[] = "ignored_layers";
    static const char usual[] = "modules_to_not_convert";
    modules m = { .change = change, .id = ENCODING_COUNT };
    ckpt_code code;

    table_init(&m.index);
    if ((code = find_modules(&m, err)) == CKPT_OK &&
        (code = rewrite_key(&m, text, first, 0, err)) == CKPT_OK)
        code = rewrite_key(&m, text, usual, !has_member(*text, first), err);
    file_list_free(&m.names);
    free(m.weights);
    table_release(&m.index);
    return code;
}

ckpt_code config_list_others(const config_change *change, encoding_id id, char **text,
                             ckpt_error *err)
{
    modules m = { .change = change, .id = id };
    ckpt_code code;

    table_init(&m.index);
    if ((code = find_modules(&m, err)) == CKPT_OK)
        code = rewrite_key(&m, text, "ignore", 1, err);
    file_list_free(&m.names);
    free(m.weights);
    table_release(&m.index);
    return code;
}
