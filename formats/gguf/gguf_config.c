/* Derives a config.json from keys. */
#include "gguf_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/buffer.h"
#include "libckpt/config_number.h"
#include "libckpt/float_text.h"
#include "libckpt/json.h"

enum { BLOCKS_MAX = 4096 };

typedef struct {
    const gguf_head *head;
    const gguf_keys *keys;
    json_writer w;
    const json_value *beside;      /* config.json beside the file, or NULL */
    const gguf_line *missing;      /* or NULL */
    uint64_t layers;
    uint64_t drafters;
    uint64_t blocks;               /* in the file, of both kinds */
    int written[GGUF_LINES_MAX];
    ckpt_error *err;
} config_maker;

static ckpt_code fail_key(const config_maker *m, const gguf_line *line, const char *what)
{
    return ckpt_fail(m->err, CKPT_E_FORMAT, "'%s': key '%s' %s", file_path(m->head->file),
                     line->key, what);
}

/* ---- values ---- */

/* "= TENSOR:D": ne[D] of that tensor. */
static int find_dimension(const gguf_head *head, const char *rest, uint64_t *out)
{
    char name[GGUF_WORD_BYTES];
    unsigned dimension;

    if (sscanf(rest, "= %255[^:]:%u", name, &dimension) != 2)
        return 0;
    for (size_t i = 0; i < head->info_count; i++)
        if (strcmp(head->infos[i].name, name) == 0 && dimension < head->infos[i].rank) {
            *out = head->infos[i].ne[dimension];
            return 1;
        }
    return 0;
}

static void put_f32(json_writer *w, uint64_t bits)
{
    const uint32_t low = (uint32_t)bits;
    char text[FLOAT_TEXT_BYTES];
    float value;

    memcpy(&value, &low, sizeof value);
    float_text(value, text);
    json_put_double(w, strtod(text, NULL));      /* shortest decimal of the F32 */
}

static int is_finite_f32(uint64_t bits)
{
    return (bits & 0x7f800000u) != 0x7f800000u;
}

static ckpt_code put_ratios(config_maker *m, const gguf_line *line, const gguf_key *key)
{
    const uint64_t count = m->layers + m->drafters;
    uint64_t numbers[BLOCKS_MAX] = { 0 };
    ckpt_code code;

    if (!key->is_array || key->count < m->blocks || key->count > BLOCKS_MAX ||
        key->kind == GGUF_F32 || key->kind == GGUF_F64 || key->kind == GGUF_BOOL)
        return fail_key(m, line, "is not an array with an integer for each block");
    if ((code = gguf_head_numbers(m->head, key, numbers, m->err)) != CKPT_OK)
        return code;
    json_put_array(&m->w);
    for (uint64_t i = 0; i < count; i++) {
        if (numbers[i] > INT32_MAX)
            return fail_key(m, line, "has a negative element");
        json_put_u64(&m->w, numbers[i]);
    }
    json_put_array_end(&m->w);
    return CKPT_OK;
}

/* All blocks must have the same value; it may also be a single number. */
static ckpt_code put_blocks(config_maker *m, const gguf_line *line, const gguf_key *key)
{
    uint64_t numbers[BLOCKS_MAX] = { key->number };
    ckpt_code code = CKPT_OK;

    if (key->kind != GGUF_F32 || key->count == 0 || key->count > BLOCKS_MAX)
        return fail_key(m, line, "is not an F32 for each block");
    if (key->is_array)
        code = gguf_head_numbers(m->head, key, numbers, m->err);
    for (uint64_t i = 1; i < key->count && code == CKPT_OK; i++)
        if (numbers[i] != numbers[0])
            code = fail_key(m, line, "has elements that differ, which no config.json can tell");
    if (code != CKPT_OK)
        return code;
    if (!is_finite_f32(numbers[0]))
        return fail_key(m, line, "is not finite");
    put_f32(&m->w, numbers[0]);
    return CKPT_OK;
}

static ckpt_code put_integer(config_maker *m, const gguf_line *line)
{
    char text[GGUF_WORD_BYTES];
    uint64_t number = 0;

    if (line->kind == GGUF_LINE_LAYERS)
        number = m->layers;
    else if (line->kind == GGUF_LINE_DRAFTERS)
        number = m->drafters;
    else if (!gguf_head_u64(m->head, line->key, &number) &&
             !find_dimension(m->head, line->rest, &number))
        return fail_key(m, line, "is not an integer of zero or more");
    if (line->kind != GGUF_LINE_WORD) {
        json_put_u64(&m->w, number);
        return CKPT_OK;
    }
    if (!gguf_line_text(line, number, text))
        return fail_key(m, line, "has a value that is unknown");
    json_put_string(&m->w, text);
    return CKPT_OK;
}

static ckpt_code put_value(config_maker *m, const gguf_line *line, const gguf_key *key)
{
    switch (line->kind) {
    case GGUF_LINE_MEMBER:
        json_put_raw(&m->w, line->rest);
        return CKPT_OK;
    case GGUF_LINE_EXPERTS:
        json_put_string(&m->w, line->rest);
        return CKPT_OK;
    case GGUF_LINE_F32:
        if (key->kind != GGUF_F32 || key->is_array || !is_finite_f32(key->number))
            return fail_key(m, line, "is not an F32");
        put_f32(&m->w, key->number);
        return CKPT_OK;
    case GGUF_LINE_BOOL:
        if (key->kind != GGUF_BOOL || key->is_array)
            return fail_key(m, line, "is not a bool");
        json_put_bool(&m->w, key->number != 0);
        return CKPT_OK;
    case GGUF_LINE_STRING:
        if (key->text == NULL || key->is_array)
            return fail_key(m, line, "is not a short string");
        json_put_string(&m->w, key->text);
        return CKPT_OK;
    case GGUF_LINE_RATIOS:
        return put_ratios(m, line, key);
    case GGUF_LINE_BLOCKS:
        return put_blocks(m, line, key);
    default:
        return put_integer(m, line);
    }
}

/* ---- members ---- */

/* 1 when a tensor of experts has this type. */
static int has_experts_of(const gguf_head *head, const char *type)
{
    for (size_t i = 0; i < head->info_count; i++)
        if (strstr(head->infos[i].name, "_exps") != NULL &&
            strcmp(head->infos[i].type->name, type) == 0)
            return 1;
    return 0;
}

/* 1 when the file has the key or tensor of this line. */
static int is_there(const config_maker *m, const gguf_line *line)
{
    uint64_t dimension;

    switch (line->kind) {
    case GGUF_LINE_MEMBER:
    case GGUF_LINE_LAYERS:
    case GGUF_LINE_DRAFTERS:
        return 1;
    case GGUF_LINE_EXPERTS:
        return has_experts_of(m->head, line->key);
    default:
        return gguf_head_find(m->head, line->key) != NULL ||
               find_dimension(m->head, line->rest, &dimension);
    }
}

/* Put the member of line i, unless an earlier line has put it. */
static ckpt_code put_line(config_maker *m, size_t i, size_t prefix)
{
    const gguf_line *line = &m->keys->lines[i];
    char member[GGUF_WORD_BYTES];

    if (line->kind == GGUF_LINE_TEXT)
        return CKPT_OK;                    /* constant keys have no member */
    gguf_line_member(line, member);
    for (size_t j = 0; j < m->keys->count; j++) {
        char other[GGUF_WORD_BYTES];

        gguf_line_member(&m->keys->lines[j], other);
        if (m->written[j] && strcmp(member, other) == 0)
            return CKPT_OK;
    }
    if (!is_there(m, line)) {
        if (!line->may_lack && line->kind != GGUF_LINE_EXPERTS && m->missing == NULL)
            m->missing = line;
        return CKPT_OK;
    }
    m->written[i] = 1;
    json_put_key(&m->w, member + prefix);
    return put_value(m, line, gguf_head_find(m->head, line->key));
}

/* Put the object "a" with the members of all lines "a.b"; i is the first of these lines. */
static ckpt_code put_object(config_maker *m, size_t i, size_t prefix)
{
    const char *first = m->keys->lines[i].member;
    char name[GGUF_WORD_BYTES];
    ckpt_code code = CKPT_OK;

    for (size_t j = 0; j < i; j++)
        if (strncmp(m->keys->lines[j].member, first, prefix) == 0)
            return CKPT_OK;                /* an earlier line has put the object */
    snprintf(name, sizeof name, "%.*s", (int)prefix - 1, first);
    json_member_object(&m->w, name);
    for (size_t j = i; j < m->keys->count && code == CKPT_OK; j++)
        if (strncmp(m->keys->lines[j].member, first, prefix) == 0)
            code = put_line(m, j, prefix);
    if (code == CKPT_OK)
        json_put_object_end(&m->w);
    return code;
}

/* The length of "a." in the first spelling of a member; 0: it is at the root. */
static size_t prefix_of(const gguf_line *line)
{
    char member[GGUF_WORD_BYTES];
    const char *dot;

    gguf_line_member(line, member);
    dot = line->kind == GGUF_LINE_MEMBER || line->kind == GGUF_LINE_TEXT ? NULL
                                                                         : strchr(member, '.');
    return dot == NULL ? 0 : (size_t)(dot - member) + 1;
}

static ckpt_code put_all(config_maker *m)
{
    ckpt_code code = CKPT_OK;

    json_put_object(&m->w);
    for (size_t i = 0; i < m->keys->count && code == CKPT_OK; i++) {
        const size_t prefix = prefix_of(&m->keys->lines[i]);

        code = prefix == 0 ? put_line(m, i, 0) : put_object(m, i, prefix);
    }
    if (code == CKPT_OK)
        json_put_object_end(&m->w);
    return code;
}

/* Count the layers and the MTP blocks. */
static ckpt_code count_blocks(config_maker *m)
{
    const gguf_line *layers = gguf_keys_find(m->keys, GGUF_LINE_LAYERS);
    const gguf_line *drafters = gguf_keys_find(m->keys, GGUF_LINE_DRAFTERS);

    if (layers == NULL || gguf_head_find(m->head, layers->key) == NULL) {
        m->missing = layers;
        return CKPT_OK;
    }
    if (!gguf_head_u64(m->head, layers->key, &m->layers) || m->layers > BLOCKS_MAX)
        return fail_key(m, layers, "is not a number of blocks");
    m->blocks = m->layers;
    if (drafters == NULL || gguf_head_find(m->head, drafters->key) == NULL)
        return CKPT_OK;
    if (!gguf_head_u64(m->head, drafters->key, &m->drafters) || m->drafters > m->layers)
        return fail_key(m, drafters, "is not a number of blocks");
    m->layers -= m->drafters;
    return CKPT_OK;
}

/* A file may leave out the model's MTP blocks, which the config beside it counts: their number is
 * that of the config then, and they compress nothing. */
static void count_spare_blocks(config_maker *m)
{
    const gguf_line *drafters = gguf_keys_find(m->keys, GGUF_LINE_DRAFTERS);
    uint64_t count;

    if (m->beside != NULL && drafters != NULL && m->drafters == 0 &&
        config_number(config_member(m->beside, drafters->member), &count) &&
        count <= BLOCKS_MAX - m->layers)
        m->drafters = count;
}

static ckpt_code make(config_maker *m, char **out)
{
    byte_buffer text = { .bytes = NULL };
    ckpt_code code = count_blocks(m);

    if (code != CKPT_OK || m->missing != NULL)
        return code;
    count_spare_blocks(m);
    json_writer_begin(&m->w, byte_buffer_write, &text, 2);
    code = put_all(m);
    if (code == CKPT_OK && (!json_writer_end(&m->w) || byte_buffer_write(&text, "\n", 2) != 0))
        code = ckpt_fail_memory(m->err, "config.json", text.used);
    if (code == CKPT_OK && m->missing == NULL)
        *out = text.bytes;
    else
        free(text.bytes);
    return code;
}

ckpt_code gguf_config_make(const gguf_head *head, const json_value *beside, char **out,
                           char missing[GGUF_WORD_BYTES], ckpt_error *err)
{
    const char *arch = gguf_head_text(head, "general.architecture");
    config_maker m = { .head = head, .beside = beside, .err = err };
    gguf_keys *keys = NULL;
    ckpt_code code;

    *out = NULL;
    missing[0] = '\0';
    if (arch == NULL || (code = gguf_keys_of_arch(arch, &keys, err)) != CKPT_OK || keys == NULL)
        return arch == NULL ? CKPT_OK : code;
    m.keys = keys;
    code = make(&m, out);
    if (code == CKPT_OK && m.missing != NULL)
        memcpy(missing, m.missing->key, GGUF_WORD_BYTES);
    free(keys);
    return code;
}
