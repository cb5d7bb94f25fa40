/* Reads the argument of --config. */
#include "given_config.h"

#include <stdio.h>
#include <string.h>

#include "format.h"
#include "maps.h"
#include "libckpt/file.h"

int given_config_is_builtin(const char *given)
{
    return maps_find_config(given) != NULL;
}

/* " flash pro tiny", from the names FAMILY.NAME.json. */
static void list_builtins(char *out, size_t out_bytes)
{
    size_t used = 0;

    out[0] = '\0';
    for (size_t i = 0; i < ckpt_builtin_map_count && used < out_bytes; i++) {
        const char *name = ckpt_builtin_maps[i].name;
        const char *begin = strchr(name, '.');
        const char *end = strstr(name, ".json");

        if (begin != NULL && end != NULL && end > begin)
            used += (size_t)snprintf(out + used, out_bytes - used, " %.*s",
                                     (int)(end - begin - 1), begin + 1);
    }
}

ckpt_code given_config_read(const char *given, char **out, size_t *size, ckpt_error *err)
{
    const ckpt_builtin_map *builtin = maps_find_config(given);
    char names[256];

    *out = NULL;
    *size = 0;
    if (builtin != NULL) {
        *size = builtin->text_bytes;
        *out = strndup(builtin->text, builtin->text_bytes);
        return *out == NULL ? ckpt_fail_memory(err, "a config", builtin->text_bytes) : CKPT_OK;
    }
    if (strcmp(given, "-") == 0 || file_exists(given))
        return file_read_named(given, CONFIG_BYTES_MAX, out, size, err);
    list_builtins(names, sizeof names);
    return ckpt_fail(err, CKPT_E_USAGE, "--config '%s': there is no such file, and no built-in "
                     "config of this name, of which there are:%s", given, names);
}
