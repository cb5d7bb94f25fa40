/* test_delta.c: what weight deltas are made of: checksums in pieces, XOR and its counts, frames. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/changes.h"
#include "libckpt/checksum.h"
#include "libckpt/digest.h"
#include "libckpt/zframe.h"

enum { LONGEST = 102400 };

static ckpt_error err;
static char folder[] = "/tmp/ckpt-test-delta-XXXXXX";
static unsigned char pattern[LONGEST];

static int set_up(void **state)
{
    (void)state;
    for (size_t i = 0; i < LONGEST; i++)
        pattern[i] = (unsigned char)(i % 251);
    return mkdtemp(folder) == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    return file_remove_tree(folder, NULL) != CKPT_OK;
}

/* From the `blake3` package of PyPI: bytes 0, 1 ... 250, 0 ... as in the official vectors. */
static const struct {
    size_t size;
    const char *hex;
} blake3_vectors[] = {
    { 0,
      "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262" },
    { 1,
      "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213" },
    { 63,
      "e9bc37a594daad83be9470df7f7b3798297c3d834ce80ba85d6e207627b7db7b" },
    { 64,
      "4eed7141ea4a5cd4b788606bd23f46e212af9cacebacdc7d1f4c6dc7f2511b98" },
    { 65,
      "de1e5fa0be70df6d2be8fffd0e99ceaa8eb6e8c93a63f2d8d1c30ecb6b263dee" },
    { 1023,
      "10108970eeda3eb932baac1428c7a2163b0e924c9a9e25b35bba72b28f70bd11" },
    { 1024,
      "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7" },
    { 1025,
      "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444" },
    { 2048,
      "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a" },
    { 2049,
      "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030" },
    { 3072,
      "b98cb0ff3623be03326b373de6b9095218513e64f1ee2edd2525c7ad1e5cffd2" },
    { 3073,
      "7124b49501012f81cc7f11ca069ec9226cecb8a2c850cfe644e327d22d3e1cd3" },
    { 5000,
      "ee78d92070de3df1c57c37002abf0a6b1a6589acdeef4d8ffac7cf3d9e8f2836" },
    { 8192,
      "aae792484c8efe4f19e2ca7d371d8c467ffb10748d8a5a1ae579948f718a2a63" },
    { 31744,
      "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47" },
    { 102400,
      "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085" },
};

static void sum_in_pieces(checksum_kind kind, size_t size, size_t piece, char out[CHECKSUM_HEX])
{
    checksum *sum = malloc(sizeof *sum);

    checksum_begin(sum, kind);
    for (size_t at = 0; at < size; at += piece)
        checksum_add(sum, pattern + at, size - at < piece ? size - at : piece);
    checksum_end(sum, out);
    free(sum);
}

static void test_blake3_is_that_of_its_authors(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof blake3_vectors / sizeof *blake3_vectors; i++) {
        char got[CHECKSUM_HEX];

        sum_in_pieces(CHECKSUM_BLAKE3, blake3_vectors[i].size, LONGEST, got);
        assert_string_equal(got, blake3_vectors[i].hex);
    }
}

static void test_pieces_do_not_change_a_checksum(void **state)
{
    static const size_t pieces[] = { 1, 7, 64, 1000, 1024, 4097 };

    (void)state;
    for (int kind = 0; kind < CHECKSUM_COUNT; kind++) {
        char whole[CHECKSUM_HEX];

        sum_in_pieces((checksum_kind)kind, 10007, LONGEST, whole);
        assert_true(checksum_is_text((checksum_kind)kind, whole));
        for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++) {
            char got[CHECKSUM_HEX];

            sum_in_pieces((checksum_kind)kind, 10007, pieces[i], got);
            assert_string_equal(got, whole);
        }
    }
}

/* The published ones of "abc" and of nothing. */
static void test_checksums_of_abc(void **state)
{
    static const char *const expected[CHECKSUM_COUNT][2] = {
        [CHECKSUM_XXH3_128] = { "06b05ab6733a618578af5f94892f3950",
                                "99aa06d3014798d86001c324468d497f" },
        [CHECKSUM_BLAKE3] = { "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85",
                              "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262" },
        [CHECKSUM_ADLER32] = { "024d0127", "00000001" },
    };

    (void)state;
    for (int kind = 0; kind < CHECKSUM_COUNT; kind++)
        for (int empty = 0; empty < 2; empty++) {
            checksum *sum = malloc(sizeof *sum);
            char got[CHECKSUM_HEX];

            checksum_begin(sum, (checksum_kind)kind);
            checksum_add(sum, "abc", empty ? 0 : 3);
            checksum_end(sum, got);
            assert_string_equal(got, expected[kind][empty]);
            free(sum);
        }
}

static void test_a_stream_hashes_as_the_whole_does_on_every_set(void **state)
{
    static const char *const names[] = { "scalar", "avx2", "avx512" };

    (void)state;
    for (size_t n = 0; n < 3; n++) {
        const ckpt_kernels *k = kernels_find(names[n]);
        /* An odd place in memory: the state takes care of its own alignment. */
        unsigned char *memory = malloc(sizeof(hash_stream) + 1);
        hash_stream *stream = (hash_stream *)(void *)(memory + 1);

        for (size_t size = 0; k != NULL && size < 3000; size += 97) {
            const hash128 whole = k->hash_bytes(pattern, size, 0);
            hash128 got;

            k->hash_begin(stream);
            k->hash_add(stream, pattern, size / 3);
            k->hash_add(stream, pattern + size / 3, size - size / 3);
            got = k->hash_end(stream);
            assert_memory_equal(&got, &whole, sizeof got);
        }
        free(memory);
    }
}

static void test_differences_are_counted_by_byte_and_element(void **state)
{
    static const unsigned widths[] = { 4, 8, 16, 32, 64 };
    unsigned char bytes[344];
    unsigned char before[sizeof bytes];
    unsigned char after[sizeof bytes];
    uint32_t draw = 7;

    (void)state;
    for (int round = 0; round < 1000; round++) {
        const unsigned bits = widths[round % 5];
        difference_count got = { 0, 0 };
        difference_count expected = { 0, 0 };
        uint64_t marks[1 + (sizeof bytes + 63) / 64];
        const difference_found first = { &got, marks };
        const difference_found second = { &got, marks + 1 };

        for (size_t i = 0; i < sizeof bytes; i++) {
            draw = draw * 1664525 + 1013904223;
            bytes[i] = draw >> 30 != 0 ? 0 : (unsigned char)(draw >> 8);
            expected.byte_count += bytes[i] != 0;
            before[i] = (unsigned char)(draw >> 16);
            after[i] = before[i] ^ bytes[i];
        }
        for (size_t at = 0; at < sizeof bytes * 8; at += bits) {
            unsigned any = 0;

            if (bits == 4)
                any = bytes[at / 8] >> at % 8 & 15;
            for (size_t b = 0; bits > 4 && b < bits / 8; b++)
                any |= bytes[at / 8 + b];
            expected.element_count += any != 0;
        }
        difference_xor(before, after, 40, bits, &first);
        difference_xor(before + 40, after + 40, sizeof bytes - 40, bits, &second);
        assert_memory_equal(before, bytes, sizeof bytes);
        for (size_t i = 0; i < sizeof bytes; i++) {
            const size_t at = i < 40 ? i : 64 + i - 40;

            assert_int_equal(marks[at / 64] >> at % 64 & 1, bytes[i] != 0);
        }
        assert_int_equal(got.byte_count, expected.byte_count);
        assert_int_equal(got.element_count, expected.element_count);
    }
}

/* ---- frames ---- */

static ckpt_file *open_file(const char *name)
{
    ckpt_file *f;

    assert_int_equal(file_open_rw(folder, name, &f, &err), CKPT_OK);
    return f;
}

static uint64_t write_frame(ckpt_file *f, uint64_t offset, size_t size)
{
    zframe_writer *w;
    uint64_t packed;

    assert_int_equal(zframe_writer_create(1, &w, &err), CKPT_OK);
    assert_int_equal(zframe_begin(w, f, offset, size, &err), CKPT_OK);
    for (size_t at = 0; at < size; at += 999)
        assert_int_equal(zframe_add(w, pattern + at, size - at < 999 ? size - at : 999, &err),
                         CKPT_OK);
    assert_int_equal(zframe_end(w, &packed, &err), CKPT_OK);
    zframe_writer_free(w);
    return packed;
}

static ckpt_code read_frame(const ckpt_file *f, uint64_t offset, uint64_t packed, size_t size)
{
    static unsigned char got[LONGEST];
    const zframe_place place = { f, offset, packed, "w" };
    zframe_reader *r;
    ckpt_code code;

    assert_int_equal(zframe_reader_create(&r, &err), CKPT_OK);
    if ((code = zframe_open(r, &place, &err)) == CKPT_OK &&
        (code = zframe_read(r, got, size / 3, &err)) == CKPT_OK &&
        (code = zframe_read(r, got + size / 3, size - size / 3, &err)) == CKPT_OK)
        code = zframe_finish(r, &err);
    if (code == CKPT_OK)
        assert_memory_equal(got, pattern, size);
    zframe_reader_free(r);
    return code;
}

static void test_a_frame_is_read_as_it_was_written(void **state)
{
    static const size_t sizes[] = { 0, 1, 4, 1000, 70000, LONGEST };
    ckpt_file *f = open_file("frames");

    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const uint64_t packed = write_frame(f, 11, sizes[i]);

        assert_int_equal(read_frame(f, 11, packed, sizes[i]), CKPT_OK);
    }
    file_close(f, NULL);
}

/* The smallest frame of the format's other writers: four bytes, content size 4, one raw block. */
static void test_a_small_frame_is_the_one_of_other_writers(void **state)
{
    static const unsigned char expected[] = { 0x28, 0xb5, 0x2f, 0xfd, 0x20, 0x04, 0x21,
                                              0x00, 0x00, 0x00, 0x00, 0x80, 0x00 };
    static const unsigned char change[] = { 0x00, 0x00, 0x80, 0x00 };
    unsigned char got[sizeof expected];
    ckpt_file *f = open_file("small");
    zframe_writer *w;
    uint64_t packed;

    (void)state;
    assert_int_equal(zframe_writer_create(1, &w, &err), CKPT_OK);
    assert_int_equal(zframe_begin(w, f, 0, sizeof change, &err), CKPT_OK);
    assert_int_equal(zframe_add(w, change, sizeof change, &err), CKPT_OK);
    assert_int_equal(zframe_end(w, &packed, &err), CKPT_OK);
    zframe_writer_free(w);
    assert_int_equal(packed, sizeof expected);
    assert_int_equal(file_read_at(f, 0, got, sizeof got, &err), CKPT_OK);
    assert_memory_equal(got, expected, sizeof got);
    file_close(f, NULL);
}

static void test_what_is_not_exactly_one_frame_is_refused(void **state)
{
    static const unsigned char skippable[] = { 0x50, 0x2a, 0x4d, 0x18, 1, 0, 0, 0, 0 };
    ckpt_file *f = open_file("bad");
    uint64_t packed = write_frame(f, sizeof skippable, 5000);

    (void)state;
    assert_int_equal(read_frame(f, sizeof skippable, packed, 4999), CKPT_E_FORMAT);
    assert_int_equal(read_frame(f, sizeof skippable, packed, 5001), CKPT_E_FORMAT);
    assert_int_equal(read_frame(f, sizeof skippable, packed - 1, 5000), CKPT_E_FORMAT);
    assert_int_equal(file_write_at(f, 0, skippable, sizeof skippable, &err), CKPT_OK);
    assert_int_equal(read_frame(f, 0, sizeof skippable + packed, 5000), CKPT_E_FORMAT);
    /* A second frame, or anything else, behind the first. */
    write_frame(f, sizeof skippable + packed, 0);
    assert_int_equal(read_frame(f, sizeof skippable, packed + 7, 5000), CKPT_E_FORMAT);
    assert_int_equal(read_frame(f, sizeof skippable, packed, 5000), CKPT_OK);
    file_close(f, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_blake3_is_that_of_its_authors),
        cmocka_unit_test(test_pieces_do_not_change_a_checksum),
        cmocka_unit_test(test_checksums_of_abc),
        cmocka_unit_test(test_a_stream_hashes_as_the_whole_does_on_every_set),
        cmocka_unit_test(test_differences_are_counted_by_byte_and_element),
        cmocka_unit_test(test_a_frame_is_read_as_it_was_written),
        cmocka_unit_test(test_a_small_frame_is_the_one_of_other_writers),
        cmocka_unit_test(test_what_is_not_exactly_one_frame_is_refused),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
