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

void tensor_layer(const char *name, char *out)
{
    const char *at = name;

    while (*at != '\0') {
        const size_t length = component(at);

        if (is_number(at, length) && at != name) {
            memcpy(out, name, (size_t)(at - name) + length);
            out[(size_t)(at - name) + length] = '\0';
            return;
        }
        at += length + (at[length] == '.');
    }
    memcpy(out, rest, sizeof rest);
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
