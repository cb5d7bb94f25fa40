/* tokenizer_regex.c: regular expressions with PCRE2. */
#include "tokenizer_regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdlib.h>

enum { MESSAGE_BYTES = 128 };

struct text_regex {
    pcre2_code *code;
    pcre2_match_data *match;
};

/* Fail with the message of PCRE2. */
static ckpt_code complain(const char *what, int number, ckpt_error *err)
{
    PCRE2_UCHAR message[MESSAGE_BYTES] = "?";

    (void)pcre2_get_error_message(number, message, sizeof message);
    return ckpt_fail(err, CKPT_E_FORMAT, "regular expression '%s': %s", what,
                     (const char *)message);
}

ckpt_code text_regex_create(const char *pattern, text_regex **out, ckpt_error *err)
{
    text_regex *r = calloc(1, sizeof *r);
    PCRE2_SIZE offset;
    int number;

    if (r == NULL)
        return ckpt_fail_memory(err, "a regular expression", sizeof *r);
    /* \C could end a match inside a character, and the next search would begin there. */
    r->code = pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED,
                            PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &number, &offset,
                            NULL);
    if (r->code == NULL) {
        free(r);
        return complain(pattern, number, err);
    }
    (void)pcre2_jit_compile(r->code, PCRE2_JIT_COMPLETE);      /* on failure it is only slower */
    if ((r->match = pcre2_match_data_create_from_pattern(r->code, NULL)) == NULL) {
        text_regex_free(r);
        return ckpt_fail_memory(err, "a regular expression", sizeof *r);
    }
    *out = r;
    return CKPT_OK;
}

void text_regex_free(text_regex *regex)
{
    if (regex == NULL)
        return;
    pcre2_match_data_free(regex->match);
    pcre2_code_free(regex->code);
    free(regex);
}

ckpt_code text_regex_find(const text_regex *regex, const char *text, size_t size, size_t from,
                          size_t match[2], ckpt_error *err)
{
    const PCRE2_SIZE *at = pcre2_get_ovector_pointer(regex->match);
    const int number = pcre2_match(regex->code, (PCRE2_SPTR)text, size, from,
                                   PCRE2_NOTEMPTY | PCRE2_NO_UTF_CHECK, regex->match, NULL);

    match[0] = match[1] = size;
    if (number == PCRE2_ERROR_NOMATCH)
        return CKPT_OK;
    if (number < 0)
        return complain("of the tokenizer", number, err);
    if (at[0] < from || at[1] <= at[0])          /* possible with \K */
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "regular expression of the tokenizer: a match ends before it starts");
    match[0] = at[0];
    match[1] = at[1];
    return CKPT_OK;
}
