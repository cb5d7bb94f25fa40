/* Looks up members of a config by path, and evaluates expressions over them. */
#include "config_number.h"

#include <string.h>

#include "size.h"

enum { PATH_BYTES = 256 };

static const char operators[] = "+-*/%";

const char *const config_language_parts[CONFIG_LANGUAGE_PARTS] = { "text_config", "language_config",
                                                                   "llm_config" };

/* ---- members ---- */

static const json_value *walk(const json_value *value, const char *path, size_t length)
{
    char name[PATH_BYTES];

    while (length > 0 && value != NULL) {
        const char *dot = memchr(path, '.', length);
        const size_t step = dot == NULL ? length : (size_t)(dot - path);

        if (step >= sizeof name)
            return NULL;
        memcpy(name, path, step);
        name[step] = '\0';
        value = json_member(value, name);
        length -= dot == NULL ? step : step + 1;
        path += dot == NULL ? step : step + 1;
    }
    return json_is_null(value) ? NULL : value;
}

/* The first of some spellings that is present. */
static const json_value *find_here(const json_value *config, const char *paths, size_t length)
{
    const json_value *found = NULL;
    const char *end = paths + length;

    while (paths < end && found == NULL) {
        const char *bar = memchr(paths, '|', (size_t)(end - paths));
        const char *stop = bar == NULL ? end : bar;

        found = walk(config, paths, (size_t)(stop - paths));
        paths = bar == NULL ? end : bar + 1;
    }
    return found;
}

/* 1 for members that transformers take from the root, of all multimodal models here. */
static int is_of_whole_model(const char *path, size_t length)
{
    static const char *const names[] = { "model_type", "tie_word_embeddings",
                                         "quantization_config", "compression_config" };
    const char *dot = memchr(path, '.', length);
    const size_t step = dot == NULL ? length : (size_t)(dot - path);
    int found = 0;

    for (size_t i = 0; i < sizeof names / sizeof *names && !found; i++)
        found = strlen(names[i]) == step && memcmp(names[i], path, step) == 0;
    return found;
}

static const json_value *find_member(const json_value *config, const char *paths, size_t length)
{
    const json_value *found =
        is_of_whole_model(paths, length) ? find_here(config, paths, length) : NULL;

    for (size_t i = 0; i < CONFIG_LANGUAGE_PARTS && found == NULL; i++)
        found = find_here(json_member(config, config_language_parts[i]), paths, length);
    return found != NULL ? found : find_here(config, paths, length);
}

const json_value *config_member_here(const json_value *config, const char *path)
{
    return walk(config, path, strlen(path));
}

const json_value *config_member(const json_value *config, const char *path)
{
    return find_member(config, path, strlen(path));
}

int config_number(const json_value *value, uint64_t *out)
{
    int flag;

    if (!json_bool(value, &flag))
        return json_u64(value, out);
    *out = (uint64_t)(flag != 0);
    return 1;
}

/* ---- expressions ---- */

const char *config_number_step(char op, uint64_t operand, uint64_t *value)
{
    switch (op) {
    case '+':
        return size_add(*value, operand, value) ? NULL : "is over 64 bits";
    case '*':
        return size_mul(*value, operand, value) ? NULL : "is over 64 bits";
    case '-':
        if (operand > *value)
            return "is below zero";
        *value -= operand;
        return NULL;
    case '%':
        if (operand == 0)
            return "divides by zero";
        *value %= operand;
        return NULL;
    default:
        if (operand == 0)
            return "divides by zero";
        if (*value % operand != 0)
            return "is a division with a remainder";
        *value /= operand;
        return NULL;
    }
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* The length of the number or path at the begin of `text`; 0: neither. */
static size_t operand_length(const char *text)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_0123456789";
    size_t length = strspn(text, letters);

    if (is_digit(text[0]))
        return strspn(text, "0123456789") == length ? length : 0;
    while (length > 0 && (text[length] == '.' || text[length] == '|')) {
        const size_t more = strspn(text + length + 1, letters);

        if (more == 0 || is_digit(text[length + 1]))
            return 0;
        length += 1 + more;
    }
    return length;
}

int config_expression_is_valid(const char *text)
{
    for (;;) {
        const size_t length = operand_length(text);

        if (length == 0)
            return 0;
        if (text[length] == '\0')
            return 1;
        if (strchr(operators, text[length]) == NULL)
            return 0;
        text += length + 1;
    }
}

static ckpt_code operand_value(const json_value *config, const char *text, size_t length,
                               uint64_t *out, ckpt_error *err)
{
    const json_value *member;

    if (is_digit(text[0])) {
        *out = 0;
        for (size_t i = 0; i < length; i++)
            if (!size_mul(*out, 10, out) || !size_add(*out, (uint64_t)(text[i] - '0'), out))
                return ckpt_fail(err, CKPT_E_FORMAT, "the number '%s' is over 64 bits", text);
        return CKPT_OK;
    }
    member = find_member(config, text, length);
    if (member == NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "config member '%.*s' is missing", (int)length, text);
    if (!config_number(member, out))
        return ckpt_fail(err, CKPT_E_FORMAT,
                         "config member '%.*s' is not an integer of zero or more", (int)length,
                         text);
    return CKPT_OK;
}

ckpt_code config_expression(const json_value *config, const char *text, uint64_t *out,
                            ckpt_error *err)
{
    const char *at = text;
    char op = '+';

    for (*out = 0;;) {
        const size_t length = operand_length(at);
        const char *problem;
        uint64_t operand;
        ckpt_code code;

        if (length == 0)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not an expression", text);
        if ((code = operand_value(config, at, length, &operand, err)) != CKPT_OK)
            return code;
        if ((problem = config_number_step(op, operand, out)) != NULL)
            return ckpt_fail(err, CKPT_E_FORMAT, "'%s' %s", text, problem);
        if (at[length] == '\0')
            return CKPT_OK;
        op = at[length];
        at += length + 1;
    }
}
