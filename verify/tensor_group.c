/* Layers, kinds and experts by name. */
#include "tensor_group.h"

#include <ctype.h>
#include <string.h>

#include "libckpt/size.h"

static const char rest[] = "rest";

size_t tensor_group_bytes(const char *name)
{
    return size_max(strlen(name) + 1, sizeof rest);
}

/* Length of the component that `name` begins with. */
static size_t component(const char *name)
{
    return strcspn(name, ".");
}

static int is_number(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (!isdigit((unsigned char)text[i]))
            return 0;
    return length > 0;
}

size_t tensor_layer_bytes(const char *name)
{
    const char *at = name;

    while (*at != '\0') {
        const size_t length = component(at);

        if (is_number(at, length) && at != name)
            return (size_t)(at - name) + length;
        at += length + (at[length] == '.');
    }
    return 0;
}

int tensor_same_layer(const char *a, const char *b)
{
    const size_t length = tensor_layer_bytes(a);

    return length == tensor_layer_bytes(b) && memcmp(a, b, length) == 0;
}

int tensor_same_kind(const char *a, const char *b)
{
    while (*a != '\0' && *b != '\0') {
        const size_t a_length = component(a);
        const size_t b_length = component(b);
        const int is_same = a_length == b_length && memcmp(a, b, a_length) == 0;

        if (!is_same && !(is_number(a, a_length) && is_number(b, b_length)))
            return 0;
        a += a_length + (a[a_length] == '.');
        b += b_length + (b[b_length] == '.');
    }
    return *a == *b;
}

void tensor_layer(const char *name, char *out)
{
    const size_t length = tensor_layer_bytes(name);

    if (length == 0) {
        memcpy(out, rest, sizeof rest);
        return;
    }
    memcpy(out, name, length);
    out[length] = '\0';
}

void tensor_kind(const char *name, char *out)
{
    while (*name != '\0') {
        const size_t length = component(name);

        if (is_number(name, length)) {
            *out++ = '*';
        } else {
            memcpy(out, name, length);
            out += length;
        }
        name += length;
        if (*name == '.')
            *out++ = *name++;
    }
    *out = '\0';
}
