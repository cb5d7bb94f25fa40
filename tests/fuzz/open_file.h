/*
 * open_file.h: a file that is fuzzed is written where it costs no disk, opened as a checkpoint both
 * ways, and what was accepted is read and digested. For one fuzz target each.
 */
#ifndef CKPT_TESTS_OPEN_FILE_H
#define CKPT_TESTS_OPEN_FILE_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libckpt/ckpt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { READ_BYTES_MAX = 1 << 20, MEMORY_BYTES = 64 << 20, DIGEST_ELEMENTS_MAX = 1 << 20 };

static char path[64];

static void remove_folder(void)
{
    char *slash = strrchr(path, '/');

    remove(path);
    *slash = '\0';
    rmdir(path);
}

/* Set `path`, once, to this name in a folder of its own: "/x.gguf". */
static void make_folder(const char *name)
{
    snprintf(path, sizeof path, "%s/ckpt-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(path) == NULL)
        abort();
    strncat(path, name, sizeof path - strlen(path) - 1);
    atexit(remove_folder);
}

/* Whatever was accepted can be read, first row and last. */
static void read_some(ckpt_source *source)
{
    const ckpt_catalog *catalog = ckpt_source_catalog(source);
    ckpt_error err;

    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);

        if (ckpt_catalog_find(catalog, t->name) != (int64_t)i)
            abort();
        for (int part = 0; part < CKPT_PART_COUNT; part++) {
            const uint64_t rows = ckpt_part_rows(t, (ckpt_part)part);
            const uint64_t row_bytes = ckpt_part_row_bytes(t, (ckpt_part)part);
            void *out;

            if (rows == 0 || row_bytes == 0 || row_bytes > READ_BYTES_MAX)
                continue;
            if ((out = malloc(row_bytes)) == NULL)
                abort();
            if (ckpt_source_read(source, i, (ckpt_part)part, 0, 1, out, &err) != CKPT_OK ||
                ckpt_source_read(source, i, (ckpt_part)part, rows - 1, 1, out, &err) != CKPT_OK) {
                fprintf(stderr, "%s\n", err.text);
                abort();
            }
            free(out);
        }
    }
}

static void digest_small(ckpt_source *source)
{
    const ckpt_run_options run = { .thread_count = 1, .memory_bytes = MEMORY_BYTES };
    const ckpt_catalog *catalog = ckpt_source_catalog(source);
    char root[CKPT_ROOT_HEX];
    uint64_t elements = 0;
    ckpt_digest *digest;
    ckpt_error err;

    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++)
        elements += ckpt_tensor_rows(ckpt_catalog_at(catalog, i)) *
                    ckpt_tensor_cols(ckpt_catalog_at(catalog, i));
    if (elements > DIGEST_ELEMENTS_MAX ||
        ckpt_digest_source(source, &run, &digest, &err) != CKPT_OK)
        return;
    if (ckpt_digest_root(digest, 0, root, &err) != CKPT_OK || strlen(root) != CKPT_ROOT_HEX - 1)
        abort();
    ckpt_digest_free(digest);
}

static void open_file(void)
{
    for (int lenient = 0; lenient < 2; lenient++) {
        const ckpt_open_options options = { .lenient = lenient };
        ckpt_checkpoint *checkpoint;
        ckpt_error err;

        if (ckpt_open(path, &options, &checkpoint, &err) != CKPT_OK) {
            if (err.text[0] == '\0' || strchr(err.text, '\n') != NULL)
                abort();
            continue;
        }
        read_some(ckpt_stored(checkpoint));
        read_some(ckpt_logical(checkpoint));
        digest_small(ckpt_logical(checkpoint));
        ckpt_close(checkpoint);
    }
}

#endif
