/* Opens a delta in the format of slime and miles, or of SkyRL. */
#include <stdlib.h>
#include <string.h>

#include "delta_read.h"
#include "delta_side.h"
#include "delta_skyrl.h"
#include "formats/hf.h"
#include "libckpt/memory.h"
#include "libckpt/packed.h"
#include "libckpt/sha256.h"
#include "libckpt/values.h"

enum { MANIFEST_BYTES_MAX = 1 << 28 };

/* A folder with an index is never SkyRL's, whatever else is in it. */
int delta_detect(const folder_place *place)
{
    if (place->name == NULL && folder_has(place->folder, HF_INDEX_FILE))
        return delta_has_weights(place);
    return delta_skyrl_detect(place);
}

/* The protocol of SGLang's gpu_delta, whose frames are for a GPU to unpack; 0: it is not that. */
static uint64_t gpu_protocol(const ckpt_delta *d)
{
    folder_text text = { .bytes = NULL };
    json_document *manifest = NULL;
    uint64_t number = 0;

    if (folder_has(d->place.folder, DELTA_SKYRL_FILE) &&
        folder_read_all(d->place.folder, DELTA_SKYRL_FILE, MANIFEST_BYTES_MAX, &text, NULL) ==
            CKPT_OK &&
        json_parse(text.bytes, text.size, text.path, &manifest, NULL) == CKPT_OK &&
        (json_member(json_root(manifest), "codec") == NULL ||
         !json_u64(json_member(json_root(manifest), "protocol_version"), &number)))
        number = 0;
    json_free(manifest);
    folder_text_release(&text);
    return number;
}

static ckpt_code fail_not_delta(const ckpt_delta *d, ckpt_error *err)
{
    const uint64_t protocol = gpu_protocol(d);

    if (protocol != 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is a delta of SGLang's gpu_delta, protocol "
                         "%llu, which is not read: expected weight_v (slime, miles, SGLang) or "
                         "SkyRL", d->path, (unsigned long long)protocol);
    if (!file_exists(d->path))
        return ckpt_fail(err, CKPT_E_IO, "'%s' does not exist%s", d->path,
                         strcmp(d->path, "-") == 0 ? ": standard input is read by apply and "
                                                     "verify alone" : "");
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not a delta: expected a directory with '%s' "
                     "whose metadata has delta_encoding", d->path, HF_INDEX_FILE);
}

ckpt_code delta_open_unproven(const char *path, ckpt_delta **out, ckpt_error *err)
{
    ckpt_delta *d = calloc(1, sizeof *d);
    ckpt_code code;

    if (d == NULL)
        return ckpt_fail_memory(err, "a delta", sizeof *d);
    arena_init(&d->memory);
    if ((d->path = strdup(path)) == NULL)
        code = ckpt_fail_memory(err, "a path", strlen(path));
    else if ((code = kernels_require(err)) == CKPT_OK &&
             (code = folder_open_place(path, &d->place, err)) == CKPT_OK) {
        const int is_skyrl = delta_skyrl_detect(&d->place);
        const int has_index =
            d->place.name == NULL && folder_has(d->place.folder, HF_INDEX_FILE);

        if (packed_bytes(d->place.folder) > 0)
            code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' is a packed checkpoint, not a delta: "
                             "ckpt-inspect lists it, apply --base none unpacks it", path);
        else if (!is_skyrl && !has_index)
            code = fail_not_delta(d, err);
        else if ((d->store = store_create_in(d->place.folder)) == NULL)
            code = ckpt_fail_memory(err, "a delta", sizeof *d->store);
        else if ((code = is_skyrl ? delta_skyrl_read(d, err) : delta_read_weights(d, err)) ==
                 CKPT_OK)
            code = delta_side_read(d, err);
        if (code == CKPT_OK && d->is_structural && !d->has_side)
            code = ckpt_fail(err, CKPT_E_FORMAT, "'%s' adds or removes tensors, and has no %s, "
                             "which says which", path, DELTA_SIDE_FILE);
    }
    if (code != CKPT_OK)
        delta_close(d);
    else
        *out = d;
    return code;
}

ckpt_code delta_open(const char *path, ckpt_delta **out, ckpt_error *err)
{
    ckpt_code code = delta_open_unproven(path, out, err);

    if (code == CKPT_OK && (code = delta_check_data(*out, NULL, NULL, err)) != CKPT_OK) {
        delta_close(*out);
        *out = NULL;
    }
    return code;
}

ckpt_code delta_check_data(const ckpt_delta *d, int (*stop)(void *context), void *context,
                           ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; d->sha256 != NULL && i < d->store->file_count && code == CKPT_OK; i++) {
        const ckpt_file *file = d->store->files[i].file;
        char got[SHA256_HEX];

        if (d->sha256[i][0] != '\0' &&
            (code = sha256_of(file, stop, context, got, err)) == CKPT_OK)
            code = delta_side_check_hash(file_path(file), d->sha256[i], got, err);
    }
    return code;
}

void delta_close(ckpt_delta *d)
{
    if (d == NULL)
        return;
    store_free(d->store);
    folder_place_release(&d->place);
    arena_release(&d->memory);
    free(d->sha256);
    free(d->tensors);
    free(d->files);
    free(d->weights);
    file_list_free(&d->added);
    file_list_free(&d->removed);
    free(d->path);
    free(d);
}
