/* cli_values.c: from the text of an option to its target. */
#include "cli.h"

#include <assert.h>
#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli_private.h"
#include "libckpt/error.h"
#include "libckpt/machine.h"
#include "libckpt/size.h"

int cli_parse_u64(const char *text, uint64_t *out)
{
    uint64_t number = 0;

    if (*text == '\0')
        return 0;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return 0;
        if (!size_mul(number, 10, &number) || !size_add(number, (uint64_t)(*text - '0'), &number))
            return 0;
    }
    *out = number;
    return 1;
}

int cli_parse_number(const char *text, double *out)
{
    char *end;
    const double number = strtod(text, &end);

    /* strtod alone takes leading blanks, signs, hexadecimal digits, "inf" and "nan" */
    if (strspn(text, "0123456789.eE+-") != strlen(text) || end == text || *end != '\0' ||
        !isfinite(number) || signbit(number))
        return 0;
    *out = number;
    return 1;
}

/* "", "B", "M", "MB", "MiB" in any case: by what a number is multiplied. 0: it is no unit. */
static uint64_t parse_unit(const char *unit)
{
    static const char letters[] = "kmgtp";
    const char *letter;
    uint64_t base = 1000;
    uint64_t factor = 1;

    if (tolower((unsigned char)*unit) == 'b')
        return unit[1] == '\0';
    if (*unit == '\0')
        return 1;
    if ((letter = strchr(letters, tolower((unsigned char)*unit))) == NULL)
        return 0;
    unit++;
    if (tolower((unsigned char)*unit) == 'i') {
        base = 1024;
        unit++;
    }
    if (tolower((unsigned char)*unit) == 'b')
        unit++;
    for (const char *l = letters; l <= letter; l++)
        factor *= base;
    return *unit == '\0' ? factor : 0;
}

/* The fraction 0.DIGITS of `unit` bytes, rounded down. */
static uint64_t fraction_bytes(const char *digits, size_t count, uint64_t unit)
{
    uint64_t bytes = 0;

    while (count-- > 0)
        bytes = (bytes + (uint64_t)(digits[count] - '0') * unit) / 10;
    return bytes;
}

int cli_parse_size(const char *text, uint64_t *out)
{
    const size_t digit_count = strspn(text, "0123456789");
    const char *rest = text + digit_count;
    const char *fraction = rest;
    size_t fraction_count = 0;
    char digits[24];
    uint64_t unit;
    uint64_t number;

    if (digit_count >= sizeof digits)
        return 0;
    memcpy(digits, text, digit_count);
    digits[digit_count] = '\0';
    if (*rest == '.') {
        fraction = rest + 1;
        fraction_count = strspn(fraction, "0123456789");
        rest = fraction + fraction_count;
        if (fraction_count == 0)
            return 0;
    }
    if ((unit = parse_unit(rest)) == 0 || (unit == 1 && fraction_count > 0) ||
        !cli_parse_u64(digits, &number) || !size_mul(number, unit, &number) ||
        !size_add(number, fraction_bytes(fraction, fraction_count, unit), &number))
        return 0;
    *out = number;
    return 1;
}

int cli_parse_memory(const char *text, uint64_t *out)
{
    const size_t length = strlen(text);
    char digits[8];
    uint64_t percent;

    if (length == 0 || text[length - 1] != '%')
        return cli_parse_size(text, out);
    if (length > sizeof digits)
        return 0;
    memcpy(digits, text, length - 1);
    digits[length - 1] = '\0';
    if (!cli_parse_u64(digits, &percent) || percent < 1 || percent > 100)
        return 0;
    *out = machine_memory_bytes() / 100 * percent;
    return 1;
}

/* 1 if it equals one of the words of "a|b|c". */
static int is_choice(const char *words, const char *text)
{
    const size_t size = strlen(text);

    while (*words != '\0') {
        const size_t word_size = strcspn(words, "|");

        if (word_size == size && memcmp(words, text, size) == 0)
            return 1;
        words += word_size + (words[word_size] == '|');
    }
    return 0;
}

/* `source` says where the value is from: "option '--memory'", "CKPT_MEMORY". */
static ckpt_code bad_value(const char *source, const char *value, const char *expected,
                           ckpt_error *err)
{
    char near[CLI_NEAR_BYTES];

    if (!cli_find_near_word(expected, value, near))
        return ckpt_fail(err, CKPT_E_USAGE, "bad value for %s: expected %s, got '%s'", source,
                         expected, value);
    return ckpt_fail(err, CKPT_E_USAGE, "bad value for %s: expected %s, got '%s'; did you mean "
                     "'%s'?", source, expected, value, near);
}

static ckpt_code append_item(const cli_option *option, const char *value, ckpt_error *err)
{
    cli_list *list = option->target;

    if (list->count == CLI_LIST_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "option '--%s' is given more than %d times",
                         option->name, CLI_LIST_MAX);
    list->items[list->count++] = value;
    return CKPT_OK;
}

static ckpt_code set_whole(const cli_option *option, const char *source, const char *value,
                           ckpt_error *err)
{
    const int is_count = option->kind == CLI_COUNT;
    uint64_t number;

    if (!cli_parse_u64(value, &number))
        return bad_value(source, value,
                         *value != '\0' && value[strspn(value, "0123456789")] == '\0'
                             ? "at most 18446744073709551615"
                         : is_count ? "a whole number of 1 or more"
                                    : "a whole number of 0 or more", err);
    if (is_count && number == 0)
        return bad_value(source, value, "at least 1", err);
    if (option->kind == CLI_THREADS && number > CLI_THREADS_MAX)
        return bad_value(source, value, "at most 1024", err);
    *(uint64_t *)option->target = number;
    return CKPT_OK;
}

static ckpt_code set_size(const cli_option *option, const char *source, const char *value,
                          ckpt_error *err)
{
    const int is_memory = option->kind == CLI_MEMORY;
    uint64_t bytes;

    if (!(is_memory ? cli_parse_memory : cli_parse_size)(value, &bytes) || bytes == 0)
        return bad_value(source, value,
                         is_memory ? "bytes like 4096, 500M, 1.5G or 4GiB, or a part of the "
                                     "machine's memory like 50%"
                                   : "bytes like 4096, 500M, 1.5G or 4GiB", err);
    *(uint64_t *)option->target = bytes;
    return CKPT_OK;
}

/* Text of any kind, but not none, which is that of a shell variable that is not set. */
static int is_text(cli_kind kind)
{
    return kind == CLI_STRING || kind == CLI_ONCE || kind == CLI_LIST;
}

ckpt_code cli_set_option(const cli_option *option, const char *source, const char *value,
                         ckpt_error *err)
{
    if (is_text(option->kind) && *value == '\0')
        return bad_value(source, value, option->value, err);
    switch (option->kind) {
    case CLI_FLAG:
        *(int *)option->target = 1;
        return CKPT_OK;
    case CLI_STRING:
    case CLI_ONCE:
        *(const char **)option->target = value;
        return CKPT_OK;
    case CLI_SIZE:
    case CLI_MEMORY:
        return set_size(option, source, value, err);
    case CLI_U64:
    case CLI_COUNT:
    case CLI_THREADS:
        return set_whole(option, source, value, err);
    case CLI_NUMBER:
        if (!cli_parse_number(value, option->target))
            return bad_value(source, value, "a number of 0 or more", err);
        return CKPT_OK;
    case CLI_CHOICE:
        if (!is_choice(option->value, value))
            return bad_value(source, value, option->value, err);
        *(const char **)option->target = value;
        return CKPT_OK;
    case CLI_LIST:
        return append_item(option, value, err);
    case CLI_END:
    case CLI_HEADING:
        break;
    }
    assert(!"an option of unknown kind");
    return CKPT_E_USAGE;
}
