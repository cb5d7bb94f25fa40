/* The table of names. */
#include "tensor_class.h"

#include <stdio.h>
#include <string.h>

#include "map.h"
#include "text.h"

#define EXPERTS "experts"

typedef enum {
    NUMBERED,                      /* a component that is followed by a number */
    COMPONENT,                     /* not the last one */
    ANYWHERE
} match_kind;

/* The first line that matches decides. */
static const struct {
    const char *word;
    match_kind match;
    tensor_class class;
} conventions[] = {
    { EXPERTS, NUMBERED, TENSOR_EXPERT },
    { "shared_experts", COMPONENT, TENSOR_SHARED_EXPERT },
    { "shared_expert", COMPONENT, TENSOR_SHARED_EXPERT },
    { EXPERTS, ANYWHERE, TENSOR_EXPERT_STACK },
    { "norm", ANYWHERE, TENSOR_NORM },
    { "attn", COMPONENT, TENSOR_ATTENTION },
    { "self_attn", COMPONENT, TENSOR_ATTENTION },
    { "gate_proj", ANYWHERE, TENSOR_DENSE },
    { "gate", ANYWHERE, TENSOR_ROUTER },
    { "router", ANYWHERE, TENSOR_ROUTER },
    { "tid2eid", ANYWHERE, TENSOR_ROUTER },
    { "attn", ANYWHERE, TENSOR_ATTENTION },
    { "attention", ANYWHERE, TENSOR_ATTENTION },
    { "embed", ANYWHERE, TENSOR_EMBEDDING },
    { "lm_head", ANYWHERE, TENSOR_EMBEDDING },
    { "head.", ANYWHERE, TENSOR_EMBEDDING },
    { "mlp", ANYWHERE, TENSOR_DENSE },
    { "ffn", ANYWHERE, TENSOR_DENSE },
    { "proj", ANYWHERE, TENSOR_DENSE },
};

/* 1 when one of the components of a dotted name, but the last, is `word`. */
static int is_below(const char *name, const char *word)
{
    const size_t length = strlen(word);

    for (const char *at = name; at != NULL; at = strchr(at, '.')) {
        at += *at == '.';
        if (strncmp(at, word, length) == 0 && at[length] == '.')
            return 1;
    }
    return 0;
}

const char *tensor_expert_number(const char *name, size_t *digits)
{
    static const char word[] = EXPERTS ".";

    for (const char *at = strstr(name, word); at != NULL; at = strstr(at + 1, word)) {
        const char *number = at + sizeof word - 1;

        *digits = strspn(number, "0123456789");
        if ((at == name || at[-1] == '.') && *digits > 0)
            return number;
    }
    return NULL;
}

int tensor_is_wo_a(const char *name)
{
    return text_ends_with(name, ".attn.wo_a.weight");
}

int tensor_fused_partner(const char *name, char *out, size_t out_bytes)
{
    static const char *const pairs[][2] = { { ".w1.", ".w3." }, { ".gate_proj.", ".up_proj." } };

    for (size_t i = 0; i < 2 * sizeof pairs / sizeof *pairs; i++) {
        const char *word = pairs[i / 2][i % 2];
        const char *other = pairs[i / 2][1 - i % 2];
        const char *at = strstr(name, word);

        if (at != NULL && strchr(at + strlen(word), '.') == NULL)
            return (size_t)snprintf(out, out_bytes, "%.*s%s%s", (int)(at - name), name, other,
                                    at + strlen(word)) < out_bytes;
    }
    return 0;
}

tensor_class tensor_class_of(const char *name)
{
    size_t digits;

    if (pair_is_scale_name(name))
        return TENSOR_SCALE;
    for (size_t i = 0; i < sizeof conventions / sizeof *conventions; i++) {
        const char *word = conventions[i].word;
        const match_kind match = conventions[i].match;

        if (match == NUMBERED    ? tensor_expert_number(name, &digits) != NULL
            : match == COMPONENT ? is_below(name, word)
                                 : strstr(name, word) != NULL)
            return conventions[i].class;
    }
    return TENSOR_OTHER;
}
