/* test_family.c: family texts, and the inventory of DeepSeek-V4 that comes out of one. */
#include "libckpt/family.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "family_text.h"
#include "formats/maps.h"
#include "libckpt/file.h"

#define MAPS "formats/maps/"
#define DATA "tests/data/"

enum { FILE_BYTES_MAX = 16 << 20 };

static char *read_text(const char *path, size_t *size)
{
    ckpt_error err;
    char *text;

    if (file_read_all(path, FILE_BYTES_MAX, &text, size, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    return text;
}

static ckpt_family *deepseek(void)
{
    const ckpt_builtin_map *text = maps_find("deepseek_v4.family");
    char *copy = strndup(text->text, text->text_bytes);
    ckpt_family *family = family_of_text(copy, text->text_bytes);

    free(copy);      /* the family must not point into it */
    return family;
}

/* A config with some members changed: pairs of key and JSON text, up to a NULL. */
static json_document *config_with(const char *path, const char *const *edits)
{
    ckpt_error err;
    json_document *document;
    size_t size;
    char *text = read_text(path, &size);

    for (; edits != NULL && *edits != NULL; edits += 2) {
        char *edited;

        if (json_edit(text, edits[0], edits[1], &edited, &err) != CKPT_OK)
            fail_msg("%s", err.text);
        free(text);
        text = edited;
    }
    if (json_parse(text, strlen(text), path, &document, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    free(text);
    return document;
}

static ckpt_catalog *expand_with(const char *path, const char *const *edits)
{
    ckpt_family *family = deepseek();
    json_document *config = config_with(path, edits);
    ckpt_catalog *catalog;
    ckpt_error err;

    if (family_expand(family, json_root(config), &catalog, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    json_free(config);
    family_free(family);
    return catalog;
}

static const ckpt_tensor *find(const ckpt_catalog *catalog, const char *name)
{
    const int64_t i = ckpt_catalog_find(catalog, name);

    if (i == CKPT_NOT_FOUND)
        fail_msg("no tensor '%s'", name);
    return ckpt_catalog_at(catalog, (size_t)i);
}

static void assert_shape(const ckpt_catalog *catalog, const char *name, const char *encoding,
                         const char *shape)
{
    const ckpt_tensor *tensor = find(catalog, name);
    char text[128];

    ckpt_tensor_encoding(tensor, text, sizeof text);
    assert_string_equal(text, encoding);
    catalog_shape_text(tensor, text, sizeof text);
    assert_string_equal(text, shape);
}

/* Stored tensors (a scale is one too) and their bytes, by the dtype in the files. */
typedef struct {
    uint64_t count[CKPT_DTYPE_COUNT];
    uint64_t bytes[CKPT_DTYPE_COUNT];
    uint64_t all_count;
    uint64_t all_bytes;
    uint64_t file_count;
    uint64_t main_elements;        /* of weights, without I64 tables */
    uint64_t mtp_elements;
} totals;

static void add_part(totals *t, const ckpt_tensor *tensor, ckpt_part part, ckpt_dtype dtype)
{
    t->count[dtype]++;
    t->bytes[dtype] += ckpt_part_bytes(tensor, part);
    t->all_count++;
    t->all_bytes += ckpt_part_bytes(tensor, part);
}

static totals add_up(const ckpt_catalog *catalog)
{
    totals t = { .all_count = 0 };

    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *tensor = ckpt_catalog_at(catalog, i);
        const uint64_t elements = ckpt_tensor_rows(tensor) * ckpt_tensor_cols(tensor);

        add_part(&t, tensor, CKPT_DATA, tensor->dtype == CKPT_F4 ? CKPT_I8 : tensor->dtype);
        if (tensor->scale_dtype != CKPT_NONE)
            add_part(&t, tensor, CKPT_SCALE, tensor->scale_dtype);
        if (tensor->file >= t.file_count)
            t.file_count = tensor->file + UINT64_C(1);
        if (tensor->dtype == CKPT_I64)
            continue;
        if (strncmp(tensor->name, "mtp.", 4) == 0)
            t.mtp_elements += elements;
        else
            t.main_elements += elements;
    }
    return t;
}

static void assert_dtype(const totals *t, ckpt_dtype dtype, uint64_t count, uint64_t bytes)
{
    assert_int_equal(t->count[dtype], count);
    assert_int_equal(t->bytes[dtype], bytes);
}

static void assert_totals(const totals *t, uint64_t count, uint64_t bytes, uint64_t file_count)
{
    assert_int_equal(t->all_count, count);
    assert_int_equal(t->all_bytes, bytes);
    assert_int_equal(t->file_count, file_count);
}

/* ---- the inventory ---- */

static void test_flash_is_the_published_inventory(void **state)
{
    ckpt_catalog *catalog = expand_with(MAPS "deepseek_v4.flash.json", NULL);
    const totals t = add_up(catalog);

    (void)state;
    assert_totals(&t, 69187, 159609485896, 46);
    assert_dtype(&t, CKPT_I64, 3, 18616320);
    assert_dtype(&t, CKPT_F32, 417, 144672072);
    assert_dtype(&t, CKPT_BF16, 433, 2830518528);
    assert_dtype(&t, CKPT_F8_E8M0, 34167, 8858737664);
    assert_dtype(&t, CKPT_F8_E4M3, 375, 6023020544);
    assert_dtype(&t, CKPT_I8, 33792, 141733920768);
    assert_int_equal(t.main_elements, 284332240471);
    assert_int_equal(t.mtp_elements, 6610048891);
    catalog_free(catalog);
}

static void test_pro_is_the_published_inventory(void **state)
{
    ckpt_catalog *catalog = expand_with(MAPS "deepseek_v4.pro.json", NULL);
    const totals t = add_up(catalog);

    (void)state;
    assert_totals(&t, 145116, 864704792696, 64);
    assert_dtype(&t, CKPT_I64, 3, 18616320);
    assert_dtype(&t, CKPT_F32, 590, 351105656);
    assert_dtype(&t, CKPT_BF16, 619, 5633798656);
    assert_dtype(&t, CKPT_F8_E8M0, 71952, 49150268416);
    assert_dtype(&t, CKPT_F8_E4M3, 528, 23169335296);
    assert_dtype(&t, CKPT_I8, 71424, 786381668352);
    assert_int_equal(t.main_elements, 1572997201763);
    assert_int_equal(t.mtp_elements, 25840145979);
    catalog_free(catalog);
}

static void test_expert_dtype_fp8_gives_fp8_experts(void **state)
{
    static const char *const edits[] = { "expert_dtype", "\"fp8\"", NULL };
    ckpt_catalog *catalog = expand_with(MAPS "deepseek_v4.flash.json", edits);
    const totals t = add_up(catalog);

    (void)state;
    assert_totals(&t, 69187, 292502338120, 46);
    assert_shape(catalog, "layers.0.ffn.experts.0.w2.weight", "F8_E4M3 128x128 F8_E8M0",
                 "[4096, 2048]");
    catalog_free(catalog);
}

/* A config that says nothing of the experts leaves them the encoding that their shape can have. */
static void test_rows_that_are_not_whole_groups_are_fp8_unless_told(void **state)
{
    static const char *const odd[] = { "moe_intermediate_size", "200", "expert_dtype", "null",
                                       NULL };
    static const char *const whole[] = { "expert_dtype", "null", NULL };
    ckpt_catalog *catalog = expand_with(MAPS "deepseek_v4.tiny.json", odd);

    (void)state;
    assert_shape(catalog, "layers.0.ffn.experts.0.w1.weight", "F8_E4M3 128x128 F8_E8M0",
                 "[200, 256]");
    assert_shape(catalog, "layers.4.ffn.experts.15.w2.weight", "F8_E4M3 128x128 F8_E8M0",
                 "[256, 200]");
    catalog_free(catalog);
    catalog = expand_with(MAPS "deepseek_v4.tiny.json", whole);
    assert_shape(catalog, "layers.0.ffn.experts.0.w2.weight", "F4 1x32 F8_E8M0", "[256, 256]");
    catalog_free(catalog);
}

static void test_base_releases_have_f32_scales(void **state)
{
    static const char *const edits[] = { "expert_dtype", "\"fp8\"", "quantization_config",
                                         "{\"quant_method\": \"fp8\"}", NULL };
    ckpt_catalog *catalog = expand_with(MAPS "deepseek_v4.flash.json", edits);
    const totals t = add_up(catalog);

    (void)state;
    assert_totals(&t, 69187, 292555345480, 46);
    assert_dtype(&t, CKPT_F8_E8M0, 0, 0);
    catalog_free(catalog);
}

/* The compression ratios of a built-in config with two entries more: three MTP blocks. */
static void dspark_ratios(const char *path, char *out, size_t out_bytes)
{
    json_document *config = config_with(path, NULL);
    const json_value *v = json_first(json_member(json_root(config), "compress_ratios"));
    size_t used = 0;

    for (; v != NULL; v = json_next(v)) {
        uint64_t ratio;

        assert_int_equal(json_u64(v, &ratio), 1);
        used += (size_t)snprintf(out + used, out_bytes - used, "%c%u", used == 0 ? '[' : ',',
                                 (unsigned)ratio);
    }
    snprintf(out + used, out_bytes - used, ",0,0]");
    json_free(config);
}

static void test_dspark_releases_are_the_published_inventories(void **state)
{
    char ratios[1024];
    const char *edits[] = { "dspark_target_layer_ids", "[40, 41, 42]", "dspark_markov_rank",
                            "256", "compress_ratios", ratios, NULL };
    ckpt_catalog *catalog;
    totals t;

    (void)state;
    dspark_ratios(MAPS "deepseek_v4.flash.json", ratios, sizeof ratios);
    catalog = expand_with(MAPS "deepseek_v4.flash.json", edits);
    t = add_up(catalog);
    assert_totals(&t, 72317, 166878536440, 48);
    assert_shape(catalog, "mtp.0.main_proj.weight", "F8_E4M3 128x128 F8_E8M0", "[4096, 12288]");
    assert_shape(catalog, "mtp.2.confidence_head.proj.weight", "BF16", "[1, 4352]");
    assert_int_equal(ckpt_catalog_find(catalog, "mtp.0.e_proj.weight"), CKPT_NOT_FOUND);
    assert_int_equal(ckpt_catalog_find(catalog, "mtp.1.norm.weight"), CKPT_NOT_FOUND);
    catalog_free(catalog);

    dspark_ratios(MAPS "deepseek_v4.pro.json", ratios, sizeof ratios);
    edits[3] = "512";
    catalog = expand_with(MAPS "deepseek_v4.pro.json", edits);
    t = add_up(catalog);
    assert_totals(&t, 149782, 892727580904, 66);
    catalog_free(catalog);
}

static void test_tensors_lie_in_their_official_files(void **state)
{
    static const struct {
        const char *name;
        uint32_t file;
    } places[] = {
        { "embed.weight", 0 },          { "layers.0.attn_norm.weight", 1 },
        { "layers.42.ffn.experts.255.w3.weight", 43 },
        { "norm.weight", 44 },          { "head.weight", 44 },
        { "hc_head_scale", 44 },        { "mtp.0.e_proj.weight", 45 },
        { "mtp.0.hc_head_fn", 45 },
    };
    ckpt_catalog *catalog = expand_with(MAPS "deepseek_v4.flash.json", NULL);

    (void)state;
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        assert_int_equal(find(catalog, places[i].name)->file, places[i].file);
    catalog_free(catalog);
}

static void test_shapes_follow_the_compression_ratio(void **state)
{
    ckpt_catalog *catalog = expand_with(MAPS "deepseek_v4.flash.json", NULL);

    (void)state;
    assert_shape(catalog, "layers.2.attn.compressor.ape", "F32", "[4, 1024]");
    assert_shape(catalog, "layers.3.attn.compressor.ape", "F32", "[128, 512]");
    assert_shape(catalog, "layers.2.attn.indexer.compressor.ape", "F32", "[4, 256]");
    assert_shape(catalog, "layers.3.attn.compressor.wkv.weight", "BF16", "[512, 4096]");
    assert_int_equal(ckpt_catalog_find(catalog, "layers.1.attn.compressor.ape"), CKPT_NOT_FOUND);
    assert_int_equal(ckpt_catalog_find(catalog, "layers.3.attn.indexer.wq_b.weight"),
                     CKPT_NOT_FOUND);
    assert_shape(catalog, "layers.2.attn.wo_a.weight", "F8_E4M3 128x128 F8_E8M0",
                 "[8192, 4096]");
    assert_shape(catalog, "layers.2.ffn.experts.7.w2.weight", "F4 1x32 F8_E8M0", "[4096, 2048]");
    assert_int_equal(find(catalog, "layers.2.ffn.experts.7.w2.weight")->stored_dtype, CKPT_I8);
    catalog_free(catalog);
}

static void test_hash_layers_have_a_table_and_no_bias(void **state)
{
    ckpt_catalog *catalog = expand_with(MAPS "deepseek_v4.flash.json", NULL);

    (void)state;
    assert_shape(catalog, "layers.2.ffn.gate.tid2eid", "I64", "[129280, 6]");
    assert_shape(catalog, "layers.3.ffn.gate.bias", "F32", "[256]");
    assert_shape(catalog, "mtp.0.ffn.gate.bias", "F32", "[256]");
    assert_int_equal(ckpt_catalog_find(catalog, "layers.2.ffn.gate.bias"), CKPT_NOT_FOUND);
    assert_int_equal(ckpt_catalog_find(catalog, "mtp.0.ffn.gate.tid2eid"), CKPT_NOT_FOUND);
    catalog_free(catalog);
}

static void test_one_mtp_block_is_the_default(void **state)
{
    static const char *const absent[] = { "num_nextn_predict_layers", NULL, NULL };
    static const char *const none[] = { "num_nextn_predict_layers", "0", NULL };
    ckpt_catalog *catalog = expand_with(MAPS "deepseek_v4.tiny.json", absent);

    (void)state;
    find(catalog, "mtp.0.e_proj.weight");
    catalog_free(catalog);
    catalog = expand_with(MAPS "deepseek_v4.tiny.json", none);
    assert_int_equal(ckpt_catalog_find(catalog, "mtp.0.e_proj.weight"), CKPT_NOT_FOUND);
    catalog_free(catalog);
}

static void test_tiny_is_small_and_has_every_kind_of_layer(void **state)
{
    ckpt_catalog *catalog = expand_with(MAPS "deepseek_v4.tiny.json", NULL);
    const totals t = add_up(catalog);

    (void)state;
    assert_in_range(t.all_bytes, 10 << 20, 25 << 20);
    find(catalog, "layers.0.ffn.gate.tid2eid");
    find(catalog, "layers.1.attn.indexer.wq_b.weight");
    assert_shape(catalog, "layers.2.attn.compressor.ape", "F32", "[128, 128]");
    find(catalog, "mtp.0.hc_head_fn");
    catalog_free(catalog);
}

static void test_copies_of_embedding_and_head_are_optional(void **state)
{
    ckpt_family *family = deepseek();
    json_document *config = config_with(MAPS "deepseek_v4.flash.json", NULL);
    const json_value *root = json_root(config);
    ckpt_catalog *catalog;
    ckpt_error err;

    (void)state;
    assert_int_equal(family_has_optional(family, root, "mtp.0.head.weight"), 1);
    assert_int_equal(family_has_optional(family, root, "mtp.0.emb.tok_emb.weight"), 1);
    assert_int_equal(family_has_optional(family, root, "mtp.1.head.weight"), 0);
    assert_int_equal(family_has_optional(family, root, "head.weight"), 0);
    assert_int_equal(family_has_optional(family, root, "mtp.0.norm.weight"), 0);
    assert_int_equal(family_expand_optional(family, root, &catalog, &err), CKPT_OK);
    assert_int_equal(ckpt_catalog_count(catalog), 2);
    assert_shape(catalog, "mtp.0.head.weight", "BF16", "[129280, 4096]");
    catalog_free(catalog);
    json_free(config);
    family_free(family);
}

static void test_a_config_of_another_family_does_not_match(void **state)
{
    static const char *const edits[] = { "model_type", "\"deepseek_v3\"", NULL };
    ckpt_family *family = deepseek();
    json_document *ours = config_with(MAPS "deepseek_v4.tiny.json", NULL);
    json_document *other = config_with(MAPS "deepseek_v4.tiny.json", edits);

    (void)state;
    assert_string_equal(family_name(family), "deepseek_v4");
    assert_int_equal(family_matches(family, json_root(ours)), 1);
    assert_int_equal(family_matches(family, json_root(other)), 0);
    json_free(other);
    json_free(ours);
    family_free(family);
}

/* ---- real headers ---- */

/* Compare one header entry with the catalog. */
static void check_entry(const ckpt_catalog *catalog, const json_value *entry)
{
    static const char suffix[] = ".scale";
    const size_t stem = strlen(json_key(entry)) - (sizeof suffix - 1);
    const json_value *dim = json_first(json_member(entry, "shape"));
    const char *dtype = json_string(json_member(entry, "dtype"));
    uint64_t want[CKPT_RANK_MAX];
    const ckpt_tensor *tensor;
    uint32_t rank = 0;
    char name[256];

    for (; dim != NULL; dim = json_next(dim))
        assert_int_equal(json_u64(dim, &want[rank++]), 1);
    if (strcmp(json_key(entry) + stem, suffix) == 0) {
        snprintf(name, sizeof name, "%.*s.weight", (int)stem, json_key(entry));
        tensor = find(catalog, name);
        assert_string_equal(dtype, ckpt_dtype_name(tensor->scale_dtype));
        assert_int_equal(rank, 2);
        assert_int_equal(want[0], ckpt_part_rows(tensor, CKPT_SCALE));
        assert_int_equal(want[1], ckpt_part_cols(tensor, CKPT_SCALE));
        return;
    }
    tensor = find(catalog, json_key(entry));
    assert_string_equal(dtype, tensor->dtype == CKPT_F4 ? "I8" : ckpt_dtype_name(tensor->dtype));
    if (tensor->dtype == CKPT_F4)
        want[rank - 1] *= 2;
    assert_int_equal(rank, tensor->rank);
    assert_memory_equal(want, tensor->shape, rank * sizeof want[0]);
}

/* Number of tensors in a safetensors file, each compared. */
static uint64_t check_header(const ckpt_catalog *catalog, const char *path)
{
    json_document *header;
    uint64_t header_bytes;
    uint64_t count = 0;
    ckpt_error err;
    size_t size;
    char *bytes = read_text(path, &size);

    assert_in_range(size, sizeof header_bytes, FILE_BYTES_MAX);
    memcpy(&header_bytes, bytes, sizeof header_bytes);
    assert_in_range(header_bytes, 2, size - sizeof header_bytes);
    if (json_parse(bytes + 8, header_bytes, path, &header, &err) != CKPT_OK)
        fail_msg("%s", err.text);
    for (const json_value *v = json_first(json_root(header)); v != NULL; v = json_next(v)) {
        if (strcmp(json_key(v), "__metadata__") == 0)
            continue;
        check_entry(catalog, v);
        count++;
    }
    json_free(header);
    free(bytes);
    return count;
}

static void check_golden(const char *directory, unsigned file_count)
{
    ckpt_catalog *catalog;
    uint64_t count = 0;
    char path[256];

    snprintf(path, sizeof path, "%s/config.json", directory);
    catalog = expand_with(path, NULL);
    for (unsigned i = 1; i <= file_count; i++) {
        snprintf(path, sizeof path, "%s/model-%05u-of-%05u.safetensors", directory, i,
                 file_count);
        count += check_header(catalog, path);
    }
    assert_int_equal(count, add_up(catalog).all_count);
    catalog_free(catalog);
}

static void test_golden_a_has_exactly_these_tensors(void **state)
{
    (void)state;
    check_golden(DATA "golden-a", 5);
}

static void test_golden_b_has_exactly_these_tensors(void **state)
{
    (void)state;
    check_golden(DATA "golden-b", 6);
}

/* ---- what is refused ---- */

#define HEAD "family f\ndetect t x\n"
#define TOLD "experts-told-by expert_dtype\n"

static void test_wrong_texts_are_refused_with_their_line(void **state)
{
    static const struct {
        const char *text;
        const char *message;
    } cases[] = {
        { "", "no family line" },
        { "family f", "line 1: no detect line" },
        { HEAD "tensr a f32 1 file 1", "line 3: unknown word 'tensr'" },
        { HEAD "\n\ntensor a f32 D file 1", "line 5: unknown variable 'D'" },
        { HEAD "tensor a f8 1 file 1", "line 3: 'f8' is not an encoding" },
        { HEAD "tensor a fp8:64x64 1 file 1", "line 3: 'fp8:64x64' is not an encoding" },
        { HEAD "blocks fp8", "line 3: 'fp8' has no block" },
        { HEAD "blocks fp8:1x32\nblocks fp8:1x32", "line 4: a second blocks line" },
        { HEAD "others drop", "line 3: others keep" },
        { HEAD "experts-told-by", "line 3: a config member is missing" },
        { HEAD "list r m\nlet a = 1 if 1 in q", "line 4: 'q' is not a list" },
        { HEAD "list r m\nlet a = 1 if 1 in", "line 4: a list is missing" },
        { HEAD "list r m a b c d e f g h i", "line 3: more than 8 words" },
        { HEAD "tensor a f32 1", "line 3: a tensor has a file number if and only if" },
        { HEAD "tensor a f32 1 file 1 x", "line 3: unexpected word 'x'" },
        { HEAD "tensor a f32 1,,2 file 1", "line 3: '' is not an expression" },
        { HEAD "tensor a f32 1+ file 1", "line 3: '1+' is not an expression" },
        { HEAD "tensor a f32 1&2 file 1", "line 3: '1&2' is not an expression" },
        { HEAD "tensor a f32 99999999999999999999 file 1", "over 64 bits" },
        { HEAD "tensor a f32 1,1,1,1,1,1,1,1,1 file 1", "more than 8 dimensions" },
        { HEAD "tensor a{ f32 1 file 1", "line 3: expected an index name in braces" },
        { HEAD "tensor a{x} f32 1 file 1", "line 3: 'x' is not an index" },
        { HEAD "tensor a f32 r[0] file 1", "line 3: 'r' is not a list" },
        { HEAD "list r m\ntensor a f32 r file 1", "line 4: 'r' is a list, not a number" },
        { HEAD "list r m\ntensor a f32 r[0 file 1", "line 4: 'r[0': expected ']'" },
        { HEAD "list r m\nlet r = 1", "line 4: 'r' is already used or defined on line 3" },
        { HEAD "let 9 = 1", "line 3: '9' is not a name" },
        { HEAD "let a", "line 3: a config member is missing at the end" },
        { HEAD "tensor a f32 1 file 1 if 1 == 1", "line 3: '==' is not a comparison" },
        { HEAD "tensor a f32 1 file 1 if 1 = ", "line 3: the right side of a condition" },
        { HEAD "end", "line 3: end without a block or part" },
        { HEAD "block a. file 1\ntensor b f32 1", "line 3: no end of this block" },
        { HEAD "block a. file 1\nblock b. file 1", "line 4: 'block' is not allowed in a block" },
        { HEAD "block a.", "line 3: a block needs the number of its file" },
        { HEAD "part p\nend\npart p\nend", "line 5: a second part 'p'" },
        { HEAD "block a. file 1\nuse p\nend", "line 4: no part 'p' before this line" },
        { HEAD "use p", "line 3: use is only allowed in a block" },
        { HEAD "part p\nuse p\nend", "line 4: use is only allowed in a block" },
        { HEAD "family g", "line 3: a second family" },
        { HEAD "let a\x01 = 1", "line 3: an invalid character after 'a'" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        ckpt_family *family;
        ckpt_error err;

        assert_int_equal(
            family_parse(cases[i].text, strlen(cases[i].text), "text", &family, &err),
            CKPT_E_FORMAT);
        if (strstr(err.text, cases[i].message) == NULL)
            fail_msg("case %zu: got %s, expected %s", i, err.text, cases[i].message);
    }
}

static void test_every_cut_of_the_text_is_refused_or_read(void **state)
{
    const ckpt_builtin_map *text = maps_find("deepseek_v4.family");

    (void)state;
    for (size_t length = 0; length < text->text_bytes; length += 7) {
        char *cut = malloc(length + 1);     /* so that ASan sees a read past its end */
        ckpt_family *family;

        assert_non_null(cut);
        memcpy(cut, text->text, length);
        if (family_parse(cut, length, "text", &family, NULL) == CKPT_OK)
            family_free(family);
        free(cut);
    }
}

static void test_wrong_configs_are_refused_by_member(void **state)
{
    static const struct {
        const char *text;
        const char *config;
        const char *message;
    } cases[] = {
        { HEAD "let a n", "{}", "config member 'n' is missing" },
        { HEAD "let a n", "{\"n\": null}", "config member 'n' is missing" },
        { HEAD "let a n", "{\"n\": 1.5}", "config member 'n' is not a non-negative integer" },
        { HEAD "let a n 7", "{\"n\": \"7\"}", "config member 'n' is not a non-negative integer" },
        { HEAD "let a n", "{\"n\": -1}", "config member 'n' is not a non-negative integer" },
        { HEAD "let a n", "[]", "the config is not a JSON object" },
        { HEAD "list r n", "{}", "config member 'n' is missing or not an array" },
        { HEAD "list r n", "{\"n\": [1, \"2\"]}",
          "config member 'n', element 1, is not a non-negative integer" },
        { HEAD "count c n", "{\"n\": 3}", "config member 'n' is not an array" },
        { HEAD "list r n\nlet a = r[2]", "{\"n\": [1, 2]}",
          "config list 'n' has 2 elements, no element 2" },
        { HEAD "let a n\nlet b = 8/a", "{\"n\": 0}", "'8/n' divides by zero" },
        { HEAD "let a n\nlet b = 8/a", "{\"n\": 3}", "'8/n': 8 is not a multiple of 3" },
        { HEAD "let a n\nlet b = 8-a", "{\"n\": 9}", "'8-n' is below zero" },
        { HEAD "let a n\nlet b = a*a*a*a", "{\"n\": 65536}", "'n*n*n*n' is over 64 bits" },
        { HEAD "let a = 18446744073709551615\nlet b = a+1", "{}", "'a+1' is over 64 bits" },
        { HEAD "let a = 1\nlet a = 2", "{}", "line 4: 'a' is set twice" },
        { HEAD "let b = a\nlet a = 2", "{}", "line 3: 'a' is undefined here" },
        { HEAD "index i 0 n\ntensor a{i} f32 1 file 1\nlet n m", "{\"m\": 1}",
          "line 4: 'n' is undefined here" },
        { HEAD "let n m\nindex i 0 n\ntensor a{i} f32 1 file 1", "{\"m\": 1048577}",
          "'m' counts from 0 to 1048577" },
        { HEAD "index i 2 1\ntensor a{i} f32 1 file 1", "{}", "'1' counts from 2 to 1" },
        { HEAD "index i 0 9\nindex j 0 i\ntensor a{i}.{j} f32 1 file 1", "{}",
          "'i' is undefined here" },
        { HEAD "tensor a f32 1 file 0", "{}", "line 3: file number 0 is not in" },
        { HEAD "tensor a f32 1 file 1\ntensor a f32 1 file 1", "{}",
          "line 4: tensor 'a' appears twice" },
        { HEAD "index i 0 2\nblock a. file 1\ntensor b f32 1\nend\nblock a. file 1\n"
               "tensor b f32 1\nend", "{}", "line 8: tensor 'a.b' appears twice" },
        { HEAD TOLD "tensor a fp4 8,33 file 1", "{\"expert_dtype\": \"fp4\"}",
          "tensor 'a' [8, 33] cannot be F4 1x32 F8_E8M0: its columns" },
        { HEAD "tensor a f32 4294967296,4294967296 file 1", "{}", "tensor 'a'" },
        { HEAD TOLD "let a = 1", "{\"expert_dtype\": \"fp16\"}", "'expert_dtype' is 'fp16'" },
        { HEAD TOLD "let a = 1", "{\"expert_dtype\": 4}", "'expert_dtype' is 'no string'" },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_expand_fails(cases[i].text, cases[i].config, cases[i].message);
}

static void test_work_without_tensors_is_bounded_too(void **state)
{
    (void)state;
    assert_expand_fails(HEAD "index i 0 1048576\nindex j 0 1048576\nindex k 0 1048576\n"
                             "tensor {i}.{j}.{k} f32 1 file 1 if 0 = 1", "{}", "steps");
    assert_expand_fails(HEAD "index i 0 1048576\nindex j 0 1048576\nindex k 0 1048576\n"
                             "block {i}.{j}.{k}. file 1\nend", "{}", "steps");
}

static void test_conditions_stop_at_the_first_that_fails(void **state)
{
    static const char text[] = HEAD "list r n\ncount c n\n"
                                    "tensor a f32 1 file 1 if c > 5 and r[5] = 1\n"
                                    "tensor b f32 1 file 1 if c <= 5 and c != 4 and r[0] >= 7\n";
    ckpt_family *family = family_of_text(text, sizeof text - 1);
    json_document *config;
    ckpt_catalog *catalog;
    ckpt_error err;

    (void)state;
    assert_int_equal(json_parse("{\"n\": [7]}", 10, "config", &config, &err), CKPT_OK);
    assert_int_equal(family_expand(family, json_root(config), &catalog, &err), CKPT_OK);
    assert_int_equal(ckpt_catalog_count(catalog), 1);
    find(catalog, "b");
    catalog_free(catalog);
    json_free(config);
    family_free(family);
}

static void test_expressions_go_from_left_to_right(void **state)
{
    static const char text[] = HEAD "let a n 3 # a comment\nlist r m\n"
                                    "tensor x f32 2+a*a-1/2,r[a] file 1\n";
    ckpt_family *family = family_of_text(text, sizeof text - 1);
    json_document *config;
    ckpt_catalog *catalog;
    ckpt_error err;

    (void)state;
    assert_int_equal(json_parse("{\"m\": [4,5,6,7]}", 16, "config", &config, &err), CKPT_OK);
    assert_int_equal(family_expand(family, json_root(config), &catalog, &err), CKPT_OK);
    assert_shape(catalog, "x", "F32", "[7, 7]");
    catalog_free(catalog);
    json_free(config);
    family_free(family);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_flash_is_the_published_inventory),
        cmocka_unit_test(test_pro_is_the_published_inventory),
        cmocka_unit_test(test_expert_dtype_fp8_gives_fp8_experts),
        cmocka_unit_test(test_rows_that_are_not_whole_groups_are_fp8_unless_told),
        cmocka_unit_test(test_base_releases_have_f32_scales),
        cmocka_unit_test(test_dspark_releases_are_the_published_inventories),
        cmocka_unit_test(test_tensors_lie_in_their_official_files),
        cmocka_unit_test(test_shapes_follow_the_compression_ratio),
        cmocka_unit_test(test_hash_layers_have_a_table_and_no_bias),
        cmocka_unit_test(test_one_mtp_block_is_the_default),
        cmocka_unit_test(test_tiny_is_small_and_has_every_kind_of_layer),
        cmocka_unit_test(test_copies_of_embedding_and_head_are_optional),
        cmocka_unit_test(test_a_config_of_another_family_does_not_match),
        cmocka_unit_test(test_golden_a_has_exactly_these_tensors),
        cmocka_unit_test(test_golden_b_has_exactly_these_tensors),
        cmocka_unit_test(test_wrong_texts_are_refused_with_their_line),
        cmocka_unit_test(test_every_cut_of_the_text_is_refused_or_read),
        cmocka_unit_test(test_wrong_configs_are_refused_by_member),
        cmocka_unit_test(test_work_without_tensors_is_bounded_too),
        cmocka_unit_test(test_conditions_stop_at_the_first_that_fails),
        cmocka_unit_test(test_expressions_go_from_left_to_right),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
