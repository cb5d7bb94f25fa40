/* fuzz_tokenizer.c: a tokenizer.json; after the first NUL, a text for it. */
#include "reference-runner/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file in memory with these bytes; its path. */
static int make_file(const uint8_t *data, size_t size, char path[64])
{
    const int fd = memfd_create("tokenizer", MFD_CLOEXEC);

    if (fd < 0 || write(fd, data, size) != (ssize_t)size)
        abort();
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

/* Ids that came of a text can be turned into one. */
static void check(const run_text *text, const char *bytes, size_t size)
{
    run_prompt ids;
    run_prompt again;
    char *out;

    if (run_text_encode(text, bytes, size, &ids, NULL) != CKPT_OK)
        return;
    if (run_text_decode(text, (const int32_t *)ids.tokens, ids.count, &out, NULL) != CKPT_OK)
        abort();
    if (run_text_encode(text, out, strlen(out), &again, NULL) == CKPT_OK)
        run_prompt_free(&again);
    free(out);
    run_prompt_free(&ids);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char sample[] = "Hello, 12345 w\xC3\xB6rld!\r\n  \xE4\xB8\xAD\xE6\x96\x87 <s>a";
    const uint8_t *end = size == 0 ? NULL : memchr(data, '\0', size);
    const size_t json_bytes = end == NULL ? size : (size_t)(end - data);
    char path[64];
    const int fd = make_file(data, json_bytes, path);
    run_text *text;

    if (run_text_open(NULL, path, &text, NULL) == CKPT_OK) {
        check(text, sample, sizeof sample - 1);
        if (end != NULL)
            check(text, (const char *)end + 1, size - json_bytes - 1);
        run_text_free(text);
    }
    close(fd);
    return 0;
}
