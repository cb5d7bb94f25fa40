/* download_check.c: validates the download by opening it as a checkpoint. */
#include "download_check.h"

#include "formats/safetensors.h"
#include "libckpt/file.h"
#include "libckpt/text.h"

static int is_safetensors(const hub_file *file)
{
    return text_ends_with(file->path, SAFETENSORS_SUFFIX);
}

static ckpt_code check_one(const char *path, const ckpt_open_options *options, ckpt_error *err)
{
    ckpt_checkpoint *checkpoint = NULL;
    ckpt_error found;
    const ckpt_code code = ckpt_open(path, options, &checkpoint, &found);

    ckpt_close(checkpoint);
    if (code == CKPT_E_FORMAT)
        return hub_fail(HUB_INTEGRITY, err, "download matches the hub's listing but is not a valid "
                        "checkpoint: %s (--no-check leaves this check out)", found.text);
    if (code != CKPT_OK)
        *err = found;
    return code;
}

ckpt_code download_check(const char *folder, const hub_listing *listing, ckpt_error *err)
{
    const ckpt_open_options lenient = { .lenient = 1 };
    size_t selected_count = 0;
    size_t count = 0;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < listing->count; i++)
        if (is_safetensors(&listing->files[i])) {
            count++;
            selected_count += (size_t)listing->files[i].is_selected;
        }
    if (selected_count == 0)
        return CKPT_OK;
    if (selected_count == count && hub_listing_find(listing, "config.json") != NULL &&
        hub_listing_find(listing, "config.json")->is_selected)
        return check_one(folder, NULL, err);
    for (size_t i = 0; i < listing->count && code == CKPT_OK; i++)
        if (listing->files[i].is_selected && is_safetensors(&listing->files[i])) {
            char *path = file_join(folder, listing->files[i].path);

            code = path == NULL ? ckpt_fail_memory(err, "a path", 0)
                                : check_one(path, &lenient, err);
            free(path);
        }
    return code;
}
