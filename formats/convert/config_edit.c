/* One member of config.json, and where it tells of encodings. */
#include <stdlib.h>
#include <string.h>

#include "config_private.h"
#include "libckpt/config_number.h"

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

ckpt_code config_find_scheme(const char *config, const char **part, char **scheme, ckpt_error *err)
{
    static const char key[] = "quantization_config";
    ckpt_code code = json_member_text(config, key, scheme, err);

    *part = NULL;
    for (size_t i = 0; i < CONFIG_LANGUAGE_PARTS && code == CKPT_OK && !config_is_object(*scheme);
         i++) {
        char *text = NULL;

        free(*scheme);
        *scheme = NULL;
        *part = config_language_parts[i];
        code = json_member_text(config, *part, &text, err);
        if (code == CKPT_OK && config_is_object(text))
            code = json_member_text(text, key, scheme, err);
        free(text);
    }
    if (code == CKPT_OK && !config_is_object(*scheme)) {
        free(*scheme);
        *scheme = NULL;
        *part = NULL;
    }
    return code;
}
