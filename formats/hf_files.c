/* The files of a Hugging Face directory: their names, and which of them cannot be read alone. */
#include <stdio.h>
#include <string.h>

#include "hf_private.h"
#include "libckpt/text.h"
#include "notes.h"
#include "safetensors.h"

void hf_file_name(size_t i, size_t count, char out[FORMAT_NAME_BYTES])
{
    if (count == 1)
        snprintf(out, FORMAT_NAME_BYTES, "model" SAFETENSORS_SUFFIX);
    else
        snprintf(out, FORMAT_NAME_BYTES, "model-%05zu-of-%05zu" SAFETENSORS_SUFFIX, i + 1, count);
}

/* 1 if the boxes of all tensors start at offset 0 of the tensor. */
static int starts_at_zero(const json_value *info)
{
    uint64_t offset = 0;

    for (const json_value *v = json_first(info); v != NULL; v = json_next(v)) {
        const json_value *offsets = json_member(v, "saved_offsets");

        if (!json_is_array(offsets))
            return 0;
        for (const json_value *o = json_first(offsets); o != NULL; o = json_next(o))
            if (!json_u64(o, &offset) || offset != 0)
                return 0;
    }
    return json_is_object(info);
}

/*
 * torch's HuggingFaceStorageWriter writes each rank's piece of a tensor and its offset, but not
 * the size of the tensor, so a missing file of a rank could not be detected. Output from a single
 * rank has the same marker and an index of whole tensors.
 */
static ckpt_code check_whole(const ckpt_checkpoint *out, uint32_t i, ckpt_error *err)
{
    const store_file *f = &out->store->files[i];
    json_document *metadata = NULL;
    json_document *info = NULL;
    const char *text;
    ckpt_code code;
    int is_whole;

    if (f->metadata == NULL || strstr(f->metadata, "DCP_SHARDING_INFO") == NULL)
        return CKPT_OK;
    if ((code = json_parse(f->metadata, strlen(f->metadata), f->name, &metadata, err)) != CKPT_OK)
        return code;
    text = json_string(json_member(json_root(metadata), "DCP_SHARDING_INFO"));
    is_whole = text == NULL ||
               (out->has_index && json_parse(text, strlen(text), f->name, &info, NULL) == CKPT_OK &&
                starts_at_zero(json_root(info)));
    json_free(info);
    json_free(metadata);
    if (is_whole)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_FORMAT,
                     "'%s' contains slices of tensors, as saved by torch's "
                     "HuggingFaceStorageWriter from several ranks (DCP_SHARDING_INFO), without the "
                     "full shapes: consolidate them with torch (enable_consolidation=True, or "
                     "consolidate_safetensors_files)",
                     file_path(f->file));
}

/* 1 for "model-00002-of-00005.safetensors". */
static int is_in_series(const char *name, unsigned *count)
{
    int end = 0;

    return sscanf(name, "model-%*5u-of-%5u" SAFETENSORS_SUFFIX "%n", count, &end) == 1 &&
           end > 0 && name[end] == '\0';
}

/* Without an index only the names tell that files are missing. */
static ckpt_code note_series(ckpt_checkpoint *out, ckpt_error *err)
{
    const ckpt_store *store = out->store;
    char missing[FORMAT_NAME_BYTES] = "";
    unsigned total = 0;
    unsigned seen = 0;

    for (size_t i = 0; i < store->file_count; i++) {
        unsigned count;

        if (!is_in_series(store->files[i].name, &count))
            continue;
        total = total == 0 ? count : total;
        seen += count == total;
    }
    if (seen == 0 || seen >= total)
        return CKPT_OK;
    for (unsigned i = 0; i < total && missing[0] == '\0'; i++) {
        hf_file_name(i, total, missing);
        if (folder_has(store->folder, missing))
            missing[0] = '\0';
    }
    return note_add(&out->notes, err, "this folder has %u of %s, '%s' is missing: the tensors of "
                    "the others are not included", seen,
                    text_count(total, "file", "files").text, missing);
}

ckpt_code hf_read_files(ckpt_checkpoint *out, ckpt_error *err)
{
    ckpt_code code = out->place.name == NULL && !out->has_index ? note_series(out, err) : CKPT_OK;

    for (uint32_t i = 0; i < out->store->file_count && code == CKPT_OK; i++)
        if ((code = safetensors_read(out->store, i, err)) == CKPT_OK)
            code = check_whole(out, i, err);
    return code;
}
