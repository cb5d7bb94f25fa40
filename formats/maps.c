/* Looking up the compiled-in texts. */
#include "maps.h"

#include <stdio.h>
#include <string.h>

const ckpt_builtin_map *maps_find(const char *name)
{
    for (size_t i = 0; i < ckpt_builtin_map_count; i++)
        if (strcmp(ckpt_builtin_maps[i].name, name) == 0)
            return &ckpt_builtin_maps[i];
    return NULL;
}

const ckpt_builtin_map *maps_find_config(const char *name)
{
    for (size_t i = 0; i < ckpt_builtin_map_count; i++) {
        const char *dot = strchr(ckpt_builtin_maps[i].name, '.');
        const size_t length = strlen(name);

        if (dot != NULL && strncmp(dot + 1, name, length) == 0 &&
            strcmp(dot + 1 + length, ".json") == 0)
            return &ckpt_builtin_maps[i];
    }
    return NULL;
}

int maps_has(const char *family, const char *names)
{
    char name[256];

    snprintf(name, sizeof name, "%s.%s.map", family, names);
    return maps_find(name) != NULL;
}
