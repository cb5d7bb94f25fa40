/* fuzz_family.c: family texts against the tiny config, and configs against DeepSeek's text.
 * An input that starts with a brace is a config. Run from the top folder. */
#include <stdlib.h>

#include "formats/maps.h"
#include "libckpt/family.h"

#define MAPS "formats/maps/"

enum { TEXT_BYTES_MAX = 1 << 20 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ckpt_family *deepseek;
static json_document *tiny;

static void load(void)
{
    const ckpt_builtin_map *text = maps_find("deepseek_v4.family");
    ckpt_error err;

    if (family_parse(text->text, text->text_bytes, text->name, &deepseek, &err) != CKPT_OK ||
        json_parse_file(MAPS "deepseek_v4.tiny.json", TEXT_BYTES_MAX, &tiny, &err) != CKPT_OK) {
        fprintf(stderr, "%s\n", err.text);
        abort();
    }
}

static void expand(const ckpt_family *family, const json_value *config)
{
    ckpt_catalog *catalog;
    ckpt_error err;

    family_matches(family, config);
    if (family_expand(family, config, &catalog, &err) == CKPT_OK) {
        /* What was made must be whole: names are found again, and sizes do not overflow. */
        for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
            const ckpt_tensor *tensor = ckpt_catalog_at(catalog, i);

            if (ckpt_catalog_find(catalog, tensor->name) != (int64_t)i ||
                catalog_check_shape(tensor, &err) != CKPT_OK)
                abort();
        }
        catalog_free(catalog);
    }
    if (family_expand_optional(family, config, &catalog, &err) == CKPT_OK)
        catalog_free(catalog);
    family_has_optional(family, config, "mtp.0.head.weight");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *text = (const char *)data;
    json_document *config;
    ckpt_family *family;
    ckpt_error err;

    if (deepseek == NULL)
        load();
    if (size > 0 && data[0] == '{') {
        if (json_parse(text, size, "input", &config, &err) == CKPT_OK) {
            expand(deepseek, json_root(config));
            json_free(config);
        }
        return 0;
    }
    if (family_parse(text, size, "input", &family, &err) == CKPT_OK) {
        expand(family, json_root(tiny));
        family_free(family);
    }
    return 0;
}
