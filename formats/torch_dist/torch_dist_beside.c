/*
 * torch_dist_beside.c: the small files beside `.metadata`. They have no tensors, but identify the
 * folder and show that it is complete: another backend or a truncated common.pt is refused;
 * --lenient turns that into a note.
 */
#include "torch_dist_beside.h"

#include <string.h>

#include "common_pt.h"
#include "libckpt/json.h"
#include "formats/notes.h"
#include "libckpt/text.h"

enum { BACKEND_BYTES_MAX = 1 << 20 };

static const char common_state[] = "common_state/";
static const char common_file[] = "common.pt";

/* Report an error in a file that the tensors do not depend on. */
static ckpt_code refuse_or_note(ckpt_checkpoint *c, const ckpt_error *wrong, ckpt_error *err)
{
    if (c->options.lenient)
        return note_add(&c->notes, err, "%s", wrong->text);
    return ckpt_fail(err, CKPT_E_FORMAT, "%s; --lenient ignores this", wrong->text);
}

static ckpt_code check_backend(const ckpt_folder *folder, const char *name, ckpt_error *err)
{
    json_document *document = NULL;
    const json_value *root;
    const char *word;
    folder_text text;
    uint64_t version;
    ckpt_code code = folder_read_all(folder, name, BACKEND_BYTES_MAX, &text, err);

    if (code != CKPT_OK ||
        (code = json_parse(text.bytes, text.size, text.path, &document, err)) != CKPT_OK)
        goto out;
    root = json_root(document);
    word = json_string(json_member(root, "sharded_backend"));
    if (word == NULL || strcmp(word, "torch_dist") != 0)
        code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' has sharded_backend '%s', expected 'torch_dist'",
                         text.path, word == NULL ? "" : word);
    else if (!json_u64(json_member(root, "sharded_backend_version"), &version) || version != 1)
        code = ckpt_fail(err, CKPT_E_FORMAT,
                         "'%s' has an unknown sharded_backend_version, expected 1",
                         text.path);
out:
    json_free(document);
    folder_text_release(&text);
    return code;
}

static ckpt_code check_common(const ckpt_folder *folder, const char *name, ckpt_error *err)
{
    ckpt_file *file = NULL;
    ckpt_code code = folder_open_file(folder, name, &file, err);

    if (code == CKPT_OK)
        code = common_pt_check(file, 0, file_size(file), err);
    file_close(file, NULL);
    return code;
}

typedef ckpt_code check_fn(const ckpt_folder *folder, const char *name, ckpt_error *err);

/* *found: 1 if the file exists. */
static ckpt_code check_file(ckpt_checkpoint *c, const char *name, check_fn *check, int *found,
                            ckpt_error *err)
{
    ckpt_error wrong = { .text = "" };
    ckpt_code code = CKPT_OK;

    *found = folder_has(c->store->folder, name);
    if (*found)
        code = check(c->store->folder, name, &wrong);
    if (code == CKPT_OK)
        return CKPT_OK;
    return code == CKPT_E_FORMAT ? refuse_or_note(c, &wrong, err)
                                 : ckpt_fail(err, code, "%s", wrong.text);
}

/* The common_state entry, or NULL. */
static const dcp_entry *find_common_state(const dcp_metadata *m)
{
    for (size_t i = 0; i < m->entry_count; i++)
        if (m->entries[i].is_bytes &&
            strncmp(m->entries[i].key, common_state, sizeof common_state - 1) == 0)
            return &m->entries[i];
    return NULL;
}

ckpt_code torch_dist_check_beside(ckpt_checkpoint *c, const dcp_metadata *m, ckpt_error *err)
{
    int has_backend;
    int has_common;
    ckpt_code code;

    if ((code = check_file(c, "metadata.json", check_backend, &has_backend, err)) != CKPT_OK ||
        (code = check_file(c, common_file, check_common, &has_common, err)) != CKPT_OK)
        return code;
    if (has_backend && !has_common && find_common_state(m) == NULL)
        code = note_add(&c->notes, err,
                        "no common.pt and no common_state in .metadata: Megatron cannot load this "
                        "checkpoint");
    if (code == CKPT_OK && m->unused_count > 0)
        code = note_add(&c->notes, err, "%s to a tensor, e.g. '%s'",
                        text_count(m->unused_count, "item of .metadata does not belong",
                                   "items of .metadata do not belong")
                            .text,
                        m->unused);
    return code;
}

/* ---- arguments of the run ---- */

/* Read the archive at the position in `chunk`, or if that is NULL the whole file. *out stays NULL
 * if the file does not exist. */
static ckpt_code read_common(const ckpt_folder *folder, const char *name, const dcp_chunk *chunk,
                             common_pt **out, ckpt_error *err)
{
    ckpt_file *file = NULL;
    ckpt_code code = folder_open_file(folder, name, &file, err);

    if (code == CKPT_OK)
        code = chunk == NULL ? common_pt_read(file, 0, file_size(file), out, err)
                             : common_pt_read(file, chunk->offset, chunk->length, out, err);
    file_close(file, NULL);
    return code;
}

static ckpt_code find_common(const ckpt_checkpoint *c, common_pt **out, ckpt_error *err)
{
    const ckpt_folder *folder = c->store->folder;
    dcp_metadata *m = NULL;
    const dcp_entry *entry;
    ckpt_code code;

    *out = NULL;
    if (folder_has(folder, common_file))
        return read_common(folder, common_file, NULL, out, err);
    if ((code = dcp_read(folder, 0, &m, err)) != CKPT_OK)
        return code;
    if ((entry = find_common_state(m)) != NULL) {
        const dcp_chunk *chunk = &m->chunks[entry->first_chunk];

        code = read_common(folder, m->files[chunk->file], chunk, out, err);
    }
    dcp_free(m);
    return code;
}

/* *arg: NULL if there is none of that name. It is part of *common, which is yours to free. */
static ckpt_code find_argument(const ckpt_checkpoint *c, const char *name, common_pt **common,
                               const common_arg **arg, ckpt_error *err)
{
    const ckpt_code code = find_common(c, common, err);

    *arg = code == CKPT_OK && *common != NULL ? common_pt_find(*common, name) : NULL;
    return code;
}

ckpt_code torch_dist_read_argument(const ckpt_checkpoint *c, const char *name, uint64_t *out,
                                   int *is_there, ckpt_error *err)
{
    common_pt *common;
    const common_arg *arg;
    const ckpt_code code = find_argument(c, name, &common, &arg, err);

    *is_there = arg != NULL && (arg->kind == COMMON_BOOL || arg->kind == COMMON_INT) &&
                arg->integer >= 0;
    if (*is_there)
        *out = (uint64_t)arg->integer;
    common_pt_free(common);
    return code;
}

ckpt_code torch_dist_read_text_argument(const ckpt_checkpoint *c, const char *name, char **out,
                                        ckpt_error *err)
{
    common_pt *common;
    const common_arg *arg;
    ckpt_code code = find_argument(c, name, &common, &arg, err);

    *out = NULL;
    if (arg != NULL && arg->kind == COMMON_TEXT && (*out = strdup(arg->text)) == NULL)
        code = ckpt_fail_memory(err, "an argument", strlen(arg->text));
    common_pt_free(common);
    return code;
}
