/* test_map.c: maps: their text, their patterns, and that reading undoes writing. */
#include "libckpt/map.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "libckpt/family.h"
#include "formats/maps.h"

#define HEAD "map f n\nscale .scale\n"

static const map_read_options strict = { .encodings = 1u << ENCODING_FP8_128 |
                                                      1u << ENCODING_FP4_32 };

static ckpt_map *parse(const char *text)
{
    ckpt_error err;
    ckpt_map *map;

    if (map_parse(text, strlen(text), "text", &map, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    return map;
}

/* ---- patterns ---- */

static void test_placeholders_take_one_component_or_the_rest(void **state)
{
    static const struct {
        const char *pattern;
        const char *name;
        int fits;
    } cases[] = {
        { "a.{l}.b", "a.0.b", 1 },       { "a.{l}.b", "a..b", 0 },
        { "a.{l}.b", "a.0.1.b", 0 },     { "a.{l}", "a.xyz", 1 },
        { "a.{l}", "a.x.y", 0 },         { "a.{x*}", "a.x.y", 1 },
        { "a.{x*}", "a.", 0 },           { "{x*}", "a.b", 1 },
        { "{l}.{l}", "1.1", 1 },         { "{l}.{l}", "1.2", 0 },
        { "a", "a", 1 },                 { "a", "ab", 0 },
        { "ab", "a", 0 },                { "", "", 1 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        map_captures captures = { .count = 0 };

        if (map_match(cases[i].pattern, cases[i].name, &captures) != cases[i].fits)
            fail_msg("'%s' and '%s'", cases[i].pattern, cases[i].name);
    }
}

static void test_expanding_gives_the_name_back(void **state)
{
    map_captures captures = { .count = 0 };
    char name[MAP_NAME_BYTES];
    char large[2 * MAP_NAME_BYTES];

    (void)state;
    assert_true(map_match("l.{l}.e.{e}.{x*}", "l.12.e.7.w1.weight", &captures));
    assert_true(map_expand("{e}.{x*}.{l}", &captures, name));
    assert_string_equal(name, "7.w1.weight.12");
    assert_false(map_expand("{m}", &captures, name));
    memset(large, 'x', sizeof large - 1);
    large[sizeof large - 1] = '\0';
    captures.count = 0;
    assert_true(map_match("{x*}", large, &captures));
    assert_false(map_expand("{x*}", &captures, name));
}

static void test_the_first_line_that_fits_counts(void **state)
{
    ckpt_map *map = parse(HEAD "tensor a.{x} = first.{x}\ntensor a.b = second\n");
    map_captures captures;
    const map_rule *rule = map_find_stored(map, "a.b", &captures);

    (void)state;
    assert_non_null(rule);
    assert_string_equal(rule->pieces[0].logical, "first.{x}");
    assert_null(map_find_stored(map, "b", &captures));
    map_free(map);
}

/* ---- text ---- */

typedef struct {
    const char *text;
    const char *says;
} bad_text;

static void refuse_texts(const bad_text *cases, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        ckpt_error err;
        ckpt_map *map;

        if (map_parse(cases[i].text, strlen(cases[i].text), "my.map", &map, &err) !=
            CKPT_E_FORMAT)
            fail_msg("accepted: %s", cases[i].text);
        assert_non_null(strstr(err.text, "'my.map'"));
        if (strstr(err.text, cases[i].says) == NULL)
            fail_msg("%s: %s", cases[i].text, err.text);
    }
}

static void test_texts_that_are_no_maps_are_refused_with_their_line(void **state)
{
    static const bad_text cases[] = {
        { "", "no line" },
        { "map f n\n", "no line" },
        { "scale .scale\n", "no line" },
        { "map f n\nscale .s\n", "line 2: no weight is found by a scale with the suffix '.s'" },
        { "map f n\nscale _scale_inv\n", "line 2" },
        { HEAD "hello\n", "line 3" },
        { HEAD "tensor a\n", "line 3" },
        { HEAD "tensor a b\n", "line 3" },
        { HEAD "tensor a =\n", "line 3" },
        { HEAD "\n\ntensor {x = y\n", "line 5" },
        { HEAD "tensor {} = y\n", "line 3" },
        { HEAD "tensor {x*}.a = y\n", "line 3" },
        { HEAD "tensor {x}y = z\n", "line 3" },
        { HEAD "tensor {x{y}} = z\n", "line 3" },
        { HEAD "drop a\n", "line 3" },
        { HEAD "map g m\n", "line 3" },
        { HEAD "scale .other\n", "line 3" },
        { HEAD "shard a tp\n", "line 3" },
        { HEAD "shard a tp=8\n", "line 3" },
        { HEAD "shard a tp=0 tp=1\n", "line 3" },
        { HEAD "shard a xp=0\n", "line 3" },
        { HEAD "shard a tp=0 halves=3\n", "line 3" },
        { HEAD "stage a\n", "line 3" },
        { HEAD "stage a last\n", "line 3" },
        { HEAD "arg a\n", "line 3" },
        { HEAD "arg a b c\n", "line 3" },
        { HEAD "arg a b**c\n", "line 3" },
        { HEAD "dialect\n", "line 3" },
        { HEAD "dialect a b c\n", "line 3" },
        { HEAD "tensor a = b if c\n", "line 3" },
        { HEAD "tensor a = b if c = d\n", "line 3" },
        { HEAD "tensor a = b if c < 1\n", "line 3" },
        { HEAD "tensor a = b if c = 1 d\n", "line 3" },
        { HEAD "tensor a = b if c = 99999999999999999999\n", "line 3" },
        { HEAD "preset\n", "line 3" },
        { HEAD "preset a dp=2\n", "line 3" },
        { HEAD "preset a tp=2 tp=2\n", "line 3" },
        { HEAD "preset a tp=0\n", "line 3" },
        { HEAD "preset a tp=x\n", "line 3" },
        { HEAD "stage a.{l} a\n", "line 3" },
        { HEAD "extra a\n", "line 3" },
        { HEAD "extra a full\n", "line 3" },
        { HEAD "cut a\n", "line 3" },
        { HEAD "cut a 3\n", "line 3" },
        { HEAD "cut a b**c padding\n", "line 3" },
        { HEAD "encode a\n", "line 3" },
        { HEAD "encode a B16\n", "line 3" },
        { HEAD "plain a\n", "line 3" },
        { HEAD "module a.weight\n", "line 3" },
        { HEAD "module a.weight 1 2 3 4 5\n", "line 3" },
    };

    (void)state;
    refuse_texts(cases, sizeof cases / sizeof *cases);
}

static void test_packing_that_is_not_one_is_refused_with_its_line(void **state)
{
    static const bad_text cases[] = {
        { HEAD "tensor a = stack(b)\n", "line 3" },
        { HEAD "tensor a = stack(e, b)\n", "line 3" },
        { HEAD "tensor a = stack({e*}, b)\n", "line 3" },
        { HEAD "tensor a = concat()\n", "line 3" },
        { HEAD "tensor a = concat(a,b,c,d,e,f,g,h,i)\n", "line 3" },
        { HEAD "tensor a = concat(a,b\n", "line 3" },
        { HEAD "copy a = concat(b, c)\n", "line 3" },
        { HEAD "copy a = part(b, 0/2)\n", "line 3" },
        { HEAD "copy a = b when c\n", "line 3" },
        { HEAD "tensor a = b when\n", "line 3" },
        { HEAD "tensor a = b when c d\n", "line 3" },
        { HEAD "tensor a = b:\n", "line 3" },
        { HEAD "tensor a = b:0\n", "line 3" },
        { HEAD "tensor a = b:1/0\n", "'1/0' divides by zero" },
        { HEAD "tensor a = b:2+\n", "line 3" },
        { HEAD "tensor a = b:k..l\n", "line 3" },
        { HEAD "tensor a = part(b)\n", "line 3" },
        { HEAD "tensor a = part(b, 3/3)\n", "line 3" },
        { HEAD "tensor a = part(b, 0, 1)\n", "line 3" },
        { HEAD "tensor a = part(b, 2, 2, 3)\n", "line 3" },
        { HEAD "tensor a = interleave(2)\n", "line 3" },
        { HEAD "tensor a = interleave(0, b, c)\n", "line 3" },
        { HEAD "tensor a = interleave({x}, b, c)\n", "line 3" },
        { HEAD "tensor a = stack({e}, stack({l}, stack({m}, b)))\n", "line 3" },
        { HEAD "tensor a = stack({e+1}, b)\n", "line 3" },
        { HEAD "tensor {m+} = b\n", "line 3" },
        { HEAD "tensor {+k} = b\n", "line 3" },
        { HEAD "tensor {m*+k} = b\n", "line 3" },
        { HEAD "tensor {m+k+} = b\n", "line 3" },
        { HEAD "copy a = stack({e}, b)\n", "line 3" },
        { HEAD "stage a.{l} {m}\n", "line 3" },
    };

    (void)state;
    refuse_texts(cases, sizeof cases / sizeof *cases);
}

/* The logical tensor that `name` is of, by a map that is bound to this config. */
static void assert_bound(const char *lines, const char *config, const char *name,
                         const char *logical)
{
    char text[512];
    json_document *document = NULL;
    ckpt_map *map;
    const map_rule *rule;
    map_captures captures;

    snprintf(text, sizeof text, HEAD "%s", lines);
    assert_int_equal(map_parse(text, strlen(text), "test", &map, NULL), CKPT_OK);
    assert_int_equal(json_parse(config, strlen(config), "config", &document, NULL), CKPT_OK);
    assert_int_equal(map_bind(map, json_root(document), NULL), CKPT_OK);
    rule = map_find_stored(map, name, &captures);
    if (logical == NULL)
        assert_null(rule);
    else
        assert_string_equal(rule->pieces[0].logical, logical);
    json_free(document);
    map_free(map);
}

static void test_a_condition_chooses_lines_by_the_config(void **state)
{
    static const char lines[] = "tensor a = b if on = 0\ntensor a = c when d if on != 0\n"
                                "tensor e = f if text.on = 2\n";

    (void)state;
    assert_bound(lines, "{}", "a", "b");
    assert_bound(lines, "{\"on\": null}", "a", "b");
    assert_bound(lines, "{\"on\": false}", "a", "b");
    assert_bound(lines, "{\"on\": true}", "a", "c");
    assert_bound(lines, "{\"on\": 7}", "a", "c");
    assert_bound(lines, "{\"on\": 2}", "e", NULL);
    assert_bound(lines, "{\"text\": {\"on\": 2}}", "e", "f");
    assert_bound("tensor a = b if 1 = 0\ntensor a = c if 1 != 0\n", "{}", "a", "c");
    /* A line that does not count needs no other member. */
    assert_bound("tensor a = interleave(none, b) if on = 1\ntensor a = c\n", "{}", "a", "c");
}

static void test_a_condition_on_what_is_no_number_is_refused(void **state)
{
    static const char text[] = HEAD "tensor a = b if on = 1\n";
    static const char config[] = "{\"on\": \"yes\"}";
    json_document *document = NULL;
    ckpt_error err;
    ckpt_map *map;

    (void)state;
    assert_int_equal(map_parse(text, strlen(text), "test", &map, NULL), CKPT_OK);
    assert_int_equal(json_parse(config, strlen(config), "config", &document, NULL), CKPT_OK);
    assert_int_equal(map_bind(map, json_root(document), &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "'on' is not a number"));
    json_free(document);
    map_free(map);
}

static void test_maps_are_the_same_when_their_lines_are(void **state)
{
    static const struct {
        const char *text;
        int same;
    } cases[] = {
        { "dialect other arg\ntensor a = concat(part(b, 1/2), part(b, 0/2))\n", 1 },
        { "tensor a = concat(part(b, 1/2), part(b, 0/2))\nshard a tp=0\n", 1 },
        { "tensor a = concat(part(b, 0/2), part(b, 1/2))\n", 0 },
        { "tensor a = b\n", 0 },
        { "tensor a = cols(b, b)\n", 0 },
        { "tensor a = concat(part(b, 1/2), part(b, 0/2)) when b\n", 0 },
        { "tensor a = stack({e}, concat(part(b.{e}, 1/2), part(b.{e}, 0/2)))\n", 0 },
        { "tensor c = concat(part(b, 1/2), part(b, 0/2))\n", 0 },
        { "", 0 },
    };
    char text[256];
    ckpt_map *first;

    (void)state;
    snprintf(text, sizeof text, HEAD "dialect own\n%s", strchr(cases[0].text, '\n') + 1);
    assert_int_equal(map_parse(text, strlen(text), "test", &first, NULL), CKPT_OK);
    assert_string_equal(map_find_dialect(first, "own")->name, "own");
    assert_null(map_find_dialect(first, "other"));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ckpt_map *map;

        snprintf(text, sizeof text, HEAD "%s", cases[i].text);
        assert_int_equal(map_parse(text, strlen(text), "test", &map, NULL), CKPT_OK);
        assert_int_equal(map_same_rules(first, map), cases[i].same);
        map_free(map);
    }
    map_free(first);
}

static void test_lines_for_trainers_have_numbers(void **state)
{
    ckpt_map *map = parse(HEAD "arg num_experts experts|num_experts\narg kv d\narg kv D/H\n"
                               "arg kv none\npreset small tp=2 pp=3 first=1\n"
                               "stage s.{x*} stacked\n");
    uint64_t layer = 7;

    (void)state;
    assert_int_equal(map->arg_count, 4);
    assert_string_equal(map->args[0].name, "num_experts");
    assert_string_equal(map->args[0].expression, "experts|num_experts");
    assert_string_equal(map->args[2].expression, "D/H");
    assert_null(map->args[3].expression);
    assert_int_equal(map->preset_count, 1);
    assert_string_equal(map->presets[0].name, "small");
    assert_int_equal(map->presets[0].numbers[PRESET_TP], 2);
    assert_int_equal(map->presets[0].numbers[PRESET_PP], 3);
    assert_int_equal(map->presets[0].numbers[PRESET_EP], 0);
    assert_int_equal(map->presets[0].numbers[PRESET_FIRST], 1);
    assert_int_equal(map_find_stage(map, "s.w", &layer), MAP_STAGE_STACKED);
    map_free(map);
}

static void test_lines_for_ranks_say_who_has_what(void **state)
{
    ckpt_map *map = parse(HEAD "shard a.{l}.w tp=1 etp=0 halves=2 groups=g\nstage a.{l}.{x*} {l}\n"
                               "stage b.{x*} first\nextra a.{l}.w none\nextra b.w empty\n");
    map_captures captures;
    const map_shard *shard = map_find_shard(map, "a.7.w", &captures);
    uint64_t layer = 99;

    (void)state;
    assert_non_null(shard);
    assert_true(shard->axes[MAP_TP].cut && shard->axes[MAP_ETP].cut && !shard->axes[MAP_EP].cut);
    assert_int_equal(shard->axes[MAP_TP].dimension, 1);
    assert_int_equal(shard->halves, 2);
    assert_string_equal(shard->groups, "g");
    assert_null(map_find_shard(map, "a.7.v", &captures));
    assert_int_equal(map_find_stage(map, "a.12.v", &layer), MAP_STAGE_LAYER);
    assert_int_equal(layer, 12);
    assert_int_equal(map_find_stage(map, "b.w", &layer), MAP_STAGE_FIRST);
    assert_int_equal(map_find_stage(map, "c", &layer), MAP_STAGE_LAST);
    assert_int_equal(map_find_stage(map, "a.x.v", &layer), MAP_STAGE_LAST);
    assert_true(map_find_extra(map, "a.0.w")->is_none);
    assert_false(map_find_extra(map, "b.w")->is_none);
    assert_null(map_find_extra(map, "a.0.v"));
    map_free(map);
}

static void test_comments_blanks_and_line_ends_do_not_matter(void **state)
{
    ckpt_map *map = parse("# a map\r\n\r\nmap f n # names\n\tscale\t.scale\r\n"
                          "tensor  a.{e}  =  stack( {e} , concat( b.{e} ,\tc.{e} ) ) # packed");

    (void)state;
    assert_int_equal(map->rule_count, 1);
    assert_int_equal(map->rules[0].piece_count, 2);
    assert_string_equal(map->rules[0].stacks[0], "{e}");
    assert_string_equal(map->rules[0].pieces[1].logical, "c.{e}");
    map_free(map);
}

/* ---- reading ---- */

static void add(ckpt_catalog *catalog, const char *name, ckpt_dtype dtype, uint64_t rows,
                uint64_t cols)
{
    const ckpt_tensor t = { .name = name, .dtype = dtype, .rank = 2, .shape = { rows, cols } };

    assert_int_equal(catalog_add(catalog, &t, NULL), CKPT_OK);
}

static void test_every_stored_tensor_has_a_fate(void **state)
{
    ckpt_map *map = parse(HEAD "copy c = a\ndrop d of no use\ntensor {x*} = {x*}\n");
    ckpt_catalog *stored = catalog_create();
    map_reading reading;
    ckpt_error err;

    (void)state;
    add(stored, "c", CKPT_BF16, 2, 2);
    add(stored, "a", CKPT_BF16, 2, 2);
    add(stored, "d", CKPT_BF16, 2, 2);
    add(stored, "w.weight", CKPT_F8_E4M3, 2, 2);
    add(stored, "w.scale", CKPT_F32, 1, 1);
    assert_int_equal(map_read(map, stored, &strict, &reading, &err), CKPT_OK);
    assert_int_equal(ckpt_catalog_count(reading.logical), 2);
    assert_int_equal(reading.fates[0].kind, FATE_COPY);
    assert_int_equal(reading.fates[1].kind, FATE_USED);
    assert_int_equal(reading.fates[2].kind, FATE_DROPPED);
    assert_string_equal(reading.fates[2].reason, "of no use");
    assert_int_equal(reading.fates[3].kind, FATE_USED);
    assert_int_equal(reading.fates[4].kind, FATE_SCALE);
    assert_int_equal(reading.fates[4].logical, ckpt_catalog_find(reading.logical, "w.weight"));
    map_reading_release(&reading);
    catalog_free(stored);
    map_free(map);
}

static void refuse(const char *text, ckpt_catalog *stored, const char *says)
{
    ckpt_map *map = parse(text);
    map_reading reading;
    ckpt_error err;

    assert_int_equal(map_read(map, stored, &strict, &reading, &err), CKPT_E_FORMAT);
    if (strstr(err.text, says) == NULL)
        fail_msg("%s", err.text);
    catalog_free(stored);
    map_free(map);
}

static void test_what_a_map_does_not_explain_is_refused(void **state)
{
    ckpt_catalog *stored = catalog_create();

    (void)state;
    add(stored, "a", CKPT_BF16, 2, 2);
    refuse(HEAD "tensor b = b\n", stored, "'a'");
    stored = catalog_create();
    add(stored, "a", CKPT_BF16, 2, 2);
    add(stored, "b", CKPT_BF16, 2, 2);
    refuse(HEAD "tensor {x*} = same\n", stored, "'same'");
    stored = catalog_create();
    add(stored, "c", CKPT_BF16, 2, 2);
    refuse(HEAD "copy c = a\n", stored, "'a'");
    stored = catalog_create();
    add(stored, "a", CKPT_BF16, 2, 2);
    add(stored, "c", CKPT_BF16, 2, 3);
    refuse(HEAD "copy c = a\ntensor a = a\n", stored, "'c'");
    stored = catalog_create();
    add(stored, "p", CKPT_BF16, 3, 2);
    refuse(HEAD "tensor p = concat(a, b)\n", stored, "'p'");
    stored = catalog_create();
    add(stored, "p", CKPT_BF16, 4, 3);
    refuse(HEAD "tensor p = stack({e}, concat(a.{e}, b.{e}))\n", stored, "'p'");
}

/* ---- there and back, for every built-in map ---- */

static ckpt_catalog *official(const char *config_name)
{
    const ckpt_builtin_map *text = maps_find("deepseek_v4.family");
    const ckpt_builtin_map *config_text = maps_find(config_name);
    json_document *config;
    ckpt_family *family;
    ckpt_catalog *out;
    ckpt_error err;

    if (family_parse(text->text, text->text_bytes, "family", &family, &err) != CKPT_OK ||
        json_parse(config_text->text, config_text->text_bytes, "config", &config, &err) !=
            CKPT_OK ||
        family_expand(family, json_root(config), &out, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    json_free(config);
    family_free(family);
    return out;
}

static void check_inverse(const ckpt_map *map, const ckpt_catalog *logical)
{
    const map_write_input input = { map, logical, NULL };
    ckpt_catalog *stored = catalog_create();
    map_reading reading;
    ckpt_layout *layout;
    ckpt_error err;

    if (map_write(&input, stored, &layout, &err) != CKPT_OK ||
        map_read(map, stored, &strict, &reading, &err) != CKPT_OK)
        fail_msg("%s: %s", map->names, err.text);
    assert_int_equal(ckpt_catalog_count(reading.logical), ckpt_catalog_count(logical));
    for (size_t i = 0; i < ckpt_catalog_count(logical); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(logical, i);
        const int64_t found = ckpt_catalog_find(reading.logical, t->name);
        const ckpt_tensor *back = ckpt_catalog_at(reading.logical, (size_t)found);

        if (found < 0 || !catalog_same_shape(t, back) || !catalog_same_encoding(t, back) ||
            (t->dtype == CKPT_F4 && t->stored_dtype != back->stored_dtype))
            fail_msg("%s: '%s' does not come back", map->names, t->name);
        for (int part = 0; part < CKPT_PART_COUNT; part++) {
            const layout_extent *a;
            const layout_extent *a_end;
            const layout_extent *b;
            const layout_extent *b_end;

            layout_extents(layout, i, (ckpt_part)part, &a, &a_end);
            layout_extents(reading.layout, (size_t)found, (ckpt_part)part, &b, &b_end);
            assert_int_equal(a_end - a, b_end - b);
            for (; a < a_end; a++, b++)
                if (a->stored != b->stored || a->stored_row != b->stored_row ||
                    a->stored_col != b->stored_col || a->row_count != b->row_count)
                    fail_msg("%s: '%s' lies elsewhere", map->names, t->name);
        }
    }
    map_reading_release(&reading);
    layout_free(layout);
    catalog_free(stored);
}

static void test_built_in_maps_read_what_they_write(void **state)
{
    static const char *const names[] = { "native", "sglang", "transformers" };
    static const char *const configs[] = { "deepseek_v4.tiny.json", "deepseek_v4.flash.json" };

    (void)state;
    for (int c = 0; c < 2; c++) {
        ckpt_catalog *logical = official(configs[c]);

        for (int i = 0; i < 3; i++) {
            char name[64];
            const ckpt_builtin_map *text;
            ckpt_map *map;

            snprintf(name, sizeof name, "deepseek_v4.%s.map", names[i]);
            text = maps_find(name);
            assert_int_equal(map_parse(text->text, text->text_bytes, name, &map, NULL), CKPT_OK);
            check_inverse(map, logical);
            map_free(map);
        }
        catalog_free(logical);
    }
}

static void test_packing_takes_pieces_in_any_order_and_misses_none(void **state)
{
    ckpt_map *map = parse(HEAD "tensor p = stack({e}, concat(a.{e}, b.{e}))\n");
    static const char *const names[] = { "b.1", "a.0", "a.1", "b.0" };
    ckpt_catalog *logical = catalog_create();
    ckpt_catalog *stored = catalog_create();
    const map_write_input input = { map, logical, NULL };
    const layout_extent *begin;
    const layout_extent *end;
    ckpt_layout *layout;
    ckpt_error err;

    (void)state;
    for (int i = 0; i < 4; i++) {
        if (i == 3) {
            assert_int_equal(map_write(&input, stored, &layout, &err), CKPT_E_USAGE);
            assert_non_null(strstr(err.text, "'p'"));
            catalog_free(stored);
            stored = catalog_create();
        }
        add(logical, names[i], CKPT_BF16, 3, 5);
    }
    const map_write_input all = { map, logical, NULL };

    assert_int_equal(map_write(&all, stored, &layout, &err), CKPT_OK);
    assert_int_equal(ckpt_catalog_count(stored), 1);
    assert_int_equal(ckpt_catalog_at(stored, 0)->rank, 3);
    assert_int_equal(ckpt_catalog_at(stored, 0)->shape[0], 2);
    assert_int_equal(ckpt_catalog_at(stored, 0)->shape[1], 6);
    layout_extents(layout, 0, CKPT_DATA, &begin, &end);       /* b.1: the last three rows */
    assert_int_equal(begin->stored_row, 9);
    layout_extents(layout, 1, CKPT_DATA, &begin, &end);
    assert_int_equal(begin->stored_row, 0);
    layout_free(layout);
    catalog_free(stored);
    catalog_free(logical);
    map_free(map);
}

static void test_packing_needs_pieces_of_one_kind(void **state)
{
    ckpt_map *map = parse(HEAD "tensor p = concat(a, b)\n");

    (void)state;
    for (int i = 0; i < 2; i++) {
        ckpt_catalog *logical = catalog_create();
        ckpt_catalog *stored = catalog_create();
        const map_write_input input = { map, logical, NULL };
        ckpt_layout *layout;
        ckpt_error err;

        add(logical, "a", CKPT_BF16, 2, 4);
        add(logical, "b", i == 0 ? CKPT_F32 : CKPT_BF16, 2, i == 0 ? 4 : 5);
        assert_int_equal(map_write(&input, stored, &layout, &err), CKPT_E_USAGE);
        assert_non_null(strstr(err.text, "'p'"));
        catalog_free(stored);
        catalog_free(logical);
    }
    map_free(map);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_placeholders_take_one_component_or_the_rest),
        cmocka_unit_test(test_expanding_gives_the_name_back),
        cmocka_unit_test(test_the_first_line_that_fits_counts),
        cmocka_unit_test(test_texts_that_are_no_maps_are_refused_with_their_line),
        cmocka_unit_test(test_packing_that_is_not_one_is_refused_with_its_line),
        cmocka_unit_test(test_a_condition_chooses_lines_by_the_config),
        cmocka_unit_test(test_a_condition_on_what_is_no_number_is_refused),
        cmocka_unit_test(test_maps_are_the_same_when_their_lines_are),
        cmocka_unit_test(test_lines_for_trainers_have_numbers),
        cmocka_unit_test(test_lines_for_ranks_say_who_has_what),
        cmocka_unit_test(test_comments_blanks_and_line_ends_do_not_matter),
        cmocka_unit_test(test_every_stored_tensor_has_a_fate),
        cmocka_unit_test(test_what_a_map_does_not_explain_is_refused),
        cmocka_unit_test(test_built_in_maps_read_what_they_write),
        cmocka_unit_test(test_packing_takes_pieces_in_any_order_and_misses_none),
        cmocka_unit_test(test_packing_needs_pieces_of_one_kind),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
