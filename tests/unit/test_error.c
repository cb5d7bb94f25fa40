/* test_error.c: how a failure is described. */
#include "error.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void test_a_failure_carries_its_code_and_text(void **state)
{
    ckpt_error err;

    (void)state;
    assert_int_equal(ckpt_fail(&err, CKPT_E_IO, "cannot read '%s': %d", "a", 7), CKPT_E_IO);
    assert_int_equal(err.code, CKPT_E_IO);
    assert_string_equal(err.text, "cannot read 'a': 7");
}

static void test_no_error_to_fill_is_fine(void **state)
{
    (void)state;
    assert_int_equal(ckpt_fail(NULL, CKPT_E_FORMAT, "%s", "x"), CKPT_E_FORMAT);
    assert_int_equal(ckpt_fail_memory(NULL, "x", 1), CKPT_E_MEMORY);
}

static void test_control_characters_are_escaped(void **state)
{
    ckpt_error err;

    (void)state;
    ckpt_fail(&err, CKPT_E_FORMAT, "'%s'", "a\nb\tc\rd\x1b[31m\x7f\x01 \xc3\xa9");
    assert_string_equal(err.text, "'a\\nb\\tc\\rd\\x1b[31m\\x7f\\x01 \xc3\xa9'");
}

static void test_a_long_text_is_cut_with_dots(void **state)
{
    char longer[3000];
    ckpt_error err;

    (void)state;
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\0';
    ckpt_fail(&err, CKPT_E_FORMAT, "%s", longer);
    assert_int_equal(strlen(err.text), CKPT_ERROR_BYTES - 1);
    assert_string_equal(err.text + CKPT_ERROR_BYTES - 5, "x...");
}

static void test_every_length_around_the_limit_is_whole_or_ends_with_dots(void **state)
{
    char text[CKPT_ERROR_BYTES + 32];
    ckpt_error err;

    (void)state;
    for (size_t length = CKPT_ERROR_BYTES - 32; length < sizeof text; length++) {
        memset(text, 'x', length);
        text[length] = '\0';
        memset(&err, 0x55, sizeof err);
        ckpt_fail(&err, CKPT_E_FORMAT, "%s", text);
        assert_non_null(memchr(err.text, '\0', sizeof err.text));
        if (length <= CKPT_ERROR_BYTES - 4)
            assert_string_equal(err.text, text);
        else
            assert_string_equal(err.text + strlen(err.text) - 3, "...");
    }
}

static void test_the_cut_does_not_split_a_character(void **state)
{
    ckpt_error err;
    char text[CKPT_ERROR_BYTES * 2];

    (void)state;
    for (size_t shift = 0; shift < 4; shift++) {
        size_t used = shift;
        size_t kept;

        memset(text, 'x', shift);
        for (; used + 5 < sizeof text; used += 4)
            memcpy(text + used, "\xf0\x9f\x98\x80", 5);
        ckpt_fail(&err, CKPT_E_FORMAT, "%s", text);
        kept = strlen(err.text) - 3;
        assert_string_equal(err.text + kept, "...");
        assert_int_equal((kept - shift) % 4, 0);
        assert_memory_equal(err.text, text, kept);
    }
}

static void test_escapes_are_not_split_by_the_cut(void **state)
{
    char text[CKPT_ERROR_BYTES];
    ckpt_error err;

    (void)state;
    memset(text, '\x01', sizeof text);
    text[sizeof text - 1] = '\0';
    ckpt_fail(&err, CKPT_E_FORMAT, "%s", text);
    assert_int_equal((strlen(err.text) - 3) % 4, 0);
}

static void test_the_arguments_may_come_from_the_same_error(void **state)
{
    ckpt_error err;

    (void)state;
    ckpt_fail(&err, CKPT_E_IO, "inner");
    ckpt_fail(&err, CKPT_E_FORMAT, "outer: %s", err.text);
    assert_string_equal(err.text, "outer: inner");
}

static void test_errno_survives(void **state)
{
    ckpt_error err;

    (void)state;
    errno = ENOSPC;
    ckpt_fail(&err, CKPT_E_IO, "%s", "x");
    assert_int_equal(errno, ENOSPC);
}

static void test_lack_of_memory_names_what_and_how_much(void **state)
{
    ckpt_error err;

    (void)state;
    assert_int_equal(ckpt_fail_memory(&err, "a catalog", UINT64_MAX), CKPT_E_MEMORY);
    assert_string_equal(err.text, "no memory for a catalog: 18446744073709551615 bytes");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_failure_carries_its_code_and_text),
        cmocka_unit_test(test_no_error_to_fill_is_fine),
        cmocka_unit_test(test_control_characters_are_escaped),
        cmocka_unit_test(test_a_long_text_is_cut_with_dots),
        cmocka_unit_test(test_every_length_around_the_limit_is_whole_or_ends_with_dots),
        cmocka_unit_test(test_the_cut_does_not_split_a_character),
        cmocka_unit_test(test_escapes_are_not_split_by_the_cut),
        cmocka_unit_test(test_the_arguments_may_come_from_the_same_error),
        cmocka_unit_test(test_errno_survives),
        cmocka_unit_test(test_lack_of_memory_names_what_and_how_much),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
