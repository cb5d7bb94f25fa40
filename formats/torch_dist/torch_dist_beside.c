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

enum { BACKEND_BYTES_MAX = 1 << 20 };

static const char common_state[] = "common_state/";

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

/* *found: whether it is there. */
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

static int has_common_state(const dcp_metadata *m)
{
    for (size_t i = 0; i < m->entry_count; i++)
        if (m->entries[i].is_bytes &&
            strncmp(m->entries[i].key, common_state, sizeof common_state - 1) == 0)
            return 1;
    return 0;
}

ckpt_code torch_dist_check_beside(ckpt_checkpoint *c, const dcp_metadata *m, ckpt_error *err)
{
    int has_backend;
    int has_common;
    ckpt_code code;

    if ((code = check_file(c, "metadata.json", check_backend, &has_backend, err)) != CKPT_OK ||
        (code = check_file(c, "common.pt", check_common, &has_common, err)) != CKPT_OK)
        return code;
    if (has_backend && !has_common && !has_common_state(m))
        code = note_add(&c->notes, err,
                        "no common.pt and no common_state in .metadata: Megatron cannot load this "
                        "checkpoint");
    if (code == CKPT_OK && m->unused_count > 0)
        code = note_add(&c->notes, err, "%zu items of .metadata do not belong to a tensor, e.g. "
            "'%s'",
                        m->unused_count, m->unused);
    return code;
}
