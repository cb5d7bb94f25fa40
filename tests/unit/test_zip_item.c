/* test_zip_item.c: torch.save items, written and read. With arguments: see torch_items.c. */
#include "formats/torch_dist/zip_item.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "libckpt/crc32.h"
#include "libckpt/sha256.h"
#include "temporary.h"
#include "torch_items.h"

enum { ITEM_MAX = 64 << 10 };

typedef struct {
    unsigned char bytes[ITEM_MAX];
    size_t size;
} item_bytes;

static uint32_t random_state;

static uint32_t next_random(void)
{
    random_state = random_state * 1664525 + 1013904223;
    return random_state >> 8;
}

/* The item of a tensor whose payload counts up from 0. */
static void make_item(const zip_item_tensor *t, item_bytes *out)
{
    zip_item_plan plan;
    ckpt_error err;

    assert_int_equal(zip_item_plan_tensor(t, &plan, &err), CKPT_OK);
    assert_true(plan.size_bytes <= sizeof out->bytes);
    assert_int_equal(plan.head_bytes % ZIP_ITEM_ALIGN, 0);
    out->size = (size_t)plan.size_bytes;
    for (uint64_t i = 0; i < plan.payload_bytes; i++)
        out->bytes[plan.head_bytes + i] = (unsigned char)i;
    zip_item_set_crc(&plan, crc32_add(0, out->bytes + plan.head_bytes,
                                         (size_t)plan.payload_bytes));
    memcpy(out->bytes, plan.head, plan.head_bytes);
    memcpy(out->bytes + plan.head_bytes + plan.payload_bytes, plan.tail, plan.tail_bytes);
}

/* Read bytes as the item at `offset` of a file. */
static ckpt_code read_item(const item_bytes *item, uint64_t offset, zip_item *out,
                           ckpt_error *err)
{
    ckpt_file *file = temporary_file(item->bytes, item->size, offset);
    const ckpt_code code = zip_item_read(file, offset, item->size, out, err);

    assert_int_equal(file_close(file, NULL), CKPT_OK);
    return code;
}

static void assert_sha256(const void *bytes, size_t size, const char *expected)
{
    char hex[SHA256_HEX];
    ckpt_error err;
    sha256 *hash;

    assert_int_equal(sha256_begin(&hash, &err), CKPT_OK);
    assert_int_equal(sha256_add(hash, bytes, size, &err), CKPT_OK);
    assert_int_equal(sha256_end(hash, hex, &err), CKPT_OK);
    assert_string_equal(hex, expected);
}

static void test_the_reference_item_is_reproduced(void **state)
{
    static const unsigned char values[] = { 0, 0, 0x80, 0x3f, 0, 0x40, 0x40, 0x40, 0x80, 0x40,
                                            0xa0, 0x40 };
    const zip_item_tensor t = { CKPT_BF16, 2, { 2, 3 } };
    unsigned char item[664];
    zip_item_plan plan;
    ckpt_error err;

    (void)state;
    assert_int_equal(zip_item_plan_tensor(&t, &plan, &err), CKPT_OK);
    assert_int_equal(plan.size_bytes, sizeof item);
    assert_int_equal(plan.head_bytes, 384);
    assert_int_equal(plan.payload_bytes, sizeof values);
    zip_item_set_crc(&plan, crc32_add(0, values, sizeof values));
    memcpy(item, plan.head, plan.head_bytes);
    memcpy(item + plan.head_bytes, values, sizeof values);
    memcpy(item + plan.head_bytes + sizeof values, plan.tail, plan.tail_bytes);
    assert_sha256(item, sizeof item,
                  "6b68293a8a96ade7e46b640b1ae8e542c7300362fae7cacb47ed53dc450c9744");
}

static void test_what_was_written_is_read_back(void **state)
{
    (void)state;
    for (int dtype = CKPT_NONE + 1; dtype < CKPT_DTYPE_COUNT; dtype++) {
        for (uint32_t rank = 0; rank <= CKPT_RANK_MAX; rank++) {
            zip_item_tensor t = { (ckpt_dtype)dtype, rank, { 2, 3, 1, 2, 1, 1, 2, 5 } };
            item_bytes bytes;
            zip_item item;
            ckpt_error err;

            if (zip_item_element_bytes(t.dtype) == 0)
                continue;
            make_item(&t, &bytes);
            assert_int_equal(read_item(&bytes, 100, &item, &err), CKPT_OK);
            assert_int_equal(item.dtype, t.dtype);
            assert_int_equal(item.rank, rank);
            assert_memory_equal(item.shape, t.shape, rank * sizeof t.shape[0]);
            assert_true(item.is_row_major);
            assert_int_equal((item.data_offset - 100) % ZIP_ITEM_ALIGN, 0);
            assert_int_equal(item.payload_crc,
                             crc32_add(0, bytes.bytes + item.data_offset - 100,
                                          (size_t)item.payload_bytes));
        }
    }
}

static void test_dtypes_without_a_torch_name_are_refused(void **state)
{
    const zip_item_tensor t = { CKPT_F6_E2M3, 1, { 4 } };
    zip_item_plan plan;
    ckpt_error err;

    (void)state;
    assert_int_equal(zip_item_plan_tensor(&t, &plan, &err), CKPT_E_USAGE);
}

static void test_empty_tensors_have_an_empty_record(void **state)
{
    const zip_item_tensor t = { CKPT_F32, 3, { 4, 0, 7 } };
    item_bytes bytes;
    zip_item item;
    ckpt_error err;

    (void)state;
    make_item(&t, &bytes);
    assert_int_equal(read_item(&bytes, 0, &item, &err), CKPT_OK);
    assert_int_equal(item.payload_bytes, 0);
    assert_int_equal(item.strides[0], 7);
    assert_true(item.is_row_major);
}

static void test_a_crc_is_the_sum_of_its_shifted_pieces(void **state)
{
    unsigned char bytes[1000];

    (void)state;
    random_state = 1;
    for (size_t i = 0; i < sizeof bytes; i++)
        bytes[i] = (unsigned char)next_random();
    for (int round = 0; round < 200; round++) {
        const size_t a = next_random() % sizeof bytes;
        const size_t b = a + next_random() % (sizeof bytes - a);
        const uint32_t sum =
            crc32_shift(crc32_add(0, bytes + a, b - a), sizeof bytes - b) ^
            crc32_add(0, bytes + b, sizeof bytes - b) ^
            crc32_shift(crc32_add(0, bytes, a), sizeof bytes - a);

        assert_int_equal(sum, crc32_add(0, bytes, sizeof bytes));
    }
}

/* Zeros have a CRC as well; 2^35 of them would take long to read. */
static void test_shifting_composes_for_terabytes(void **state)
{
    const uint64_t far = (UINT64_C(1) << 45) + 12345;
    const uint64_t near = (UINT64_C(1) << 33) + 7;

    (void)state;
    assert_int_equal(crc32_shift(0x12345678, 0), 0x12345678);
    assert_int_equal(crc32_shift(crc32_shift(0x12345678, far), near),
                     crc32_shift(0x12345678, far + near));
    assert_int_equal(crc32_shift(0, far), 0);
}

static uint64_t load(const unsigned char *bytes, size_t size)
{
    uint64_t number = 0;

    for (size_t i = size; i-- > 0;)
        number = number << 8 | bytes[i];
    return number;
}

/* 32 bits do not hold these sizes: both headers say so, and the end record has a 64-bit twin. */
static void test_items_over_4_gib_use_zip64(void **state)
{
    const uint64_t limit = UINT32_MAX;

    (void)state;
    for (uint64_t size = limit - 1; size <= limit; size++) {
        const zip_item_tensor t = { CKPT_U8, 1, { size } };
        zip_item_plan plan;
        ckpt_error err;

        assert_int_equal(zip_item_plan_tensor(&t, &plan, &err), CKPT_OK);
        assert_int_equal(plan.head_bytes % ZIP_ITEM_ALIGN, 0);
        assert_true(plan.payload_bytes == size);
        assert_int_equal(load(plan.head + plan.head_crc_offset + 4, 4), size);
        assert_int_equal(load(plan.tail + plan.tail_bytes - 22, 4), 0x06054b50);
        assert_int_equal(load(plan.tail + plan.tail_bytes - 22 + 16, 4), limit);
        assert_int_equal(load(plan.tail + plan.tail_bytes - 42, 4), 0x07064b50);
        assert_true(load(plan.tail + plan.tail_bytes - 34, 8) + 98 == plan.size_bytes);
        assert_true(plan.size_bytes == plan.head_bytes + size + plan.tail_bytes);
    }
}

static void test_a_sparse_item_over_4_gib_is_read(void **state)
{
    const zip_item_tensor t = { CKPT_F32, 2, { 3, UINT64_C(1) << 30 } };
    char path[] = "/tmp/ckpt-item-XXXXXX";
    const int fd = mkstemp(path);
    zip_item_plan plan;
    ckpt_file *file;
    zip_item item;
    ckpt_error err;

    (void)state;
    assert_int_equal(zip_item_plan_tensor(&t, &plan, &err), CKPT_OK);
    assert_int_equal(pwrite(fd, plan.head, plan.head_bytes, 7), plan.head_bytes);
    assert_int_equal(pwrite(fd, plan.tail, plan.tail_bytes,
                            (off_t)(7 + plan.head_bytes + plan.payload_bytes)), plan.tail_bytes);
    close(fd);
    assert_int_equal(file_open(path, &file, &err), CKPT_OK);
    assert_int_equal(zip_item_read(file, 7, plan.size_bytes, &item, &err), CKPT_OK);
    assert_true(item.payload_bytes == plan.payload_bytes);
    assert_true(item.data_offset == 7 + plan.head_bytes);
    file_close(file, NULL);
    unlink(path);
}

/* Everything but the CRC of the payload, which is the caller's to check. */
static void assert_same_item(const zip_item *a, const zip_item *b)
{
    assert_int_equal(a->dtype, b->dtype);
    assert_int_equal(a->rank, b->rank);
    assert_memory_equal(a->shape, b->shape, sizeof a->shape);
    assert_memory_equal(a->strides, b->strides, sizeof a->strides);
    assert_int_equal(a->data_offset, b->data_offset);
    assert_int_equal(a->payload_bytes, b->payload_bytes);
}

static void test_a_flipped_bit_is_refused_or_harmless(void **state)
{
    const zip_item_tensor t = { CKPT_F8_E4M3, 2, { 2, 3 } };
    unsigned refused = 0;
    item_bytes bytes;
    zip_item whole;
    ckpt_error err;

    (void)state;
    make_item(&t, &bytes);
    assert_int_equal(read_item(&bytes, 0, &whole, &err), CKPT_OK);
    for (size_t bit = 0; bit < 8 * bytes.size; bit += 3) {
        zip_item item;

        bytes.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
        if (read_item(&bytes, 0, &item, &err) == CKPT_OK)
            assert_same_item(&item, &whole);
        else
            refused++;
        bytes.bytes[bit / 8] ^= (unsigned char)(1 << bit % 8);
    }
    assert_true(refused > 500);
}

static void test_a_cut_item_is_refused(void **state)
{
    const zip_item_tensor t = { CKPT_I64, 1, { 2 } };
    item_bytes bytes;
    zip_item item;
    ckpt_error err;

    (void)state;
    make_item(&t, &bytes);
    while (bytes.size-- > 0)
        assert_int_equal(read_item(&bytes, 0, &item, &err), CKPT_E_FORMAT);
}

static void test_bytes_changed_at_random_never_break_the_reader(void **state)
{
    const zip_item_tensor t = { CKPT_BF16, 3, { 2, 3, 4 } };
    item_bytes whole;

    (void)state;
    make_item(&t, &whole);
    random_state = 2;
    for (int round = 0; round < 1000; round++) {
        item_bytes bytes = whole;
        zip_item item;
        ckpt_error err;

        for (int i = 0; i < 8; i++) {
            const uint32_t at = next_random() % (uint32_t)bytes.size;

            bytes.bytes[at] = (unsigned char)(round % 2 ? next_random() : 0xff);
        }
        if (read_item(&bytes, 0, &item, &err) == CKPT_OK)
            assert_true(item.payload_offset + item.payload_bytes <= bytes.size);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_reference_item_is_reproduced),
        cmocka_unit_test(test_what_was_written_is_read_back),
        cmocka_unit_test(test_dtypes_without_a_torch_name_are_refused),
        cmocka_unit_test(test_empty_tensors_have_an_empty_record),
        cmocka_unit_test(test_a_crc_is_the_sum_of_its_shifted_pieces),
        cmocka_unit_test(test_shifting_composes_for_terabytes),
        cmocka_unit_test(test_items_over_4_gib_use_zip64),
        cmocka_unit_test(test_a_sparse_item_over_4_gib_is_read),
        cmocka_unit_test(test_a_flipped_bit_is_refused_or_harmless),
        cmocka_unit_test(test_a_cut_item_is_refused),
        cmocka_unit_test(test_bytes_changed_at_random_never_break_the_reader),
    };

    if (argc > 1)
        return torch_items_main(argc, argv);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
