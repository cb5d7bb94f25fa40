/* replay.c: a main for the fuzz targets: feeds them the files of a folder, each a past crash or a
 * seed. Without a fuzzing compiler, and under any sanitizer, the corpus is a regression test. */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* 1 when the file was read and fed. */
static int replay_file(const char *path)
{
    FILE *file = fopen(path, "rb");
    size_t capacity = 4096;
    size_t size = 0;
    uint8_t *data = malloc(capacity);
    size_t got;

    if (file == NULL || data == NULL) {
        fprintf(stderr, "cannot read '%s': %s\n", path, strerror(errno));
        exit(2);
    }
    while ((got = fread(data + size, 1, capacity - size, file)) > 0) {
        size += got;
        if (size == capacity && (data = realloc(data, capacity *= 2)) == NULL)
            exit(2);
    }
    fclose(file);
    /* Exactly as large as the input, so that AddressSanitizer sees a read past its end. */
    if (size > 0 && (data = realloc(data, size)) == NULL)
        exit(2);
    fprintf(stderr, "%s\n", path);
    LLVMFuzzerTestOneInput(data, size);
    free(data);
    return 1;
}

int main(int argc, char **argv)
{
    unsigned count = 0;

    for (int i = 1; i < argc; i++) {
        DIR *folder = opendir(argv[i]);
        const struct dirent *entry;
        char path[4096];

        if (folder == NULL) {
            fprintf(stderr, "cannot open folder '%s': %s\n", argv[i], strerror(errno));
            return 2;
        }
        while ((entry = readdir(folder)) != NULL) {
            if (entry->d_name[0] == '.')
                continue;
            snprintf(path, sizeof path, "%s/%s", argv[i], entry->d_name);
            count += (unsigned)replay_file(path);
        }
        closedir(folder);
    }
    printf("%s: %u inputs\n", argv[0], count);
    return count > 0 ? 0 : 2;
}
