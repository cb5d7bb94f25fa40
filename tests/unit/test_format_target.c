/*
 * test_format_target.c: a format whose header holds config, tokenizer and digest, and whose FP4
 * weights are interleaved blocks: what the library offers to formats that need more than tensors
 * before they lay out their files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/convert/convert.h"
#include "libckpt/size.h"

#define GOLDEN "tests/data/golden-a"
#define TOKENIZER "{\"model\": {\"type\": \"BPE\"}}"
#define EXPERT "layers.1.ffn.experts.2.w2.weight"

enum { ALIGNMENT = 32 };

static char base[32];
static ckpt_error err;

/* ---- the format: files of a head, then tensors at multiples of 32 ---- */

static struct {
    char file[FORMAT_NAME_BYTES];    /* that has the expert */
    uint64_t offset;
    ckpt_tensor expert;
    size_t blocks_count;             /* stored tensors in blocks */
} seen;

static ckpt_stored_form packed_form(const ckpt_tensor *logical)
{
    return stored_form_fits(CKPT_FORM_MXFP4, logical) ? CKPT_FORM_MXFP4 : CKPT_FORM_APART;
}

static void packed_file_name(size_t i, size_t count, char out[FORMAT_NAME_BYTES])
{
    snprintf(out, FORMAT_NAME_BYTES, "part-%zu-of-%zu.packed", i + 1, count);
}

/* Room for the root, then config and tokenizer. */
static ckpt_code make_head(store_file *f, const format_target *target)
{
    folder_text tokenizer;
    ckpt_code code;

    assert_null(target->root);
    assert_int_equal(target->files->count, 1);
    assert_string_equal(json_string(json_member(target->config, "model_type")), "deepseek_v4");
    code = folder_read_all(target->folder, target->files->names[0], 1 << 20, &tokenizer, &err);
    if (code != CKPT_OK)
        return code;
    f->header_bytes = CKPT_ROOT_HEX + strlen(target->config_text) + tokenizer.size;
    f->header = malloc(f->header_bytes + 1);
    snprintf(f->header, f->header_bytes + 1, "%*s%s%s", CKPT_ROOT_HEX, "", target->config_text,
             tokenizer.bytes);
    folder_text_release(&tokenizer);
    return CKPT_OK;
}

static ckpt_code packed_lay_out(ckpt_store *store, const format_target *target, ckpt_error *error)
{
    for (size_t i = 0; i < store->file_count; i++) {
        const ckpt_code code = make_head(&store->files[i], target);

        if (code != CKPT_OK)
            return ckpt_fail(error, code, "%s", err.text);
        store->files[i].size_bytes =
            size_div_up(store->files[i].header_bytes, ALIGNMENT) * ALIGNMENT;
    }
    for (size_t i = 0; i < ckpt_catalog_count(store->catalog); i++) {
        ckpt_tensor *t = catalog_edit(store->catalog, i);
        store_file *f = &store->files[t->file];

        t->offset = f->size_bytes;
        f->size_bytes += size_div_up(ckpt_tensor_bytes(t), ALIGNMENT) * ALIGNMENT;
        seen.blocks_count += t->stored_form == CKPT_FORM_MXFP4;
        if (strcmp(t->name, EXPERT) != 0)
            continue;
        snprintf(seen.file, sizeof seen.file, "%s", f->name);
        seen.offset = t->offset;
        seen.expert = *t;
    }
    return CKPT_OK;
}

static ckpt_code packed_finish(ckpt_store *store, const format_target *target, ckpt_error *error)
{
    ckpt_code code = CKPT_OK;

    assert_non_null(target->root);
    for (size_t i = 0; i < store->file_count && code == CKPT_OK; i++)
        code = file_write_at(store->files[i].file, 0, target->root, CKPT_ROOT_HEX - 1, error);
    return code;
}

static const ckpt_format packed = {
    .name = "packed",
    .file_name = packed_file_name,
    .form = packed_form,
    .lay_out = packed_lay_out,
    .finish = packed_finish,
};

/* ---- conversions to it ---- */

static char *in_base(const char *name)
{
    static char paths[8][256];
    static unsigned next;
    char *path = paths[next++ % 8];

    snprintf(path, sizeof paths[0], "%s/%s", base, name);
    return path;
}

static int set_up(void **state)
{
    char tokenizer[256];

    (void)state;
    snprintf(base, sizeof base, "/tmp/ckpt-test-XXXXXX");
    memset(&seen, 0, sizeof seen);
    if (mkdtemp(base) == NULL || file_make_directory(in_base("source"), &err) != CKPT_OK)
        return -1;
    for (size_t i = 0; i < 7; i++) {
        static const char *const names[] = {
            "config.json", "model.safetensors.index.json", "model-00001-of-00005.safetensors",
            "model-00002-of-00005.safetensors", "model-00003-of-00005.safetensors",
            "model-00004-of-00005.safetensors", "model-00005-of-00005.safetensors" };
        char from[128];
        char to[128];

        snprintf(from, sizeof from, GOLDEN "/%s", names[i]);
        snprintf(to, sizeof to, "source/%s", names[i]);
        if (file_copy(from, in_base(to), &err) != CKPT_OK)
            return -1;
    }
    snprintf(tokenizer, sizeof tokenizer, "%s", in_base("source/tokenizer.json"));
    return file_write_all(tokenizer, TOKENIZER, strlen(TOKENIZER), &err) != CKPT_OK;
}

static int tear_down(void **state)
{
    (void)state;
    return file_remove_tree(base, &err) != CKPT_OK;
}

/* Convert the golden checkpoint; the root of what was written. */
static void convert(convert_options *options, char root[CKPT_ROOT_HEX])
{
    convert_job *job = NULL;
    ckpt_outcome outcome;

    options->source = in_base("source");
    options->target = in_base("out");
    options->format = &packed;
    options->no_space_check = 1;
    options->verify = 1;
    if (convert_plan(options, &job, &err) != CKPT_OK || convert_run(job, &err) != CKPT_OK ||
        convert_outcome(job, &outcome, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    snprintf(root, CKPT_ROOT_HEX, "%s", outcome.root);
    if (convert_commit(job, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    convert_free(job);
}

static char *read_part(const char *name, size_t *size)
{
    char path[128];
    char *bytes;

    snprintf(path, sizeof path, "out/%s", name);
    assert_int_equal(file_read_all(in_base(path), 1 << 26, &bytes, size, &err), CKPT_OK);
    return bytes;
}

static void take_root(ckpt_source *source, char out[CKPT_ROOT_HEX])
{
    ckpt_digest *digest = NULL;

    assert_int_equal(ckpt_digest_source(source, NULL, &digest, &err), CKPT_OK);
    assert_int_equal(ckpt_digest_root(digest, 0, out, &err), CKPT_OK);
    ckpt_digest_free(digest);
}

/* Its own parts, put together: what the file must have. */
static char *expected_blocks(ckpt_checkpoint *c, size_t *size)
{
    ckpt_source *source = ckpt_logical(c);
    const size_t i = (size_t)ckpt_catalog_find(source->catalog, EXPERT);
    const ckpt_tensor *t = ckpt_catalog_at(source->catalog, i);
    void *codes = malloc(ckpt_part_bytes(t, CKPT_DATA));
    void *scales = malloc(ckpt_part_bytes(t, CKPT_SCALE));
    char *blocks = malloc(ckpt_tensor_bytes(t));

    *size = ckpt_tensor_bytes(t);
    for (int part = CKPT_DATA; part <= CKPT_SCALE; part++)
        assert_int_equal(ckpt_source_read(source, i, (ckpt_part)part, 0,
                                          ckpt_part_rows(t, (ckpt_part)part),
                                          part == CKPT_DATA ? codes : scales, &err), CKPT_OK);
    interleave_join(stored_form_at(CKPT_FORM_MXFP4)->shape, codes, scales,
                    ckpt_part_bytes(t, CKPT_SCALE), blocks);
    free(codes);
    free(scales);
    return blocks;
}

static void test_weights_become_blocks_and_the_head_has_config_tokenizer_and_root(void **state)
{
    convert_options options = { .many_files = 0 };
    ckpt_checkpoint *c = NULL;
    char source_root[CKPT_ROOT_HEX];
    char root[CKPT_ROOT_HEX];
    size_t blocks_size;
    size_t size;
    char *blocks;
    char *config;
    char *bytes;

    (void)state;
    convert(&options, root);
    assert_int_equal(ckpt_open(in_base("source"), NULL, &c, &err), CKPT_OK);
    take_root(ckpt_logical(c), source_root);
    assert_string_equal(root, source_root);
    blocks = expected_blocks(c, &blocks_size);
    bytes = read_part(seen.file, &size);
    assert_in_range(seen.offset + blocks_size, 1, size);
    assert_memory_equal(bytes + seen.offset, blocks, blocks_size);
    assert_memory_equal(bytes, root, CKPT_ROOT_HEX - 1);
    config = read_part("config.json", &size);
    assert_memory_equal(bytes + CKPT_ROOT_HEX, config, size);
    assert_memory_equal(bytes + CKPT_ROOT_HEX + size, TOKENIZER, strlen(TOKENIZER));
    assert_int_equal(seen.expert.rank, 2);
    free(config);
    free(bytes);
    free(blocks);
    ckpt_close(c);
}

/* Experts in FP8 have no such form: they lie apart, each with its scale. */
static void test_what_has_no_such_form_lies_apart(void **state)
{
    convert_options options = { .policy = { .experts = PLAN_FP8 } };
    char root[CKPT_ROOT_HEX];

    (void)state;
    convert(&options, root);
    assert_int_equal(seen.blocks_count, 0);
    assert_int_equal(seen.expert.dtype, CKPT_F8_E4M3);
    assert_int_equal(seen.expert.stored_form, CKPT_FORM_APART);
    assert_int_equal(seen.expert.scale_dtype, CKPT_NONE);
}

#define TARGET_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TARGET_TEST(test_weights_become_blocks_and_the_head_has_config_tokenizer_and_root),
        TARGET_TEST(test_what_has_no_such_form_lies_apart),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
