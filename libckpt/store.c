/* The list of stored tensors and of the files that contain them. */
#include "store.h"

#include <stdlib.h>
#include <string.h>

#include "array.h"
#include "memory.h"

ckpt_store *store_create_in(const ckpt_folder *folder)
{
    ckpt_store *store = calloc(1, sizeof *store);

    if (store == NULL)
        return NULL;
    pthread_mutex_init(&store->copies_lock, NULL);
    store->folder = folder;
    if ((store->catalog = catalog_create()) == NULL) {
        store_free(store);
        return NULL;
    }
    return store;
}

ckpt_store *store_create(const char *directory)
{
    ckpt_store *store = store_create_in(NULL);

    if (store != NULL && (store->directory = strdup(directory)) == NULL) {
        store_free(store);
        return NULL;
    }
    return store;
}

void store_free(ckpt_store *store)
{
    if (store == NULL)
        return;
    for (size_t i = 0; i < store->file_count; i++) {
        file_close(store->files[i].file, NULL);
        free(store->files[i].name);
        free(store->files[i].header);
        memory_give(store->files[i].metadata_bytes);
        free(store->files[i].metadata);
        free(store->files[i].prefix);
    }
    array_free_counted(store->files, store->file_count, sizeof *store->files);
    array_free_counted(store->repeats, store->repeat_count, sizeof *store->repeats);
    layout_free(store->pieces);
    catalog_free(store->keys);
    catalog_free(store->catalog);
    if (store->watch != NULL)
        store->watch->free(store->watch);
    array_free_counted(store->sums, store->sum_count, sizeof *store->sums);
    pthread_mutex_destroy(&store->copies_lock);
    free(store->copies);
    free(store->directory);
    free(store);
}

ckpt_code store_keep_copies(ckpt_store *store, size_t tensor_count, ckpt_error *err)
{
    free(store->copies);
    store->copies = calloc(tensor_count + 1, sizeof *store->copies);
    return store->copies != NULL ? CKPT_OK
                                 : ckpt_fail_memory(err, "a list of copies", tensor_count);
}

const ckpt_catalog *store_names(const ckpt_store *store)
{
    return store->keys != NULL ? store->keys : store->catalog;
}

ckpt_code store_add_file(ckpt_store *store, const char *name, uint32_t *out, ckpt_error *err)
{
    store_file *files =
        array_room_counted(store->files, store->file_count, sizeof *files, "the list of files",
                           err);

    if (files == NULL)
        return CKPT_E_MEMORY;
    store->files = files;
    memset(&files[store->file_count], 0, sizeof *files);
    files[store->file_count].name = strdup(name);
    if (files[store->file_count].name == NULL)
        return ckpt_fail_memory(err, "a file name", strlen(name));
    *out = (uint32_t)store->file_count++;
    return CKPT_OK;
}

ckpt_code store_add_sum(ckpt_store *store, const store_sum *sum, ckpt_error *err)
{
    store_sum *sums = array_room_counted(store->sums, store->sum_count, sizeof *sums, "checksums",
                                         err);

    if (sums == NULL)
        return CKPT_E_MEMORY;
    store->sums = sums;
    sums[store->sum_count++] = *sum;
    return CKPT_OK;
}

ckpt_code store_open_file(ckpt_store *store, size_t i, int writable, ckpt_error *err)
{
    store_file *f = &store->files[i];
    ckpt_code code;
    char *path;

    if (f->file != NULL)
        return CKPT_OK;
    if (store->folder != NULL)
        return folder_open_file(store->folder, f->name, &f->file, err);
    if (writable)
        return file_open_rw(store->directory, f->name, &f->file, err);
    if ((path = file_join(store->directory, f->name)) == NULL)
        return ckpt_fail_memory(err, "a path", strlen(f->name));
    code = file_open(path, &f->file, err);
    free(path);
    return code;
}

ckpt_code store_sync_files(ckpt_store *store, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < store->file_count && code == CKPT_OK; i++)
        if (store->files[i].file != NULL)
            code = file_sync(store->files[i].file, err);
    return code;
}

ckpt_code store_close_files(ckpt_store *store, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < store->file_count; i++) {
        const ckpt_code closed = file_close(store->files[i].file, code == CKPT_OK ? err : NULL);

        store->files[i].file = NULL;
        if (code == CKPT_OK)
            code = closed;
    }
    return code;
}

ckpt_code store_check_unchanged(const ckpt_store *store, int *is_touched, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < store->file_count && code == CKPT_OK; i++)
        if (store->files[i].file != NULL)
            code = file_check_unchanged(store->files[i].file, is_touched, err);
    return code;
}

void store_mix_files(const ckpt_store *store, hash128 *sum)
{
    for (size_t i = 0; i < store->file_count; i++) {
        const store_file *f = &store->files[i];
        const uint64_t numbers[] = { f->size_bytes, file_identity_of(f->file)->version,
                                     f->header_hash };

        hash128_mix(sum, f->name, strlen(f->name));
        hash128_mix(sum, numbers, sizeof numbers);
    }
}
