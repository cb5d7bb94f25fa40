/* test_pickle.c: pickles as plain data, and what is refused. */
#include "formats/torch_dist/pickle.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/torch_dist/pickle_write.h"

/* A literal with its NULs, without the last. */
#define BYTES(text) text, sizeof(text) - 1

enum { MEMORY = 8 << 20 };

static ckpt_code read_with(const void *bytes, size_t size, uint64_t memory_bytes, pickle **out,
                           ckpt_error *err)
{
    const pickle_limits limits = { .memory_bytes = memory_bytes };

    return pickle_read(bytes, size, &limits, "test", out, err);
}

static pickle *read_ok(const char *bytes, size_t size)
{
    ckpt_error err = { 0 };
    pickle *p;

    if (read_with(bytes, size, MEMORY, &p, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    return p;
}

static void assert_refused(const char *bytes, size_t size, const char *words)
{
    ckpt_error err = { 0 };
    pickle *p;

    assert_int_equal(read_with(bytes, size, MEMORY, &p, &err), CKPT_E_FORMAT);
    assert_null(p);
    assert_non_null(strstr(err.text, words));
}

static void assert_int(const char *bytes, size_t size, int64_t expected)
{
    pickle *p = read_ok(bytes, size);
    int64_t number;

    assert_true(pickle_i64(pickle_root(p), &number));
    assert_true(number == expected);
    pickle_free(p);
}

static void test_integers_of_every_form(void **state)
{
    pickle *p;

    (void)state;
    assert_int(BYTES("\x80\2K\xff."), 255);
    assert_int(BYTES("\x80\2M\xff\xff."), 65535);
    assert_int(BYTES("\x80\2J\xff\xff\xff\xff."), -1);
    assert_int(BYTES("\x80\2J\0\0\0\x80."), INT32_MIN);
    assert_int(BYTES("\x80\2\x8a\0."), 0);
    assert_int(BYTES("\x80\2\x8a\1\x80."), -128);
    assert_int(BYTES("\x80\2\x8a\5\0\0\0\x80\0."), INT64_C(1) << 31);
    assert_int(BYTES("\x80\2\x8a\x8\0\0\0\0\0\0\0\x80."), INT64_MIN);
    assert_int(BYTES("\x80\2\x8a\x9\1\0\0\0\0\0\0\0\0."), 1);
    p = read_ok(BYTES("\x80\2\x8a\x9\0\0\0\0\0\0\0\x80\0."));
    assert_true(pickle_is(pickle_root(p), PICKLE_BIG));
    pickle_free(p);
}

static void test_a_double_is_big_endian(void **state)
{
    pickle *p = read_ok(BYTES("\x80\2G\x3f\xf8\0\0\0\0\0\0."));
    double number;

    (void)state;
    assert_true(pickle_double(pickle_root(p), &number));
    assert_true(number == 1.5);
    pickle_free(p);
}

static void test_dicts_keep_order_and_the_last_of_equal_keys(void **state)
{
    pickle *p = read_ok(BYTES("\x80\2}(X\1\0\0\0aK\1X\1\0\0\0bK\2X\1\0\0\0aK\3u."));
    int64_t number;

    (void)state;
    assert_int_equal(pickle_count(pickle_root(p)), 3);
    assert_true(pickle_text_is(pickle_key(pickle_root(p), 1), "b"));
    assert_true(pickle_i64(pickle_find(pickle_root(p), "a"), &number));
    assert_int_equal(number, 3);
    assert_null(pickle_find(pickle_root(p), "c"));
    pickle_free(p);
}

static void test_several_batches_fill_one_list(void **state)
{
    pickle *p = read_ok(BYTES("\x80\2]q\0(K\1K\2e(K\3eK\4a."));

    (void)state;
    assert_int_equal(pickle_count(pickle_root(p)), 4);
    assert_null(pickle_item(pickle_root(p), 4));
    pickle_free(p);
}

/* os.system is as good a name as any: nothing is looked up. */
static void test_unknown_classes_are_opaque(void **state)
{
    pickle *p = read_ok(BYTES("\x80\2cos\nsystem\n(X\2\0\0\0lstR}K\1K\2sb(K\5K\6u."));
    const pickle_value *root = pickle_root(p);

    (void)state;
    assert_true(pickle_is(root, PICKLE_OBJECT));
    assert_string_equal(pickle_class(root), "os system");
    assert_true(pickle_text_is(pickle_item(pickle_args(root), 0), "ls"));
    assert_int_equal(pickle_count(pickle_state(root)), 1);
    assert_int_equal(pickle_count(root), 1);
    assert_non_null(pickle_key(root, 0));
    pickle_free(p);
}

static void test_protocol_4_names_come_from_the_stack(void **state)
{
    pickle *p = read_ok(BYTES("\x80\4\x95\x0e\0\0\0\0\0\0\0\x8c\5torch\x94\x8c\4Size\x93."));

    (void)state;
    assert_true(pickle_class_is(pickle_root(p), "torch Size"));
    pickle_free(p);
}

static void test_cycles_are_refused(void **state)
{
    (void)state;
    assert_refused(BYTES("\x80\2]q\0h\0a."), "cyclic");
    assert_refused(BYTES("\x80\2}q\0K\1h\0\x85s."), "cyclic");
    assert_refused(BYTES("\x80\2]q\0(h\0tq\1ah\1\x85."), "one value");
}

static void test_a_value_used_twice_is_no_cycle(void **state)
{
    pickle *p = read_ok(BYTES("\x80\2]q\0K\1ah\0h\0\x87."));

    (void)state;
    assert_int_equal(pickle_count(pickle_root(p)), 3);
    pickle_free(p);
}

static void test_nesting_is_limited(void **state)
{
    char deep[400] = "\x80\2)";
    const size_t levels = PICKLE_DEPTH;
    pickle *p;

    (void)state;
    memset(deep + 3, '\x85', levels - 1);
    deep[3 + levels - 1] = '.';
    p = read_ok(deep, 3 + levels);
    pickle_free(p);
    memset(deep + 3, '\x85', levels);
    deep[3 + levels] = '.';
    assert_refused(deep, 3 + levels + 1, "deeply");
}

/* Each level holds the one below twice: 2^60 paths, 60 nodes. */
static void test_shared_values_are_walked_once(void **state)
{
    char bytes[4 + 60 * 5] = "\x80\2)";
    size_t size = 3;
    pickle *p;

    (void)state;
    for (int i = 0; i < 60; i++) {
        bytes[size++] = 'q';
        bytes[size++] = (char)i;
        bytes[size++] = 'h';
        bytes[size++] = (char)i;
        bytes[size++] = '\x86';
    }
    bytes[size++] = '.';
    p = read_ok(bytes, size);
    assert_int_equal(pickle_count(pickle_root(p)), 2);
    pickle_free(p);
}

static void test_what_is_refused(void **state)
{
    (void)state;
    assert_refused(BYTES(""), "is not a pickle");
    assert_refused(BYTES("K\1."), "is not a pickle");
    assert_refused(BYTES("\x80\6K\1."), "protocol");
    assert_refused(BYTES("\x80\2"), "no end");
    assert_refused(BYTES("\x80\2K\1.x"), "the end");
    assert_refused(BYTES("\x80\2."), "one value");
    assert_refused(BYTES("\x80\2K\1K\1."), "one value");
    assert_refused(BYTES("\x80\2(K\1."), "one value");
    assert_refused(BYTES("\x80\2X\xff\xff\xff\xff" "a."), "the end");
    assert_refused(BYTES("\x80\2X\2\0\0\0\xc0\x80."), "UTF-8");
    assert_refused(BYTES("\x80\2h\0."), "memo");
    assert_refused(BYTES("\x80\2K\1r\xff\xff\xff\x7f."), "memo number");
    assert_refused(BYTES("\x80\2t."), "no mark");
    assert_refused(BYTES("\x80\2K\1(\x85."), "too short");
    assert_refused(BYTES("\x80\2]K\1s."), "too short");
    assert_refused(BYTES("\x80\2]K\1K\2s."), "not a container");
    assert_refused(BYTES("\x80\2}]K\1s."), "a key");
    assert_refused(BYTES("\x80\2}(K\1u."), "no value");
    assert_refused(BYTES("\x80\2K\1)R."), "expected a class");
    assert_refused(BYTES("\x80\2ca\nb\n]R."), "tuple");
    assert_refused(BYTES("\x80\2}}b."), "no object");
    assert_refused(BYTES("\x80\2ca\n\n."), "module");
    assert_refused(BYTES("\x80\2ca b\nc\n."), "module");
    assert_refused(BYTES("\x80\2cab"), "no end");
}

static void test_other_opcodes_are_refused_by_name_and_place(void **state)
{
    static const char others[] = "012FILTVdgilop\x82\x83\x84\x8b\x8e\x91\x96\x97\x98\xff";

    (void)state;
    for (size_t i = 0; i < sizeof others - 1; i++) {
        const char bytes[] = { '\x80', 2, 'N', others[i], '.' };

        assert_refused(bytes, sizeof bytes, "at byte 3: refused");
    }
}

static void test_memory_is_limited(void **state)
{
    enum { COUNT = 1 << 20 };
    char *bytes = malloc(COUNT + 4);
    ckpt_error err;
    pickle *p;

    (void)state;
    memcpy(bytes, "\x80\2(", 3);
    memset(bytes + 3, ']', COUNT);
    assert_int_equal(read_with(bytes, COUNT + 3, MEMORY, &p, &err), CKPT_E_MEMORY);
    memset(bytes + 2, '(', COUNT);
    assert_int_equal(read_with(bytes, COUNT + 2, 1 << 20, &p, &err), CKPT_E_MEMORY);
    free(bytes);
}

typedef struct {
    char bytes[8192];
    size_t size;
    size_t limit;
} written;

static int write_bytes(void *context, const void *bytes, size_t size)
{
    written *w = context;

    if (size > w->limit - w->size)
        return 1;
    memcpy(w->bytes + w->size, bytes, size);
    w->size += size;
    return 0;
}

static void test_numbers_are_written_shortest_and_read_back(void **state)
{
    static const struct {
        int64_t number;
        size_t size;
    } cases[] = { { 0, 2 }, { 255, 2 }, { 256, 3 }, { 65535, 3 }, { 65536, 5 }, { -1, 5 },
                  { INT32_MAX, 5 }, { INT32_MIN, 5 }, { INT64_C(1) << 31, 7 },
                  { (INT64_C(1) << 39) - 1, 7 }, { INT64_C(1) << 39, 8 },
                  { (int64_t)INT32_MIN - 1, 7 }, { -(INT64_C(1) << 39), 7 }, { INT64_MAX, 10 },
                  { INT64_MIN, 10 } };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        written out = { .limit = sizeof out.bytes };
        pickle_writer w;
        ckpt_error err;

        pickle_writer_begin(&w, write_bytes, &out);
        pickle_put_i64(&w, cases[i].number);
        assert_int_equal(pickle_writer_end(&w, &err), CKPT_OK);
        assert_int_equal(out.size, cases[i].size + 3);
        assert_int(out.bytes, out.size, cases[i].number);
    }
}

static void test_texts_are_written_once(void **state)
{
    written out = { .limit = sizeof out.bytes };
    pickle_writer w;
    ckpt_error err;
    pickle *p;

    (void)state;
    pickle_writer_begin(&w, write_bytes, &out);
    pickle_put_op(&w, PICKLE_OP_MARK);
    for (int i = 0; i < 600; i++)
        pickle_put_text(&w, i % 2 ? "odd" : "even");
    pickle_put_op(&w, PICKLE_OP_TUPLE);
    assert_int_equal(pickle_writer_end(&w, &err), CKPT_OK);
    assert_true(out.size < 1300);
    p = read_ok(out.bytes, out.size);
    assert_int_equal(pickle_count(pickle_root(p)), 600);
    assert_true(pickle_text_is(pickle_item(pickle_root(p), 599), "odd"));
    pickle_free(p);
}

static void test_a_failed_write_is_reported(void **state)
{
    written out = { .limit = 100 };
    pickle_writer w;
    ckpt_error err;

    (void)state;
    pickle_writer_begin(&w, write_bytes, &out);
    pickle_put_text(&w, "x");
    for (int i = 0; i < 5000; i++)
        pickle_put_bool(&w, 1);
    assert_int_equal(pickle_writer_end(&w, &err), CKPT_E_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_integers_of_every_form),
        cmocka_unit_test(test_a_double_is_big_endian),
        cmocka_unit_test(test_dicts_keep_order_and_the_last_of_equal_keys),
        cmocka_unit_test(test_several_batches_fill_one_list),
        cmocka_unit_test(test_unknown_classes_are_opaque),
        cmocka_unit_test(test_protocol_4_names_come_from_the_stack),
        cmocka_unit_test(test_cycles_are_refused),
        cmocka_unit_test(test_a_value_used_twice_is_no_cycle),
        cmocka_unit_test(test_nesting_is_limited),
        cmocka_unit_test(test_shared_values_are_walked_once),
        cmocka_unit_test(test_what_is_refused),
        cmocka_unit_test(test_other_opcodes_are_refused_by_name_and_place),
        cmocka_unit_test(test_memory_is_limited),
        cmocka_unit_test(test_numbers_are_written_shortest_and_read_back),
        cmocka_unit_test(test_texts_are_written_once),
        cmocka_unit_test(test_a_failed_write_is_reported),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
