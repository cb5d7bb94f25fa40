/*
 * test_stored_form.c: the same tensors stored apart and in interleaved blocks: one digest, one
 * value for each element, and the way back to the same bytes.
 */
#include "file_faults.h"

#include <math.h>

#include "formats/delta/delta_model.h"
#include "libckpt/digest.h"
#include "libckpt/map.h"
#include "libckpt/output.h"
#include "libckpt/stored_form.h"
#include "memory_folder.h"
#include "memory_source.h"

enum { ELEMENTS = 32, BLOCK = 17, HEAD = 5, EXPERTS = 3, ROWS = 300, COLS = 96 };

/* ---- blocks ---- */

/* MXFP4 as it is defined: a scale, then element i in the low and i + 16 in the high nibble of byte
 * i. Codes of rows: two a byte, low nibble first. */
static void define_mxfp4(const uint8_t *codes, uint8_t scale, uint8_t block[BLOCK])
{
    block[0] = scale;
    for (int i = 0; i < 16; i++) {
        const int low = codes[i / 2] >> i % 2 * 4 & 15;
        const int high = codes[8 + i / 2] >> i % 2 * 4 & 15;

        block[1 + i] = (uint8_t)(low | high << 4);
    }
}

static uint8_t hex_digit(char c)
{
    return (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
}

static void parse_hex(const char *text, uint8_t *out)
{
    for (; text[0] != '\0'; text += 2)
        *out++ = (uint8_t)(hex_digit(text[0]) << 4 | hex_digit(text[1]));
}

/* Two blocks that the gguf package wrote, of codes 0 to 15 twice and of random ones. */
static void test_mxfp4_blocks_are_those_of_gguf(void **state)
{
    const block_shape *shape = stored_form_at(CKPT_FORM_MXFP4)->shape;
    uint8_t blocks[2 * BLOCK];
    uint8_t codes[32];
    uint8_t scales[2];
    uint8_t expected_codes[32];
    uint8_t joined[2 * BLOCK];

    (void)state;
    parse_hex("7e00112233445566778899aabbccddeeff817b0181a7cf6a47c90013b794dbd6a626", blocks);
    parse_hex("1032547698badcfe1032547698badcfe1b71af9730476b6607a86cc4109bdd2a", expected_codes);
    interleave_split(shape, blocks, 2, codes, scales);
    assert_memory_equal(codes, expected_codes, sizeof codes);
    assert_int_equal(scales[0], 0x7e);
    assert_int_equal(scales[1], 0x81);
    interleave_join(shape, codes, scales, 2, joined);
    assert_memory_equal(joined, blocks, sizeof blocks);
}

enum { MANY_BLOCKS = 256 + 41 };

/* Split and join `count` blocks by a shape that is compiled for its numbers, and by the same at
 * another address, which plain code does: also the bytes behind them must be the same. */
static void check_shape(const block_shape *known, const uint8_t *blocks, size_t count)
{
    static uint8_t codes[2][MANY_BLOCKS * 32];
    static uint8_t scales[2][MANY_BLOCKS * 4];
    static uint8_t joined[2][MANY_BLOCKS * 36];
    const block_shape other = *known;

    memset(joined, 0xa5, sizeof joined);
    memset(codes, 0xa5, sizeof codes);
    memset(scales, 0xa5, sizeof scales);
    for (int k = 0; k < 2; k++) {
        const block_shape *shape = k == 0 ? known : &other;

        interleave_split(shape, blocks, count, codes[k], scales[k]);
        interleave_join(shape, codes[k], scales[k], count, joined[k]);
        assert_memory_equal(joined[k], blocks, count * shape->bytes);
    }
    assert_memory_equal(joined[0], joined[1], sizeof joined[0]);
    assert_memory_equal(codes[0], codes[1], sizeof codes[0]);
    assert_memory_equal(scales[0], scales[1], sizeof scales[0]);
}

/* Every byte at every place of a block, and numbers of blocks of which wide code leaves some. */
static void test_a_known_shape_gives_the_same_bytes(void **state)
{
    static const char *const sets[] = { "scalar", "avx2", "avx512" };
    static uint8_t blocks[MANY_BLOCKS * 36];

    (void)state;
    for (size_t set = 0; set < sizeof sets / sizeof *sets; set++) {
        if (kernels_find(sets[set]) == NULL)
            continue;
        assert_int_equal(setenv("CKPT_KERNELS", sets[set], 1), 0);
        for (int id = CKPT_FORM_APART + 1; id < CKPT_FORM_COUNT; id++) {
            const block_shape *known = stored_form_at((ckpt_stored_form)id)->shape;

            for (size_t i = 0; i < sizeof blocks; i++)
                blocks[i] = (uint8_t)(i / known->bytes + 37 * (i % known->bytes));
            check_shape(known, blocks, MANY_BLOCKS);
            for (size_t i = 0; i < sizeof blocks; i++)
                blocks[i] = byte_at(i);
            for (size_t count = 0; count <= 41; count++)
                check_shape(known, blocks, count);
        }
    }
    assert_int_equal(unsetenv("CKPT_KERNELS"), 0);
}

/* Other blocks of files: an F16 scale before 32 bytes in order, and four scales before four groups
 * of 16 in halves. */
static void test_the_shape_of_a_block_tells_all_of_it(void **state)
{
    static const block_shape q8 = { 34, 0, 2, 2, 32, 32, CODES_IN_ORDER };
    static const block_shape nv = { 36, 0, 4, 4, 32, 8, CODES_IN_HALVES };
    uint8_t from[72];
    uint8_t codes[64];
    uint8_t scales[8];
    uint8_t back[72];

    (void)state;
    for (size_t i = 0; i < sizeof from; i++)
        from[i] = byte_at(i);
    interleave_split(&q8, from, 2, codes, scales);
    assert_memory_equal(scales, from, 2);
    assert_memory_equal(scales + 2, from + 34, 2);
    assert_memory_equal(codes, from + 2, 32);
    assert_memory_equal(codes + 32, from + 36, 32);
    interleave_join(&q8, codes, scales, 2, back);
    assert_memory_equal(back, from, 68);

    interleave_split(&nv, from, 2, codes, NULL);
    interleave_split(&nv, from, 2, NULL, scales);
    assert_memory_equal(scales, from, 4);
    assert_memory_equal(scales + 4, from + 36, 4);
    for (int e = 0; e < 128; e++) {
        const uint8_t *group = from + e / 64 * 36 + 4 + e % 64 / 16 * 8;
        const int low = e % 16 < 8;

        assert_int_equal(codes[e / 2] >> e % 2 * 4 & 15, group[e % 8] >> (low ? 0 : 4) & 15);
    }
    interleave_join(&nv, codes, scales, 2, back);
    assert_memory_equal(back, from, 72);
}

static void test_every_form_holds_codes_and_scales_and_nothing_else(void **state)
{
    (void)state;
    assert_null(stored_form_at(CKPT_FORM_APART));
    for (int id = CKPT_FORM_APART + 1; id < CKPT_FORM_COUNT; id++) {
        const stored_form *form = stored_form_at((ckpt_stored_form)id);
        const ckpt_encoding *e = encoding_at(form->encoding);
        ckpt_tensor t = { .name = "t", .rank = 2, .shape = { 3, form->elements } };

        stored_form_set(&t, (ckpt_stored_form)id);
        assert_int_equal(catalog_check_shape(&t, &err), CKPT_OK);
        assert_string_equal(stored_form_name(&t), form->name);
        assert_int_equal(e->block_rows, 1);
        assert_int_equal(form->elements % e->block_cols, 0);
        assert_int_equal(ckpt_part_row_bytes(&t, CKPT_DATA), form->shape->code_bytes);
        assert_int_equal(ckpt_part_row_bytes(&t, CKPT_SCALE), form->shape->scale_bytes);
        assert_int_equal(form->shape->bytes, form->shape->code_bytes + form->shape->scale_bytes);
        assert_int_equal(form->shape->code_bytes % form->shape->group_bytes, 0);
        assert_int_equal(form->shape->group_bytes % 8, 0);
        t.shape[1]++;
        assert_int_equal(catalog_check_shape(&t, &err), CKPT_E_FORMAT);
    }
}

/* ---- stores ---- */

static const char *const maps[] = {
    "map generic test\nscale .scale\ntensor {x*} = {x*}\n",
    /* experts in one tensor, two matrices of each below one another */
    "map generic test\nscale .scale\n"
    "tensor all.weight = stack({e}, concat(x.{e}.w1.weight, x.{e}.w3.weight))\n"
    "tensor {x*} = {x*}\n",
};
enum { MAP_COUNT = sizeof maps / sizeof *maps };

/* Six FP4 matrices and one that is plain. */
static memory_source *make_source(void)
{
    memory_source *s = memory_source_create();

    for (size_t t = 0; t < 2 * EXPERTS; t++) {
        char name[32];
        uint8_t *codes;
        uint8_t *scales;

        snprintf(name, sizeof name, "x.%zu.w%d.weight", t / 2, t % 2 == 0 ? 1 : 3);
        assert_int_equal(memory_source_add(s, name, CKPT_F4, ROWS, COLS), t);
        codes = memory_source_part(s, t, CKPT_DATA);
        scales = memory_source_part(s, t, CKPT_SCALE);
        for (size_t i = 0; i < (size_t)ROWS * COLS / 2; i++)
            codes[i] = byte_at(i + t * 99991);
        for (size_t i = 0; i < (size_t)ROWS * COLS / ELEMENTS; i++)
            scales[i] = (uint8_t)(byte_at(i * 7 + t) % 253);
    }
    memory_source_add(s, "norm.weight", CKPT_BF16, 1, 77);
    return s;
}

/* Its tensors as they are wanted in files. */
static ckpt_catalog *make_targets(const memory_source *source, ckpt_stored_form form)
{
    const ckpt_catalog *from = memory_source_catalog(source);
    ckpt_catalog *targets = catalog_create();

    for (size_t i = 0; i < ckpt_catalog_count(from); i++) {
        ckpt_tensor t = *ckpt_catalog_at(from, i);

        t.stored_dtype = t.dtype == CKPT_F4 ? CKPT_I8 : t.dtype;
        t.stored_form = (uint16_t)(t.scale_dtype == CKPT_NONE ? CKPT_FORM_APART : form);
        assert_int_equal(catalog_add(targets, &t, &err), CKPT_OK);
    }
    return targets;
}

static ckpt_map *parse_map(size_t i)
{
    ckpt_map *map = NULL;

    assert_int_equal(map_parse(maps[i], strlen(maps[i]), "the map", &map, &err), CKPT_OK);
    return map;
}

/* One file with everything. */
static void lay_out(ckpt_store *store)
{
    uint64_t end = HEAD;
    uint32_t file;

    assert_int_equal(store_add_file(store, "data", &file, &err), CKPT_OK);
    for (size_t i = 0; i < ckpt_catalog_count(store->catalog); i++) {
        ckpt_tensor *t = catalog_edit(store->catalog, i);

        t->file = file;
        t->offset = end;
        end += ckpt_tensor_bytes(t);
    }
    store->files[file].size_bytes = end;
    store->files[file].header_bytes = HEAD;
    store->files[file].header = strdup("HEAD\n");
}

/* Told of all that is written: the bytes are those of the file. */
typedef struct {
    store_watch base;
    const ckpt_store *store;
    uint64_t bytes;
} checking_watch;

static void watch_wrote(store_watch *self, size_t piece, const file_rect *rect, const void *rows,
                        size_t pitch_bytes)
{
    checking_watch *w = (checking_watch *)self;
    const ckpt_tensor *t = ckpt_catalog_at(w->store->catalog, piece);
    unsigned char there[4096];

    for (uint64_t r = 0; r < rect->row_count; r++) {
        assert_int_equal(file_read_at(w->store->files[t->file].file,
                                      rect->offset + r * rect->pitch_bytes, there,
                                      rect->row_bytes, &err), CKPT_OK);
        assert_memory_equal(there, (const char *)rows + r * pitch_bytes, rect->row_bytes);
    }
    w->bytes += rect->row_bytes * rect->row_count;
}

static void watch_free(store_watch *self)
{
    (void)self;
}

/* Write a source below a directory; what the file has of it. */
static char *write_to(const char *name, ckpt_source *from, const ckpt_catalog *targets,
                      size_t which, size_t *size)
{
    const ckpt_run_options copy = { .thread_count = 1 };
    ckpt_map *map = parse_map(which);
    ckpt_store *store = store_create(in_folder(name));
    checking_watch watch = { { watch_wrote, NULL, watch_free }, store, 0 };
    file_sink_options options = { .store = store };
    ckpt_layout *layout = NULL;
    ckpt_sink *sink = NULL;
    uint64_t written;
    char path[64];
    char *bytes;

    assert_int_equal(map_write(&(map_write_input){ map, targets, NULL }, store->catalog, &layout,
                               &err), CKPT_OK);
    lay_out(store);
    store->watch = &watch.base;
    options.layout = layout;
    assert_int_equal(file_make_directory(store->directory, &err), CKPT_OK);
    assert_int_equal(output_make_files(store, &err), CKPT_OK);
    assert_int_equal(sink_files_create(&options, &sink, &err), CKPT_OK);
    assert_int_equal(ckpt_copy(from, sink, &copy, &err), CKPT_OK);
    written = store->files[0].size_bytes - HEAD;
    assert_int_equal(watch.bytes, written);
    sink_files_free(sink);
    layout_free(layout);
    map_free(map);
    store_free(store);
    snprintf(path, sizeof path, "%s/data", name);
    assert_int_equal(file_read_all(in_folder(path), 1 << 24, &bytes, size, &err), CKPT_OK);
    return bytes;
}

/* What write_to wrote, opened from a folder in memory. */
typedef struct {
    memory_tree tree;
    folder_place place;
    ckpt_store *store;
    ckpt_map *map;
    map_reading reading;
    ckpt_source *source;
} reading;

static void open_bytes(reading *r, const ckpt_catalog *targets, size_t which,
                       const char *bytes, size_t size)
{
    const map_read_options options = { .encodings = 1u << ENCODING_FP4_32 };
    ckpt_layout *layout = NULL;

    memset(r, 0, sizeof *r);
    memory_tree_put(&r->tree, "data", bytes, size);
    r->place = memory_tree_place(&r->tree, NULL);
    r->map = parse_map(which);
    r->store = store_create_in(r->place.folder);
    assert_int_equal(map_write(&(map_write_input){ r->map, targets, NULL }, r->store->catalog,
                               &layout, &err), CKPT_OK);
    layout_free(layout);
    lay_out(r->store);
    assert_int_equal(store_open_file(r->store, 0, 0, &err), CKPT_OK);
    assert_int_equal(map_read(r->map, r->store->catalog, &options, &r->reading, &err), CKPT_OK);
    assert_int_equal(source_stored(r->store, r->reading.layout, &r->source, &err), CKPT_OK);
}

static void close_reading(reading *r)
{
    ckpt_source_free(r->source);
    map_reading_release(&r->reading);
    store_free(r->store);
    map_free(r->map);
    folder_place_release(&r->place);
    memory_tree_release(&r->tree);
}

static void take_root(ckpt_source *source, char out[CKPT_ROOT_HEX])
{
    const ckpt_run_options options = { .thread_count = 1 };
    ckpt_digest *digest = NULL;

    assert_int_equal(ckpt_digest_source(source, &options, &digest, &err), CKPT_OK);
    assert_int_equal(ckpt_digest_root(digest, 0, out, &err), CKPT_OK);
    ckpt_digest_free(digest);
}

static void test_blocks_in_the_file_are_those_of_the_definition(void **state)
{
    memory_source *from = make_source();
    ckpt_catalog *targets = make_targets(from, CKPT_FORM_MXFP4);
    size_t size;
    char *bytes = write_to("blocks", memory_source_base(from), targets, 0, &size);
    const char *at = bytes + HEAD;

    (void)state;
    for (size_t t = 0; t < 2 * EXPERTS; t++) {
        const uint8_t *codes = memory_source_part(from, t, CKPT_DATA);
        const uint8_t *scales = memory_source_part(from, t, CKPT_SCALE);

        for (size_t b = 0; b < (size_t)ROWS * COLS / ELEMENTS; b++, at += BLOCK) {
            uint8_t block[BLOCK];

            define_mxfp4(codes + b * ELEMENTS / 2, scales[b], block);
            assert_memory_equal(at, block, BLOCK);
        }
    }
    assert_int_equal(at + 77 * 2 - bytes, size);
    free(bytes);
    catalog_free(targets);
    memory_source_free(from);
}

/* Digests, values, scales on their own, and the way back: apart -> blocks -> apart. */
static void test_the_form_changes_no_value_and_the_way_back_no_byte(void **state)
{
    memory_source *from = make_source();
    ckpt_catalog *blocks = make_targets(from, CKPT_FORM_MXFP4);
    ckpt_catalog *apart = make_targets(from, CKPT_FORM_APART);
    char expected[CKPT_ROOT_HEX];

    (void)state;
    take_root(memory_source_base(from), expected);
    for (size_t m = 0; m < MAP_COUNT; m++) {
        size_t size;
        size_t apart_size;
        size_t back_size;
        char *written = write_to("blocks", memory_source_base(from), blocks, m, &size);
        char *whole = write_to("apart", memory_source_base(from), apart, m, &apart_size);
        char root[CKPT_ROOT_HEX];
        reading r;
        char *back;

        assert_int_equal(size, apart_size);
        assert_memory_not_equal(written, whole, size);
        open_bytes(&r, apart, m, whole, apart_size);
        take_root(r.source, root);
        assert_string_equal(root, expected);
        close_reading(&r);
        open_bytes(&r, blocks, m, written, size);
        take_root(r.source, root);
        assert_string_equal(root, expected);
        assert_int_equal(ckpt_catalog_count(r.store->catalog), m == 0 ? 7 : 2);
        back = write_to("back", r.source, apart, m, &back_size);
        assert_int_equal(back_size, apart_size);
        assert_memory_equal(back, whole, back_size);
        close_reading(&r);
        free(back);
        free(whole);
        free(written);
    }
    catalog_free(apart);
    catalog_free(blocks);
    memory_source_free(from);
}

static void test_any_rows_of_either_part_are_read_alone(void **state)
{
    memory_source *from = make_source();
    ckpt_catalog *targets = make_targets(from, CKPT_FORM_MXFP4);
    uint8_t got[ROWS * COLS];
    size_t size;
    char *bytes = write_to("blocks", memory_source_base(from), targets, 1, &size);
    reading r;

    (void)state;
    open_bytes(&r, targets, 1, bytes, size);
    for (size_t t = 0; t < 2 * EXPERTS; t++)
        for (int part = CKPT_DATA; part <= CKPT_SCALE; part++) {
            const ckpt_tensor *tensor = ckpt_catalog_at(r.source->catalog, t);
            const uint64_t row_bytes = ckpt_part_row_bytes(tensor, (ckpt_part)part);
            const int64_t i = ckpt_catalog_find(memory_source_catalog(from), tensor->name);
            const uint8_t *expected = memory_source_part(from, (size_t)i, (ckpt_part)part);

            assert_int_equal(ckpt_source_read(r.source, t, (ckpt_part)part, 117, 150, got, &err),
                             CKPT_OK);
            assert_memory_equal(got, expected + 117 * row_bytes, 150 * row_bytes);
        }
    close_reading(&r);
    free(bytes);
    catalog_free(targets);
    memory_source_free(from);
}

/* ---- Q8_0 ---- */

enum { HALVES = 1 << 16, Q8_COLS = 256, Q8_BLOCK = 34 };

static double half_value(unsigned bits)
{
    const unsigned exponent = bits >> 10 & 31;
    const double magnitude =
        exponent == 0    ? ldexp(bits & 1023, -24)
        : exponent == 31 ? ((bits & 1023) == 0 ? INFINITY : NAN)
                         : ldexp(1024 + (bits & 1023), (int)exponent - 25);

    return bits >> 15 != 0 ? -magnitude : magnitude;
}

/* A row for every scale, with every code in it. */
static char *make_q8(size_t *size)
{
    char *bytes = malloc(HEAD + (size_t)HALVES * Q8_COLS / ELEMENTS * Q8_BLOCK);
    char *at = bytes + HEAD;

    memset(bytes, 0, HEAD);
    for (unsigned scale = 0; scale < HALVES; scale++)
        for (int b = 0; b < Q8_COLS / ELEMENTS; b++) {
            *at++ = (char)scale;
            *at++ = (char)(scale >> 8);
            for (int i = 0; i < ELEMENTS; i++)
                *at++ = (char)(b * ELEMENTS + i);
        }
    *size = (size_t)(at - bytes);
    return bytes;
}

/* All codes under all scales, exact; a scale that is no number makes none of them. */
static void test_every_q8_0_value_is_the_product_of_code_and_scale(void **state)
{
    ckpt_catalog *targets = catalog_create();
    ckpt_tensor t = { .name = "t.weight", .rank = 2, .shape = { HALVES, Q8_COLS } };
    float *values = malloc((size_t)HALVES * Q8_COLS * sizeof *values);
    size_t size;
    char *bytes = make_q8(&size);
    char encoding[64];
    reading r;

    (void)state;
    stored_form_set(&t, CKPT_FORM_Q8_0);
    assert_int_equal(catalog_add(targets, &t, &err), CKPT_OK);
    open_bytes(&r, targets, 0, bytes, size);
    ckpt_tensor_encoding(ckpt_catalog_at(r.source->catalog, 0), encoding, sizeof encoding);
    assert_string_equal(encoding, "I8 1x32 F16");
    assert_string_equal(digest_class(ckpt_catalog_at(r.source->catalog, 0)), "float");
    assert_int_equal(ckpt_source_read_f32(r.source, 0, 0, HALVES, values, &err), CKPT_OK);
    for (unsigned scale = 0; scale < HALVES; scale++)
        for (int code = 0; code < Q8_COLS; code++) {
            const float got = values[(size_t)scale * Q8_COLS + (size_t)code];
            const double expected = (int8_t)code * half_value(scale);

            if (isnan(expected) ? !isnan(got) : (double)got != expected)
                fail_msg("code %d x scale 0x%04x: %g, expected %g", code, scale, (double)got,
                         expected);
        }
    close_reading(&r);
    free(values);
    free(bytes);
    catalog_free(targets);
}

/* Its digest is that of the same values in F32. */
static void test_the_digest_of_q8_0_is_that_of_its_values(void **state)
{
    enum { FEW = 0x4000 };                  /* scales that are finite numbers */
    const ckpt_tensor plain = { .name = "t.weight", .dtype = CKPT_F32, .rank = 2,
                                .shape = { FEW, Q8_COLS } };
    memory_source *expected = memory_source_create();
    ckpt_catalog *targets = catalog_create();
    ckpt_tensor t = plain;
    size_t size;
    char *bytes = make_q8(&size);
    char roots[2][CKPT_ROOT_HEX];
    float *values;
    reading r;

    (void)state;
    memory_source_add_tensor(expected, &plain);
    values = memory_source_part(expected, 0, CKPT_DATA);
    for (size_t i = 0; i < (size_t)FEW * Q8_COLS; i++)
        values[i] = (float)((int8_t)(i % Q8_COLS) * half_value((unsigned)(i / Q8_COLS)));
    take_root(memory_source_base(expected), roots[0]);
    stored_form_set(&t, CKPT_FORM_Q8_0);
    assert_int_equal(catalog_add(targets, &t, &err), CKPT_OK);
    open_bytes(&r, targets, 0, bytes, size);
    take_root(r.source, roots[1]);
    assert_string_equal(roots[0], roots[1]);
    close_reading(&r);
    free(bytes);
    catalog_free(targets);
    memory_source_free(expected);
}

/* ---- layouts by hand ---- */

/* "left" and "right" are columns of the blocks of "both"; "left" has a copy. */
typedef struct {
    memory_source *source;
    ckpt_store *store;
    ckpt_layout *layout;
} cut_store;

static void add_blocks(ckpt_store *store, const char *name, uint64_t cols)
{
    ckpt_tensor t = { .name = name, .rank = 2, .shape = { ROWS, cols } };

    stored_form_set(&t, CKPT_FORM_MXFP4);
    assert_int_equal(catalog_add(store->catalog, &t, &err), CKPT_OK);
}

/* The extents of both parts, from a column of the stored tensor on. */
static void add_both(ckpt_layout *layout, uint32_t logical, uint32_t stored, uint64_t stored_col,
                     int copy)
{
    layout_extent e = { .logical = logical, .stored = stored, .part = CKPT_DATA,
                        .copy = (uint8_t)copy, .row_count = ROWS, .col_count = COLS,
                        .stored_col = stored_col };

    assert_int_equal(layout_add(layout, &e, &err), CKPT_OK);
    e.part = CKPT_SCALE;
    e.col_count /= ELEMENTS;
    e.stored_col /= ELEMENTS;
    assert_int_equal(layout_add(layout, &e, &err), CKPT_OK);
}

static cut_store make_cut(void)
{
    const ckpt_run_options copy = { .thread_count = 2 };
    cut_store c = { memory_source_create(), store_create(folder), NULL };
    file_sink_options options = { .store = c.store };
    ckpt_sink *sink = NULL;

    for (size_t t = 0; t < 2; t++) {
        uint8_t *codes;

        memory_source_add(c.source, t == 0 ? "left" : "right", CKPT_F4, ROWS, COLS);
        codes = memory_source_part(c.source, t, CKPT_DATA);
        for (size_t i = 0; i < ROWS * COLS / 2; i++)
            codes[i] = byte_at(i + t);
        memset(memory_source_part(c.source, t, CKPT_SCALE), 0x70 + (int)t, ROWS * COLS / ELEMENTS);
    }
    add_blocks(c.store, "both", 2 * COLS);
    add_blocks(c.store, "copy", COLS);
    lay_out(c.store);
    c.layout = layout_create(memory_source_catalog(c.source), c.store->catalog);
    add_both(c.layout, 0, 0, 0, 0);
    add_both(c.layout, 1, 0, COLS, 0);
    add_both(c.layout, 0, 1, 0, 1);
    assert_int_equal(layout_seal(c.layout, &err), CKPT_OK);
    options.layout = c.layout;
    assert_int_equal(output_make_files(c.store, &err), CKPT_OK);
    assert_int_equal(sink_files_create(&options, &sink, &err), CKPT_OK);
    assert_int_equal(ckpt_copy(memory_source_base(c.source), sink, &copy, &err), CKPT_OK);
    sink_files_free(sink);
    return c;
}

static void release_cut(cut_store *c)
{
    layout_free(c->layout);
    store_free(c->store);
    memory_source_free(c->source);
}

static void test_blocks_are_cut_by_columns(void **state)
{
    cut_store c = make_cut();
    uint8_t got[ROWS * COLS];
    ckpt_source *source = NULL;

    (void)state;
    assert_int_equal(source_stored(c.store, c.layout, &source, &err), CKPT_OK);
    for (size_t t = 0; t < 2; t++)
        for (int part = CKPT_DATA; part <= CKPT_SCALE; part++) {
            const ckpt_tensor *tensor = ckpt_catalog_at(source->catalog, t);

            assert_int_equal(ckpt_source_read(source, t, (ckpt_part)part, 0, ROWS, got, &err),
                             CKPT_OK);
            assert_memory_equal(got, memory_source_part(c.source, t, (ckpt_part)part),
                                ckpt_part_bytes(tensor, (ckpt_part)part));
        }
    ckpt_source_free(source);
    release_cut(&c);
}

static void flip(ckpt_store *store, uint64_t offset)
{
    unsigned char byte;

    assert_int_equal(file_read_at(store->files[0].file, offset, &byte, 1, &err), CKPT_OK);
    byte ^= 0x10;
    assert_int_equal(file_write_at(store->files[0].file, offset, &byte, 1, &err), CKPT_OK);
}

static void test_a_copy_in_blocks_that_differs_is_named_with_its_part(void **state)
{
    static const struct {
        uint64_t byte;           /* of the second block of row 2 of the copy */
        const char *said;
    } cases[] = {
        { 0, "scale row 2 column 1: expected byte 0x70, got 0x60" },
        { 1 + 6, "row 2 column 54: " },         /* a high nibble: 32 + 16 + 6 */
    };
    cut_store c = make_cut();
    const uint64_t copy = ckpt_catalog_at(c.store->catalog, 1)->offset;
    uint8_t got[ROWS * COLS];
    ckpt_source *source = NULL;

    (void)state;
    assert_int_equal(source_stored(c.store, c.layout, &source, &err), CKPT_OK);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const ckpt_part part = i == 0 ? CKPT_SCALE : CKPT_DATA;

        flip(c.store, copy + (2 * COLS / ELEMENTS + 1) * BLOCK + cases[i].byte);
        assert_int_equal(ckpt_source_read(source, 0, part, 0, ROWS, got, &err), CKPT_E_FORMAT);
        assert_non_null(strstr(err.text, cases[i].said));
        flip(c.store, copy + (2 * COLS / ELEMENTS + 1) * BLOCK + cases[i].byte);
        assert_int_equal(ckpt_source_read(source, 0, part, 0, ROWS, got, &err), CKPT_OK);
    }
    ckpt_source_free(source);
    release_cut(&c);
}

/* Two extents of a matrix of 64 columns in blocks; the code of sealing them. */
static ckpt_code seal(ckpt_dtype dtype, layout_extent data, layout_extent scale)
{
    memory_source *s = memory_source_create();
    ckpt_store *store = store_create(folder);
    ckpt_layout *layout = layout_create(memory_source_catalog(s), store->catalog);
    ckpt_code code;

    memory_source_add(s, "t", dtype, ROWS, 64);
    add_blocks(store, "b", 128);
    data.row_count = scale.row_count = ROWS;
    scale.part = CKPT_SCALE;
    assert_int_equal(layout_add(layout, &data, &err), CKPT_OK);
    if (scale.col_count > 0)
        assert_int_equal(layout_add(layout, &scale, &err), CKPT_OK);
    code = layout_seal(layout, &err);
    layout_free(layout);
    store_free(store);
    memory_source_free(s);
    return code;
}

static void test_extents_in_blocks_are_whole_blocks_with_their_scales(void **state)
{
    static const struct {
        layout_extent data;
        layout_extent scale;
        ckpt_code code;
    } cases[] = {
        { { .col_count = 64 }, { .col_count = 2 }, CKPT_OK },
        { { .col_count = 64, .stored_col = 32 }, { .col_count = 2, .stored_col = 1 }, CKPT_OK },
        { { .col_count = 64, .stored_col = 16 }, { .col_count = 2 }, CKPT_E_FORMAT },
        { { .col_count = 64, .stored_col = 32 }, { .col_count = 2 }, CKPT_E_FORMAT },
        { { .col_count = 64, .stored_col = 96 }, { .col_count = 2, .stored_col = 3 },
          CKPT_E_FORMAT },
        { { .col_count = 64 }, { .col_count = 2, .copy = 1 }, CKPT_E_FORMAT },
        { { .col_count = 64 }, { .col_count = 0 }, CKPT_E_FORMAT },
    };

    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(seal(CKPT_F4, cases[i].data, cases[i].scale), cases[i].code);
    assert_int_equal(seal(CKPT_F8_E4M3, cases[0].data, (layout_extent){ .col_count = 1 }),
                     CKPT_E_FORMAT);
    assert_non_null(strstr(err.text, "tensor 't' does not fit in stored tensor 'b'"));
}

static void test_blocks_with_a_scale_beside_them_are_refused(void **state)
{
    const ckpt_tensor scale = { .name = "t.scale", .dtype = CKPT_F8_E8M0, .rank = 2,
                                .shape = { 3, 2 } };
    const map_read_options options = { .encodings = 1u << ENCODING_FP4_32 };
    ckpt_tensor t = { .name = "t.weight", .rank = 2, .shape = { 3, 64 } };
    ckpt_catalog *stored = catalog_create();
    ckpt_map *map = parse_map(0);
    map_reading read;

    (void)state;
    stored_form_set(&t, CKPT_FORM_MXFP4);
    assert_int_equal(catalog_add(stored, &t, &err), CKPT_OK);
    assert_int_equal(catalog_add(stored, &scale, &err), CKPT_OK);
    assert_int_equal(map_read(map, stored, &options, &read, &err), CKPT_E_FORMAT);
    assert_string_equal(err.text, "weight 't.weight' is stored as MXFP4, which holds its scales, "
                                  "but there is a scale 't.scale', too");
    map_free(map);
    catalog_free(stored);
}

static void test_a_delta_of_blocks_is_refused(void **state)
{
    ckpt_store *store = store_create(folder);
    delta_input in = { .path = "M" };
    delta_model model;

    (void)state;
    add_blocks(store, "experts", 64);
    in.stored = store->catalog;
    assert_int_equal(delta_model_open(&in, 1, NULL, &model, &err), CKPT_E_USAGE);
    assert_non_null(strstr(err.text, "tensor 'experts' of 'M' is stored as MXFP4"));
    delta_model_release(&model);
    store_free(store);
}

#define FORM_TEST(function) cmocka_unit_test_setup_teardown(function, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        FORM_TEST(test_mxfp4_blocks_are_those_of_gguf),
        FORM_TEST(test_a_known_shape_gives_the_same_bytes),
        FORM_TEST(test_the_shape_of_a_block_tells_all_of_it),
        FORM_TEST(test_every_form_holds_codes_and_scales_and_nothing_else),
        FORM_TEST(test_blocks_in_the_file_are_those_of_the_definition),
        FORM_TEST(test_the_form_changes_no_value_and_the_way_back_no_byte),
        FORM_TEST(test_any_rows_of_either_part_are_read_alone),
        FORM_TEST(test_every_q8_0_value_is_the_product_of_code_and_scale),
        FORM_TEST(test_the_digest_of_q8_0_is_that_of_its_values),
        FORM_TEST(test_blocks_are_cut_by_columns),
        FORM_TEST(test_a_copy_in_blocks_that_differs_is_named_with_its_part),
        FORM_TEST(test_extents_in_blocks_are_whole_blocks_with_their_scales),
        FORM_TEST(test_blocks_with_a_scale_beside_them_are_refused),
        FORM_TEST(test_a_delta_of_blocks_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
