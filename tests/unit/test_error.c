/* test_error.c: how a failure is described. */
#include "libckpt/error.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
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

/* A name that turns the line round, or that a terminal takes for a command of eight bits. */
static void test_hidden_characters_of_several_bytes_are_escaped(void **state)
{
    ckpt_error err;

    (void)state;
    ckpt_fail(&err, CKPT_E_FORMAT, "'%s' '%s'", "a\u202e\u202eb", "\xc2\x9b" "1m\u20ac\xe2\x80");
    assert_string_equal(err.text, "'a\\xe2\\x80\\xae\\xe2\\x80\\xaeb' "
                                  "'\\xc2\\x9b1m\u20ac\xe2\x80'");
}

static void test_a_long_text_has_dots_for_its_middle(void **state)
{
    char longer[3000];
    ckpt_error err;

    (void)state;
    memset(longer, 'x', sizeof longer);
    longer[0] = 'a';
    longer[sizeof longer - 2] = 'z';
    longer[sizeof longer - 1] = '\0';
    ckpt_fail(&err, CKPT_E_FORMAT, "%s", longer);
    assert_int_equal(strlen(err.text), CKPT_ERROR_BYTES - 1);
    assert_int_equal(err.text[0], 'a');
    assert_non_null(strstr(err.text, "x...x"));
    assert_int_equal(err.text[CKPT_ERROR_BYTES - 2], 'z');
}

static void test_every_length_around_the_limit_is_whole_or_has_dots(void **state)
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
        if (length < CKPT_ERROR_BYTES)
            assert_string_equal(err.text, text);
        else
            assert_non_null(strstr(err.text, "x...x"));
    }
}

/* `count` of `character` between `head` and `tail`; yours to free. */
static char *long_subject(const char *head, char character, size_t count, const char *tail)
{
    char *text = malloc(strlen(head) + count + strlen(tail) + 1);

    assert_non_null(text);
    memcpy(text, head, strlen(head));
    memset(text + strlen(head), character, count);
    memcpy(text + strlen(head) + count, tail, strlen(tail) + 1);
    return text;
}

static void test_what_subject_expected_and_got_survive_any_subject(void **state)
{
    static const size_t lengths[] = { 900, 1000, 1023, 1024, 5000, 1 << 20 };
    ckpt_error err;

    (void)state;
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        char *path = long_subject("/begin/", 'p', lengths[i], "/model-1.safetensors");
        char *name = long_subject("layers.0.", 'n', lengths[i], ".weight");

        ckpt_fail(&err, CKPT_E_FORMAT, "'%s': tensor '%s' has dtype %s: expected %s, got %d", path,
                  name, "F64", "F32", 17);
        assert_true(strlen(err.text) < CKPT_ERROR_BYTES);
        assert_memory_equal(err.text, "'/begin/p", 9);
        assert_non_null(strstr(err.text, "p...p"));
        assert_non_null(strstr(err.text, "p/model-1.safetensors': tensor 'layers.0.n"));
        assert_non_null(strstr(err.text, "n...n"));
        assert_non_null(strstr(err.text, "n.weight' has dtype F64: expected F32, got 17"));
        free(path);
        free(name);
    }
}

static void test_a_short_subject_beside_a_long_one_stays_whole(void **state)
{
    char *path = long_subject("/", 'p', 4000, "/end");
    ckpt_error err;

    (void)state;
    ckpt_fail(&err, CKPT_E_FORMAT, "'%s': tensor '%s': expected 1, got 2", path,
              "layers.17.attn.wq_a.weight");
    assert_non_null(strstr(err.text, "p/end': tensor 'layers.17.attn.wq_a.weight': expected 1"));
    assert_int_equal(strlen(err.text) / 4, (CKPT_ERROR_BYTES - 1) / 4);    /* no room is wasted */
    free(path);
}

static void test_a_text_of_quotes_keeps_its_ends(void **state)
{
    char *quotes = long_subject("cannot read '", '\'', 5000, "': expected 1, got 2");
    ckpt_error err;

    (void)state;
    ckpt_fail(&err, CKPT_E_FORMAT, "%s", quotes);
    assert_memory_equal(err.text, "cannot read '", 13);
    assert_non_null(strstr(err.text, "'...'"));
    assert_string_equal(err.text + strlen(err.text) - 20, "': expected 1, got 2");
    free(quotes);
}

static void test_the_cut_does_not_split_a_character(void **state)
{
    ckpt_error err;
    char text[CKPT_ERROR_BYTES * 2];

    (void)state;
    for (size_t shift = 0; shift < 4; shift++) {
        size_t used = shift;
        const char *cut;

        memset(text, 'x', shift);
        for (; used + 5 < sizeof text; used += 4)
            memcpy(text + used, "\xf0\x9f\x98\x80", 5);
        ckpt_fail(&err, CKPT_E_FORMAT, "%s", text);
        cut = strstr(err.text, "...");
        assert_non_null(cut);
        assert_int_equal(((size_t)(cut - err.text) - shift) % 4, 0);
        assert_memory_equal(err.text, text, (size_t)(cut - err.text));
        assert_int_equal(strlen(cut + 3) % 4, 0);
        assert_string_equal(cut + 3, text + strlen(text) - strlen(cut + 3));
    }
}

static void test_escapes_are_not_split_by_the_cut(void **state)
{
    char text[CKPT_ERROR_BYTES];
    ckpt_error err;
    const char *cut;

    (void)state;
    memset(text, '\x01', sizeof text);
    text[sizeof text - 1] = '\0';
    ckpt_fail(&err, CKPT_E_FORMAT, "%s", text);
    cut = strstr(err.text, "...");
    assert_non_null(cut);
    assert_int_equal((cut - err.text) % 4, 0);
    assert_int_equal(strlen(cut + 3) % 4, 0);
    assert_memory_equal(cut + 3, "\\x01", 4);
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
    assert_string_equal(err.text, "out of memory for a catalog: 18446744073709551615 bytes");
}

static void test_a_new_error_has_no_detail_of_an_old_one(void **state)
{
    ckpt_error err = { CKPT_E_IO, "old", 7 };

    (void)state;
    ckpt_fail(&err, CKPT_E_IO, "new");
    assert_int_equal(err.detail, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_failure_carries_its_code_and_text),
        cmocka_unit_test(test_no_error_to_fill_is_fine),
        cmocka_unit_test(test_control_characters_are_escaped),
        cmocka_unit_test(test_hidden_characters_of_several_bytes_are_escaped),
        cmocka_unit_test(test_a_long_text_has_dots_for_its_middle),
        cmocka_unit_test(test_every_length_around_the_limit_is_whole_or_has_dots),
        cmocka_unit_test(test_what_subject_expected_and_got_survive_any_subject),
        cmocka_unit_test(test_a_short_subject_beside_a_long_one_stays_whole),
        cmocka_unit_test(test_a_text_of_quotes_keeps_its_ends),
        cmocka_unit_test(test_the_cut_does_not_split_a_character),
        cmocka_unit_test(test_escapes_are_not_split_by_the_cut),
        cmocka_unit_test(test_the_arguments_may_come_from_the_same_error),
        cmocka_unit_test(test_errno_survives),
        cmocka_unit_test(test_lack_of_memory_names_what_and_how_much),
        cmocka_unit_test(test_a_new_error_has_no_detail_of_an_old_one),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
