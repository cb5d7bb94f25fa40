/* test_dcp.c: DCP metadata, written, read, and proven to cover its tensors. */
#include "formats/torch_dist/dcp_metadata.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

#include "libckpt/sha256.h"

typedef struct {
    unsigned char *bytes;
    size_t size;
    size_t capacity;
} written;

static uint32_t random_state;

static uint32_t next_random(void)
{
    random_state = random_state * 1664525 + 1013904223;
    return random_state >> 8;
}

static int write_bytes(void *context, const void *bytes, size_t size)
{
    written *w = context;

    if (size > w->capacity - w->size) {
        w->capacity = 2 * w->capacity + size;
        w->bytes = realloc(w->bytes, w->capacity);
        assert_non_null(w->bytes);
    }
    memcpy(w->bytes + w->size, bytes, size);
    w->size += size;
    return 0;
}

static written write_all(const dcp_metadata *m)
{
    written out = { NULL, 0, 0 };
    ckpt_error err;

    assert_int_equal(dcp_write(m, write_bytes, &out, &err), CKPT_OK);
    return out;
}

static ckpt_code parse(const written *w, dcp_metadata **out, ckpt_error *err)
{
    return dcp_parse(w->bytes, w->size, &(dcp_options){ .subject = "test" }, out, err);
}

static const char *const file_names[] = { "__0_0.distcp" };
static dcp_entry example_entries[] = {
    { .key = "a.weight", .dtype = CKPT_BF16, .rank = 2, .size = { 4, 3 }, .chunk_count = 2 },
    { .key = "n._extra_state/shard_0_1", .is_bytes = 1, .first_chunk = 2, .chunk_count = 1 },
};
static dcp_chunk example_chunks[] = {
    { { 0, 0 }, { 2, 3 }, 0, 0, 1100 },
    { { 2, 0 }, { 2, 3 }, 0, 1100, 1100 },
    { .offset = 2200, .length = 900 },
};
static const dcp_metadata example = {
    .entries = example_entries, .entry_count = 2, .chunks = example_chunks, .chunk_count = 3,
    .files = (const char **)(void *)file_names, .file_count = 1,
};

/* The storage_meta of what we write; a '.' behind q or h stands for a memo number. */
#define META_OBJECT "ctorch.distributed.checkpoint.metadata\nStorageMeta\nq.)\x81}(" \
    "X\x0d\0\0\0checkpoint_idq.X\x04\0\0\0ckptq.X\x07\0\0\0save_idq.h." \
    "X\x07\0\0\0load_idq.NX\x07\0\0\0modulesq.]ub"

/* The reference was made with None for storage_meta: with None in the object's place, byte for
 * byte the same. */
static void test_the_reference_metadata_is_reproduced(void **state)
{
    static const char object[] = META_OBJECT;
    const size_t object_bytes = sizeof object - 1;
    written w = write_all(&example);
    unsigned char *at = w.bytes + w.size - object_bytes - 3;
    char hex[SHA256_HEX];
    ckpt_error err;
    sha256 *hash;

    (void)state;
    assert_int_equal(w.size, 1045 - 1 + object_bytes);
    for (size_t i = 0; i < object_bytes; i++)
        assert_true(object[i] == '.' || at[i] == (unsigned char)object[i]);
    at[0] = 'N';
    memcpy(at + 1, "ub.", 3);
    assert_int_equal(sha256_begin(&hash, &err), CKPT_OK);
    assert_int_equal(sha256_add(hash, w.bytes, 1045, &err), CKPT_OK);
    assert_int_equal(sha256_end(hash, hex, &err), CKPT_OK);
    assert_string_equal(hex, "75e69bbda5ec5bda05cdb0f119aa2b476abb7758a5d233461aa02e937d61a03d");
    free(w.bytes);
}

static void test_what_was_written_is_read_back(void **state)
{
    written w = write_all(&example);
    dcp_metadata *m;
    ckpt_error err;

    (void)state;
    assert_int_equal(parse(&w, &m, &err), CKPT_OK);
    assert_int_equal(m->entry_count, 2);
    assert_int_equal(m->chunk_count, 3);
    assert_int_equal(m->unused_count, 0);
    assert_string_equal(m->entries[0].dtype_name, "bfloat16");
    assert_int_equal(m->entries[0].dtype, CKPT_BF16);
    assert_true(m->entries[1].is_bytes);
    for (size_t i = 0; i < 3; i++)
        assert_memory_equal(&m->chunks[i], &example_chunks[i], sizeof m->chunks[i]);
    dcp_free(m);
    free(w.bytes);
}

/* A tensor [E, 2F, H] in halves of experts, as many as the largest model has in all layers. */
static dcp_metadata *many_chunks(size_t layers, size_t experts)
{
    dcp_metadata *m = calloc(1, sizeof *m);

    assert_non_null(m);
    m->entries = calloc(layers, sizeof *m->entries);
    m->chunks = calloc(layers * experts * 2, sizeof *m->chunks);
    m->files = calloc(layers, sizeof *m->files);
    m->file_count = m->entry_count = layers;
    for (size_t l = 0; l < layers; l++) {
        dcp_entry *e = &m->entries[l];
        char *key = calloc(1, 96);
        char *file = calloc(1, 32);

        snprintf(key, 96, "decoder.layers.%zu.mlp.experts.experts.linear_fc1.weight", l);
        snprintf(file, 32, "__%zu_0.distcp", l);
        m->files[l] = file;
        *e = (dcp_entry){ .key = key, .dtype = CKPT_BF16, .rank = 3,
                          .size = { experts, 6144, 7168 }, .first_chunk = m->chunk_count,
                          .chunk_count = 2 * experts };
        for (size_t i = 0; i < 2 * experts; i++)
            m->chunks[m->chunk_count++] = (dcp_chunk){
                { i / 2, i % 2 * 3072, 0 }, { 1, 3072, 7168 }, l, i * 44040192, 44040192 };
    }
    return m;
}

static void free_many(dcp_metadata *m)
{
    for (size_t i = 0; i < m->entry_count; i++) {
        free((void *)(uintptr_t)m->entries[i].key);
        free((void *)(uintptr_t)m->files[i]);
    }
    free(m->entries);
    free(m->chunks);
    free(m->files);
    free(m);
}

static void test_seventy_thousand_chunks_take_a_second(void **state)
{
    dcp_metadata *m = many_chunks(91, 384);
    const clock_t start = clock();
    written w = write_all(m);
    dcp_metadata *read;
    ckpt_error err;

    (void)state;
    assert_int_equal(m->chunk_count, 69888);
    assert_true(w.size < 12 * 1000 * 1000);
    assert_int_equal(parse(&w, &read, &err), CKPT_OK);
    assert_int_equal(read->chunk_count, m->chunk_count);
    assert_memory_equal(read->chunks, m->chunks, m->chunk_count * sizeof *m->chunks);
    for (size_t i = 0; i < read->entry_count; i++)
        assert_int_equal(dcp_check_cover(read, i, &err), CKPT_OK);
    print_message("%zu bytes written, read and proven in %.2f s, %llu bytes of memory\n", w.size,
                  (double)(clock() - start) / CLOCKS_PER_SEC,
                  (unsigned long long)read->memory.total_bytes);
    assert_true((clock() - start) / CLOCKS_PER_SEC < 20);    /* sanitizers are slow */
    dcp_free(read);
    free_many(m);
    free(w.bytes);
}

static ckpt_code cover_code(dcp_chunk *chunks, size_t count, const uint64_t size[3],
                            ckpt_error *err)
{
    dcp_entry entry = { .key = "t", .dtype = CKPT_U8, .rank = 3,
                        .size = { size[0], size[1], size[2] }, .chunk_count = count };
    const dcp_metadata m = { .entries = &entry, .entry_count = 1, .chunks = chunks,
                             .chunk_count = count };

    return dcp_check_cover(&m, 0, err);
}

static void assert_no_cover(dcp_chunk *chunks, size_t count, const char *words)
{
    const uint64_t size[3] = { 4, 4, 4 };
    ckpt_error err = { 0 };

    assert_int_equal(cover_code(chunks, count, size, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, words));
}

static void test_gaps_overlaps_and_excess_are_found(void **state)
{
    dcp_chunk half[] = { { { 0, 0, 0 }, { 4, 4, 2 }, 0, 0, 0 } };
    dcp_chunk beyond[] = { { { 0, 0, 0 }, { 4, 4, 2 }, 0, 0, 0 },
                           { { 0, 0, 3 }, { 4, 4, 2 }, 0, 0, 0 } };
    dcp_chunk overlap[] = { { { 0, 0, 0 }, { 4, 4, 2 }, 0, 0, 0 },
                            { { 0, 0, 1 }, { 4, 4, 2 }, 0, 0, 0 } };
    dcp_chunk three[] = { { { 0, 0, 0 }, { 4, 4, 2 }, 0, 0, 0 },
                          { { 0, 0, 2 }, { 4, 4, 2 }, 0, 0, 0 },
                          { { 1, 1, 1 }, { 1, 1, 1 }, 0, 0, 0 } };
    dcp_chunk far[] = { { { UINT64_MAX, 0, 0 }, { 2, 4, 4 }, 0, 0, 0 } };

    (void)state;
    assert_no_cover(NULL, 0, "0 of 64");
    assert_no_cover(half, 1, "32 of 64");
    assert_no_cover(beyond, 2, "beyond");
    assert_no_cover(overlap, 2, "overlaps");
    assert_no_cover(three, 3, "larger than the tensor");
    assert_no_cover(far, 1, "beyond");
}

static void test_shapes_that_overflow_are_refused(void **state)
{
    const uint64_t size[3] = { UINT64_C(1) << 60, 16, 16 };
    dcp_chunk chunk = { { 0, 0, 0 }, { UINT64_C(1) << 60, 16, 16 }, 0, 0, 0 };
    ckpt_error err;

    (void)state;
    assert_int_equal(cover_code(&chunk, 1, size, &err), CKPT_E_FORMAT);
}

static void test_empty_tensors_and_empty_chunks_are_fine(void **state)
{
    const uint64_t size[3] = { 4, 0, 4 };
    dcp_chunk chunks[] = { { { 0, 0, 0 }, { 4, 0, 4 }, 0, 0, 0 },
                           { { 4, 0, 0 }, { 0, 0, 4 }, 0, 0, 0 } };
    ckpt_error err;

    (void)state;
    assert_int_equal(cover_code(chunks, 2, size, &err), CKPT_OK);
    assert_int_equal(cover_code(NULL, 0, size, &err), CKPT_OK);
}

/* Cut boxes at random until there are `count`: cuts that no grid has. */
static size_t cut_at_random(dcp_chunk *chunks, size_t count, uint64_t edge)
{
    size_t have = 1;

    chunks[0] = (dcp_chunk){ { 0 }, { edge, edge, edge }, 0, 0, 0 };
    while (have < count) {
        dcp_chunk *c = &chunks[next_random() % have];
        const uint32_t d = next_random() % 3;
        const uint64_t at = c->sizes[d] < 2 ? 0 : 1 + next_random() % (c->sizes[d] - 1);

        if (at == 0)
            continue;
        chunks[have] = *c;
        chunks[have].offsets[d] += at;
        chunks[have++].sizes[d] -= at;
        c->sizes[d] = at;
    }
    return have;
}

/* Few cells: the grid. Many: the sweep. Either finds the one chunk that is moved by one. */
static void test_irregular_cuts_are_proven_too(void **state)
{
    enum { COUNT_MAX = 2000 };
    static const struct {
        size_t count;
        uint64_t edge;
    } cases[] = { { 2, 8 }, { 50, 10 }, { 300, 12 }, { COUNT_MAX, 100000 } };
    dcp_chunk *chunks = malloc(COUNT_MAX * sizeof *chunks);
    ckpt_error err;

    (void)state;
    random_state = 3;
    for (int round = 0; round < 40; round++) {
        const uint64_t edge = cases[round % 4].edge;
        const uint64_t size[3] = { edge, edge, edge };
        const size_t count = cut_at_random(chunks, cases[round % 4].count, edge);
        dcp_chunk *c;
        uint32_t d;

        assert_int_equal(cover_code(chunks, count, size, &err), CKPT_OK);
        do {
            c = &chunks[next_random() % count];
            d = next_random() % 3;
        } while (c->offsets[d] == 0);
        c->offsets[d]--;
        assert_int_equal(cover_code(chunks, count, size, &err), CKPT_E_FORMAT);
        assert_non_null(strstr(err.text, "overlaps"));
    }
    free(chunks);
}

static void test_a_chunk_without_storage_is_refused(void **state)
{
    dcp_entry entries[] = { example_entries[0], example_entries[1] };
    dcp_metadata m = example;
    dcp_metadata *read;
    ckpt_error err;
    written w;

    (void)state;
    m.entries = entries;
    entries[1].chunk_count = 0;
    w = write_all(&m);
    assert_int_equal(parse(&w, &read, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "n._extra_state/shard_0_1"));
    free(w.bytes);
}

static void test_two_chunks_at_one_place_are_refused(void **state)
{
    dcp_chunk chunks[] = { example_chunks[0], example_chunks[0], example_chunks[2] };
    dcp_metadata m = example;
    dcp_metadata *read;
    ckpt_error err;
    written w;

    (void)state;
    m.chunks = chunks;
    w = write_all(&m);
    assert_int_equal(parse(&w, &read, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "a.weight"));
    free(w.bytes);
}

static void test_paths_out_of_the_folder_are_refused(void **state)
{
    static const char *const bad[] = { "/x", "..", "../x", "a/..", "a/../b", "" };
    static const char *const good[] = { "..a/b..", "a/b", ".hidden", "a..b" };
    dcp_metadata m = example;
    dcp_metadata *read;
    ckpt_error err;

    (void)state;
    for (size_t i = 0; i < 10; i++) {
        const char *path = i < 6 ? bad[i] : good[i - 6];
        written w;

        m.files = &path;
        w = write_all(&m);
        assert_int_equal(parse(&w, &read, &err), i < 6 ? CKPT_E_FORMAT : CKPT_OK);
        if (i >= 6)
            dcp_free(read);
        free(w.bytes);
    }
}

static void test_sizes_near_the_limits_survive(void **state)
{
    dcp_entry entry = { .key = "t", .dtype = CKPT_F32, .rank = 8,
                        .size = { UINT64_C(1) << 60, 1, 1, 1, 1, 1, 1, 1 }, .chunk_count = 1 };
    dcp_chunk chunk = { .sizes = { UINT64_C(1) << 60, 1, 1, 1, 1, 1, 1, 1 },
                        .offset = INT64_MAX, .length = INT64_MAX };
    const dcp_metadata m = { .entries = &entry, .entry_count = 1, .chunks = &chunk,
                             .chunk_count = 1, .files = example.files, .file_count = 1 };
    written w = write_all(&m);
    dcp_metadata *read;
    ckpt_error err;

    (void)state;
    assert_int_equal(parse(&w, &read, &err), CKPT_OK);
    assert_memory_equal(read->chunks, &chunk, sizeof chunk);
    assert_int_equal(dcp_check_cover(read, 0, &err), CKPT_OK);
    dcp_free(read);
    free(w.bytes);
}

static void test_memory_is_limited(void **state)
{
    dcp_metadata *m = many_chunks(10, 384);
    written w = write_all(m);
    const dcp_options options = { .subject = "test", .memory_bytes = 4 << 20 };
    dcp_metadata *read;
    ckpt_error err;

    (void)state;
    assert_int_equal(dcp_parse(w.bytes, w.size, &options, &read, &err), CKPT_E_MEMORY);
    free_many(m);
    free(w.bytes);
}

static void test_bytes_changed_at_random_never_break_the_reader(void **state)
{
    written whole = write_all(&example);
    unsigned read_count = 0;

    (void)state;
    random_state = 4;
    for (int round = 0; round < 4000; round++) {
        written w = { malloc(whole.size), whole.size, whole.size };
        dcp_metadata *m;
        ckpt_error err;

        memcpy(w.bytes, whole.bytes, whole.size);
        if (round % 4 == 0)
            w.size = next_random() % whole.size;
        else
            for (int i = 0; i < round % 4; i++)
                w.bytes[next_random() % whole.size] ^= (unsigned char)(1 << next_random() % 8);
        if (parse(&w, &m, &err) == CKPT_OK) {
            read_count++;
            for (size_t i = 0; i < m->entry_count; i++)
                (void)dcp_check_cover(m, i, &err);
            dcp_free(m);
        }
        free(w.bytes);
    }
    assert_true(read_count > 0 && read_count < 2000);
    free(whole.bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_the_reference_metadata_is_reproduced),
        cmocka_unit_test(test_what_was_written_is_read_back),
        cmocka_unit_test(test_seventy_thousand_chunks_take_a_second),
        cmocka_unit_test(test_gaps_overlaps_and_excess_are_found),
        cmocka_unit_test(test_shapes_that_overflow_are_refused),
        cmocka_unit_test(test_empty_tensors_and_empty_chunks_are_fine),
        cmocka_unit_test(test_irregular_cuts_are_proven_too),
        cmocka_unit_test(test_a_chunk_without_storage_is_refused),
        cmocka_unit_test(test_two_chunks_at_one_place_are_refused),
        cmocka_unit_test(test_paths_out_of_the_folder_are_refused),
        cmocka_unit_test(test_sizes_near_the_limits_survive),
        cmocka_unit_test(test_memory_is_limited),
        cmocka_unit_test(test_bytes_changed_at_random_never_break_the_reader),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
