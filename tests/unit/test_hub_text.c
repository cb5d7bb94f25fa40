/* test_hub_text.c: what hubs write in headers, URLs and names: read exactly, or not at all. */
#include "libckpt/hub/hub_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void test_a_content_range_is_read_or_refused(void **state)
{
    static const char *const bad[] = {
        "",          "bytes",         "bytes 0-9",        "bytes 9-0/10",   "bytes 0-10/10",
        "bytes */*", "bytes -5/10",   "bytes 0-/10",      "bits 0-9/10",    "bytes 0-9/10x",
        "bytes 0-9/", "bytes 0 - 9/10", "bytes 0-18446744073709551616/18446744073709551617",
    };
    hub_content_range range;

    (void)state;
    assert_int_equal(hub_parse_content_range("bytes 5-9/10", &range), 1);
    assert_int_equal(range.first, 5);
    assert_int_equal(range.last, 9);
    assert_int_equal(range.total, 10);
    assert_int_equal(hub_parse_content_range("Bytes 5-9/*", &range), 1);
    assert_int_equal(range.has_total, 0);
    assert_int_equal(hub_parse_content_range("bytes */77", &range), 1);
    assert_true(range.is_empty && range.total == 77);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(hub_parse_content_range(bad[i], &range), 0);
}

static void check_next(const char *link, const char *expected)
{
    char *got = hub_next_link(link);

    if (expected == NULL)
        assert_null(got);
    else
        assert_string_equal(got, expected);
    free(got);
}

static void test_the_next_link_is_found_among_others(void **state)
{
    (void)state;
    check_next("<https://h/a?x=1>; rel=\"next\"", "https://h/a?x=1");
    check_next("<https://h/p>; rel=prev, <https://h/n>; title=\"t\"; rel=next", "https://h/n");
    check_next("<https://h/n> ; REL=\"next\"", "https://h/n");
    check_next("<https://h/n>; rel=\"prev next\"", "https://h/n");
    check_next("<https://h/n>; rel = next", "https://h/n");
    check_next("<https://h/n>; rel=\"nextish\"", NULL);
    check_next("<https://h/n>; rel=\"un next-one\"", NULL);
    check_next("<https://h/n>; rel", NULL);
    check_next("<https://h/n>; relation=next", NULL);
    check_next("<https://h/n; rel=next", NULL);
    check_next("", NULL);
}

static void test_rate_limits_are_read_in_any_order(void **state)
{
    uint64_t number = 0;
    hub_rate rate;

    (void)state;
    assert_int_equal(hub_parse_rate("\"resolvers\";r=2998;t=172", &rate), 1);
    assert_string_equal(rate.bucket, "resolvers");
    assert_int_equal(rate.left_count, 2998);
    assert_int_equal(rate.reset_seconds, 172);
    assert_int_equal(hub_parse_rate("\"api\" ; t=5 ; r=0", &rate), 1);
    assert_true(rate.left_count == 0 && rate.reset_seconds == 5);
    assert_int_equal(hub_parse_rate("\"api\";r=", &rate), 0);
    assert_int_equal(hub_parse_rate("r=1;t=2", &rate), 0);
    assert_int_equal(
        hub_rate_number("\"fixed window\";\"resolvers\";q=3000;w=300", 'q', &number), 1);
    assert_int_equal(number, 3000);
}

static void test_retry_after_is_seconds_or_a_date(void **state)
{
    uint64_t seconds = 0;

    (void)state;
    assert_int_equal(hub_retry_after("120", 0, &seconds), 1);
    assert_int_equal(seconds, 120);
    assert_int_equal(hub_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784111770, &seconds), 1);
    assert_int_equal(seconds, 7);
    assert_int_equal(hub_retry_after("Sun, 06 Nov 1994 08:49:37 GMT", 784111999, &seconds), 1);
    assert_int_equal(seconds, 0);
    assert_int_equal(hub_retry_after("soon", 0, &seconds), 0);
    assert_int_equal(hub_retry_after("", 0, &seconds), 0);
    assert_int_equal(hub_retry_after("99999999999999999999", 0, &seconds), 1);
    assert_true(seconds == UINT64_MAX);
}

static void test_an_etag_loses_its_dress(void **state)
{
    char out[20];

    (void)state;
    hub_etag("W/\"abc\"", out, sizeof out);
    assert_string_equal(out, "abc");
    hub_etag("\"0123456789012345678901234\"", out, sizeof out);
    assert_string_equal(out, "0123456789012345678");
}

static void test_an_origin_is_scheme_host_and_port(void **state)
{
    static const char *const bad[] = { "ftp://h/", "http://", "http://u@h/", "http://h:0/",
                                       "http://h:65536/", "http://h:8x/", "http://h /", "//h/",
                                       "http://h/a b", "http://[::1", "" };
    hub_url url;

    (void)state;
    assert_true(hub_same_origin("https://Hub.co/x", "https://hub.co:443/y?z"));
    assert_false(hub_same_origin("https://hub.co/", "http://hub.co/"));
    assert_false(hub_same_origin("https://hub.co/", "https://hub.co:444/"));
    assert_false(hub_same_origin("https://hub.co/", "https://hub.co.evil.org/"));
    assert_false(hub_same_origin("https://hub.co/", "https://hub.co@evil.org/"));
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_int_equal(hub_parse_url(bad[i], &url), 0);
}

static void check_resolve(const char *base, const char *location, const char *expected)
{
    char *got = hub_resolve_url(base, location);

    if (expected == NULL)
        assert_null(got);
    else
        assert_string_equal(got, expected);
    free(got);
}

static void test_only_addresses_are_loopback(void **state)
{
    static const struct {
        const char *url;
        int is_loopback;
    } cases[] = { { "http://127.0.0.1:80/a", 1 }, { "http://127.1", 1 },
                  { "http://localhost:8080", 1 }, { "http://[::1]:1/", 1 },
                  { "http://127.example.org/", 0 }, { "http://127.0.0.1.example.org", 0 },
                  { "http://localhost.example.org", 0 }, { "http://128.0.0.1", 0 } };
    hub_url url;

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(hub_parse_url(cases[i].url, &url), 1);
        assert_int_equal(hub_is_loopback(&url), cases[i].is_loopback);
    }
}

static void test_a_location_is_resolved_with_its_query(void **state)
{
    static const char base[] = "https://h:9/a/b?q=1";

    (void)state;
    check_resolve(base, "/c?d=%22e%22", "https://h:9/c?d=%22e%22");
    check_resolve(base, "c", "https://h:9/a/c");
    check_resolve(base, "?z", "https://h:9/a/b?z");
    check_resolve(base, "//g/x", "https://g/x");
    check_resolve(base, "http://g/x#part", "http://g/x");
    check_resolve("https://h", "c", "https://h/c");
    check_resolve(base, "ftp://g/x", NULL);
    check_resolve(base, "javascript:x", NULL);
    check_resolve(base, "", NULL);
    check_resolve(base, "http://u:p@g/x", NULL);
}

static void test_paths_are_encoded_byte_by_byte(void **state)
{
    char *out = hub_encode("a b/\xc3\xbc+~.txt", 1);

    (void)state;
    assert_string_equal(out, "a%20b/%C3%BC%2B~.txt");
    free(out);
    out = hub_encode("refs/pr/1", 0);
    assert_string_equal(out, "refs%2Fpr%2F1");
    free(out);
}

static void test_the_rest_of_a_url_is_kept(void **state)
{
    char *out = hub_encode_rest("https://h/a%20b/\xc3\xbc?x");

    (void)state;
    assert_string_equal(out, "https://h/a%20b/%C3%BC?x");
    free(out);
}

static void test_all_bytes_are_decoded_but_control_characters(void **state)
{
    (void)state;
    for (unsigned byte = 0; byte < 256; byte++) {
        char text[8];
        const char expected[2] = { (char)byte, '\0' };

        snprintf(text, sizeof text, byte % 2 == 0 ? "%%%02X" : "%%%02x", byte);
        if (byte < 0x20 || byte == 0x7f) {
            assert_non_null(hub_decode(text));
            continue;
        }
        assert_null(hub_decode(text));
        assert_string_equal(text, expected);
    }
}

static void test_what_is_no_encoding_is_refused(void **state)
{
    static const char *const texts[] = { "%", "a%2", "%g0", "%0g", "a%%20", "%-1" };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char text[8];

        snprintf(text, sizeof text, "%s", texts[i]);
        assert_non_null(hub_decode(text));
    }
}

static void test_signatures_are_not_shown(void **state)
{
    char out[64];

    (void)state;
    hub_show_url("https://h/x?Signature=secret", out, sizeof out);
    assert_string_equal(out, "https://h/x?...");
}

static void test_the_expiry_is_the_earliest_that_a_url_names(void **state)
{
    (void)state;
    assert_int_equal(hub_url_expiry("https://h/x?Expires=1700000000&Signature=s"), 1700000000);
    assert_int_equal(
        hub_url_expiry("https://h/x?X-Amz-Date=20231114T221320Z&X-Amz-Expires=3600"), 1700003600);
    assert_int_equal(hub_url_expiry("https://h/x"), 0);
    assert_int_equal(hub_url_expiry("https://h/x?Expires=never"), 0);
}

/* As Python's fnmatch.fnmatchcase. */
static void test_patterns_match_as_pythons(void **state)
{
    static const struct {
        const char *pattern;
        const char *path;
        int matches;
    } cases[] = {
        { "*.bin", "a/b.bin", 1 },    { "*.bin", "a.bin.x", 0 },  { "a?c", "a/c", 1 },
        { "a?c", "a\xc3\xbc" "c", 1 }, { "[ab]x", "bx", 1 },      { "[!ab]x", "bx", 0 },
        { "[^a]x", "^x", 1 },         { "[^a]x", "bx", 0 },       { "[", "[", 1 },
        { "[a", "[a", 1 },            { "[]]", "]", 1 },          { "[!]]", "]", 0 },
        { "[a-c]", "b", 1 },          { "[a-]", "-", 1 },         { "dir/", "dir/x/y", 1 },
        { "dir/", "dir", 0 },         { "dir\\*", "dir/x", 1 },   { "*", "", 1 },
        { "", "", 1 },                { "", "a", 0 },             { "A", "a", 0 },
        { "a*b*c", "aXbYbZc", 1 },    { "a*b*c", "aXbYbZ", 0 },   { "**", "a/b", 1 },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (hub_glob(cases[i].pattern, cases[i].path) != cases[i].matches)
            fail_msg("'%s' on '%s'", cases[i].pattern, cases[i].path);
}

static void test_good_names_pass(void **state)
{
    (void)state;
    assert_null(hub_repo_complaint("deepseek-ai/DeepSeek-V4-Flash"));
    assert_null(hub_repo_complaint("gpt2"));
    assert_null(hub_path_complaint("a/b.safetensors"));
    assert_null(hub_path_complaint(".gitattributes"));
    assert_null(hub_path_complaint(".cache/other"));
    assert_null(hub_path_complaint("..a/b..c"));
    assert_null(hub_path_complaint("\xe6\xa8\xa1\xe5\x9e\x8b.txt"));
}

static void test_text_that_is_not_utf_8_is_no_path(void **state)
{
    static const char *const bad[] = { "\xff", "\xc0\xaf", "a\xe0\x80\xaf", "\xed\xa0\x80",
                                       "\xf4\x90\x80\x80", "\xc3" };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_non_null(hub_path_complaint(bad[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_content_range_is_read_or_refused),
        cmocka_unit_test(test_the_next_link_is_found_among_others),
        cmocka_unit_test(test_rate_limits_are_read_in_any_order),
        cmocka_unit_test(test_retry_after_is_seconds_or_a_date),
        cmocka_unit_test(test_an_etag_loses_its_dress),
        cmocka_unit_test(test_an_origin_is_scheme_host_and_port),
        cmocka_unit_test(test_only_addresses_are_loopback),
        cmocka_unit_test(test_a_location_is_resolved_with_its_query),
        cmocka_unit_test(test_paths_are_encoded_byte_by_byte),
        cmocka_unit_test(test_the_rest_of_a_url_is_kept),
        cmocka_unit_test(test_all_bytes_are_decoded_but_control_characters),
        cmocka_unit_test(test_what_is_no_encoding_is_refused),
        cmocka_unit_test(test_signatures_are_not_shown),
        cmocka_unit_test(test_the_expiry_is_the_earliest_that_a_url_names),
        cmocka_unit_test(test_patterns_match_as_pythons),
        cmocka_unit_test(test_good_names_pass),
        cmocka_unit_test(test_text_that_is_not_utf_8_is_no_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
