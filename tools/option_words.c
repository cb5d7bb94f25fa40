/* Words of options, each from the table that decides which are accepted. */
#include "option_words.h"

#include <stdio.h>
#include <string.h>

#include "formats/format.h"
#include "formats/maps.h"
#include "libckpt/class_rules.h"

enum { WORD_BYTES = 64 };

const char *word_of_layout(size_t i)
{
    for (size_t f = 0; ckpt_formats[f] != NULL; f++)
        if (ckpt_formats[f]->lay_out != NULL && i-- == 0)
            return ckpt_formats[f]->name;
    return NULL;
}

const char *word_of_rule(size_t i)
{
    size_t rules = 0;

    while (quantise_rule_at(rules) != NULL)
        rules++;
    if (i >= rules)
        return class_rules_preset_at(i - rules);
    return quantise_rule_at(i)->short_name != NULL ? quantise_rule_at(i)->short_name
                                                   : quantise_rule_at(i)->name;
}

/* The middle of "FAMILY.NAME.json" or "FAMILY.NAME.map"; 0: the text is of another kind. */
static int middle_of(const char *file, const char *ending, char out[WORD_BYTES])
{
    const char *begin = strchr(file, '.');
    const size_t size = strlen(file);
    size_t left;

    if (begin == NULL || size < strlen(ending) ||
        strcmp(file + size - strlen(ending), ending) != 0)
        return 0;
    left = size - strlen(ending);
    if (left <= (size_t)(begin + 1 - file) || left - (size_t)(begin + 1 - file) >= WORD_BYTES)
        return 0;
    left -= (size_t)(begin + 1 - file);
    memcpy(out, begin + 1, left);
    out[left] = '\0';
    return 1;
}

/* Is the middle of text `at` that of an earlier text? */
static int is_repeated(size_t at, const char *ending, const char *word)
{
    char earlier[WORD_BYTES];

    for (size_t i = 0; i < at; i++)
        if (middle_of(ckpt_builtin_maps[i].name, ending, earlier) && strcmp(earlier, word) == 0)
            return 1;
    return 0;
}

const char *word_of_config(size_t i)
{
    static char word[WORD_BYTES];

    for (size_t t = 0; t < ckpt_builtin_map_count; t++)
        if (middle_of(ckpt_builtin_maps[t].name, ".json", word) && i-- == 0)
            return word;
    return NULL;
}

const char *word_of_names(size_t i)
{
    static char word[WORD_BYTES];

    for (size_t t = 0; t < ckpt_builtin_map_count; t++)
        if (middle_of(ckpt_builtin_maps[t].name, ".map", word) &&
            checkpoint_layout_of_names(word) == NULL && !is_repeated(t, ".map", word) && i-- == 0)
            return word;
    return NULL;
}

/* Preset `i` is that of the i-th line "preset NAME ..." whose name no earlier line has. */
const char *word_of_preset(size_t i)
{
    static char word[WORD_BYTES];
    char earlier[1024] = " ";

    for (size_t t = 0; t < ckpt_builtin_map_count; t++) {
        const char *line = ckpt_builtin_maps[t].text;

        for (; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
            char entry[WORD_BYTES + 2];
            const size_t used = strlen(earlier);

            if (sscanf(line, "preset %63[a-z0-9.-]", word) != 1)
                continue;
            snprintf(entry, sizeof entry, "%s ", word);
            if (strstr(earlier, entry) != NULL && strstr(earlier, entry)[-1] == ' ')
                continue;
            snprintf(earlier + used, sizeof earlier - used, "%s", entry);
            if (i-- == 0)
                return word;
        }
    }
    return NULL;
}
