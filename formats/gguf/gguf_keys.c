/* Parses the texts about keys that are compiled in. */
#include "gguf_keys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "formats/maps.h"
#include "libckpt/text.h"

#define KEYS_SUFFIX ".gguf.keys"

static const char *const kinds[GGUF_LINE_KIND_COUNT] = {
    [GGUF_LINE_MEMBER] = "member", [GGUF_LINE_TEXT] = "text",
    [GGUF_LINE_U32] = "u32",
    [GGUF_LINE_F32] = "f32",       [GGUF_LINE_BOOL] = "bool",
    [GGUF_LINE_STRING] = "string", [GGUF_LINE_LAYERS] = "layers",
    [GGUF_LINE_DRAFTERS] = "drafters", [GGUF_LINE_RATIOS] = "ratios",
    [GGUF_LINE_BLOCKS] = "blocks", [GGUF_LINE_WORD] = "word",
    [GGUF_LINE_EXPERTS] = "experts",
};

/* The next word of a line; 0 at its end, and for a word that is too long. */
static int take_word(const char **at, char out[GGUF_WORD_BYTES])
{
    size_t length;

    *at += strspn(*at, " ");
    length = strcspn(*at, " \n");
    if (length == 0 || length >= GGUF_WORD_BYTES)
        return 0;
    memcpy(out, *at, length);
    out[length] = '\0';
    *at += length;
    return 1;
}

static int take_rest(const char **at, char out[GGUF_WORD_BYTES])
{
    size_t length;

    *at += strspn(*at, " ");
    length = strcspn(*at, "\n");
    if (length >= GGUF_WORD_BYTES)
        return 0;
    memcpy(out, *at, length);
    out[length] = '\0';
    return 1;
}

/* Read the key of a line and add the prefix "ARCH.". */
static int take_key(const gguf_keys *keys, const char **at, gguf_line *line)
{
    const int is_whole = line->kind == GGUF_LINE_EXPERTS || line->kind == GGUF_LINE_TEXT;
    char word[GGUF_WORD_BYTES];
    const char *mark;

    if (line->kind == GGUF_LINE_MEMBER)
        return 1;
    if (!take_word(at, word))
        return 0;
    mark = strchr(word, '?');
    line->may_lack = mark != NULL;
    if (mark != NULL)
        word[mark - word] = '\0';
    return snprintf(line->key, sizeof line->key, "%s%s%s", is_whole ? "" : keys->arch,
                    is_whole ? "" : ".", word) < (int)sizeof line->key;
}

/* 0: the line is wrong. */
static int parse_line(gguf_keys *keys, const char *at)
{
    gguf_line *line = &keys->lines[keys->count];
    char word[GGUF_WORD_BYTES];
    int kind = 0;

    if (!take_word(&at, word) || word[0] == '#')
        return 1;
    if (strcmp(word, "arch") == 0)
        return take_word(&at, keys->arch);
    while (kind < GGUF_LINE_KIND_COUNT && strcmp(word, kinds[kind]) != 0)
        kind++;
    if (kind == GGUF_LINE_KIND_COUNT || keys->count == GGUF_LINES_MAX)
        return 0;
    line->kind = (gguf_line_kind)kind;
    keys->count++;
    return take_key(keys, &at, line) && take_word(&at, line->member) &&
           take_rest(&at, line->rest);
}

static ckpt_code parse(const ckpt_builtin_map *text, gguf_keys **out, ckpt_error *err)
{
    gguf_keys *keys = calloc(1, sizeof *keys);
    unsigned number = 1;

    if (keys == NULL)
        return ckpt_fail_memory(err, text->name, sizeof *keys);
    for (const char *line = text->text; *line != '\0'; line += *line == '\n', number++) {
        if (!parse_line(keys, line)) {
            free(keys);
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s', line %u is wrong", text->name, number);
        }
        line += strcspn(line, "\n");
    }
    *out = keys;
    return CKPT_OK;
}

ckpt_code gguf_keys_of_family(const char *family, gguf_keys **out, ckpt_error *err)
{
    char name[GGUF_WORD_BYTES];
    const ckpt_builtin_map *text;

    *out = NULL;
    snprintf(name, sizeof name, "%s" KEYS_SUFFIX, family);
    text = maps_find(name);
    return text == NULL ? CKPT_OK : parse(text, out, err);
}

ckpt_code gguf_keys_of_arch(const char *arch, gguf_keys **out, ckpt_error *err)
{
    *out = NULL;
    for (size_t i = 0; i < ckpt_builtin_map_count; i++) {
        gguf_keys *keys;
        ckpt_code code;

        if (!text_ends_with(ckpt_builtin_maps[i].name, KEYS_SUFFIX))
            continue;
        if ((code = parse(&ckpt_builtin_maps[i], &keys, err)) != CKPT_OK)
            return code;
        if (strcmp(keys->arch, arch) == 0) {
            *out = keys;
            return CKPT_OK;
        }
        free(keys);
    }
    return CKPT_OK;
}

const gguf_line *gguf_keys_find(const gguf_keys *keys, gguf_line_kind kind)
{
    for (size_t i = 0; i < keys->count; i++)
        if (keys->lines[i].kind == kind)
            return &keys->lines[i];
    return NULL;
}

void gguf_line_member(const gguf_line *line, char out[GGUF_WORD_BYTES])
{
    snprintf(out, GGUF_WORD_BYTES, "%.*s", (int)strcspn(line->member, "|"), line->member);
}

/* The next TEXT=N of a line. */
static int take_pair(const char **at, char text[GGUF_WORD_BYTES], uint32_t *number)
{
    char *equals;
    char *end;

    if (!take_word(at, text) || (equals = strchr(text, '=')) == NULL)
        return 0;
    *equals = '\0';
    *number = (uint32_t)strtoul(equals + 1, &end, 10);
    return *end == '\0';
}

int gguf_line_number(const gguf_line *line, const char *text, uint32_t *number)
{
    char word[GGUF_WORD_BYTES];

    for (const char *at = line->rest; take_pair(&at, word, number);)
        if (strcmp(word, text) == 0)
            return 1;
    return 0;
}

int gguf_line_text(const gguf_line *line, uint64_t number, char out[GGUF_WORD_BYTES])
{
    uint32_t other;

    for (const char *at = line->rest; take_pair(&at, out, &other);)
        if (other == number)
            return 1;
    return 0;
}
