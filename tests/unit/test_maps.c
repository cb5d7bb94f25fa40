/* The texts that are compiled in: all of them parse, and are what their file names say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "libckpt/config_names.h"
#include "libckpt/family.h"
#include "libckpt/json.h"
#include "libckpt/map.h"
#include "formats/maps.h"

static ckpt_error err;

static int ends_with(const char *name, const char *suffix)
{
    const size_t length = strlen(name);

    return length > strlen(suffix) && strcmp(name + length - strlen(suffix), suffix) == 0;
}

static void test_every_family_parses_and_has_its_name(void **state)
{
    int seen = 0;

    (void)state;
    for (size_t i = 0; i < ckpt_builtin_map_count; i++) {
        const ckpt_builtin_map *text = &ckpt_builtin_maps[i];
        char name[256];
        ckpt_family *family = NULL;

        if (!ends_with(text->name, ".family"))
            continue;
        seen++;
        assert_int_equal(family_parse(text->text, text->text_bytes, text->name, &family, &err),
                         CKPT_OK);
        snprintf(name, sizeof name, "%s.family", family_name(family));
        assert_string_equal(text->name, name);
        snprintf(name, sizeof name, "%s.native.map", family_name(family));
        assert_non_null(maps_find(name));
        family_free(family);
    }
    assert_true(seen > 0);
}

static void test_every_map_parses_and_has_its_name(void **state)
{
    int seen = 0;

    (void)state;
    for (size_t i = 0; i < ckpt_builtin_map_count; i++) {
        const ckpt_builtin_map *text = &ckpt_builtin_maps[i];
        char name[256];
        ckpt_map *map = NULL;

        if (!ends_with(text->name, ".map"))
            continue;
        seen++;
        assert_int_equal(map_parse(text->text, text->text_bytes, text->name, &map, &err), CKPT_OK);
        snprintf(name, sizeof name, "%s.%s.map", map->family, map->names);
        assert_string_equal(text->name, name);
        map_free(map);
    }
    assert_true(seen > 0);
}

static void test_every_config_is_of_the_family_in_its_name(void **state)
{
    int seen = 0;

    (void)state;
    for (size_t i = 0; i < ckpt_builtin_map_count; i++) {
        const ckpt_builtin_map *text = &ckpt_builtin_maps[i];
        char name[256];
        const ckpt_builtin_map *owner;
        json_document *config = NULL;
        ckpt_family *family = NULL;

        if (!ends_with(text->name, ".json"))
            continue;
        seen++;
        snprintf(name, sizeof name, "%.*s.family", (int)strcspn(text->name, "."), text->name);
        owner = maps_find(name);
        assert_non_null(owner);
        assert_int_equal(json_parse(text->text, text->text_bytes, text->name, &config, &err),
                         CKPT_OK);
        assert_int_equal(family_parse(owner->text, owner->text_bytes, name, &family, &err),
                         CKPT_OK);
        assert_true(family_matches(family, json_root(config)));
        family_free(family);
        json_free(config);
    }
    assert_true(seen > 0);
}

/* The words of a line: its key, then the paths of config.json, then perhaps "=" and a value. */
static void check_key(const char *key, char *rest)
{
    const config_name *n = config_names;
    char *fallback = strstr(rest, " = ");

    while (n->name != NULL && (n->inference == NULL || strcmp(n->inference, key) != 0))
        n++;
    if (n->name == NULL) {
        assert_string_equal(key, "compress_ratios");       /* a list has no place among them */
        return;
    }
    assert_memory_equal(rest, n->name, strlen(n->name));
    rest += strlen(n->name);
    if (n->moved == NULL) {
        assert_true(*rest == '\0' || rest == fallback);
    } else {
        assert_int_equal(*rest++, ' ');
        assert_memory_equal(rest, n->moved, strlen(n->moved));
        assert_true(rest[strlen(n->moved)] == '\0' || rest + strlen(n->moved) == fallback);
    }
    if (fallback != NULL)
        assert_true(n->fallback != NULL &&
                    strtod(fallback + 3, NULL) == strtod(n->fallback, NULL));
}

/* The text from which inference/config.json is made, and the table by which it is read. */
static void test_keys_of_the_inference_code_are_what_is_read(void **state)
{
    const ckpt_builtin_map *keys = maps_find("deepseek_v4.inference.keys");
    const char *line;
    int seen = 0;

    (void)state;
    assert_non_null(keys);
    for (line = keys->text; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
        char text[256];
        size_t length;

        snprintf(text, sizeof text, "%.*s", (int)strcspn(line, "\n"), line);
        length = strcspn(text, " ");
        if (text[0] == '#' || text[length] == '\0')
            continue;
        text[length] = '\0';
        check_key(text, text + length + 1 + strspn(text + length + 1, " "));
        seen++;
    }
    for (const config_name *n = config_names; n->name != NULL; n++)
        seen -= n->inference != NULL && strcmp(n->inference, "max_seq_len") != 0;
    assert_int_equal(seen, 1);                 /* compress_ratios */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_family_parses_and_has_its_name),
        cmocka_unit_test(test_every_map_parses_and_has_its_name),
        cmocka_unit_test(test_every_config_is_of_the_family_in_its_name),
        cmocka_unit_test(test_keys_of_the_inference_code_are_what_is_read),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
