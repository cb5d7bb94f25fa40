/* One member of config.json. */
#include <stdlib.h>
#include <string.h>

#include "config_private.h"

ckpt_code config_edit(char **text, const char *key, const char *value, ckpt_error *err)
{
    char *edited;
    const ckpt_code code = json_edit(*text, key, value, &edited, err);

    if (code != CKPT_OK)
        return code;
    free(*text);
    *text = edited;
    return CKPT_OK;
}

ckpt_code config_update(char **text, const char *key, const char *value, ckpt_error *err)
{
    char *now = NULL;
    ckpt_code code = json_member_text(*text, key, &now, err);

    if (code == CKPT_OK && ((now == NULL) != (value == NULL) ||
                            (now != NULL && strcmp(now, value) != 0)))
        code = config_edit(text, key, value, err);
    free(now);
    return code;
}
