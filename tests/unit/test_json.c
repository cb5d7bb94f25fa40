/* test_json.c: what is read from JSON, and everything that is refused. */
#include "libckpt/json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "libckpt/file.h"

static ckpt_error err;

/* A string literal with its length, so that NUL bytes can stand in it. */
#define TEXT(literal) literal, sizeof(literal) - 1

static json_document *parsed(const char *text)
{
    json_document *document;

    if (json_parse(text, strlen(text), "test.json", &document, &err) != CKPT_OK)
        fail_msg("'%s' was refused: %s", text, err.text);
    return document;
}

static const json_value *member(const json_document *document, const char *key)
{
    const json_value *value = json_member(json_root(document), key);

    assert_non_null(value);
    return value;
}

/* ---- refusals ---- */

typedef struct {
    const char *text;
    size_t size;
    const char *reason;      /* part of the error */
    size_t at;               /* byte it names */
} refusal;

static void check_refusals(const refusal *refusals, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        const refusal *r = &refusals[i];
        char place[32];
        /* A copy of the exact size: a sanitizer sees reads past its end. */
        char *text = malloc(r->size + (r->size == 0));
        json_document *document = (json_document *)text;

        memcpy(text, r->text, r->size);
        snprintf(place, sizeof place, " at byte %zu", r->at);
        if (json_parse(text, r->size, "bad.json", &document, &err) != CKPT_E_FORMAT)
            fail_msg("refusal %zu, '%s', was read", i, r->text);
        assert_null(document);
        if (strstr(err.text, r->reason) == NULL || strstr(err.text, place) == NULL ||
            strlen(strstr(err.text, place)) != strlen(place) ||
            strstr(err.text, "'bad.json'") == NULL)
            fail_msg("refusal %zu, '%s': %s", i, r->text, err.text);
        free(text);
    }
}

#define CHECK_REFUSALS(list) check_refusals(list, sizeof(list) / sizeof((list)[0]))

static void test_broken_structure_is_refused(void **state)
{
    static const refusal list[] = {
        { TEXT(""), "expected a value", 0 },
        { TEXT(" \n"), "expected a value", 2 },
        { TEXT("{"), "expected a key", 1 },
        { TEXT("["), "expected a value", 1 },
        { TEXT("[1"), "end of text", 2 },
        { TEXT("{\"a\":1"), "end of text", 6 },
        { TEXT("]"), "expected a value", 0 },
        { TEXT("[1}"), "expected ',' or ']'", 2 },
        { TEXT("{\"a\":1]"), "expected ',' or '}'", 6 },
        { TEXT("[1,]"), "expected a value", 3 },
        { TEXT("[,1]"), "expected a value", 1 },
        { TEXT("[1 2]"), "expected ','", 3 },
        { TEXT("{\"a\":1,}"), "expected a key", 7 },
        { TEXT("{,}"), "expected a key", 1 },
        { TEXT("{a:1}"), "expected a key", 1 },
        { TEXT("{1:1}"), "expected a key", 1 },
        { TEXT("{'a':1}"), "expected a key", 1 },
        { TEXT("{\"a\" 1}"), "expected ':'", 5 },
        { TEXT("{\"a\""), "expected ':'", 4 },
        { TEXT("{\"a\":}"), "expected a value", 5 },
        { TEXT("{\"a\"::1}"), "expected a value", 5 },
        { TEXT("// x\n1"), "expected a value", 0 },
        { TEXT("[1, /* x */ 2]"), "expected a value", 4 },
    };

    (void)state;
    CHECK_REFUSALS(list);
}

static void test_bytes_behind_the_document_are_refused(void **state)
{
    static const refusal list[] = {
        { TEXT("{} {}"), "after the document", 3 },
        { TEXT("[]]"), "after the document", 2 },
        { TEXT("1 x"), "after the document", 2 },
        { TEXT("{}\0"), "after the document", 2 },
        { TEXT("{}\v"), "after the document", 2 },
        { TEXT("01"), "after the document", 1 },
        { TEXT("1.5.5"), "after the document", 3 },
        { TEXT("1_000"), "after the document", 1 },
        { TEXT("0x10"), "after the document", 1 },
        { TEXT("truefalse"), "after the document", 4 },
    };

    (void)state;
    CHECK_REFUSALS(list);
}

static void test_words_and_white_space_outside_of_json_are_refused(void **state)
{
    static const refusal list[] = {
        { TEXT("tru"), "unknown word", 0 },
        { TEXT("nul "), "unknown word", 0 },
        { TEXT("[falsE]"), "unknown word", 1 },
        { TEXT("NaN"), "expected a value", 0 },
        { TEXT("Infinity"), "expected a value", 0 },
        { TEXT("True"), "expected a value", 0 },
        { TEXT("\f1"), "expected a value", 0 },
        { TEXT("[1,\v2]"), "expected a value", 3 },
        { TEXT("\0"), "expected a value", 0 },
        { TEXT("\xef\xbb\xbf{}"), "expected a value", 0 },
        { TEXT("\xc2\xa0" "1"), "expected a value", 0 },
    };

    (void)state;
    CHECK_REFUSALS(list);
}

static void test_numbers_outside_of_the_grammar_are_refused(void **state)
{
    static const refusal list[] = {
        { TEXT("-"), "without digits", 0 },
        { TEXT("+1"), "expected a value", 0 },
        { TEXT(".5"), "expected a value", 0 },
        { TEXT("1."), "after its point", 0 },
        { TEXT("[1.e5]"), "after its point", 1 },
        { TEXT("1e"), "in its exponent", 0 },
        { TEXT("1e+"), "in its exponent", 0 },
        { TEXT("-a"), "without digits", 0 },
        { TEXT("-Infinity"), "without digits", 0 },
        { TEXT("[-01]"), "expected ','", 3 },
    };

    (void)state;
    CHECK_REFUSALS(list);
}

static void test_numbers_that_would_be_rounded_are_refused_with_their_text(void **state)
{
    static const refusal list[] = {
        { TEXT("9007199254740993"), "integer 9007199254740993 beyond 2^53", 0 },
        { TEXT("[-9007199254740993]"), "integer -9007199254740993 beyond 2^53", 1 },
        { TEXT("18446744073709551616"), "18446744073709551616 beyond", 0 },
        { TEXT("1000000000000000000000000000000000000000000000000000000000000000000000"),
          "0... beyond 2^53", 0 },
        { TEXT("1e309"), "too large for a double", 0 },
        { TEXT("[-1e400]"), "too large for a double", 1 },
        { TEXT("0.1000000000000000000000000000000000000000000000000000000000000000000001"),
          "more than 63 characters", 0 },
    };

    (void)state;
    CHECK_REFUSALS(list);
}

static void test_broken_strings_are_refused(void **state)
{
    static const refusal list[] = {
        { TEXT("\""), "unterminated string", 0 },
        { TEXT("[\"abc"), "unterminated string", 1 },
        { TEXT("\"abcdefghijklmnop"), "unterminated string", 0 },
        { TEXT("\"\\\""), "unterminated string", 0 },
        { TEXT("\"\\"), "unknown escape", 1 },
        { TEXT("\"\\x41\""), "unknown escape", 1 },
        { TEXT("\"\\'\""), "unknown escape", 1 },
        { TEXT("\"\\\0\""), "unknown escape", 1 },
        { TEXT("\"\\u12\""), "four hex digits", 1 },
        { TEXT("\"\\u"), "four hex digits", 1 },
        { TEXT("\"\\u+123\""), "four hex digits", 1 },
        { TEXT("\"\\u0000\""), "u0000", 1 },
        { TEXT("{\"a\\u0000b\":1}"), "u0000", 3 },
        { TEXT("\"a\nb\""), "control character", 2 },
        { TEXT("\"a\tb\""), "control character", 2 },
        { TEXT("\"abcdefghijk\0b\""), "control character", 12 },
        { TEXT("{\"\x1f\":1}"), "control character", 2 },
    };

    (void)state;
    CHECK_REFUSALS(list);
}

static void test_every_control_character_is_refused_in_every_place_of_a_word(void **state)
{
    (void)state;
    for (int c = 0; c < 0x20; c++) {
        for (size_t at = 0; at < 20; at++) {
            char text[] = "\"aaaaaaaaaaaaaaaaaaaa\"";
            char place[32];
            json_document *document;

            text[at + 1] = (char)c;
            snprintf(place, sizeof place, "at byte %zu", at + 1);
            assert_int_equal(json_parse(text, sizeof text - 1, "x", &document, &err),
                             CKPT_E_FORMAT);
            assert_non_null(strstr(err.text, place));
        }
    }
}

static void test_surrogates_come_in_pairs(void **state)
{
    static const refusal list[] = {
        { TEXT("\"\\ud800\""), "lone surrogate", 1 },
        { TEXT("\"\\udc00\""), "lone surrogate", 1 },
        { TEXT("\"\\udfff\\ud800\""), "lone surrogate", 1 },
        { TEXT("\"\\ud800\\ud800\""), "lone surrogate", 1 },
        { TEXT("\"x\\ud800\\u0041\""), "lone surrogate", 2 },
        { TEXT("\"\\ud800\\n\""), "lone surrogate", 1 },
        { TEXT("\"\\ud800\\udc0"), "lone surrogate", 1 },
        { TEXT("\"\\ud800xxxxxxxx\""), "lone surrogate", 1 },
    };
    json_document *document = parsed("\"\\ud83d\\ude00 \\uD834\\uDD1E\"");

    (void)state;
    assert_string_equal(json_string(json_root(document)), "\xf0\x9f\x98\x80 \xf0\x9d\x84\x9e");
    json_free(document);
    CHECK_REFUSALS(list);
}

static void test_invalid_utf8_is_refused(void **state)
{
    static const refusal list[] = {
        { TEXT("\"\x80\""), "UTF-8", 1 },
        { TEXT("\"\xbf\""), "UTF-8", 1 },
        { TEXT("\"\xc0\x80\""), "UTF-8", 1 },
        { TEXT("\"\xc1\xbf\""), "UTF-8", 1 },
        { TEXT("\"\xc2\""), "UTF-8", 1 },
        { TEXT("\"\xc3"), "UTF-8", 1 },
        { TEXT("\"\xe0\x80\x80\""), "UTF-8", 1 },
        { TEXT("\"\xe0\x9f\xbf\""), "UTF-8", 1 },
        { TEXT("\"\xe1\x80\""), "UTF-8", 1 },
        { TEXT("\"\xe2\x82"), "UTF-8", 1 },
        { TEXT("\"\xed\xa0\x80\""), "UTF-8", 1 },
        { TEXT("\"\xed\xbf\xbf\""), "UTF-8", 1 },
        { TEXT("\"\xf0\x8f\xbf\xbf\""), "UTF-8", 1 },
        { TEXT("\"\xf0\x90\x80"), "UTF-8", 1 },
        { TEXT("\"\xf4\x90\x80\x80\""), "UTF-8", 1 },
        { TEXT("\"\xf5\x80\x80\x80\""), "UTF-8", 1 },
        { TEXT("\"\xff\""), "UTF-8", 1 },
        { TEXT("{\"abcdefgh\xff\":1}"), "UTF-8", 10 },
    };

    (void)state;
    CHECK_REFUSALS(list);
}

/* Encode by the definition, far from how the scanner decides. */
static size_t encode_utf8(uint32_t c, char out[5])
{
    const size_t length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    static const unsigned char leads[] = { 0, 0, 0xc0, 0xe0, 0xf0 };

    for (size_t i = length - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)(leads[length] | c);
    out[length] = '\0';
    return length;
}

static void test_every_character_is_read_raw_except_surrogates(void **state)
{
    (void)state;
    for (uint32_t c = 0x20; c < 0x110000; c++) {
        char text[8] = "\"";
        const int is_bad = (c >= 0xd800 && c < 0xe000) || c == '"' || c == '\\';
        const size_t length = encode_utf8(c, text + 1);
        json_document *document;
        ckpt_code code;

        text[length + 1] = '"';
        code = json_parse(text, length + 2, "x", &document, &err);
        if ((code != CKPT_OK) != is_bad)
            fail_msg("U+%04X: %s", c, code == CKPT_OK ? "read" : err.text);
        if (code == CKPT_OK)
            assert_memory_equal(json_string(json_root(document)), text + 1, length);
        json_free(document);
    }
}

static void test_every_escaped_unit_is_read_except_nul_and_surrogates(void **state)
{
    (void)state;
    for (uint32_t c = 0; c < 0x10000; c++) {
        const int is_bad = c == 0 || (c >= 0xd800 && c < 0xe000);
        json_document *document;
        char expected[5];
        char text[16];
        ckpt_code code;

        /* As a key too: the walk compares keys by undoing escapes on its own. */
        snprintf(text, sizeof text, "{\"\\u%04x\":0}", c);
        encode_utf8(c, expected);
        code = json_parse(text, strlen(text), "x", &document, &err);
        if ((code != CKPT_OK) != is_bad)
            fail_msg("%s: %s", text, code == CKPT_OK ? "read" : err.text);
        if (code == CKPT_OK)
            assert_string_equal(json_key(json_first(json_root(document))), expected);
        json_free(document);
    }
}

static void test_every_pair_of_surrogates_is_one_character(void **state)
{
    (void)state;
    for (uint32_t c = 0x10000; c < 0x110000; c += 37) {
        char expected[5];
        char text[32];
        json_document *document;

        snprintf(text, sizeof text, "{\"\\u%04X\\u%04x\":0}", 0xd800 + ((c - 0x10000) >> 10),
                 0xdc00 + (c & 0x3ff));
        encode_utf8(c, expected);
        document = parsed(text);
        assert_string_equal(json_key(json_first(json_root(document))), expected);
        json_free(document);
    }
}

static void test_duplicate_keys_are_refused_at_any_size_and_depth(void **state)
{
    static const refusal list[] = {
        { TEXT("{\"a\":1,\"a\":1}"), "key 'a' occurs twice", 7 },
        { TEXT("{\"a\":1,\"\\u0061\":1}"), "key 'a' occurs twice", 7 },
        { TEXT("{\"\":1,\"\":1}"), "key '' occurs twice", 6 },
        { TEXT("[{\"x\":[{\"b\":{},\"c\":0,\"b\":0}]}]"), "key 'b' occurs twice", 21 },
    };

    (void)state;
    CHECK_REFUSALS(list);
    for (size_t count = 1; count < 60; count++) {       /* across the switch to a table */
        for (size_t twin = 0; twin < count; twin++) {
            char text[1024] = "{";
            size_t used = 1;
            json_document *document;

            for (size_t i = 0; i < count; i++)
                used += (size_t)snprintf(text + used, sizeof text - used, "\"k%zu\":0,", i);
            snprintf(text + used, sizeof text - used, "\"k%zu\":0}", twin);
            assert_int_equal(json_parse(text, strlen(text), "x", &document, &err),
                             CKPT_E_FORMAT);
            assert_non_null(strstr(err.text, "occurs twice"));
            snprintf(text + used, sizeof text - used, "\"k%zu\":0}", count);
            json_free(parsed(text));
        }
    }
}

static void test_the_same_key_in_different_objects_is_fine(void **state)
{
    (void)state;
    json_free(parsed("{\"a\":{\"a\":{\"a\":1}},\"b\":[{\"a\":1},{\"a\":1}]}"));
}

static void test_64_levels_are_read_and_65_refused(void **state)
{
    char text[2 * (JSON_DEPTH_MAX + 1) + 1];
    json_document *document;

    (void)state;
    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    text[2 * JSON_DEPTH_MAX] = '\0';
    json_free(parsed(text));
    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    assert_int_equal(json_parse(text, sizeof text - 1, "x", &document, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "nesting deeper than 64 at byte 64"));
}

static void test_a_million_brackets_are_refused_without_a_crash(void **state)
{
    char *text = malloc(1000000);
    json_document *document;

    (void)state;
    memset(text, '[', 1000000);
    assert_int_equal(json_parse(text, 1000000, "x", &document, &err), CKPT_E_FORMAT);
    free(text);
}

/* ---- values ---- */

static void test_every_kind_is_told_apart(void **state)
{
    json_document *d = parsed("{\"o\":{},\"a\":[],\"s\":\"\",\"n\":1,\"t\":true,\"f\":false,"
                              "\"z\":null}");
    uint64_t number = 7;
    double real = 7;
    int flag = 7;

    (void)state;
    assert_true(json_is_object(member(d, "o")) && !json_is_array(member(d, "o")));
    assert_true(json_is_array(member(d, "a")) && !json_is_object(member(d, "a")));
    assert_true(json_is_null(member(d, "z")) && !json_is_null(member(d, "f")));
    assert_string_equal(json_string(member(d, "s")), "");
    assert_null(json_string(member(d, "n")));
    assert_true(json_bool(member(d, "t"), &flag) && flag == 1);
    assert_true(json_bool(member(d, "f"), &flag) && flag == 0);
    assert_false(json_bool(member(d, "n"), &flag));
    assert_false(json_u64(member(d, "t"), &number));
    assert_false(json_number(member(d, "s"), &real));
    assert_int_equal(number, 7);
    assert_null(json_first(member(d, "s")));
    assert_int_equal(json_count(member(d, "s")), 0);
    assert_null(json_member(member(d, "a"), "x"));
    json_free(d);
}

static void test_no_value_is_of_no_kind(void **state)
{
    uint64_t number;
    double real;
    int flag;

    (void)state;
    assert_false(json_is_object(NULL) || json_is_array(NULL) || json_is_null(NULL));
    assert_null(json_string(NULL));
    assert_false(json_u64(NULL, &number) || json_number(NULL, &real) || json_bool(NULL, &flag));
    assert_null(json_first(NULL));
    assert_null(json_member(NULL, "x"));
    assert_int_equal(json_count(NULL), 0);
    json_free(NULL);
}

static void test_only_unsigned_integer_literals_are_u64(void **state)
{
    static const char *const others[] = { "10.0", "1e3", "1E0", "-1", "-0", "0.5", "1e-06" };
    uint64_t number;
    double real;

    (void)state;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        json_document *d = parsed(others[i]);

        assert_false(json_u64(json_root(d), &number));
        assert_true(json_number(json_root(d), &real));
        assert_true(fabs(real - strtod(others[i], NULL)) == 0);
        json_free(d);
    }
}

static void test_integers_are_exact_up_to_2_to_the_53(void **state)
{
    static const uint64_t numbers[] = { 0, 1, 9, 10, 2147483647, 2147483648, 4294967296,
                                        9007199254740991, 9007199254740992 };
    uint64_t number;

    (void)state;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        char text[32];
        json_document *d;

        snprintf(text, sizeof text, "%llu", (unsigned long long)numbers[i]);
        d = parsed(text);
        assert_true(json_u64(json_root(d), &number) && number == numbers[i]);
        json_free(d);
    }
    json_free(parsed("-9007199254740992"));
}

static void test_children_come_in_the_order_of_the_file(void **state)
{
    json_document *d = parsed(" {\"z\" : 1 ,\n\t\"a\":[ 2,3 ],\r\n\"m\":{}} \n");
    const json_value *v = json_first(json_root(d));

    (void)state;
    assert_int_equal(json_count(json_root(d)), 3);
    assert_string_equal(json_key(v), "z");
    v = json_next(v);
    assert_string_equal(json_key(v), "a");
    assert_int_equal(json_count(v), 2);
    assert_null(json_key(json_first(v)));
    v = json_next(v);
    assert_string_equal(json_key(v), "m");
    assert_null(json_first(v));
    assert_null(json_next(v));
    json_free(d);
}

static void test_member_keys_are_exact(void **state)
{
    json_document *d = parsed("{\"Key\":1,\"key\":2}");
    uint64_t number;

    (void)state;
    assert_true(json_u64(member(d, "key"), &number) && number == 2);
    assert_null(json_member(json_root(d), "KEY"));
    assert_null(json_member(json_root(d), "ke"));
    json_free(d);
}

static int equal(const char *a, const char *b)
{
    json_document *left = parsed(a);
    json_document *right = parsed(b);
    const int result = json_equal(json_root(left), json_root(right));

    assert_int_equal(json_equal(json_root(right), json_root(left)), result);
    json_free(left);
    json_free(right);
    return result;
}

static void test_equality_ignores_order_in_objects_only(void **state)
{
    (void)state;
    assert_true(equal("{\"a\":1,\"b\":[1,2,{\"x\":null,\"y\":true}]}",
                      "{ \"b\":[1,2.0,{\"y\":true,\"x\":null}], \"a\":1e0 }"));
    assert_false(equal("[1,2]", "[2,1]"));
    assert_false(equal("[1,2]", "[1,2,3]"));
    assert_false(equal("[]", "{}"));
    assert_false(equal("{\"a\":1}", "{\"b\":1}"));
    assert_false(equal("{\"a\":1}", "{\"a\":1,\"b\":1}"));
    assert_false(equal("{\"a\":{\"b\":[0]}}", "{\"a\":{\"b\":[1]}}"));
    assert_false(equal("1", "\"1\""));
    assert_false(equal("0", "false"));
    assert_false(equal("null", "false"));
    assert_false(equal("true", "false"));
    assert_true(equal("\"\\u00e9\"", "\"\xc3\xa9\""));
    assert_true(equal("{}", "{}"));
}

static char *many_members(size_t count, int is_reversed, size_t *size)
{
    char *text = malloc(count * 80 + 16);
    size_t used = 1;

    text[0] = '{';
    for (size_t k = 0; k < count; k++) {
        const size_t i = is_reversed ? count - 1 - k : k;

        used += (size_t)snprintf(text + used, 80, "%s\"layers.%zu.weight\": \"model-%zu.st\"",
                                 k == 0 ? "" : ", ", i, i % 46);
    }
    text[used++] = '}';
    *size = used;
    return text;
}

static double seconds_since(const struct timespec *start)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)(now.tv_sec - start->tv_sec) + 1e-9 * (double)(now.tv_nsec - start->tv_nsec);
}

/* CPU seconds to parse `count` members and to compare them with the same in another order. */
static double seconds_for(size_t count)
{
    struct timespec start;
    json_document *a;
    json_document *b;
    size_t size;
    char *forward = many_members(count, 0, &size);
    char *backward = many_members(count, 1, &size);
    double seconds;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &start);
    assert_int_equal(json_parse(forward, size, "x", &a, &err), CKPT_OK);
    assert_int_equal(json_count(json_root(a)), count);
    assert_int_equal(json_parse(backward, size, "x", &b, &err), CKPT_OK);
    assert_true(json_equal(json_root(a), json_root(b)));
    seconds = seconds_since(&start);
    json_free(a);
    json_free(b);
    free(forward);
    free(backward);
    return seconds;
}

/* Sixteen times the members: quadratic work would take 256 times as long. */
static void test_work_grows_with_the_members_not_with_their_square(void **state)
{
    double few = 1e9;
    double many = 1e9;

    (void)state;
    for (int round = 0; round < 3; round++) {
        const double few_now = seconds_for(12500);
        const double many_now = seconds_for(200000);

        few = few_now < few ? few_now : few;
        many = many_now < many ? many_now : many;
    }
    assert_true(many < 80 * few);
}

static void test_a_file_is_parsed_under_its_own_name(void **state)
{
    char path[] = "/tmp/ckpt-json-XXXXXX";
    const int fd = mkstemp(path);
    json_document *document;

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(file_write_all(path, "{\"a\":1}\n", 8, &err), CKPT_OK);
    assert_int_equal(json_parse_file(path, 100, &document, &err), CKPT_OK);
    assert_int_equal(json_count(json_root(document)), 1);
    json_free(document);
    assert_int_equal(json_parse_file(path, 7, &document, &err), CKPT_E_FORMAT);
    assert_int_equal(file_write_all(path, "{\"a\":1", 6, &err), CKPT_OK);
    assert_int_equal(json_parse_file(path, 100, &document, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, path));
    assert_null(document);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(json_parse_file(path, 100, &document, &err), CKPT_E_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_broken_structure_is_refused),
        cmocka_unit_test(test_bytes_behind_the_document_are_refused),
        cmocka_unit_test(test_words_and_white_space_outside_of_json_are_refused),
        cmocka_unit_test(test_numbers_outside_of_the_grammar_are_refused),
        cmocka_unit_test(test_numbers_that_would_be_rounded_are_refused_with_their_text),
        cmocka_unit_test(test_broken_strings_are_refused),
        cmocka_unit_test(test_every_control_character_is_refused_in_every_place_of_a_word),
        cmocka_unit_test(test_surrogates_come_in_pairs),
        cmocka_unit_test(test_invalid_utf8_is_refused),
        cmocka_unit_test(test_every_character_is_read_raw_except_surrogates),
        cmocka_unit_test(test_every_escaped_unit_is_read_except_nul_and_surrogates),
        cmocka_unit_test(test_every_pair_of_surrogates_is_one_character),
        cmocka_unit_test(test_duplicate_keys_are_refused_at_any_size_and_depth),
        cmocka_unit_test(test_the_same_key_in_different_objects_is_fine),
        cmocka_unit_test(test_64_levels_are_read_and_65_refused),
        cmocka_unit_test(test_a_million_brackets_are_refused_without_a_crash),
        cmocka_unit_test(test_every_kind_is_told_apart),
        cmocka_unit_test(test_no_value_is_of_no_kind),
        cmocka_unit_test(test_only_unsigned_integer_literals_are_u64),
        cmocka_unit_test(test_integers_are_exact_up_to_2_to_the_53),
        cmocka_unit_test(test_children_come_in_the_order_of_the_file),
        cmocka_unit_test(test_member_keys_are_exact),
        cmocka_unit_test(test_equality_ignores_order_in_objects_only),
        cmocka_unit_test(test_work_grows_with_the_members_not_with_their_square),
        cmocka_unit_test(test_a_file_is_parsed_under_its_own_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
