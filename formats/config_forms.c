/* One config.json out of its spellings. */
#include "config_forms.h"

const json_value *config_member(const json_value *config, const char *key)
{
    static const char *const parts[] = { "text_config", "language_config", "llm_config" };
    const json_value *found = json_member(config, key);

    for (size_t i = 0; i < sizeof parts / sizeof *parts && found == NULL; i++)
        found = json_member(json_member(config, parts[i]), key);
    return found;
}
