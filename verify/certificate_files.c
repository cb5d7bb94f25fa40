/*
 * certificate_files.c: lists and hashes files. SHA-256 needs the bytes of a file in order, but the
 * tensor loop reads tiles in another order, so the two cannot share a read. Instead both start at
 * the beginning of the files at the same time, and the second reader of a byte finds it in the page
 * cache. If the cache cannot hold all files, fewer files are hashed at a time, and the reader that
 * is ahead waits. So every byte is read from the disk once.
 */
#include "certificate_files.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libckpt/checkpoint.h"
#include "libckpt/sink.h"
#include "libckpt/size.h"
#include "libckpt/text.h"

/* ---- roles ---- */

certificate_role certificate_role_of(const char *name)
{
    static const struct { const char *glob; certificate_role role; } rules[] = {
        { "config.json", CERTIFICATE_CONFIG },
        { "generation_config.json", CERTIFICATE_GENERATION },
        { "chat_template*", CERTIFICATE_TEMPLATE },
        { "additional_chat_templates/*", CERTIFICATE_TEMPLATE },
        { "tokenizer*", CERTIFICATE_TOKENIZER },
        { "vocab.*", CERTIFICATE_TOKENIZER },
        { "merges.txt", CERTIFICATE_TOKENIZER },
        { "special_tokens_map.json", CERTIFICATE_TOKENIZER },
        { "added_tokens.json", CERTIFICATE_TOKENIZER },
        { "*.tiktoken", CERTIFICATE_TOKENIZER },
        { "encoding/*", CERTIFICATE_ENCODING },
        { "*.safetensors", CERTIFICATE_WEIGHTS },
        { "*.safetensors.index.json", CERTIFICATE_WEIGHTS },
        { "*.distcp", CERTIFICATE_WEIGHTS },
        { "*.metadata", CERTIFICATE_WEIGHTS },
        { "*metadata.json", CERTIFICATE_WEIGHTS },
        { "*common.pt", CERTIFICATE_WEIGHTS },
    };

    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (text_matches_any(name, &rules[i].glob, 1))
            return rules[i].role;
    return CERTIFICATE_OTHER;
}

/* ---- listing ---- */

/* 1 when `path` is a file that the options leave out, under this or another name. */
static int is_left_out(const char *path, const certificate_read_options *options)
{
    for (size_t i = 0; i < options->left_out_count; i++)
        if (file_is_same(path, options->left_out[i]))
            return 1;
    return 0;
}

static ckpt_code add_file(certificate_checkpoint *out, const char *name, ckpt_error *err)
{
    certificate_file *f = &out->files[out->file_count];

    f->role = certificate_role_of(name);
    if ((f->name = strdup(name)) == NULL)
        return ckpt_fail_memory(err, "a file's name", strlen(name));
    out->file_count++;
    return CKPT_OK;
}

static ckpt_code take_names(const ckpt_folder *folder, const file_list *names,
                            const certificate_read_options *options, certificate_checkpoint *out,
                            ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if ((out->files = calloc(names->count + 1, sizeof *out->files)) == NULL)
        return ckpt_fail_memory(err, "a list of files", names->count);
    for (size_t i = 0; i < names->count && code == CKPT_OK; i++) {
        char *path = folder_path_of(folder, names->names[i]);

        if (path == NULL)
            return ckpt_fail_memory(err, "a path", strlen(names->names[i]));
        if (!is_left_out(path, options))
            code = add_file(out, names->names[i], err);
        free(path);
    }
    return code;
}

ckpt_code certificate_list_folder(const ckpt_folder *folder,
                                  const certificate_read_options *options,
                                  certificate_checkpoint *out, ckpt_error *err)
{
    file_list names = { NULL, 0 };
    ckpt_code code = folder_list_tree(folder, &names, err);

    if (code == CKPT_OK)
        code = take_names(folder, &names, options, out, err);
    file_list_free(&names);
    return code;
}

ckpt_code certificate_list_files(const ckpt_checkpoint *checkpoint,
                                 const certificate_read_options *options,
                                 certificate_checkpoint *out, ckpt_error *err)
{
    const ckpt_folder *folder = checkpoint_folder(checkpoint);
    const char *name = ckpt_file_name(checkpoint, 0);
    ckpt_code code;

    if (folder != NULL)
        return certificate_list_folder(folder, options, out, err);
    if ((out->files = calloc(2, sizeof *out->files)) == NULL)
        return ckpt_fail_memory(err, "a list of files", 1);
    if ((code = add_file(out, name == NULL ? out->label : name, err)) == CKPT_OK)
        out->files[0].role = CERTIFICATE_WEIGHTS;
    return code;
}

/* ---- hashing ---- */

/* How far ahead the tensor loop may be: large enough that it rarely waits. */
#define WINDOW_BYTES ((uint64_t)1 << 30)

static int has_failed(certificate_hashing *h)
{
    int failed;

    pthread_mutex_lock(&h->lock);
    failed = h->code != CKPT_OK;
    pthread_mutex_unlock(&h->lock);
    return failed;
}

static void fail(certificate_hashing *h, ckpt_code code, const ckpt_error *err)
{
    pthread_mutex_lock(&h->lock);
    if (h->code == CKPT_OK) {
        h->code = code;
        h->error = *err;
    }
    pthread_cond_broadcast(&h->moved);
    pthread_mutex_unlock(&h->lock);
}

/* Called after every block. While the tensor loop runs, only the loop polls run.cancel. */
static int should_stop(void *context)
{
    certificate_hashing *h = context;
    int stops;

    pthread_mutex_lock(&h->lock);
    h->hashed_bytes += SHA256_PIECE_BYTES;
    pthread_cond_broadcast(&h->moved);
    while (h->window_bytes > 0 && h->hashed_bytes > h->passed_bytes + h->lead_bytes &&
           !h->is_alone && h->code == CKPT_OK)
        pthread_cond_wait(&h->moved, &h->lock);
    stops = h->code != CKPT_OK ||
            (h->is_alone && h->run.cancel != NULL && h->run.cancel(h->run.context));
    pthread_mutex_unlock(&h->lock);
    return stops;
}

static ckpt_code hash_one(certificate_hashing *h, certificate_file *f, ckpt_error *err)
{
    ckpt_file *file = NULL;
    ckpt_code code = h->of->folder == NULL ? file_open(h->path, &file, err)
                                           : folder_open_file(h->of->folder, f->name, &file, err);

    if (code != CKPT_OK)
        return code;
    f->size_bytes = file_size(file);
    if (!h->without_weights || f->role != CERTIFICATE_WEIGHTS)
        code = sha256_of(file, should_stop, h, f->sha256, err);
    if (code == CKPT_OK)
        code = file_check_unchanged(file, NULL, err);
    file_close(file, NULL);
    return code;
}

static void *hash_files(void *context)
{
    certificate_hashing *h = context;
    ckpt_error err;

    while (!has_failed(h)) {
        const size_t i = atomic_fetch_add(&h->next, 1);
        ckpt_code code;

        if (i >= h->of->file_count)
            break;
        if ((code = hash_one(h, &h->of->files[i], &err)) != CKPT_OK)
            fail(h, code, &err);
    }
    pthread_mutex_lock(&h->lock);
    h->ended_count++;
    pthread_cond_broadcast(&h->moved);
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

void certificate_hashing_keep_pace(certificate_hashing *h, uint64_t bytes)
{
    if (h->window_bytes == 0)
        return;
    pthread_mutex_lock(&h->lock);
    h->passed_bytes += bytes;
    pthread_cond_broadcast(&h->moved);
    while (h->passed_bytes > h->hashed_bytes + h->window_bytes && h->ended_count < h->thread_count)
        pthread_cond_wait(&h->moved, &h->lock);
    pthread_mutex_unlock(&h->lock);
}

/* Half of the memory is assumed to be page cache. Each thread hashes another file, while the tensor
 * loop reads the first of these. */
static uint64_t plan_window(certificate_hashing *h, uint64_t thread_count)
{
    const long pages = sysconf(_SC_PHYS_PAGES);
    const long page_bytes = sysconf(_SC_PAGESIZE);
    const uint64_t cache = pages < 0 || page_bytes < 0
                               ? 0 : (uint64_t)pages / 2 * (uint64_t)page_bytes;
    uint64_t file_count = 0;
    uint64_t file_bytes;

    for (size_t i = 0; i < h->of->file_count; i++)
        file_count += h->of->files[i].role == CERTIFICATE_WEIGHTS;
    if (h->without_weights || file_count == 0 || h->of->stored_bytes <= cache)
        return thread_count;
    h->window_bytes = size_min(WINDOW_BYTES, cache / 4);
    file_bytes = h->of->stored_bytes / file_count + 1;
    thread_count = size_min(thread_count, size_max(1, (cache - h->window_bytes) / file_bytes));
    h->lead_bytes = (thread_count - 1) * file_bytes + h->window_bytes;
    return thread_count;
}

ckpt_code certificate_hashing_begin(certificate_hashing *h, ckpt_error *err)
{
    /* Buffers use at most a quarter of the memory. */
    const uint64_t threads = copy_thread_count(&h->run, 4 * (uint64_t)SHA256_PIECE_BYTES);
    const uint64_t wanted = plan_window(h, size_min(size_max(threads, 1), h->of->file_count));

    atomic_init(&h->next, 0);
    if ((h->threads = calloc(wanted + 1, sizeof *h->threads)) == NULL)
        return ckpt_fail_memory(err, "threads", wanted);
    pthread_mutex_init(&h->lock, NULL);
    pthread_cond_init(&h->moved, NULL);
    while (h->thread_count < wanted &&
           pthread_create(&h->threads[h->thread_count], NULL, hash_files, h) == 0)
        h->thread_count++;         /* fewer are enough: _end does the rest */
    return CKPT_OK;
}

ckpt_code certificate_hashing_end(certificate_hashing *h, int give_up, ckpt_error *err)
{
    ckpt_code code;

    if (give_up) {
        ckpt_error stopped;

        fail(h, ckpt_fail(&stopped, CKPT_E_INTERRUPTED, "interrupted"), &stopped);
    }
    pthread_mutex_lock(&h->lock);
    h->is_alone = 1;
    pthread_cond_broadcast(&h->moved);
    pthread_mutex_unlock(&h->lock);
    hash_files(h);
    for (unsigned i = 0; i < h->thread_count; i++)
        pthread_join(h->threads[i], NULL);
    free(h->threads);
    pthread_cond_destroy(&h->moved);
    pthread_mutex_destroy(&h->lock);
    code = h->code;
    if (code != CKPT_OK)
        *err = h->error;
    return code;
}
