/* fuzz_index.c: model.safetensors.index.json, and after the first NUL config.json, of a directory
 * with two good files. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libckpt/ckpt.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char folder[48];
static char paths[4][96];
static const char *const names[4] = { "model-00001-of-00002.safetensors",
                                      "model-00002-of-00002.safetensors",
                                      "model.safetensors.index.json", "config.json" };

static void remove_folder(void)
{
    for (int i = 0; i < 4; i++)
        remove(paths[i]);
    rmdir(folder);
}

static void write_file(int i, const void *data, size_t size)
{
    FILE *file = fopen(paths[i], "wb");

    if (file == NULL || fwrite(data, 1, size, file) != size || fclose(file) != 0)
        abort();
}

static void write_weights(int i, const char *header)
{
    char file[512] = { 0 };
    const size_t length = strlen(header);

    file[0] = (char)length;
    file[1] = (char)(length >> 8);
    memcpy(file + 8, header, length);
    write_file(i, file, 8 + length + 12);
}

static void make_folder(void)
{
    snprintf(folder, sizeof folder, "%s/ckpt-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (mkdtemp(folder) == NULL)
        abort();
    for (int i = 0; i < 4; i++)
        snprintf(paths[i], sizeof paths[i], "%s/%s", folder, names[i]);
    write_weights(0, "{\"embed.weight\":{\"dtype\":\"BF16\",\"shape\":[2,3],"
                     "\"data_offsets\":[0,12]}}");
    write_weights(1, "{\"a.weight\":{\"dtype\":\"F8_E4M3\",\"shape\":[2,4],"
                     "\"data_offsets\":[4,12]},\"a.scale\":{\"dtype\":\"F32\",\"shape\":[1,1],"
                     "\"data_offsets\":[0,4]}}");
    atexit(remove_folder);
}

/* No name leaves the directory, and every tensor is in a file that has a name. */
static void check_files(const ckpt_checkpoint *checkpoint)
{
    const ckpt_catalog *stored = ckpt_source_catalog(ckpt_stored(checkpoint));
    const char *name;

    for (uint32_t i = 0; (name = ckpt_file_name(checkpoint, i)) != NULL; i++)
        if (strchr(name, '/') != NULL || name[0] == '.')
            abort();
    for (size_t i = 0; i < ckpt_catalog_count(stored); i++)
        if (ckpt_file_name(checkpoint, ckpt_catalog_at(stored, i)->file) == NULL)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *nul = size == 0 ? NULL : memchr(data, '\0', size);
    const size_t index_bytes = nul == NULL ? size : (size_t)(nul - data);

    if (folder[0] == '\0')
        make_folder();
    write_file(2, data, index_bytes);
    if (nul == NULL)
        remove(paths[3]);
    else
        write_file(3, nul + 1, size - index_bytes - 1);
    for (int lenient = 0; lenient < 2; lenient++) {
        const ckpt_open_options options = { .lenient = lenient };
        ckpt_checkpoint *checkpoint;
        ckpt_error err;

        if (ckpt_open(folder, &options, &checkpoint, &err) != CKPT_OK) {
            if (err.text[0] == '\0' || strchr(err.text, '\n') != NULL)
                abort();
            continue;
        }
        check_files(checkpoint);
        ckpt_close(checkpoint);
    }
    return 0;
}
