/* text.h: small questions about names. */
#ifndef CKPT_TEXT_H
#define CKPT_TEXT_H

#include <string.h>

/* 1 when `text` is longer than `suffix` and ends in it. */
static inline int text_ends_with(const char *text, const char *suffix)
{
    const size_t length = strlen(text);
    const size_t suffix_length = strlen(suffix);

    return length > suffix_length && strcmp(text + length - suffix_length, suffix) == 0;
}

#endif
