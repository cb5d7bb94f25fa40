/* Files beside the weights, compared. */
#include "companions.h"

#include <string.h>

#include "libckpt/checkpoint.h"
#include "tokenizer_compare.h"

/* Ten times the largest tokenizer.json. */
enum { COMPANION_BYTES_MAX = 256 << 20 };

int companion_is_role(certificate_role role)
{
    return role == CERTIFICATE_GENERATION || role == CERTIFICATE_TOKENIZER ||
           role == CERTIFICATE_TEMPLATE || role == CERTIFICATE_ENCODING;
}

static ckpt_code add(companion_comparison *out, companion_kind kind, const certificate_file *file,
                     const char *member, ckpt_error *err)
{
    const companion_difference d = { .kind = kind, .role = file->role, .file = file->name };

    return companions_add(out, &d, member, err);
}

/* ---- changed members ---- */

/* Parse the JSON object in a file; NULL: it has none or cannot be read, and only bytes count. */
static json_document *read_object(const certificate_checkpoint *c, const char *name)
{
    json_document *document = NULL;
    folder_text text;
    ckpt_error ignored;

    if (c->folder == NULL)
        return NULL;
    if (folder_read_all(c->folder, name, COMPANION_BYTES_MAX, &text, &ignored) == CKPT_OK &&
        json_parse(text.bytes, text.size, text.path, &document, &ignored) == CKPT_OK &&
        !json_is_object(json_root(document))) {
        json_free(document);
        document = NULL;
    }
    folder_text_release(&text);
    return document;
}

static ckpt_code name_members(const json_value *a, const json_value *b,
                              const certificate_file *file, companion_comparison *out,
                              ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (const json_value *v = json_first(a); v != NULL && code == CKPT_OK; v = json_next(v)) {
        const json_value *other = json_member(b, json_key(v));

        if (other == NULL || !json_equal(v, other))
            code = add(out, COMPANION_CHANGED, file, json_key(v), err);
    }
    for (const json_value *v = json_first(b); v != NULL && code == CKPT_OK; v = json_next(v))
        if (json_member(a, json_key(v)) == NULL)
            code = add(out, COMPANION_CHANGED, file, json_key(v), err);
    return code;
}

/* 1 when the keys of a GGUF file stand for files of this role. */
static int is_in_keys(const certificate_checkpoint *c, certificate_role role)
{
    return c->opened != NULL && checkpoint_tokenizer_of(c->opened) == TOKENIZER_IN_WEIGHTS &&
           (role == CERTIFICATE_TOKENIZER || role == CERTIFICATE_TEMPLATE);
}

static ckpt_code compare_file(const certificate_checkpoint *a, const certificate_checkpoint *b,
                              const certificate_file *file, companion_comparison *out,
                              ckpt_error *err)
{
    const certificate_file *other = certificate_find_file(b, file->name);
    json_document *a_object;
    json_document *b_object;
    ckpt_code code;

    if (other == NULL)
        return is_in_keys(b, file->role) ? CKPT_OK
                                         : add(out, COMPANION_MISSING, file, NULL, err);
    out->compared[file->role]++;
    if (file->size_bytes == other->size_bytes && strcmp(file->sha256, other->sha256) == 0)
        return CKPT_OK;
    a_object = read_object(a, file->name);
    b_object = read_object(b, file->name);
    if (a_object == NULL || b_object == NULL)
        code = add(out, COMPANION_CHANGED, file, NULL, err);
    else if (json_equal(json_root(a_object), json_root(b_object)))
        code = add(out, COMPANION_REWRITTEN, file, NULL, err);
    else
        code = name_members(json_root(a_object), json_root(b_object), file, out, err);
    json_free(a_object);
    json_free(b_object);
    return code;
}

ckpt_code companions_compare(const certificate_checkpoint *a, const certificate_checkpoint *b,
                             companion_comparison *out, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < a->file_count && code == CKPT_OK; i++)
        if (companion_is_role(a->files[i].role))
            code = compare_file(a, b, &a->files[i], out, err);
    for (size_t i = 0; i < b->file_count && code == CKPT_OK; i++)
        if (companion_is_role(b->files[i].role) && !is_in_keys(a, b->files[i].role) &&
            certificate_find_file(a, b->files[i].name) == NULL)
            code = add(out, COMPANION_EXTRA, &b->files[i], NULL, err);
    return code == CKPT_OK && a->opened != NULL && b->opened != NULL
               ? tokenizers_compare(a->opened, b->opened, out, err) : code;
}
