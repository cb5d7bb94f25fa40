/* Derives inference/config.json from config.json by the family's table of keys. */
#include "inference_config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "config_rewrite.h"
#include "libckpt/json.h"
#include "formats/maps.h"

enum { WORD_BYTES = 128 };

typedef struct {
    const char *config;            /* config.json */
    const char *at;                /* the rest of the table's line */
    const char *end;
    FILE *out;
    size_t count;                  /* members so far */
    ckpt_error *err;
} deriver;

/* The next word of the line; 0 if there is none. */
static int take_word(deriver *d, char out[WORD_BYTES])
{
    size_t length = 0;

    while (d->at < d->end && *d->at == ' ')
        d->at++;
    while (d->at + length < d->end && d->at[length] != ' ')
        length++;
    if (length == 0 || length >= WORD_BYTES)
        return 0;
    memcpy(out, d->at, length);
    out[length] = '\0';
    d->at += length;
    return 1;
}

/* JSON text of the member at "a.b.c"; *out is NULL if it is absent or null. */
static ckpt_code find_member(const char *text, const char *path, char **out, ckpt_error *err)
{
    char *object = strdup(text);

    *out = NULL;
    if (object == NULL)
        return ckpt_fail_memory(err, "config.json", strlen(text));
    while (object != NULL && path != NULL && object[0] == '{') {
        const char *dot = strchr(path, '.');
        char *key = dot == NULL ? strdup(path) : strndup(path, (size_t)(dot - path));
        char *inner = NULL;
        const ckpt_code code = key == NULL ? ckpt_fail_memory(err, "a key", strlen(path))
                                           : json_member_text(object, key, &inner, err);

        free(key);
        free(object);
        if (code != CKPT_OK)
            return code;
        object = inner;
        path = dot == NULL ? NULL : dot + 1;
    }
    if (object != NULL && path == NULL && strcmp(object, "null") != 0)
        *out = object;
    else
        free(object);
    return CKPT_OK;
}

/* The value for `key`: of the first member that exists, or the default after "=". */
static ckpt_code find_value(deriver *d, const char *key, char **value)
{
    char first[WORD_BYTES] = "";
    char word[WORD_BYTES];
    ckpt_code code;

    *value = NULL;
    while (*value == NULL && take_word(d, word)) {
        if (strcmp(word, "=") == 0 && take_word(d, word)) {
            *value = strdup(word);
            return *value == NULL ? ckpt_fail_memory(d->err, "a value", sizeof word) : CKPT_OK;
        }
        if (first[0] == '\0')
            memcpy(first, word, sizeof first);
        if ((code = find_member(d->config, word, value, d->err)) != CKPT_OK)
            return code;
    }
    return *value != NULL ? CKPT_OK
                          : ckpt_fail(d->err, CKPT_E_FORMAT,
                                      "config.json has no '%s', which is needed for '%s'", first,
                                      key);
}

static ckpt_code derive_line(deriver *d)
{
    char key[WORD_BYTES];
    char *value;
    ckpt_code code;

    if (!take_word(d, key) || key[0] == '#')
        return CKPT_OK;
    if ((code = find_value(d, key, &value)) == CKPT_OK)
        fprintf(d->out, "%s\n    \"%s\": %s", d->count++ == 0 ? "{" : ",", key, value);
    free(value);
    return code;
}

ckpt_code inference_config_derive(const char *family, const char *config, char **out,
                                  ckpt_error *err)
{
    char name[256];
    const ckpt_builtin_map *keys;
    deriver d = { .config = config, .err = err };
    size_t size;
    ckpt_code code = CKPT_OK;

    *out = NULL;
    snprintf(name, sizeof name, "%s.inference.keys", family);
    if ((keys = maps_find(name)) == NULL)
        return CKPT_OK;
    if ((d.out = open_memstream(out, &size)) == NULL)
        return ckpt_fail_memory(err, CONFIG_INFERENCE_FILE, keys->text_bytes);
    for (const char *line = keys->text; *line != '\0' && code == CKPT_OK; line = d.end) {
        line += *line == '\n';
        d.at = line;
        d.end = line + strcspn(line, "\n");
        code = derive_line(&d);
    }
    fprintf(d.out, "\n}\n");
    if (fclose(d.out) != 0 && code == CKPT_OK)
        code = ckpt_fail_memory(err, CONFIG_INFERENCE_FILE, size);
    if (code != CKPT_OK) {
        free(*out);
        *out = NULL;
    }
    return code;
}
