/* Names of split files. */
#include "gguf_split.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

enum { DIGITS = 5, TAIL_BYTES = sizeof "-00001-of-00003.gguf" - 1 };

static int read_digits(const char *text, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < DIGITS; i++) {
        if (!isdigit((unsigned char)text[i]))
            return 0;
        *out = 10 * *out + (uint32_t)(text[i] - '0');
    }
    return 1;
}

int gguf_split_parse(const char *name, size_t *stem, uint32_t *number, uint32_t *count)
{
    const size_t length = strlen(name);
    const char *tail;

    if (length <= TAIL_BYTES)
        return 0;
    *stem = length - TAIL_BYTES;
    tail = name + *stem;
    return tail[0] == '-' && read_digits(tail + 1, number) && strncmp(tail + 6, "-of-", 4) == 0 &&
           read_digits(tail + 10, count) && strcmp(tail + 15, ".gguf") == 0 && *number > 0 &&
           *number <= *count && *count <= GGUF_FILES_MAX;
}

int gguf_split_name(const char *name, size_t stem, uint32_t number, uint32_t count,
                    char out[GGUF_PATH_BYTES])
{
    return snprintf(out, GGUF_PATH_BYTES, "%.*s-%05u-of-%05u.gguf", (int)stem, name, number,
                    count) < GGUF_PATH_BYTES;
}
