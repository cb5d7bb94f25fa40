/* test_report.c: the ledger names every tensor and what became of it. */
#include "verify/report.h"

#include "file_faults.h"

#include "libckpt/catalog.h"
#include "libckpt/digest.h"
#include "libckpt/zfile.h"

static ckpt_catalog *stored;
static ckpt_catalog *logical;
static ckpt_catalog *targets;
static ckpt_digest *sums;

static void add(ckpt_catalog *catalog, const char *name, ckpt_dtype dtype, ckpt_dtype scale_dtype)
{
    const ckpt_tensor t = {
        .name = name,
        .dtype = dtype,
        .scale_dtype = scale_dtype,
        .block_rows = scale_dtype == CKPT_NONE ? 0 : 128,
        .block_cols = scale_dtype == CKPT_NONE ? 0 : 128,
        .rank = 2,
        .shape = { 2, 4 },
    };

    assert_int_equal(catalog_add(catalog, &t, &err), CKPT_OK);
}

static int set_up_catalogs(void **state)
{
    stored = catalog_create();
    logical = catalog_create();
    targets = catalog_create();
    add(stored, "model.w", CKPT_F8_E4M3, CKPT_NONE);
    add(stored, "model.w_scale_inv", CKPT_F32, CKPT_NONE);
    add(stored, "mtp.embed", CKPT_BF16, CKPT_NONE);
    add(stored, "rotary", CKPT_F32, CKPT_NONE);
    add(stored, "embed", CKPT_BF16, CKPT_NONE);
    add(logical, "w", CKPT_F8_E4M3, CKPT_F32);
    add(logical, "embed", CKPT_BF16, CKPT_NONE);
    add(targets, "w", CKPT_BF16, CKPT_NONE);
    add(targets, "embed", CKPT_BF16, CKPT_NONE);
    add(targets, "extra", CKPT_BF16, CKPT_NONE);
    sums = digest_create(targets);
    return set_up(state);
}

static int tear_down_catalogs(void **state)
{
    ckpt_digest_free(sums);
    catalog_free(stored);
    catalog_free(logical);
    catalog_free(targets);
    return tear_down(state);
}

static const json_value *item(const json_document *document, const char *list, size_t i)
{
    const json_value *v = json_first(json_member(json_root(document), list));

    while (i-- > 0)
        v = json_next(v);
    return v;
}

static void assert_member(const json_value *object, const char *key, const char *text)
{
    const char *got = json_string(json_member(object, key));

    if (text == NULL) {
        assert_null(got);
        return;
    }
    assert_non_null(got);
    assert_string_equal(got, text);
}

static uint64_t number(const json_value *object, const char *key)
{
    uint64_t value = 0;

    assert_true(json_u64(json_member(object, key), &value));
    return value;
}

static json_document *write_and_read(const ckpt_outcome *outcome, const char *name)
{
    json_document *document;
    char *text;
    size_t size;

    assert_int_equal(report_write(in_folder(name), outcome, &err), CKPT_OK);
    assert_int_equal(zfile_read_named(in_folder(name), 1 << 20, &text, &size, &err), CKPT_OK);
    assert_int_equal(json_parse(text, size, name, &document, &err), CKPT_OK);
    free(text);
    return document;
}

static const map_fate fates[] = {
    { FATE_USED, 0, NULL, 0 },
    { FATE_SCALE, 0, NULL, 0 },
    { FATE_COPY, 1, NULL, 0 },
    { FATE_DROPPED, 0, "computed anew", 0 },
    { FATE_USED, 1, "padding", 3 },
};
static const encode_stats stats[] = {
    { .spread = 3, .inexact = 2, .exceptions = 1 },
    { .spread = 5, .returned = 6, .exceptions = 4, .zero_groups = 7 },
    { .spread = 0 },
};
static const char *const words[] = { "ckpt-convert", "--dtype", "bf16" };
static const char *const file_names[] = { "model.safetensors" };
static const char *const origins[] = { NULL, NULL, "/other" };

static ckpt_outcome outcome(void)
{
    const ckpt_outcome o = {
        .version = CKPT_VERSION,
        .words = words,
        .word_count = 3,
        .family = "deepseek_v4",
        .source = { "SRC", "hf", "sglang", 1, 1000 },
        .target = { "DST", "hf", "native", 2, 2000 },
        .seconds = 1.5,
        .stored = stored,
        .fates = fates,
        .file_names = file_names,
        .file_name_count = 1,
        .source_logical = logical,
        .target_logical = targets,
        .stats = stats,
        .origins = origins,
        .digest = sums,
        .root = "aa",
        .main_root = "bb",
    };

    return o;
}

static void test_every_stored_tensor_has_its_fate(void **state)
{
    const ckpt_outcome o = outcome();
    json_document *d = write_and_read(&o, "r.json");
    const json_value *totals = json_member(json_root(d), "totals");

    (void)state;
    assert_int_equal(json_count(json_member(json_root(d), "source_tensors")), 5);
    assert_member(item(d, "source_tensors", 0), "fate", "used");
    assert_member(item(d, "source_tensors", 0), "as", "w");
    assert_member(item(d, "source_tensors", 0), "file", "model.safetensors");
    assert_member(item(d, "source_tensors", 0), "dtype", "F8_E4M3");
    assert_member(item(d, "source_tensors", 1), "fate", "scale");
    assert_member(item(d, "source_tensors", 1), "of", "w");
    assert_member(item(d, "source_tensors", 2), "fate", "copy");
    assert_member(item(d, "source_tensors", 2), "of", "embed");
    assert_member(item(d, "source_tensors", 3), "fate", "dropped");
    assert_member(item(d, "source_tensors", 3), "reason", "computed anew");
    assert_null(json_member(item(d, "source_tensors", 0), "rows_left_out"));
    assert_int_equal(number(item(d, "source_tensors", 4), "rows_left_out"), 3);
    assert_member(item(d, "source_tensors", 4), "reason", "padding");
    assert_int_equal(number(totals, "stored_tensor_count"), 5);
    assert_int_equal(number(totals, "used") + number(totals, "scales") +
                     number(totals, "copies") + number(totals, "dropped"), 5);
    json_free(d);
}

static void test_every_target_tensor_says_what_its_encoding_met(void **state)
{
    const ckpt_outcome o = outcome();
    json_document *d = write_and_read(&o, "r.json.zst");
    const json_value *totals = json_member(json_root(d), "totals");

    (void)state;
    assert_member(item(d, "target_tensors", 0), "from", "F8_E4M3 128x128 F32");
    assert_member(item(d, "target_tensors", 0), "to", "BF16");
    assert_member(item(d, "target_tensors", 0), "value", "00000000000000000000000000000000");
    assert_int_equal(number(item(d, "target_tensors", 0), "inexact"), 2);
    assert_int_equal(number(item(d, "target_tensors", 1), "zero_groups"), 7);
    assert_member(item(d, "target_tensors", 2), "filled_from", "/other");
    assert_null(json_member(item(d, "target_tensors", 2), "from"));
    assert_int_equal(number(totals, "spread"), 5);
    assert_int_equal(number(totals, "inexact"), 2);
    assert_int_equal(number(totals, "returned"), 6);
    assert_int_equal(number(totals, "exceptions"), 5);
    assert_int_equal(number(totals, "re_encoded"), 1);
    assert_member(json_root(d), "root", "aa");
    assert_string_equal(json_string(item(d, "command", 2)), "bf16");
    json_free(d);
}

static void test_kept_tensors_have_no_counts(void **state)
{
    static const uint8_t kept[] = { 1, 0, 0 };
    ckpt_outcome o = outcome();
    json_document *d;

    (void)state;
    o.kept = kept;
    o.digest = NULL;
    o.root = NULL;
    d = write_and_read(&o, "r.json");
    assert_non_null(json_member(item(d, "target_tensors", 0), "kept"));
    assert_null(json_member(item(d, "target_tensors", 0), "inexact"));
    assert_null(json_member(item(d, "target_tensors", 0), "value"));
    assert_int_equal(number(json_member(json_root(d), "totals"), "inexact"), 0);
    assert_int_equal(number(json_member(json_root(d), "totals"), "kept"), 1);
    assert_true(json_is_null(json_member(json_root(d), "root")));
    json_free(d);
}

#define CATALOG_TEST(function)                                                                    \
    cmocka_unit_test_setup_teardown(function, set_up_catalogs, tear_down_catalogs)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CATALOG_TEST(test_every_stored_tensor_has_its_fate),
        CATALOG_TEST(test_every_target_tensor_says_what_its_encoding_met),
        CATALOG_TEST(test_kept_tensors_have_no_counts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
