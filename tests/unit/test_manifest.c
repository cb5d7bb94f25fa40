/* test_manifest.c: value digests as a document, there and back. */
#include "verify/manifest.h"

#include "file_faults.h"

#include "libckpt/digest.h"
#include "memory_source.h"

static memory_source *source;
static ckpt_digest *sums;
static manifest_info info;

static int set_up_source(void **state)
{
    static const char *const names[] = { "layers.0.w", "embed", "mtp.0.w", "layers.0.\xc3\xa9\"" };
    static const ckpt_dtype dtypes[] = { CKPT_F8_E4M3, CKPT_BF16, CKPT_F4, CKPT_I64 };
    const ckpt_run_options copy = { .thread_count = 1 };

    source = memory_source_create();
    for (size_t i = 0; i < 4; i++) {
        const size_t t = memory_source_add(source, names[i], dtypes[i], 3, 256);

        memset(memory_source_part(source, t, CKPT_DATA), (int)i + 1, 3 * 128);
    }
    assert_int_equal(ckpt_digest_source(memory_source_base(source), &copy, &sums, &err), CKPT_OK);
    info.catalog = memory_source_catalog(source);
    info.digest = sums;
    info.family = "deepseek_v4";
    info.layout = "hf";
    return set_up(state);
}

static int tear_down_source(void **state)
{
    ckpt_digest_free(sums);
    memory_source_free(source);
    return tear_down(state);
}

/* The manifest's text, with `from` replaced by `to` once. */
static ckpt_code read_back(const char *name, ckpt_manifest *out, ckpt_error *error)
{
    ckpt_folder *local;
    ckpt_code code;

    assert_int_equal(folder_open_local(folder, &local, error), CKPT_OK);
    code = manifest_read(local, name, out, error);
    folder_close(local);
    return code;
}

static ckpt_code read_edited(const char *from, const char *to)
{
    ckpt_manifest manifest;
    char *text;
    char *edited = NULL;
    const char *at;
    size_t size;
    ckpt_code code;

    assert_int_equal(manifest_write(in_folder("m"), &info, &err), CKPT_OK);
    assert_int_equal(file_read_all(in_folder("m"), 1 << 20, &text, &size, &err), CKPT_OK);
    at = strstr(text, from);
    assert_non_null(at);
    assert_true(asprintf(&edited, "%.*s%s%s", (int)(at - text), text, to,
                         at + strlen(from)) > 0);
    make_file(in_folder("m"), edited, strlen(edited));
    code = read_back("m", &manifest, &err);
    if (code == CKPT_OK)
        manifest_release(&manifest);
    free(edited);
    free(text);
    return code;
}

static void test_what_is_written_is_read_back(void **state)
{
    static const char *const files[] = { "m.json", "m.json.zst" };

    (void)state;
    for (size_t f = 0; f < 2; f++) {
        char root[CKPT_ROOT_HEX];
        ckpt_manifest m;

        assert_int_equal(manifest_write(in_folder(files[f]), &info, &err), CKPT_OK);
        assert_int_equal(read_back(files[f], &m, &err), CKPT_OK);
        assert_int_equal(ckpt_digest_root(sums, 0, root, &err), CKPT_OK);
        assert_string_equal(m.root, root);
        assert_int_equal(ckpt_digest_root(sums, 1, root, &err), CKPT_OK);
        assert_string_equal(m.main_root, root);
        assert_int_equal(ckpt_catalog_count(m.catalog), 4);
        for (size_t i = 0; i < 4; i++) {
            const ckpt_tensor *t = ckpt_catalog_at(info.catalog, i);
            const int64_t found = ckpt_catalog_find(m.catalog, t->name);
            const hash128 expected = digest_get(sums, i);
            const hash128 got = digest_get(m.digest, (size_t)found);

            assert_true(catalog_same_shape(t, ckpt_catalog_at(m.catalog, (size_t)found)));
            assert_int_equal(ckpt_tensor_is_int(t),
                             ckpt_tensor_is_int(ckpt_catalog_at(m.catalog, (size_t)found)));
            assert_memory_equal(&expected, &got, sizeof got);
        }
        manifest_release(&m);
    }
}

static void test_tensors_are_sorted_by_name(void **state)
{
    static const char *const sorted[] = { "embed", "layers.0.w", "layers.0.\xc3\xa9\"",
                                          "mtp.0.w" };
    ckpt_manifest m;

    (void)state;
    assert_int_equal(manifest_write(in_folder("m"), &info, &err), CKPT_OK);
    assert_int_equal(read_back("m", &m, &err), CKPT_OK);
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(ckpt_catalog_at(m.catalog, i)->name, sorted[i]);
    manifest_release(&m);
}

static void test_every_lie_is_noticed(void **state)
{
    static const struct {
        const char *from;
        const char *to;
    } lies[] = {
        { "\"embed\"", "\"embee\"" },
        { "\"class\":\"float\"", "\"class\":\"int\"" },
        { "[3,256]", "[256,3]" },
        { "[3,256]", "[3,256,1]" },
        { "\"value\":\"", "\"value\":\"f" },
        { "\"class\":\"float\"", "\"class\":\"double\"" },
        { "\"class\":\"float\",", "" },
        { "\"name\":\"embed\",", "" },
        { "\"encoding\":\"BF16\"", "\"encoding\":16" },
        { "\"shape\":[3,256],", "" },
        { "\"shape\":[3,256]", "\"shape\":[3,-256]" },
        { "\"shape\":[3,256]", "\"shape\":[1,1,1,1,1,1,1,1,768]" },
        { "\"shape\":[3,256]", "\"shape\":[4294967296,4294967296]" },
        { "\"embed\"", "\"mtp.0.w\"" },
        { "\"root\": \"", "\"root\": \"0" },
        { "\"main\": \"", "\"main\": \"0" },
        { "\"root\"", "\"boot\"" },
        { "\"tensors\"", "\"sensors\"" },
        { "]\n}\n", "]\n}\n," },
    };

    (void)state;
    for (size_t i = 0; i < sizeof lies / sizeof *lies; i++)
        if (read_edited(lies[i].from, lies[i].to) != CKPT_E_FORMAT)
            fail_msg("not refused: %s -> %s", lies[i].from, lies[i].to);
    assert_int_equal(read_edited("\"layout\": \"hf\"", "\"layout\": \"mp\""), CKPT_OK);
}

static void test_a_full_disk_leaves_no_manifest(void **state)
{
    (void)state;
    faults.fail_errno = ENOSPC;
    assert_int_equal(manifest_write(in_folder("m"), &info, &err), CKPT_E_IO);
    faults.fail_errno = 0;
    assert_int_equal(count_names(), 0);
}

#define SOURCE_TEST(function)                                                                     \
    cmocka_unit_test_setup_teardown(function, set_up_source, tear_down_source)

int main(void)
{
    const struct CMUnitTest tests[] = {
        SOURCE_TEST(test_what_is_written_is_read_back),
        SOURCE_TEST(test_tensors_are_sorted_by_name),
        SOURCE_TEST(test_every_lie_is_noticed),
        SOURCE_TEST(test_a_full_disk_leaves_no_manifest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
