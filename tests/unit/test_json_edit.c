/* test_json_edit.c: changing one member and nothing else. */
#include "libckpt/json.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static ckpt_error err;

static void assert_edit(const char *text, const char *key, const char *value,
                        const char *expected)
{
    char *out;

    if (json_edit(text, key, value, &out, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    assert_string_equal(out, expected);
    free(out);
}

static void assert_refused(const char *text, const char *key, const char *value)
{
    char *out = (char *)(uintptr_t)text;

    assert_int_equal(json_edit(text, key, value, &out, &err), CKPT_E_FORMAT);
    assert_null(out);
}

static const char CONFIG[] =
    "{\n"
    "  \"hidden_size\" : 4096,\t\n"
    "  \"rope\": {\"hidden_size\": 1e-06, \"x\": [1, {\"dtype\": 0}]},\n"
    "\n"
    "  \"dtype\":\"bfloat16\"\n"
    "}\n";

static void test_a_value_is_replaced_and_every_other_byte_stays(void **state)
{
    (void)state;
    assert_edit(CONFIG, "hidden_size", "[1,\n 2]",
                "{\n"
                "  \"hidden_size\" : [1,\n 2],\t\n"
                "  \"rope\": {\"hidden_size\": 1e-06, \"x\": [1, {\"dtype\": 0}]},\n"
                "\n"
                "  \"dtype\":\"bfloat16\"\n"
                "}\n");
    assert_edit(CONFIG, "dtype", "\"float8\"",
                "{\n"
                "  \"hidden_size\" : 4096,\t\n"
                "  \"rope\": {\"hidden_size\": 1e-06, \"x\": [1, {\"dtype\": 0}]},\n"
                "\n"
                "  \"dtype\":\"float8\"\n"
                "}\n");
    assert_edit(CONFIG, "rope", "null",
                "{\n"
                "  \"hidden_size\" : 4096,\t\n"
                "  \"rope\": null,\n"
                "\n"
                "  \"dtype\":\"bfloat16\"\n"
                "}\n");
}

static void test_a_new_member_comes_last_and_looks_like_the_one_before(void **state)
{
    (void)state;
    assert_edit("{\n    \"a\": 1,\n    \"b\" :2\n}", "c", "3",
                "{\n    \"a\": 1,\n    \"b\" :2,\n    \"c\" :3\n}");
    assert_edit("{\"a\":1}", "b", "2", "{\"a\":1,\"b\":2}");
    assert_edit("{}", "b", "2", "{\"b\": 2}");
    assert_edit("{ \n}\n", "b", "2", "{\"b\": 2 \n}\n");
}

static void test_a_member_is_removed_with_one_comma(void **state)
{
    static const char three[] = "{ \"a\": 1, \"b\": [2] , \"c\": {\"b\": 3} }";

    (void)state;
    assert_edit(three, "a", NULL, "{ \"b\": [2] , \"c\": {\"b\": 3} }");
    assert_edit(three, "b", NULL, "{ \"a\": 1 , \"c\": {\"b\": 3} }");
    assert_edit(three, "c", NULL, "{ \"a\": 1, \"b\": [2] }");
    assert_edit("{\n  \"a\": 1\n}", "a", NULL, "{\n}");
    assert_edit("{\n  \"a\": 1,\n  \"b\": 2\n}", "b", NULL, "{\n  \"a\": 1\n}");
    assert_edit("{\n  \"a\": 1,\n  \"b\": 2\n}", "a", NULL, "{\n  \"b\": 2\n}");
}

static void test_removing_what_is_absent_changes_nothing(void **state)
{
    (void)state;
    assert_edit(CONFIG, "x", NULL, CONFIG);
    assert_edit("{}", "x", NULL, "{}");
}

static void test_removing_what_was_added_gives_the_old_text(void **state)
{
    char *out;

    (void)state;
    assert_int_equal(json_edit(CONFIG, "new", "{\"x\": 1}", &out, &err), CKPT_OK);
    assert_edit(out, "new", NULL, CONFIG);
    free(out);
}

static void test_keys_are_compared_with_their_escapes_undone(void **state)
{
    (void)state;
    assert_edit("{\"d\\u0074ype\":1}", "dtype", "2", "{\"d\\u0074ype\":2}");
    assert_edit("{\"\\ud83d\\ude00\\n\":1}", "\xf0\x9f\x98\x80\n", "2",
                "{\"\\ud83d\\ude00\\n\":2}");
    assert_edit("{\"\\\\u0061\":1}", "a", "2", "{\"\\\\u0061\":1,\"a\":2}");
    assert_edit("{\"ab\":1}", "a", "2", "{\"ab\":1,\"a\":2}");
    assert_edit("{\"a\":1}", "ab", "2", "{\"a\":1,\"ab\":2}");
    assert_edit("{\"a\":1}", "", "2", "{\"a\":1,\"\":2}");
}

static void test_a_new_key_is_escaped(void **state)
{
    (void)state;
    assert_edit("{}", "a\"b\\\n\x01\xc3\xa9", "0", "{\"a\\\"b\\\\\\n\\u0001\xc3\xa9\": 0}");
}

static void test_what_would_not_be_json_is_refused(void **state)
{
    char deep[JSON_DEPTH_MAX * 2 + 1];

    (void)state;
    assert_refused("[]", "a", "1");
    assert_refused("1", "a", NULL);
    assert_refused("{\"a\":1", "a", "1");
    assert_refused("{\"a\":1} x", "a", "1");
    assert_refused("{}", "a", "");
    assert_refused("{}", "a", "1 2");
    assert_refused("{}", "a", "1,\"b\":2");
    assert_refused("{}", "a", "{\"b\":1,\"b\":2}");
    assert_refused("{}", "\xff", "1");
    memset(deep, '[', JSON_DEPTH_MAX);
    memset(deep + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    deep[sizeof deep - 1] = '\0';
    assert_refused("{}", "a", deep);        /* good alone, one level too deep inside */
}

static void test_the_text_of_a_member_is_as_it_stands(void **state)
{
    char *out;

    (void)state;
    assert_int_equal(json_member_text(CONFIG, "rope", &out, &err), CKPT_OK);
    assert_string_equal(out, "{\"hidden_size\": 1e-06, \"x\": [1, {\"dtype\": 0}]}");
    free(out);
    assert_int_equal(json_member_text(CONFIG, "dtype", &out, &err), CKPT_OK);
    assert_string_equal(out, "\"bfloat16\"");
    free(out);
    assert_int_equal(json_member_text(CONFIG, "x", &out, &err), CKPT_OK);
    assert_null(out);
    assert_int_equal(json_member_text("[]", "x", &out, &err), CKPT_E_FORMAT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_value_is_replaced_and_every_other_byte_stays),
        cmocka_unit_test(test_a_new_member_comes_last_and_looks_like_the_one_before),
        cmocka_unit_test(test_a_member_is_removed_with_one_comma),
        cmocka_unit_test(test_removing_what_is_absent_changes_nothing),
        cmocka_unit_test(test_removing_what_was_added_gives_the_old_text),
        cmocka_unit_test(test_keys_are_compared_with_their_escapes_undone),
        cmocka_unit_test(test_a_new_key_is_escaped),
        cmocka_unit_test(test_what_would_not_be_json_is_refused),
        cmocka_unit_test(test_the_text_of_a_member_is_as_it_stands),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
