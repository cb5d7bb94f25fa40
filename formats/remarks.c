/* Notes on checkpoints that may not be a complete model. */
#include "remarks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hf.h"
#include "libckpt/foreign_codes.h"
#include "libckpt/json_scan.h"
#include "notes.h"
#include "libckpt/recognise.h"
#include "libckpt/text.h"

enum { RELEASE_BYTES_MAX = 255 };

/* A single file of several. */
static ckpt_code remark_part(ckpt_checkpoint *c, ckpt_error *err)
{
    const char *name = c->place.name;
    const char *dash;
    unsigned number;
    unsigned count;

    if (c->place.name == NULL || c->store->file_count > 1)      /* then the other files are known */
        return CKPT_OK;
    if (sscanf(name, "model%u-mp%u.safetensors", &number, &count) == 2 && count > 1)
        return note_add(&c->notes, err, "this is one rank of %u (mp%u), with slices of some "
                        "tensors; use the folder instead", count, count);
    dash = strstr(name, "-of-");
    while (dash != NULL && dash > name && dash[-1] >= '0' && dash[-1] <= '9')
        dash--;
    if (dash != NULL && sscanf(dash, "%u-of-%u", &number, &count) == 2 && count > 1)
        return note_add(&c->notes, err, "this is file %u of %u, the tensors of the others are not "
                        "included; use the folder instead", number, count);
    return CKPT_OK;
}

static ckpt_code remark_adapter(ckpt_checkpoint *c, ckpt_error *err)
{
    if (c->place.name != NULL || !recognise_is_adapter(c->place.folder))
        return CKPT_OK;
    return note_add(&c->notes, err, "this is a LoRA adapter, not a complete model; merge it into "
                    "its base model first");
}

/* Another package's codes, which would be taken for the values of a model that ckpt decodes. */
static ckpt_code remark_quantiser(ckpt_checkpoint *c, ckpt_error *err)
{
    const char *name = foreign_codes_name(c->store->catalog);

    if (name == NULL)
        return CKPT_OK;
    return note_add(&c->notes, err, "weights are quantised by %s: its tensors are listed, copied, "
                    "digested and compared as stored, and not decoded", name);
}

/* Mistral's own form of its releases. Others have no config.json there. */
static ckpt_code remark_consolidated(ckpt_checkpoint *c, ckpt_error *err)
{
    if (c->place.name != NULL || c->store->file_count == 0 ||
        !text_begins_with(c->store->files[0].name, "consolidated") ||
        !folder_has(c->place.folder, "params.json"))
        return CKPT_OK;
    return note_add(&c->notes, err, "this is Mistral's own form (consolidated.safetensors and "
                    "params.json), whose tensors are read under their own names; servers and other "
                    "families read the form of Hugging Face");
}

/* miles and slime record the release from which training began: a folder, or its name on a hub. */
void checkpoint_config_hint(const ckpt_checkpoint *c, char out[CONFIG_HINT_BYTES])
{
    char *release = NULL;
    ckpt_error ignored;             /* it is only a hint: what cannot be read is told elsewhere */
    size_t length;

    out[0] = '\0';
    if (c->format->read_text_argument == NULL ||
        c->format->read_text_argument(c, "hf_checkpoint", &release, &ignored) != CKPT_OK ||
        release == NULL)
        return;
    length = strlen(release);
    while (length > 1 && release[length - 1] == '/')
        length--;
    if (length > 0 && length <= RELEASE_BYTES_MAX)
        snprintf(out, CONFIG_HINT_BYTES, " (its args name hf_checkpoint '%.*s': give --config "
                 "%.*s/config.json)", (int)length, release, (int)length, release);
    free(release);
}

/*
 * Megatron writes no config.json. Its arguments name no model, and keys of a decoder with grouped
 * queries are alike in several families: how many heads are in a row is not to be guessed.
 */
static ckpt_code remark_megatron(ckpt_checkpoint *c, ckpt_error *err)
{
    const ckpt_catalog *names = store_names(c->store);
    char hint[CONFIG_HINT_BYTES];
    size_t i = 0;

    if (c->config != NULL || c->options.map_file != NULL || c->format->read_argument == NULL ||
        strcmp(c->map->family, GENERIC_FAMILY) != 0)
        return CKPT_OK;
    while (i < ckpt_catalog_count(names) &&
           !text_begins_with(ckpt_catalog_at(names, i)->name, "decoder.layers."))
        i++;
    if (i == ckpt_catalog_count(names))
        return CKPT_OK;
    checkpoint_config_hint(c, hint);
    return note_add(&c->notes, err, "these are keys of Megatron's decoder, but there is no "
                    "config.json, which tells family and heads: tensors are read as stored; "
                    "--config FILE gives one%s", hint);
}

/* The number `total_size` of the index's `metadata`; *found 0: absent, or not an integer. */
static ckpt_code find_total(const folder_text *text, uint64_t *out, int *found, ckpt_error *err)
{
    json_scanner scan;
    json_token token = { .kind = JSON_SCAN_NULL };
    int in_metadata = 0;
    int is_next = 0;
    ckpt_code code = CKPT_OK;

    *found = 0;
    json_scan_begin(&scan, text->bytes, text->size, text->path);
    while (code == CKPT_OK && token.kind != JSON_SCAN_END && !*found) {
        if ((code = json_scan_next(&scan, &token, err)) != CKPT_OK)
            break;
        if (token.kind == JSON_SCAN_KEY && token.depth == 1)
            in_metadata = json_token_equals(text->bytes, &token, "metadata");
        if (is_next && token.kind == JSON_SCAN_NUMBER && token.is_unsigned) {
            *out = strtoull(text->bytes + token.start, NULL, 10);
            *found = 1;
        }
        is_next = in_metadata && token.kind == JSON_SCAN_KEY && token.depth == 2 &&
                  json_token_equals(text->bytes, &token, "total_size");
    }
    return code;
}

/* Loaders use it to plan memory. It is the size of the tensors; some writers store the size of the
 * files. */
static ckpt_code remark_total(ckpt_checkpoint *c, ckpt_error *err)
{
    const ckpt_catalog *stored = c->store->catalog;
    uint64_t total_bytes = 0;
    uint64_t file_bytes = 0;
    uint64_t said_bytes = 0;
    folder_text text;
    int found = 0;
    ckpt_code code;

    if (!c->has_index)
        return CKPT_OK;
    code = folder_read_all(c->place.folder, HF_INDEX_FILE, HF_INDEX_BYTES_MAX, &text, err);
    if (code == CKPT_OK)
        code = find_total(&text, &said_bytes, &found, err);
    for (size_t i = 0; i < ckpt_catalog_count(stored); i++)
        total_bytes += ckpt_tensor_bytes(ckpt_catalog_at(stored, i));
    for (size_t i = 0; i < c->store->file_count; i++)
        file_bytes += c->store->files[i].size_bytes;
    if (code == CKPT_OK && found && said_bytes != total_bytes && said_bytes != file_bytes)
        code = note_add(&c->notes, err, "the index says total_size %llu, but its tensors have %llu "
                        "bytes", (unsigned long long)said_bytes, (unsigned long long)total_bytes);
    folder_text_release(&text);
    return code;
}

ckpt_code checkpoint_remark(ckpt_checkpoint *c, ckpt_error *err)
{
    ckpt_code code;

    if ((code = remark_part(c, err)) != CKPT_OK || (code = remark_adapter(c, err)) != CKPT_OK ||
        (code = remark_quantiser(c, err)) != CKPT_OK ||
        (code = remark_consolidated(c, err)) != CKPT_OK ||
        (code = remark_megatron(c, err)) != CKPT_OK)
        return code;
    return remark_total(c, err);
}
