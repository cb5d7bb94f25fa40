/* Files of token ids: every form says the same, what is no id is refused by name. */
#include "reference-runner/prompts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* A literal with its NULs, without the last. */
#define BYTES(literal) literal, sizeof(literal) - 1
#define SAFETENSORS(length, header, data) BYTES(length "\0\0\0\0\0\0\0" header data)

typedef struct {
    const char *bytes;
    size_t size;
} input;

/* 1 2 and 3, in every form. */
static const input forms[] = {
    { BYTES("1 2\n3") },
    { BYTES("1,2\r\n\r\n3,\r\n") },
    { BYTES("\n1\t2\n 3 \n") },
    { BYTES("[[1, 2], [3]]") },
    { BYTES(" \n{\"tokens\": [[1, 2], [3]], \"more\": 1}\n") },
    { BYTES("{\"tokens\": [1, 2]}\n{\"prompt\": \"x\", \"tokens\": [3]}") },
    { BYTES("{\"tokens\": [1, 2]}\r\n \r\n{\"tokens\": [3]}\r\n\r\n") },
    { SAFETENSORS("\x3C", "{\"tokens\":{\"dtype\":\"I8\",\"shape\":[2,2],\"data_offsets\":[0,4]}}",
                  "\1\2\3\377") },
    { SAFETENSORS("\x78",
                  "{\"tokens.0\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
                  "\"tokens.1\":{\"dtype\":\"U16\",\"shape\":[1],\"data_offsets\":[2,4]}}",
                  "\1\2\3\0") },
};

static void assert_one_two_and_three(const run_prompts *p)
{
    assert_int_equal(p->count, 2);
    assert_int_equal(p->prompts[0].count, 2);
    assert_int_equal(p->prompts[0].tokens[0], 1);
    assert_int_equal(p->prompts[0].tokens[1], 2);
    assert_int_equal(p->prompts[1].count, 1);
    assert_int_equal(p->prompts[1].tokens[0], 3);
}

static void test_every_form_says_the_same(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof forms / sizeof forms[0]; i++) {
        run_prompts prompts;
        ckpt_error err = { 0 };

        if (run_prompts_parse(forms[i].bytes, forms[i].size, "f", &prompts, &err) != CKPT_OK)
            fail_msg("form %zu: %s", i, err.text);
        assert_one_two_and_three(&prompts);
        run_prompts_free(&prompts);
    }
}

typedef struct {
    input file;
    const char *message;         /* a part of it */
} refusal;

static const refusal refusals[] = {
    { { BYTES("") }, "no prompt" },
    { { BYTES(" \n\n") }, "no prompt" },
    { { BYTES("1 x") }, "not a list of token ids" },
    { { BYTES("1 -1") }, "not a list of token ids" },
    { { BYTES("1 2\0 3") }, "not a list of token ids" },
    { { BYTES("1\n2147483648") }, "token id 2147483648 in prompt 1" },
    { { BYTES("99999999999999999999999") }, "token id" },
    { { BYTES("[1, 2.5]") }, "a token id is not a whole number of 0 or more" },
    { { BYTES("[-1]") }, "a token id is not a whole number of 0 or more" },
    { { BYTES("[[1], 2]") }, "a mixture of ids and lists of ids" },
    { { BYTES("[[1], []]") }, "prompt 1 is empty" },
    { { BYTES("[]") }, "prompt 0 is empty" },
    { { BYTES("{\"ids\": [1]}") }, "expected an array" },
    { { BYTES("{\"tokens\": [1]}\n[2") }, "" },
    { { BYTES("\x93NUMPY\x01") }, "truncated .npy header" },
    { { BYTES("\x93NUMPY\x01\0\377\377{'descr'") }, "unsupported .npy header" },
    { { SAFETENSORS("\x3C",
                    "{\"tokens\":{\"dtype\":\"I8\",\"shape\":[2,2],\"data_offsets\":[0,5]}}",
                    "\1\2\3\4") },
      "must have integers" },
    { { SAFETENSORS("\x3C",
                    "{\"tokens\":{\"dtype\":\"I8\",\"shape\":[2,3],\"data_offsets\":[0,4]}}",
                    "\1\2\3\4") },
      "does not match its header" },
    { { SAFETENSORS("\x3C",
                    "{\"tokens\":{\"dtype\":\"F8\",\"shape\":[2,2],\"data_offsets\":[0,4]}}",
                    "\1\2\3\4") },
      "must have integers" },
    { { SAFETENSORS("\x7F", "{\"tokens\"", ":1}") }, "not a list of token ids" },
};

static void test_what_is_no_list_of_ids_is_refused(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof refusals / sizeof refusals[0]; i++) {
        const refusal *r = &refusals[i];
        run_prompts prompts;
        ckpt_error err = { 0 };

        if (run_prompts_parse(r->file.bytes, r->file.size, "f", &prompts, &err) == CKPT_OK ||
            strstr(err.text, r->message) == NULL || strstr(err.text, "'f'") == NULL)
            fail_msg("refusal %zu: '%s'", i, err.text);
        assert_null(prompts.prompts);
    }
}

typedef struct {
    const char *type;
    const char *shape;
    input data;
    const char *message;         /* NULL: it is 1 2 and 3 */
} npy_case;

static const npy_case npy_cases[] = {
    { "|i1", "2, 2", { BYTES("\1\2\3\377") }, NULL },
    { "<i2", "2, 2", { BYTES("\1\0\2\0\3\0\377\377") }, NULL },
    { "<i4", "1, 2", { BYTES("\377\377\377\377\1\0\0\0") }, "token id" },
    { "|i1", "1, 2", { BYTES("\377\377") }, "prompt 0 is empty" },
    { "|i1", "2, 2", { BYTES("\1\2\3") }, "does not match its header" },
    { "|i1", "18446744073709551615, 2", { BYTES("\1\2") }, "does not match its header" },
    { "|i1", "1, 1, 1", { BYTES("\1") }, "neither one nor two dimensions" },
    { ">i4", "1", { BYTES("\0\0\0\1") }, "little-endian integers" },
    { "<f4", "1", { BYTES("\0\0\0\1") }, "little-endian integers" },
};

/* The file in `bytes`; its size. */
static size_t write_npy(const npy_case *c, char *bytes, size_t room)
{
    char header[128];
    const int length = snprintf(header, sizeof header,
                                "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }\n",
                                c->type, c->shape);
    const int size = snprintf(bytes, room, "\x93NUMPY\x01%c%c%c%s", 0, length, 0, header);

    assert_in_range(size + (int)c->data.size, 1, (int)room - 1);
    memcpy(bytes + size, c->data.bytes, c->data.size);
    bytes[size + (int)c->data.size] = '\0';
    return (size_t)size + c->data.size;
}

static void test_arrays_of_numpy(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof npy_cases / sizeof npy_cases[0]; i++) {
        const npy_case *c = &npy_cases[i];
        char bytes[256];
        const size_t size = write_npy(c, bytes, sizeof bytes);
        run_prompts prompts;
        ckpt_error err = { 0 };
        const ckpt_code code = run_prompts_parse(bytes, size, "f", &prompts, &err);

        if (c->message != NULL) {
            if (code == CKPT_OK || strstr(err.text, c->message) == NULL)
                fail_msg("case %zu: '%s'", i, err.text);
            continue;
        }
        assert_int_equal(code, CKPT_OK);
        assert_one_two_and_three(&prompts);
        run_prompts_free(&prompts);
    }
}

static void test_positions(void **state)
{
    static const uint64_t some[] = { 0, 5, 7, 8, 9 };
    uint64_t *list;
    uint64_t count;
    ckpt_error err;

    (void)state;
    assert_int_equal(run_positions_parse("0,5,7-9", 10, &list, &count, &err), CKPT_OK);
    assert_int_equal(count, 5);
    assert_memory_equal(list, some, sizeof some);
    free(list);
    assert_int_equal(run_positions_parse("last", 10, &list, &count, &err), CKPT_OK);
    assert_int_equal(count, 1);
    assert_int_equal(list[0], 9);
    free(list);
    assert_int_equal(run_positions_parse("all", 10, &list, &count, &err), CKPT_OK);
    assert_int_equal(count, 10);
    assert_int_equal(list[9], 9);
    free(list);
}

static void test_positions_that_do_not_ascend_or_are_beyond(void **state)
{
    static const char *const texts[] = { "",    "5,4", "5,5",  "7-5", "1,",  ",1", "1-",
                                         "-1",  "x",   "1 2",  "0-10", "10",
                                         "99999999999999999999999", "0-99999999999999999999999" };

    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        uint64_t *list = NULL;
        uint64_t count;
        ckpt_error err;

        if (run_positions_parse(texts[i], 10, &list, &count, &err) != CKPT_E_USAGE)
            fail_msg("'%s' was taken", texts[i]);
        free(list);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_form_says_the_same),
        cmocka_unit_test(test_what_is_no_list_of_ids_is_refused),
        cmocka_unit_test(test_arrays_of_numpy),
        cmocka_unit_test(test_positions),
        cmocka_unit_test(test_positions_that_do_not_ascend_or_are_beyond),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
