/*
 * remote_plain.c: folders of web servers. HTTP has no listing of a folder, so the names of files
 * that a checkpoint may have are tried; those of its weights are in its index.
 */
#include "remote_plain.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/json.h"
#include "libckpt/memory.h"
#include "libckpt/text.h"

#define INDEX_FILE "model.safetensors.index.json"
#define WEIGHTS_FILE "model.safetensors"

enum { INDEX_BYTES_MAX = 1 << 28 };

static ckpt_code configure(hub *h, ckpt_error *err)
{
    (void)h;
    (void)err;
    return CKPT_OK;
}

static ckpt_code list(hub *h, hub_listing *out, ckpt_error *err)
{
    (void)h;
    (void)out;
    (void)err;
    return CKPT_OK;
}

static char *file_url(const hub *h, const hub_listing *listing, const hub_file *file)
{
    char *path = hub_encode(file->path, 1);
    char *url = NULL;

    (void)listing;
    if (path != NULL && asprintf(&url, "%s/%s", h->endpoint, path) < 0)
        url = NULL;
    free(path);
    return url;
}

const hub_kind hub_plain = {
    .name = "web",
    .default_revision = "",
    .site_variable = "",
    .configure = configure,
    .list = list,
    .file_url = file_url,
};

int remote_plain_is_weights(const char *name)
{
    return text_ends_with(name, ".safetensors") || text_ends_with(name, ".gguf");
}

/* Ask for the files that the index maps tensors to. */
static ckpt_code expect_listed(remote_session *s, const json_value *map, ckpt_error *err)
{
    const char *last = "";
    ckpt_code code = CKPT_OK;

    for (const json_value *v = json_first(map); v != NULL && code == CKPT_OK; v = json_next(v)) {
        const char *name = json_string(v);

        if (name == NULL || strcmp(name, last) == 0 || !text_is_below(name))
            continue;            /* the reader of the index reports what is wrong with it */
        last = name;
        code = remote_session_expect(s, name, err);
    }
    return code;
}

static ckpt_code read_index(remote_session *s, remote_entry *entry, ckpt_error *err)
{
    const uint64_t size = entry->file.size_bytes;
    const remote_range range = { 0, (size_t)size, size };
    json_document *index = NULL;
    char *text;
    ckpt_code code;

    if (size > INDEX_BYTES_MAX)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is too large: expected at most %d bytes, got "
                         "%llu", entry->path, INDEX_BYTES_MAX, (unsigned long long)size);
    if (!memory_has(size + 1) || (text = malloc(size + 1)) == NULL)
        return ckpt_fail_memory(err, entry->path, size);
    if ((code = remote_session_read(s, entry, &range, text, err)) == CKPT_OK)
        code = json_parse(text, (size_t)size, entry->path, &index, err);
    free(text);
    if (code == CKPT_OK)
        code = expect_listed(s, json_member(json_root(index), "weight_map"), err);
    json_free(index);
    return code;
}

static ckpt_code look_for_file(remote_session *s, const char *file, ckpt_error *err)
{
    remote_entry *entry = NULL;
    const ckpt_code code = remote_session_find(s, file, &entry, err);

    if (code != CKPT_OK || entry != NULL)
        return code;
    return remote_session_fail_absent(s, file, err);
}

/* 1 if a file of the server was found. */
static int has_any(remote_session *s)
{
    int found = 0;

    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->entry_count; i++)
        found |= s->entries[i]->is_known && !s->entries[i]->is_absent;
    pthread_mutex_unlock(&s->lock);
    return found;
}

ckpt_code remote_plain_look(remote_session *s, const char *file, ckpt_error *err)
{
    static const char *const names[] = {
        INDEX_FILE, "config.json", WEIGHTS_FILE, "generation_config.json",
        "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
        "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja",
        "preprocessor_config.json", "hf_quant_config.json", "ckpt-manifest.json",
    };
    remote_entry *index = NULL;
    int has_weights = 0;
    ckpt_code code = CKPT_OK;

    if (file[0] != '\0')
        return look_for_file(s, file, err);
    for (size_t i = 0; i < sizeof names / sizeof *names && code == CKPT_OK; i++)
        code = remote_session_expect(s, names[i], err);
    for (size_t i = 0; i < sizeof names / sizeof *names && code == CKPT_OK; i++) {
        remote_entry *entry;

        if ((code = remote_session_find(s, names[i], &entry, err)) == CKPT_OK && i == 0)
            index = entry;
        has_weights |= code == CKPT_OK && entry != NULL &&
                       (i == 0 || strcmp(names[i], WEIGHTS_FILE) == 0);
    }
    if (code == CKPT_OK && s->hides_absent && !has_any(s))
        return hub_fail(HUB_AUTH, err, "'%s' cannot be read: its server answers 403 for all files "
                        "of a checkpoint, and for files that do not exist", s->root);
    if (code == CKPT_OK && s->hides_absent && !has_weights)
        return hub_fail(HUB_AUTH, err, "'%s' has no weights that can be read: its server answers "
                        "403 for '" INDEX_FILE "' and '" WEIGHTS_FILE "', as for files that do "
                        "not exist; make them readable, or name a file", s->root);
    return code != CKPT_OK || index == NULL ? code : read_index(s, index, err);
}
