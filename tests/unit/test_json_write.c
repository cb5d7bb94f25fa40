/* test_json_write.c: JSON out, and back in. The expected texts are those of Python's json.dump. */
#include "libckpt/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static ckpt_error err;

/* Takes bytes until it is full; then it fails, as a disk does. */
typedef struct {
    char bytes[4096];
    size_t size;
    size_t room;
} sink;

static int sink_write(void *context, const char *bytes, size_t size)
{
    sink *s = context;

    if (size > s->room - s->size)
        return 1;
    memcpy(s->bytes + s->size, bytes, size);
    s->size += size;
    s->bytes[s->size] = '\0';
    return 0;
}

static void sink_begin(sink *s, json_writer *w, unsigned indent)
{
    memset(s, 0, sizeof *s);
    s->room = sizeof s->bytes - 1;
    json_writer_begin(w, sink_write, s, indent);
}

static void put_sample(json_writer *w)
{
    json_put_object(w);
    json_put_key(w, "a");
    json_put_u64(w, UINT64_MAX);
    json_put_key(w, "b");
    json_put_array(w);
    json_put_i64(w, INT64_MIN);
    json_put_double(w, 1e-6);
    json_put_bool(w, 1);
    json_put_bool(w, 0);
    json_put_null(w);
    json_put_string(w, NULL);
    json_put_raw(w, "{\"x\": 1}");
    json_put_array_end(w);
    json_put_key(w, "c");
    json_put_object(w);
    json_put_object_end(w);
    json_put_key(w, "d");
    json_put_array(w);
    json_put_array_end(w);
    json_put_object_end(w);
}

static void test_compact_text_has_no_white_space(void **state)
{
    json_writer w;
    sink s;

    (void)state;
    sink_begin(&s, &w, 0);
    put_sample(&w);
    assert_true(json_writer_end(&w));
    assert_string_equal(s.bytes, "{\"a\":18446744073709551615,\"b\":[-9223372036854775808,1e-06,"
                                 "true,false,null,null,{\"x\": 1}],\"c\":{},\"d\":[]}");
}

static void test_indented_text_looks_like_pythons(void **state)
{
    json_writer w;
    sink s;

    (void)state;
    sink_begin(&s, &w, 2);
    put_sample(&w);
    assert_true(json_writer_end(&w));
    assert_string_equal(s.bytes,
                        "{\n"
                        "  \"a\": 18446744073709551615,\n"
                        "  \"b\": [\n"
                        "    -9223372036854775808,\n"
                        "    1e-06,\n"
                        "    true,\n"
                        "    false,\n"
                        "    null,\n"
                        "    null,\n"
                        "    {\"x\": 1}\n"
                        "  ],\n"
                        "  \"c\": {},\n"
                        "  \"d\": []\n"
                        "}");
}

static void assert_string_text(const char *string, const char *expected)
{
    json_writer w;
    sink s;

    sink_begin(&s, &w, 0);
    json_put_string(&w, string);
    assert_true(json_writer_end(&w));
    assert_string_equal(s.bytes, expected);
}

static void test_a_member_is_a_key_and_its_value(void **state)
{
    static const char *const names[] = { "x", "y" };
    json_writer w;
    sink s;

    (void)state;
    sink_begin(&s, &w, 0);
    json_put_object(&w);
    json_member_string(&w, "text", "t");
    json_member_string(&w, "none", NULL);
    json_member_u64(&w, "most", UINT64_MAX);
    json_member_double(&w, "half", 0.5);
    json_member_double(&w, "infinite", (double)INFINITY);
    json_member_bool(&w, "yes", 2);
    json_member_object(&w, "object");
    json_member_array(&w, "array");
    json_put_array_end(&w);
    json_put_object_end(&w);
    json_member_names(&w, "names", names, 2);
    json_put_object_end(&w);
    assert_true(json_writer_end(&w));
    assert_string_equal(s.bytes, "{\"text\":\"t\",\"none\":null,\"most\":18446744073709551615,"
                                 "\"half\":0.5,\"infinite\":null,\"yes\":true,"
                                 "\"object\":{\"array\":[]},\"names\":[\"x\",\"y\"]}");
}

static void test_strings_are_escaped_where_json_asks_for_it(void **state)
{
    (void)state;
    assert_string_text("", "\"\"");
    assert_string_text("a/b", "\"a/b\"");
    assert_string_text("\"\\\b\f\n\r\t", "\"\\\"\\\\\\b\\f\\n\\r\\t\"");
    assert_string_text("\x01\x1f\x7f", "\"\\u0001\\u001f\x7f\"");
    assert_string_text("\xc3\xa9 \xf0\x9f\x98\x80", "\"\xc3\xa9 \xf0\x9f\x98\x80\"");
}

#define REPLACED "\xef\xbf\xbd"

static void test_bytes_that_are_not_utf8_are_replaced(void **state)
{
    (void)state;
    assert_string_text("a\xff" "b", "\"a" REPLACED "b\"");
    assert_string_text("\xc0\x80", "\"" REPLACED REPLACED "\"");
    assert_string_text("\xed\xa0\x80", "\"" REPLACED REPLACED REPLACED "\"");
    assert_string_text("x\xe2\x82", "\"x" REPLACED REPLACED "\"");
    assert_string_text("\xe2\x82\xac", "\"\xe2\x82\xac\"");
}

static void test_every_byte_in_a_string_gives_good_json(void **state)
{
    (void)state;
    for (int a = 1; a < 256; a++) {
        for (int b = 1; b < 256; b++) {
            const char string[3] = { (char)a, (char)b, '\0' };
            json_document *document;
            json_writer w;
            sink s;

            s.size = 0;
            s.room = sizeof s.bytes - 1;
            json_writer_begin(&w, sink_write, &s, 0);
            json_put_string(&w, string);
            assert_true(json_writer_end(&w));
            if (json_parse(s.bytes, s.size, "x", &document, &err) != CKPT_OK)
                fail_msg("%02x %02x: %s", a, b, err.text);
            if (a < 0x80 && b < 0x80)
                assert_string_equal(json_string(json_root(document)), string);
            json_free(document);
        }
    }
}

static void assert_double_text(double number, const char *expected)
{
    json_writer w;
    sink s;

    sink_begin(&s, &w, 0);
    json_put_double(&w, number);
    assert_true(json_writer_end(&w));
    assert_string_equal(s.bytes, expected);
}

static void test_doubles_are_written_like_pythons_repr(void **state)
{
    (void)state;
    assert_double_text(0.0, "0.0");
    assert_double_text(-0.0, "-0.0");
    assert_double_text(10.0, "10.0");
    assert_double_text(0.1, "0.1");
    assert_double_text(1.0 / 3.0, "0.3333333333333333");
    assert_double_text(-2.5, "-2.5");
    assert_double_text(123456.789, "123456.789");
    assert_double_text(1e-4, "0.0001");
    assert_double_text(1.25e-4, "0.000125");
    assert_double_text(1e-5, "1e-05");
    assert_double_text(1.5e-7, "1.5e-07");
    assert_double_text(1e15, "1000000000000000.0");
    assert_double_text(1e16, "1e+16");
    assert_double_text(123456789012345678.0, "1.2345678901234568e+17");
    assert_double_text(9007199254740993.0, "9007199254740992.0");
    assert_double_text(1.7976931348623157e308, "1.7976931348623157e+308");
    assert_double_text(5e-324, "5e-324");
    assert_double_text(2.2250738585072014e-308, "2.2250738585072014e-308");
    assert_double_text((double)NAN, "null");
    assert_double_text((double)INFINITY, "null");
    assert_double_text(-(double)INFINITY, "null");
}

static void test_every_double_reads_back_as_itself(void **state)
{
    uint64_t random = 88172645463325252;

    (void)state;
    for (size_t i = 0; i < 20000; i++) {
        json_document *document;
        double number;
        double back;
        json_writer w;
        sink s;

        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        memcpy(&number, &random, sizeof number);
        if (isnan(number) || isinf(number))
            continue;
        s.size = 0;
        s.room = sizeof s.bytes - 1;
        json_writer_begin(&w, sink_write, &s, 0);
        json_put_double(&w, number);
        assert_int_equal(json_parse(s.bytes, s.size, "x", &document, &err), CKPT_OK);
        assert_true(json_number(json_root(document), &back));
        assert_memory_equal(&back, &number, sizeof number);
        json_free(document);
    }
}

static void test_a_failed_write_sticks(void **state)
{
    json_writer w;
    sink s;

    (void)state;
    sink_begin(&s, &w, 2);
    put_sample(&w);
    for (size_t room = 0; room < s.size; room++) {
        sink small;
        json_writer failing;

        sink_begin(&small, &failing, 2);
        small.room = room;
        put_sample(&failing);
        assert_false(json_writer_end(&failing));
        assert_true(small.size <= room);
        assert_memory_equal(small.bytes, s.bytes, small.size);
    }
}

static void test_a_full_disk_is_seen_at_the_end(void **state)
{
    FILE *full = fopen("/dev/full", "w");
    json_writer w;

    (void)state;
    assert_non_null(full);
    setvbuf(full, NULL, _IONBF, 0);
    json_writer_begin(&w, json_write_stdio, full, 0);
    put_sample(&w);
    assert_false(json_writer_end(&w));
    fclose(full);
}

static void test_an_unfinished_document_is_not_written(void **state)
{
    json_writer w;
    sink s;

    (void)state;
    sink_begin(&s, &w, 0);
    assert_false(json_writer_end(&w));
    json_put_array(&w);
    assert_false(json_writer_end(&w));
    json_put_array_end(&w);
    assert_true(json_writer_end(&w));
}

static void test_64_levels_are_written_and_65_fail(void **state)
{
    for (size_t depth = JSON_DEPTH_MAX; depth <= JSON_DEPTH_MAX + 1; depth++) {
        json_writer w;
        sink s;

        sink_begin(&s, &w, 0);
        for (size_t i = 0; i < depth; i++)
            json_put_array(&w);
        for (size_t i = 0; i < depth; i++)
            json_put_array_end(&w);
        assert_int_equal(json_writer_end(&w), depth <= JSON_DEPTH_MAX);
    }
    (void)state;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_compact_text_has_no_white_space),
        cmocka_unit_test(test_indented_text_looks_like_pythons),
        cmocka_unit_test(test_a_member_is_a_key_and_its_value),
        cmocka_unit_test(test_strings_are_escaped_where_json_asks_for_it),
        cmocka_unit_test(test_bytes_that_are_not_utf8_are_replaced),
        cmocka_unit_test(test_every_byte_in_a_string_gives_good_json),
        cmocka_unit_test(test_doubles_are_written_like_pythons_repr),
        cmocka_unit_test(test_every_double_reads_back_as_itself),
        cmocka_unit_test(test_a_failed_write_sticks),
        cmocka_unit_test(test_a_full_disk_is_seen_at_the_end),
        cmocka_unit_test(test_an_unfinished_document_is_not_written),
        cmocka_unit_test(test_64_levels_are_written_and_65_fail),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
