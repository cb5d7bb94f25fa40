/* tokenizer_regex.h: regular expressions over UTF-8. Only its source file uses PCRE2. */
#ifndef RUN_TOKENIZER_REGEX_H
#define RUN_TOKENIZER_REGEX_H

#include "libckpt/error.h"

typedef struct text_regex text_regex;

ckpt_code text_regex_create(const char *pattern, text_regex **out, ckpt_error *err);
void text_regex_free(text_regex *regex);             /* NULL is fine */

/* The first match of one byte or more in [from, size) of valid UTF-8, as [match[0], match[1]);
 * match[0] = size if there is none. Two threads must not use one regex at the same time. */
ckpt_code text_regex_find(const text_regex *regex, const char *text, size_t size, size_t from,
                          size_t match[2], ckpt_error *err);

#endif
