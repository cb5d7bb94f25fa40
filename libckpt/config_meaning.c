/* Flattens a config; gives each member of a DeepSeek-V4 config a single name. */
#include "config_meaning.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "config_names.h"
#include "config_words.h"

enum { NAME_BYTES = 512, LAYERS_MAX = 4096,
       MEMBERS_MAX = 10000 };            /* because they are searched linearly */

static const char v4_type[] = "\"" CONFIG_TYPE_V4 "\"";

/* ---- lists ---- */

/* Takes `text`, which may be NULL for lack of memory. */
static ckpt_code add(config_meaning *m, const char *name, char *text, ckpt_error *err)
{
    config_member *members;
    char *copy;

    if (m->count == MEMBERS_MAX) {
        free(text);
        return ckpt_fail(err, CKPT_E_FORMAT, "config.json has more than %d members", MEMBERS_MAX);
    }
    members = array_room(m->members, m->count, sizeof *members, "a config", err);
    copy = strdup(name);
    if (members != NULL)
        m->members = members;
    if (members == NULL || copy == NULL || text == NULL) {
        free(copy);
        free(text);
        return ckpt_fail_memory(err, "a config", m->count);
    }
    members[m->count++] = (config_member){ copy, text };
    return CKPT_OK;
}

const config_member *config_meaning_find(const config_meaning *m, const char *name)
{
    for (size_t i = 0; i < m->count; i++)
        if (strcmp(m->members[i].name, name) == 0)
            return &m->members[i];
    return NULL;
}

void config_meaning_release(config_meaning *meaning)
{
    for (size_t i = 0; i < meaning->count; i++) {
        free(meaning->members[i].name);
        free(meaning->members[i].text);
    }
    free(meaning->members);
    memset(meaning, 0, sizeof *meaning);
}

void config_meaning_put(json_writer *w, const config_meaning *meaning)
{
    json_put_object(w);
    for (size_t i = 0; i < meaning->count; i++) {
        json_put_key(w, meaning->members[i].name);
        json_put_raw(w, meaning->members[i].text);
    }
    json_put_object_end(w);
}

/* ---- values as text ---- */

static int is_nested(const json_value *v)
{
    return json_is_object(v) || json_is_array(v);
}

static int is_whole(double number)
{
    return number >= -9007199254740992.0 && number <= 9007199254740992.0 &&
           (double)(int64_t)number == number;
}

static void put_scalar(json_writer *w, const json_value *v)
{
    double number;
    int flag;

    if (json_string(v) != NULL)
        json_put_string(w, json_string(v));
    else if (json_bool(v, &flag))
        json_put_bool(w, flag);
    else if (json_number(v, &number) && is_whole(number))
        json_put_i64(w, (int64_t)number);          /* write 1.0 as 1 */
    else if (json_number(v, &number))
        json_put_double(w, number);
    else
        json_put_null(w);
}

/* The JSON text of a scalar or a list of scalars; malloc'd, NULL without memory. */
static char *text_of(const json_value *v)
{
    char *text = NULL;
    size_t size = 0;
    FILE *stream = open_memstream(&text, &size);
    json_writer w;

    if (stream == NULL)
        return NULL;
    json_writer_begin(&w, json_write_stdio, stream, 0);
    if (json_is_array(v)) {
        json_put_array(&w);
        for (const json_value *item = json_first(v); item != NULL; item = json_next(item))
            put_scalar(&w, item);
        json_put_array_end(&w);
    } else {
        put_scalar(&w, v);
    }
    if (!json_writer_end(&w) | (fclose(stream) != 0)) {
        free(text);
        return NULL;
    }
    return text;
}

static int is_flat(const json_value *v)
{
    if (json_is_object(v))
        return 0;
    for (const json_value *item = json_is_array(v) ? json_first(v) : NULL; item != NULL;
         item = json_next(item))
        if (is_nested(item))
            return 0;
    return 1;
}

/* ---- any config ---- */

int config_member_is_aside(const char *name)
{
    static const char *const words[] = {
        "dtype", "torch_dtype", "expert_dtype", "scale_fmt", "scale_dtype", "architectures",
        "transformers_version", "_name_or_path", "use_cache", "initializer_range",
        "attention_dropout", "bos_token_id", "eos_token_id", "pad_token_id", "return_dict",
        "output_router_logits", "router_aux_loss_coef", "router_jitter_noise", "aux_loss_alpha",
        "seq_aux",
        "output_attentions", "output_hidden_states", "max_position_embeddings", "max_seq_len",
        "max_batch_size", NULL
    };
    const char *last = strrchr(name, '.');

    last = last == NULL ? name : last + 1;
    for (size_t i = 0; words[i] != NULL; i++)
        if (strcmp(words[i], last) == 0)
            return 1;
    return strstr(name, "quantization_config.") != NULL || strncmp(name, "auto_map.", 9) == 0 ||
           strcmp(last, "quantization_config") == 0;
}

/* An object or list on the path to the current member, and the length of its name in the path. */
typedef struct {
    const json_value *next;
    size_t index;
    size_t name_bytes;
} level;

typedef struct {
    level levels[JSON_DEPTH_MAX + 1];
    size_t depth;
    char name[NAME_BYTES];
} walk;

/* The name of the next child of the deepest level; 0 when it is too long. */
static int name_child(walk *w, const json_value *child)
{
    const level *l = &w->levels[w->depth - 1];
    const char *key = json_key(child);
    char *at = w->name + l->name_bytes;
    const size_t room = NAME_BYTES - l->name_bytes;
    int size;

    if (key != NULL)
        size = snprintf(at, room, "%s%s", l->name_bytes > 0 ? "." : "", key);
    else
        size = snprintf(at, room, "[%zu]", l->index);
    return size >= 0 && (size_t)size < room;
}

static ckpt_code flatten(const json_value *config, config_meaning *out, ckpt_error *err)
{
    walk w = { .depth = 1 };
    ckpt_code code = CKPT_OK;

    w.levels[0].next = json_first(config);
    while (w.depth > 0 && code == CKPT_OK) {
        level *l = &w.levels[w.depth - 1];
        const json_value *v = l->next;

        if (v == NULL) {
            w.depth--;
            continue;
        }
        if (!name_child(&w, v))
            return ckpt_fail(err, CKPT_E_FORMAT, "config.json: the name '%s...' is too long",
                             w.name);
        l->next = json_next(v);
        l->index++;
        if (json_is_null(v) || config_member_is_aside(w.name))
            continue;
        if (is_flat(v))
            code = add(out, w.name, text_of(v), err);
        else
            w.levels[w.depth++] = (level){ json_first(v), 0, strlen(w.name) };
    }
    return code;
}

/* ---- DeepSeek-V4 ---- */

static int is_v4(const json_value *config)
{
    const char *type = json_string(json_member(config, CONFIG_MODEL_TYPE));

    return config_is_inference(config) || (type != NULL && strcmp(type, CONFIG_TYPE_V4) == 0);
}

/* Add the ratios of the layers, then those of the MTP blocks. The spelling of transformers has no
 * ratios of MTP blocks; they are 0 then. */
static ckpt_code add_ratios(const json_value *config, config_meaning *out, ckpt_error *err)
{
    const json_value *list = json_member(config, "compress_ratios");
    const json_value *kinds = json_member(config, "layer_types");
    const json_value *v = json_first(list != NULL ? list : kinds);
    uint64_t layer_count = 0;
    uint64_t mtp_count = 1;
    char *text = NULL;
    size_t size = 0;
    FILE *stream;

    (void)json_u64(config_find(config, CONFIG_LAYER_COUNT), &layer_count);
    (void)json_u64(config_find(config, CONFIG_NEXT_TOKEN_BLOCKS), &mtp_count);
    if (v == NULL || layer_count > LAYERS_MAX || mtp_count > LAYERS_MAX)
        return CKPT_OK;
    if ((stream = open_memstream(&text, &size)) == NULL)
        return ckpt_fail_memory(err, "a config", 0);
    for (uint64_t i = 0; i < layer_count + mtp_count || v != NULL; i++) {
        uint64_t ratio = 0;
        int64_t number = i < layer_count ? -1 : 0;

        if (list != NULL ? json_u64(v, &ratio)
                         : v != NULL && config_layer_ratio(config, v, &ratio, NULL) == CKPT_OK)
            number = (int64_t)(ratio & INT32_MAX);
        fprintf(stream, "%s%lld", i == 0 ? "[" : ",", (long long)number);
        v = v == NULL ? NULL : json_next(v);
    }
    fputc(']', stream);
    if (fclose(stream) != 0) {
        free(text);
        text = NULL;
    }
    return add(out, "compress_ratios", text, err);
}

/* Derive member `name`, which is absent, from other members of transformers' spelling; 0: that is
 * not possible. */
static int derive(const json_value *config, const char *name, uint64_t *out)
{
    const json_value *wrong;

    if (strcmp(name, "num_hash_layers") == 0)
        return config_hash_layers(config, out, &wrong);
    *out = strcmp(name, "qk_rope_head_dim") == 0 ? config_rope_dim(config) : 0;
    return *out != 0;
}

static const char *spelling_of(const json_value *config)
{
    if (config_is_inference(config))
        return "\"inference\"";
    return json_member(config, "rope_parameters") != NULL ||
                   json_member(config, "layer_types") != NULL
               ? "\"transformers\""
               : "\"release\"";
}

static ckpt_code read_v4(const json_value *config, config_meaning *out, ckpt_error *err)
{
    ckpt_code code = add(out, CONFIG_MODEL_TYPE, strdup(v4_type), err);

    if (code == CKPT_OK)
        code = add(out, CONFIG_SPELLING, strdup(spelling_of(config)), err);
    for (const config_name *n = config_names; n->name != NULL && code == CKPT_OK; n++) {
        const json_value *v = config_find(config, n->name);
        char number[24];
        uint64_t derived;

        if (config_member_is_aside(n->name))
            continue;
        if (v != NULL && is_flat(v))
            code = add(out, n->name, text_of(v), err);
        else if (v == NULL && derive(config, n->name, &derived)) {
            snprintf(number, sizeof number, "%llu", (unsigned long long)derived);
            code = add(out, n->name, strdup(number), err);
        } else if (v == NULL && n->fallback != NULL) {
            code = add(out, n->name, strdup(n->fallback), err);
        }
    }
    return code == CKPT_OK ? add_ratios(config, out, err) : code;
}

/* Members that add_ratios and derive read, or that the table has under another name. */
static int is_spelled_otherwise(const char *name, const char *text)
{
    static const char *const names[] = {
        "compress_rate_csa", "compress_rate_hca", "partial_rotary_factor",
        "rope_scaling.rope_type", "rope_scaling.rope_theta", "rope_scaling.partial_rotary_factor",
        "rope_parameters.main.rope_theta", "rope_parameters.main.partial_rotary_factor", NULL
    };
    static const char *const groups[] = { "compress_ratios", "layer_types", "compress_rates",
                                          "mlp_layer_types", NULL };

    for (size_t i = 0; names[i] != NULL; i++)
        if (strcmp(name, names[i]) == 0)
            return 1;
    for (size_t i = 0; groups[i] != NULL; i++) {
        const size_t length = strlen(groups[i]);

        if (strncmp(name, groups[i], length) == 0 && strchr(".[", name[length]) != NULL)
            return 1;
    }
    return strcmp(name, "rope_parameters.main.rope_type") == 0 &&
           strcmp(text, "\"default\"") == 0;       /* the default of the releases */
}

/* 1 when the table has it under its name in DeepSeek's inference code. */
static int is_inference_name(const char *name)
{
    for (const config_name *n = config_names; n->name != NULL; n++)
        if (n->inference != NULL && strcmp(n->inference, name) == 0)
            return 1;
    return 0;
}

static const char scaling[] = "rope_scaling.";

/* Add members that are not in the table, such as those of future releases. */
static ckpt_code read_rest(const json_value *config, config_meaning *out, ckpt_error *err)
{
    static const char saved[] = "rope_parameters.compress.";
    const int is_inference = config_is_inference(config);
    config_meaning all = { NULL, 0 };
    ckpt_code code = flatten(config, &all, err);

    for (size_t i = 0; i < all.count && code == CKPT_OK; i++) {
        const char *name = all.members[i].name;
        const char *text = all.members[i].text;
        char released[NAME_BYTES + sizeof scaling];

        if (strncmp(name, saved, sizeof saved - 1) == 0) {
            snprintf(released, sizeof released, "%s%s", scaling, name + sizeof saved - 1);
            name = released;
        }
        if (is_inference && is_inference_name(name))
            continue;
        if (config_meaning_find(out, name) == NULL && !is_spelled_otherwise(name, text))
            code = add(out, name, strdup(text), err);
    }
    config_meaning_release(&all);
    return code;
}

int config_meaning_is_v4(const config_meaning *m)
{
    const config_member *type = config_meaning_find(m, CONFIG_MODEL_TYPE);

    return type != NULL && strcmp(type->text, v4_type) == 0;
}

ckpt_code config_meaning_read(const json_value *config, config_meaning *out, ckpt_error *err)
{
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if (!is_v4(config))
        return flatten(config, out, err);
    code = read_v4(config, out, err);
    return code == CKPT_OK ? read_rest(config, out, err) : code;
}

ckpt_code config_meaning_read_record(const json_value *record, config_meaning *out,
                                     ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    memset(out, 0, sizeof *out);
    if (!json_is_object(record))
        return ckpt_fail(err, CKPT_E_FORMAT, "expected an object");
    for (const json_value *v = json_first(record); v != NULL && code == CKPT_OK; v = json_next(v))
        code = is_flat(v) ? add(out, json_key(v), text_of(v), err)
                          : ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not a plain value",
                                      json_key(v));
    return code;
}
