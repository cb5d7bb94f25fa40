/* test_side_data.c: the FP4 scales that are kept beside an FP8 checkpoint. */
#include "formats/convert/side_data.h"

#include "file_faults.h"

#include <pthread.h>
#include <sys/resource.h>

#include "libckpt/catalog.h"
#include "libckpt/zfile.h"

#define ROOT64 "cc556e3e991d7856f8e68505f775672a6c3f969b7ed0a33a33fa047d0928ce76"
#define MAIN64 "51f8c2d4b14c2d5f1be4bd3a1ba1a7ff6ba0b7ce2d6d4b7d2f2a0df8b8f7e102"
static const char *const roots[2] = { ROOT64, MAIN64 };
enum { MEMORY = 1 << 20 };         /* for sorting */

#define SPILL ".fp4_scales.spill"

static ckpt_catalog *catalog;      /* "b", "a", "c": not in the order of names; 4 x 8 groups each */

static void add_tensor(const char *name, ckpt_dtype dtype)
{
    const ckpt_tensor t = {
        .name = name,
        .dtype = dtype,
        .scale_dtype = dtype == CKPT_F4 ? CKPT_F8_E8M0 : CKPT_NONE,
        .block_rows = dtype == CKPT_F4 ? 1 : 0,
        .block_cols = dtype == CKPT_F4 ? 32 : 0,
        .rank = 2,
        .shape = { 4, 256 },
    };

    assert_int_equal(catalog_add(catalog, &t, &err), CKPT_OK);
}

static int set_up_catalog(void **state)
{
    catalog = catalog_create();
    assert_non_null(catalog);
    add_tensor("b", CKPT_F4);
    add_tensor("a", CKPT_F4);
    add_tensor("c", CKPT_F4);
    return set_up(state);
}

static int tear_down_catalog(void **state)
{
    catalog_free(catalog);
    return tear_down(state);
}

static side_data_writer *begin(void)
{
    const side_data_options options = { .directory = folder, .catalog = catalog };
    side_data_writer *w;

    assert_int_equal(side_data_begin(&options, &w, &err), CKPT_OK);
    return w;
}

static ckpt_code read_back(uint64_t memory_bytes, side_data **out, ckpt_error *error)
{
    ckpt_folder *local;
    ckpt_code code;

    assert_int_equal(folder_open_local(folder, &local, error), CKPT_OK);
    code = side_data_read(local, memory_bytes, out, error);
    folder_close(local);
    return code;
}

/* With what the journal says was synced of the spill. */
static ckpt_code begin_again(uint64_t synced_bytes, side_data_writer **out)
{
    const side_data_options options = { .directory = folder, .catalog = catalog,
                                        .synced_bytes = synced_bytes };

    return side_data_begin(&options, out, &err);
}

static side_data_writer *begin_share(unsigned share, unsigned share_count)
{
    const side_data_options options = { folder, catalog, share, share_count, 0 };
    side_data_writer *w;

    assert_int_equal(side_data_begin(&options, &w, &err), CKPT_OK);
    return w;
}

static void put(side_data_writer *w, size_t tensor, uint64_t group, uint8_t scale)
{
    const source_range range = { .tensor = tensor };
    const encode_exception exception = { group, scale };
    encode_exception_sink *sink = side_data_sink(w);

    assert_int_equal(sink->put(sink, &range, &exception, 1, &err), CKPT_OK);
}

static void assert_result(const char *text)
{
    char *got;
    size_t size;

    assert_int_equal(zfile_read_named(in_folder(SIDE_DATA_FILE), 1 << 20, &got, &size, &err),
                     CKPT_OK);
    assert_string_equal(got, text);
    free(got);
}

static const char three_tensors[] = "ckpt-fp4-scales 2 " ROOT64 " " MAIN64 " 4\n"
                                    "tensor \"a\" 2\n3 100\n7 101\n"
                                    "tensor \"b\" 1\n0 1\n"
                                    "tensor \"c\" 1\n31 254\n";

static void test_the_result_is_sorted_and_says_each_group_once(void **state)
{
    side_data_writer *w = begin();

    (void)state;
    put(w, 2, 31, 254);
    put(w, 1, 7, 101);
    put(w, 0, 0, 1);
    put(w, 1, 3, 100);
    put(w, 1, 7, 101);
    assert_int_equal(side_data_finish(w, roots, MEMORY, &err), CKPT_OK);
    assert_result(three_tensors);
    assert_false(file_exists(in_folder(SPILL)));
}

/* So that a missing file is known to be missing. */
static void test_no_exceptions_leave_a_file_that_says_so(void **state)
{
    (void)state;
    assert_int_equal(side_data_finish(begin(), roots, MEMORY, &err), CKPT_OK);
    assert_result("ckpt-fp4-scales 2 " ROOT64 " " MAIN64 " 0\n");
    assert_false(file_exists(in_folder(SPILL)));
}

static void test_a_killed_run_goes_on(void **state)
{
    side_data_writer *w = begin();
    char *spill;
    size_t size;

    (void)state;
    put(w, 2, 31, 254);
    put(w, 1, 7, 101);
    side_data_close(w);
    assert_int_equal(file_read_all(in_folder(SPILL), 1 << 20, &spill, &size, &err), CKPT_OK);
    assert_int_equal(size, 32);
    free(spill);
    w = begin();
    put(w, 1, 7, 101);             /* a tile that is done again */
    put(w, 0, 0, 1);
    put(w, 1, 3, 100);
    assert_int_equal(side_data_finish(w, roots, MEMORY, &err), CKPT_OK);
    assert_result(three_tensors);
}

/* What every share has spilled and synced; the last one's writer is open. */
static side_data_writer *spill_in_three_parts(uint64_t synced_bytes[3])
{
    side_data_writer *w = begin_share(1, 3);

    put(w, 2, 31, 254);
    put(w, 1, 7, 101);
    assert_int_equal(side_data_sync(w, &synced_bytes[0], &err), CKPT_OK);
    side_data_close(w);
    w = begin_share(2, 3);
    assert_int_equal(side_data_sync(w, &synced_bytes[1], &err), CKPT_OK);
    side_data_close(w);
    w = begin_share(3, 3);
    put(w, 1, 3, 100);
    put(w, 0, 0, 1);
    assert_int_equal(side_data_sync(w, &synced_bytes[2], &err), CKPT_OK);
    return w;
}

static void test_the_last_of_several_parts_has_what_all_spilled(void **state)
{
    uint64_t synced_bytes[3];
    side_data_writer *w = spill_in_three_parts(synced_bytes);

    (void)state;
    assert_int_equal(side_data_join(w, synced_bytes, &err), CKPT_OK);
    assert_int_equal(side_data_finish(w, roots, MEMORY, &err), CKPT_OK);
    assert_result(three_tensors);
    /* Killed before the commit, with its spill gone: another share can do it again. */
    w = begin_share(2, 3);
    assert_int_equal(side_data_join(w, synced_bytes, &err), CKPT_OK);
    assert_int_equal(side_data_finish(w, roots, MEMORY, &err), CKPT_OK);
    assert_result(three_tensors);
}

/* Of two that finish at once one waits for the other, which may fail before the commit. */
static void test_a_part_that_waited_has_what_the_one_before_it_wrote(void **state)
{
    uint64_t synced_bytes[3];
    side_data_writer *w = spill_in_three_parts(synced_bytes);
    side_data_writer *waiting = begin_share(2, 3);

    (void)state;
    assert_int_equal(side_data_join(w, synced_bytes, &err), CKPT_OK);
    assert_int_equal(side_data_finish(w, roots, MEMORY, &err), CKPT_OK);
    assert_int_equal(side_data_join(waiting, synced_bytes, &err), CKPT_OK);
    assert_int_equal(side_data_finish(waiting, roots, MEMORY, &err), CKPT_OK);
    assert_result(three_tensors);
}

static void test_a_part_whose_spill_is_short_is_refused(void **state)
{
    uint64_t synced_bytes[3];
    side_data_writer *w = spill_in_three_parts(synced_bytes);

    (void)state;
    synced_bytes[0] += 16;
    assert_int_equal(side_data_join(w, synced_bytes, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "1-of-3"));
    synced_bytes[0] -= 16;
    synced_bytes[1] = 16;
    assert_int_equal(side_data_join(w, synced_bytes, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "2-of-3"));
    assert_int_equal(file_remove(in_folder(".ckpt-journal.2-of-3.fp4_scales"), &err), CKPT_OK);
    assert_int_equal(side_data_join(w, synced_bytes, &err), CKPT_E_FORMAT);
    side_data_close(w);
}

static void test_a_torn_tail_is_ignored(void **state)
{
    side_data_writer *w = begin();
    char *spill;
    size_t size;

    (void)state;
    put(w, 2, 31, 254);
    put(w, 1, 3, 100);
    side_data_close(w);
    assert_int_equal(file_read_all(in_folder(SPILL), 1 << 20, &spill, &size, &err), CKPT_OK);
    for (size_t cut = 17; cut < 32; cut++) {
        make_file(in_folder(SPILL), spill, cut);
        w = begin();
        put(w, 1, 3, 100);
        put(w, 1, 7, 101);
        put(w, 0, 0, 1);
        assert_int_equal(side_data_finish(w, roots, MEMORY, &err), CKPT_OK);
        assert_result(three_tensors);
    }
    free(spill);
}

static void test_a_damaged_spill_is_refused(void **state)
{
    side_data_writer *w = begin();
    char *spill;
    size_t size;

    (void)state;
    put(w, 0, 5, 9);
    put(w, 1, 6, 9);
    side_data_close(w);
    assert_int_equal(file_read_all(in_folder(SPILL), 1 << 20, &spill, &size, &err), CKPT_OK);
    for (size_t i = 0; i < 16; i++) {
        spill[i] = (char)(spill[i] ^ 1);
        make_file(in_folder(SPILL), spill, size);
        assert_int_equal(begin_again(32, &w), CKPT_E_FORMAT);
        assert_null(w);
        assert_non_null(strstr(err.text, "damaged at offset 0"));
        spill[i] = (char)(spill[i] ^ 1);
    }
    free(spill);
}

/* The journal relies on `synced` bytes: a hole behind them belongs to tiles that are done again. */
static void test_a_hole_behind_what_was_synced_is_cut(void **state)
{
    static const char hole[16];
    side_data_writer *w = begin();
    uint64_t synced_bytes;
    char *spill;
    size_t size;

    (void)state;
    put(w, 0, 0, 1);
    assert_int_equal(side_data_sync(w, &synced_bytes, &err), CKPT_OK);
    assert_int_equal(synced_bytes, 16);
    put(w, 1, 3, 100);
    put(w, 1, 7, 101);
    side_data_close(w);
    assert_int_equal(file_read_all(in_folder(SPILL), 1 << 20, &spill, &size, &err), CKPT_OK);
    memcpy(spill + 16, hole, sizeof hole);
    make_file(in_folder(SPILL), spill, size);
    free(spill);
    assert_int_equal(begin_again(32, &w), CKPT_E_FORMAT);
    assert_int_equal(begin_again(synced_bytes, &w), CKPT_OK);
    put(w, 1, 3, 100);
    put(w, 2, 31, 254);
    put(w, 1, 7, 101);
    assert_int_equal(side_data_finish(w, roots, MEMORY, &err), CKPT_OK);
    assert_result(three_tensors);
}

static void test_a_run_after_the_result_adds_to_it(void **state)
{
    side_data_writer *w = begin();

    (void)state;
    put(w, 2, 31, 254);
    put(w, 1, 7, 101);
    assert_int_equal(side_data_finish(w, NULL, MEMORY, &err), CKPT_OK);
    w = begin();
    put(w, 0, 0, 1);
    put(w, 1, 3, 100);
    assert_int_equal(side_data_finish(w, roots, MEMORY, &err), CKPT_OK);
    assert_result(three_tensors);
}

static uint64_t peak_bytes(void)
{
    struct rusage usage;

    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return (uint64_t)usage.ru_maxrss * 1024;
}

/* A result of 2^21 groups takes 32 MiB in memory, and its text as much again. */
static void test_going_on_from_a_result_takes_little_memory(void **state)
{
    enum { COUNT = 1 << 21, MOST_BYTES = 8 << 20 };
    zfile_writer *result;
    side_data_writer *w;
    struct stat spill;
    uint64_t before;
    char line[64];

    (void)state;
    assert_int_equal(zfile_create(in_folder(SIDE_DATA_FILE), &result, &err), CKPT_OK);
    zfile_write(result, line, (size_t)snprintf(line, sizeof line, "ckpt-fp4-scales 2 - - %u\n"
                                               "tensor \"a\" %u\n", COUNT, COUNT));
    for (unsigned i = 0; i < COUNT; i++)
        zfile_write(result, line, (size_t)snprintf(line, sizeof line, "%u 9\n", i));
    assert_int_equal(zfile_commit(result, &err), CKPT_OK);
    before = peak_bytes();
    w = begin();
    assert_true(peak_bytes() - before < MOST_BYTES);
    assert_int_equal(stat(in_folder(SPILL), &spill), 0);
    assert_int_equal(spill.st_size, (uint64_t)COUNT * 16);
    side_data_close(w);
}

static void test_two_scales_for_one_group_are_refused(void **state)
{
    side_data_writer *w = begin();

    (void)state;
    put(w, 2, 31, 254);
    put(w, 2, 31, 253);
    assert_int_equal(side_data_finish(w, NULL, MEMORY, &err), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "tensor 'c' group 31"));
    assert_false(file_exists(in_folder(SIDE_DATA_FILE)));
}

static void test_a_full_disk_is_told(void **state)
{
    const source_range range = { .tensor = 0 };
    const encode_exception exception = { 1, 1 };
    side_data_writer *w = begin();

    (void)state;
    faults.fail_errno = ENOSPC;
    assert_int_equal(side_data_sink(w)->put(side_data_sink(w), &range, &exception, 1, &err),
                     CKPT_E_IO);
    faults.fail_errno = 0;
    put(w, 0, 1, 1);
    assert_int_equal(side_data_finish(w, NULL, MEMORY, &err), CKPT_OK);
    assert_result("ckpt-fp4-scales 2 - - 1\ntensor \"b\" 1\n1 1\n");
}

static void *put_many(void *context)
{
    side_data_writer *w = context;
    encode_exception exceptions[32];

    for (size_t tensor = 0; tensor < 3; tensor++) {
        const source_range range = { .tensor = tensor };

        for (uint64_t i = 0; i < 32; i++) {
            exceptions[i].group = i;
            exceptions[i].scale = (uint8_t)(i + 1);
        }
        for (int again = 0; again < 50; again++)
            if (side_data_sink(w)->put(side_data_sink(w), &range, exceptions, 32, NULL) !=
                CKPT_OK)
                return context;
    }
    return NULL;
}

static void test_threads_may_put_at_once(void **state)
{
    side_data_writer *w = begin();
    pthread_t threads[4];
    side_data *data;
    size_t count;

    (void)state;
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, put_many, w), 0);
    for (int i = 0; i < 4; i++) {
        void *failed;

        assert_int_equal(pthread_join(threads[i], &failed), 0);
        assert_null(failed);
    }
    assert_int_equal(side_data_finish(w, NULL, MEMORY, &err), CKPT_OK);
    assert_int_equal(read_back(1 << 20, &data, &err), CKPT_OK);
    for (size_t i = 0; i < 3; i++) {
        const char *name = ckpt_catalog_at(catalog, i)->name;
        const encode_exception *found = side_data_table(data)->find(side_data_table(data), name,
                                                                    &count);

        assert_int_equal(count, 32);
        for (uint64_t g = 0; g < 32; g++) {
            assert_int_equal(found[g].group, g);
            assert_int_equal(found[g].scale, g + 1);
        }
    }
    side_data_free(data);
}

/* Three tensors with `each` exceptions, in an order that is no order, some of them twice. */
static void put_scattered(side_data_writer *w, uint64_t each)
{
    enum { STEP = 1009 };          /* a prime: all residues are met */

    for (uint64_t i = 0; i < each; i++)
        for (size_t tensor = 0; tensor < 3; tensor++) {
            const uint64_t group = i * STEP % each;

            put(w, tensor, group, (uint8_t)(1 + (group + tensor) % 254));
            if (i % 7 == 0)
                put(w, tensor, group, (uint8_t)(1 + (group + tensor) % 254));
        }
}

static void test_more_than_fits_in_memory_is_sorted_in_turns(void **state)
{
    static const uint64_t limits[] = { 0, 8192, 32768, 1 << 24 };
    enum { EACH = 5000 };
    char *first = NULL;
    size_t first_size = 0;
    side_data *data;
    size_t count;

    (void)state;
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        side_data_writer *w = begin();
        char *text;
        size_t size;

        put_scattered(w, EACH);
        assert_int_equal(side_data_finish(w, NULL, limits[i], &err), CKPT_OK);
        assert_int_equal(file_read_all(in_folder(SIDE_DATA_FILE), 1 << 20, &text, &size, &err),
                         CKPT_OK);
        if (first == NULL) {
            first = text;
            first_size = size;
            assert_int_equal(read_back(1 << 20, &data, &err), CKPT_OK);
            for (size_t t = 0; t < 3; t++) {
                const encode_exception *found = side_data_table(data)->find(
                    side_data_table(data), ckpt_catalog_at(catalog, t)->name, &count);

                assert_int_equal(count, EACH);
                for (uint64_t g = 0; g < EACH; g++) {
                    assert_int_equal(found[g].group, g);
                    assert_int_equal(found[g].scale, 1 + (g + t) % 254);
                }
            }
            side_data_free(data);
        } else {
            assert_int_equal(size, first_size);
            assert_memory_equal(text, first, size);
            free(text);
        }
        assert_int_equal(unlink(in_folder(SIDE_DATA_FILE)), 0);
    }
    free(first);
}

static void test_reading_stays_within_its_limit(void **state)
{
    side_data_writer *w = begin();
    side_data *data;

    (void)state;
    put_scattered(w, 5000);
    assert_int_equal(side_data_finish(w, NULL, MEMORY, &err), CKPT_OK);
    assert_int_equal(read_back(0, &data, &err), CKPT_E_MEMORY);
    assert_int_equal(read_back(1 << 14, &data, &err), CKPT_E_MEMORY);
    assert_int_equal(read_back(3 * 5000 * sizeof(encode_exception) - 1, &data, &err),
                     CKPT_E_MEMORY);
    assert_int_equal(read_back(1 << 20, &data, &err), CKPT_OK);
    assert_true(side_data_bytes(data) >= 3 * 5000 * sizeof(encode_exception));
    side_data_free(data);
}

/* ---- reading ---- */

static ckpt_code parse_code(const char *text)
{
    side_data *data;
    const ckpt_code code = side_data_parse(text, strlen(text), 1 << 20, &data, &err);

    side_data_free(data);
    return code;
}

static void test_what_is_listed_is_found(void **state)
{
    side_data *data;
    const encode_exception *found;
    size_t count;

    (void)state;
    assert_int_equal(side_data_parse(three_tensors, strlen(three_tensors), 1 << 20, &data, &err),
                     CKPT_OK);
    found = side_data_table(data)->find(side_data_table(data), "a", &count);
    assert_int_equal(count, 2);
    assert_int_equal(found[0].group, 3);
    assert_int_equal(found[0].scale, 100);
    assert_int_equal(found[1].group, 7);
    found = side_data_table(data)->find(side_data_table(data), "c", &count);
    assert_int_equal(count, 1);
    assert_int_equal(found[0].group, 31);
    assert_null(side_data_table(data)->find(side_data_table(data), "d", &count));
    assert_int_equal(count, 0);
    side_data_free(data);
}

static void test_names_are_escaped(void **state)
{
    static const char name[] = "x \"y\" \\ \xc3\xa9\n1 2\n";
    side_data_writer *w;
    side_data *data;
    size_t count;

    (void)state;
    add_tensor(name, CKPT_F4);
    w = begin();
    put(w, 3, 2, 9);
    assert_int_equal(side_data_finish(w, NULL, MEMORY, &err), CKPT_OK);
    assert_int_equal(read_back(1 << 20, &data, &err), CKPT_OK);
    assert_non_null(side_data_table(data)->find(side_data_table(data), name, &count));
    assert_int_equal(count, 1);
    side_data_free(data);
}

static void test_no_file_is_no_side_data(void **state)
{
    side_data *data = (side_data *)folder;

    (void)state;
    assert_int_equal(read_back(1 << 20, &data, &err), CKPT_OK);
    assert_null(data);
}

static void test_everything_else_is_refused(void **state)
{
#define HEAD(entries) "ckpt-fp4-scales 2 - - " #entries "\n"
    static const char *const bad[] = {
        "",
        "ckpt-fp4-scales 2 - - 0",
        "ckpt-fp4-scales 1 - - 0\n",
        "ckpt-fp4-scales 1 -\n",
        "ckpt-fp4-scales 2 \n",
        "ckpt-fp4-scales 2 - -\n",
        "ckpt-fp4-scales 2 - - \n",
        "ckpt-fp4-scales 2 - - 00\n",
        "ckpt-fp4-scales 2 - - 0 \n",
        "ckpt-fp4-scales 2 -- - 0\n",
        "ckpt-fp4-scales 2 - " MAIN64 " 0\n",
        "ckpt-fp4-scales 2 " ROOT64 " - 0\n",
        "ckpt-fp4-scales 2 cc55 cc55 0\n",
        "ckpt-fp4-scales 2 CC556e3e991d7856f8e68505f775672a6c3f969b7ed0a33a33fa047d0928ce76 "
        MAIN64 " 0\n",
        HEAD(0) "\n",
        HEAD(0) "tensor\n",
        HEAD(0) "tensor \"a\"\n",
        HEAD(1) "tensor \"a\" \n0 1\n",
        HEAD(1) "tensor a 1\n0 1\n",
        HEAD(0) "tensor \"a\" 0\n",
        HEAD(1) "tensor \"a\" 01\n0 1\n",
        HEAD(1) "tensor \"a\" +1\n0 1\n",
        HEAD(1) "tensor \"a\" 2\n0 1\n",
        HEAD(2) "tensor \"a\" 1\n0 1\n1 1\n",
        HEAD(1) "tensor \"a\" 18446744073709551615\n0 1\n",
        HEAD(1) "tensor \"a\" 18446744073709551616\n0 1\n",
        HEAD(1) "tensor \"a\" \"b\" 1\n0 1\n",
        HEAD(1) "tensor  \"a\" 1\n0 1\n",
        HEAD(1) "tensor \"a\\u0000\" 1\n0 1\n",
        HEAD(1) "tensor \"a\" 1\n0 255\n",
        HEAD(1) "tensor \"a\" 1\n0\n",
        HEAD(1) "tensor \"a\" 1\n 1\n",
        HEAD(1) "tensor \"a\" 1\n0 1 \n",
        HEAD(1) "tensor \"a\" 1\n0  1\n",
        HEAD(1) "tensor \"a\" 1\n-1 1\n",
        HEAD(1) "tensor \"a\" 1\n18446744073709551616 1\n",
        HEAD(1) "tensor \"a\" 1\n0 1",
        HEAD(2) "tensor \"a\" 2\n1 1\n1 1\n",
        HEAD(2) "tensor \"a\" 2\n2 1\n1 1\n",
        HEAD(2) "tensor \"a\" 1\n0 1\ntensor \"a\" 1\n0 1\n",
        HEAD(2) "tensor \"b\" 1\n0 1\ntensor \"a\" 1\n0 1\n",
        HEAD(1) "tensor \"a\" 1\r\n0 1\r\n",
        HEAD(0) HEAD(0),
    };

    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        err.text[0] = '\0';
        if (parse_code(bad[i]) != CKPT_E_FORMAT)
            fail_msg("not refused: %s", bad[i]);
        assert_non_null(strstr(err.text, SIDE_DATA_FILE));
    }
    assert_int_equal(parse_code(HEAD(0)), CKPT_OK);
    assert_int_equal(parse_code(HEAD(1) "tensor \"a\" 1\n18446744073709551615 254\n"), CKPT_OK);
    assert_int_equal(parse_code(HEAD(1) "tensor \"a\" 1\n0 0\n"), CKPT_OK);
}

static void test_entries_are_counted(void **state)
{
    (void)state;
    assert_int_equal(parse_code(HEAD(2) "tensor \"a\" 1\n0 1\n"), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "has 1 entries, its first line states 2"));
    assert_int_equal(parse_code(HEAD(0) "tensor \"a\" 1\n0 1\n"), CKPT_E_FORMAT);
    assert_int_equal(parse_code(HEAD(1)), CKPT_E_FORMAT);
}

static ckpt_code roots_code(const char *text, const char *root, const char *main_root)
{
    const char *const got[2] = { root, main_root };
    side_data *data;
    ckpt_code code;

    assert_int_equal(side_data_parse(text, strlen(text), 1 << 20, &data, &err), CKPT_OK);
    code = side_data_check_roots(data, got, &err);
    side_data_free(data);
    return code;
}

static void test_side_data_of_other_values_are_refused(void **state)
{
    static const char head[] = "ckpt-fp4-scales 2 " ROOT64 " " MAIN64 " 0\n";

    (void)state;
    assert_int_equal(roots_code(head, ROOT64, MAIN64), CKPT_OK);
    assert_int_equal(roots_code(head, MAIN64, MAIN64), CKPT_OK);       /* no MTP blocks here */
    assert_int_equal(roots_code(head, MAIN64, ROOT64), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "made for values with the digest " ROOT64));
    assert_int_equal(roots_code(head, ROOT64, ROOT64), CKPT_E_FORMAT);
    assert_int_equal(roots_code(HEAD(0), ROOT64, MAIN64), CKPT_OK);    /* it does not say */
}

static ckpt_code check_code(const char *text)
{
    side_data *data;
    ckpt_code code;

    assert_int_equal(side_data_parse(text, strlen(text), 1 << 20, &data, &err), CKPT_OK);
    code = side_data_check(data, catalog, &err);
    side_data_free(data);
    return code;
}

static void test_lists_must_fit_the_checkpoint(void **state)
{
    (void)state;
    add_tensor("plain", CKPT_BF16);
    assert_int_equal(check_code(three_tensors), CKPT_OK);
    assert_int_equal(check_code(HEAD(1) "tensor \"a\" 1\n32 1\n"), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "group 32 of tensor 'a'"));
    assert_int_equal(check_code(HEAD(1) "tensor \"d\" 1\n0 1\n"), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "tensor 'd'"));
    assert_int_equal(check_code(HEAD(1) "tensor \"plain\" 1\n0 1\n"), CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "BF16, not FP4"));
}

/* A layout without MTP blocks carries the side data of the whole. */
static void test_lists_of_mtp_blocks_may_be_left_over(void **state)
{
    static const char text[] = HEAD(1) "tensor \"mtp.0.x\" 1\n0 1\n";

    (void)state;
    assert_int_equal(check_code(text), CKPT_OK);
    add_tensor("mtp.1.x", CKPT_F4);
    assert_int_equal(check_code(text), CKPT_E_FORMAT);
}

#define CATALOG_TEST(function)                                                                    \
    cmocka_unit_test_setup_teardown(function, set_up_catalog, tear_down_catalog)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CATALOG_TEST(test_the_result_is_sorted_and_says_each_group_once),
        CATALOG_TEST(test_no_exceptions_leave_a_file_that_says_so),
        CATALOG_TEST(test_a_killed_run_goes_on),
        CATALOG_TEST(test_the_last_of_several_parts_has_what_all_spilled),
        CATALOG_TEST(test_a_part_that_waited_has_what_the_one_before_it_wrote),
        CATALOG_TEST(test_a_part_whose_spill_is_short_is_refused),
        CATALOG_TEST(test_a_torn_tail_is_ignored),
        CATALOG_TEST(test_a_damaged_spill_is_refused),
        CATALOG_TEST(test_a_hole_behind_what_was_synced_is_cut),
        CATALOG_TEST(test_a_run_after_the_result_adds_to_it),
        CATALOG_TEST(test_going_on_from_a_result_takes_little_memory),
        CATALOG_TEST(test_two_scales_for_one_group_are_refused),
        CATALOG_TEST(test_a_full_disk_is_told),
        CATALOG_TEST(test_threads_may_put_at_once),
        CATALOG_TEST(test_more_than_fits_in_memory_is_sorted_in_turns),
        CATALOG_TEST(test_reading_stays_within_its_limit),
        CATALOG_TEST(test_what_is_listed_is_found),
        CATALOG_TEST(test_names_are_escaped),
        CATALOG_TEST(test_no_file_is_no_side_data),
        CATALOG_TEST(test_everything_else_is_refused),
        CATALOG_TEST(test_entries_are_counted),
        CATALOG_TEST(test_side_data_of_other_values_are_refused),
        CATALOG_TEST(test_lists_must_fit_the_checkpoint),
        CATALOG_TEST(test_lists_of_mtp_blocks_may_be_left_over),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
