/* A model that is divided over several backends computes what it does on one; so does one whose
 * weights are decoded before; weights that fit are read once, and copies of others come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "formats/format.h"
#include "libckpt/source.h"
#include "reference-runner/backend.h"
#include "reference-runner/cpu/cpu.h"
#include "reference-runner/runner.h"

enum { PROMPT = 40, MORE = 3, VOCAB = 512 };

typedef struct {
    ckpt_checkpoint *checkpoint;
    run_config config;
} golden;

/* Logits of the main model's and of the MTP block's last row. */
typedef struct {
    float main[VOCAB];
    float mtp[VOCAB];
} result;

static ckpt_code take(void *context, uint64_t i, const float *logits, ckpt_error *err)
{
    (void)i;
    (void)err;
    memcpy(context, logits, VOCAB * sizeof *logits);
    return CKPT_OK;
}

/* A prompt, then some tokens one by one. */
static void run_parts(const golden *g, const run_backend_ops *backend, unsigned part_count,
                      result *out)
{
    const run_options options = { .backend = backend, .profile = RUN_DEPLOY,
                                  .thread_count = 1, .device_count = part_count,
                                  .memory_bytes = 256u << 20, .mtp = 1, .has_times = 1 };
    uint32_t tokens[PROMPT + MORE];
    run_sequence *sequence;
    run_model *model;
    ckpt_error err;

    memset(out, 0, sizeof *out);
    for (uint32_t i = 0; i < PROMPT + MORE; i++)
        tokens[i] = (i * 37 + 5) % g->config.vocab_size;
    assert_int_equal(run_open(ckpt_logical(g->checkpoint), &g->config, &options, &model, &err),
                     CKPT_OK);
    assert_int_equal(run_sequence_create(model, PROMPT + MORE, 0, &sequence, &err), CKPT_OK);
    for (uint32_t at = 0; at < PROMPT + MORE;) {
        const uint64_t count = at == 0 ? PROMPT : 1;
        const run_segment segment = { sequence, tokens + at, count };
        const uint64_t last = count - 1;
        uint64_t row;
        uint64_t position;
        run_logits_request request = { &last, 1, take, out->main };

        assert_int_equal(run_forward(model, &segment, 1, &err), CKPT_OK);
        assert_int_equal(run_logits(model, &request, &err), CKPT_OK);
        row = run_mtp_rows(model, 0, &row, &position) - 1;
        request = (run_logits_request){ &row, 1, take, out->mtp };
        assert_int_equal(run_mtp_logits(model, &request, &err), CKPT_OK);
        at += (uint32_t)count;
    }
    run_sequence_free(model, sequence);
    run_close(model);
}

static int open_golden(void **state)
{
    golden *g = calloc(1, sizeof *g);
    const ckpt_open_options options = { 0 };
    ckpt_error err;

    *state = g;
    if (g == NULL || ckpt_open("tests/data/golden-a", &options, &g->checkpoint, &err) != CKPT_OK)
        return -1;
    return run_config_read(json_root(g->checkpoint->config), "config.json", &g->config, &err) ==
                   CKPT_OK
               ? 0
               : -1;
}

static int close_golden(void **state)
{
    golden *g = *state;

    ckpt_close(g->checkpoint);
    free(g);
    return 0;
}

static void test_any_number_of_parts_gives_the_same_bits(void **state)
{
    static result one;
    static result other;

    run_parts(*state, run_backend_find("cpu"), 1, &one);
    for (unsigned parts = 2; parts <= 4; parts++) {
        run_parts(*state, run_backend_find("cpu"), parts, &other);
        assert_memory_equal(&one, &other, sizeof one);
    }
}

/* ---- encodings that a backend does not take ---- */

/* The CPU backend, but that it takes nothing quantised. */
static run_backend_ops plain_ops;
static unsigned quantised_count;             /* weights that it got, by one thread */
static unsigned decoded_count;

static int takes_plain(const ckpt_tensor *tensor)
{
    return tensor->scale_dtype == CKPT_NONE;
}

static ckpt_code open_plain(unsigned thread_count, unsigned device, run_backend **out,
                            ckpt_error *err)
{
    const ckpt_code code = run_backend_find("cpu")->open(thread_count, device, out, err);

    if (code == CKPT_OK)
        (*out)->ops = &plain_ops;
    return code;
}

static ckpt_code create_plain(run_backend *backend, const ckpt_tensor *tensor, uint64_t row_count,
                              run_weight **out, ckpt_error *err)
{
    quantised_count += tensor->scale_dtype != CKPT_NONE;
    decoded_count += strstr(tensor->name, ".experts.") != NULL && tensor->dtype == CKPT_F32;
    return run_backend_find("cpu")->weight_create(backend, tensor, row_count, out, err);
}

static void test_what_a_backend_does_not_take_is_decoded_for_it(void **state)
{
    static result one;
    static result other;

    plain_ops = *run_backend_find("cpu");
    plain_ops.open = open_plain;
    plain_ops.takes = takes_plain;
    plain_ops.weight_create = create_plain;
    run_parts(*state, run_backend_find("cpu"), 1, &one);
    run_parts(*state, &plain_ops, 1, &other);
    assert_memory_equal(&one, &other, sizeof one);
    assert_int_equal(quantised_count, 0);
    assert_true(decoded_count > 0);
}

static void test_more_parts_than_layers_are_refused(void **state)
{
    const golden *g = *state;
    const run_options options = { .backend = run_backend_find("cpu"), .thread_count = 1,
                                  .device_count = 5, .memory_bytes = 256u << 20 };
    run_model *model;
    ckpt_error err;

    assert_int_equal(run_open(ckpt_logical(g->checkpoint), &g->config, &options, &model, &err),
                     CKPT_E_USAGE);
    assert_null(model);
}

/* ---- weights that fit ---- */

/* Counts what is read, but for rows of the embedding. */
typedef struct {
    ckpt_source base;
    ckpt_source *inner;
    uint64_t read_count;       /* by the one thread that reads */
} counting;

static ckpt_code counting_read(ckpt_source *self, const source_range *range, arena *scratch,
                               ckpt_tile *tile, ckpt_error *err)
{
    counting *c = (counting *)self;
    const char *name = ckpt_catalog_at(self->catalog, range->tensor)->name;

    c->read_count += strcmp(name, "embed.weight") != 0;
    return source_read_tile(c->inner, range, scratch, tile, err);
}

static uint64_t counting_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    return source_need(((const counting *)self)->inner, tensor, row_count);
}

enum { WARM_TOKENS = 24, KEPT_TOKENS = 8 };

/* Reads after the first tokens, when all weights have had their turn: what was begun before a row
 * of the embedding is read is done by then, because one thread reads it all. */
static uint64_t reads_of_tokens(const golden *g, const run_backend_ops *backend,
                                uint64_t memory_bytes, float *logits)
{
    static const source_ops ops = { .read = counting_read, .need = counting_need };
    ckpt_source *inner = ckpt_logical(g->checkpoint);
    counting source = { .base = { &ops, inner->catalog }, .inner = inner };
    const run_options options = { .backend = backend, .profile = RUN_DEPLOY, .thread_count = 1,
                                  .memory_bytes = memory_bytes, .host_bytes = 256u << 20,
                                  .keeps_weights = 1 };
    const uint64_t row = 0;
    const run_logits_request request = { &row, 1, take, logits };
    run_sequence *sequence;
    run_model *model;
    uint64_t before = 0;
    ckpt_error err;

    assert_int_equal(run_open(&source.base, &g->config, &options, &model, &err), CKPT_OK);
    assert_int_equal(run_sequence_create(model, WARM_TOKENS + KEPT_TOKENS, 0, &sequence, &err),
                     CKPT_OK);
    for (uint32_t i = 0; i < WARM_TOKENS + KEPT_TOKENS; i++) {
        const uint32_t token = i * 37 % g->config.vocab_size;
        const run_segment segment = { sequence, &token, 1 };

        assert_int_equal(run_forward(model, &segment, 1, &err), CKPT_OK);
        assert_int_equal(run_logits(model, &request, &err), CKPT_OK);
        if (i + 1 == WARM_TOKENS)
            before = source.read_count;
    }
    run_sequence_free(model, sequence);
    run_close(model);
    return source.read_count - before;
}

static void test_weights_that_fit_are_read_once(void **state)
{
    static float kept[VOCAB];
    static float streamed[VOCAB];

    const run_backend_ops *cpu = run_backend_find("cpu");

    assert_int_equal(reads_of_tokens(*state, cpu, 256u << 20, kept), 0);
    assert_true(reads_of_tokens(*state, cpu, 8u << 20, streamed) > 0);
    assert_memory_equal(kept, streamed, sizeof kept);
}

/* ---- copies of weights that were evicted ---- */

/* The CPU backend with memory of its own that is as good as a host's. */
static run_backend_ops copy_ops;
static unsigned lot_count;
static unsigned saved_count;
static unsigned restored_count;

static ckpt_code open_copying(unsigned thread_count, unsigned device, run_backend **out,
                              ckpt_error *err)
{
    const ckpt_code code = run_backend_find("cpu")->open(thread_count, device, out, err);

    if (code == CKPT_OK)
        (*out)->ops = &copy_ops;
    return code;
}

static ckpt_code create_lot(run_backend *backend, uint64_t bytes, void **out, ckpt_error *err)
{
    (void)backend;
    if ((*out = malloc(bytes)) == NULL)
        return ckpt_fail_memory(err, "a lot", bytes);
    __atomic_fetch_add(&lot_count, 1, __ATOMIC_RELAXED);
    return CKPT_OK;
}

static void free_lot(run_backend *backend, void *memory, uint64_t bytes)
{
    (void)backend;
    (void)bytes;
    free(memory);
    __atomic_fetch_sub(&lot_count, 1, __ATOMIC_RELAXED);
}

static uint64_t copy_bytes(const run_weight *weight)
{
    uint64_t bytes = 0;

    for (int part = 0; part < CKPT_PART_COUNT; part++)
        bytes += weight->tile.part_bytes[part];
    return bytes;
}

static ckpt_code save_copy(run_weight *weight, void *to, ckpt_error *err)
{
    char *at = to;

    (void)err;
    for (int part = 0; part < CKPT_PART_COUNT; part++)
        if (weight->tile.part_bytes[part] > 0) {
            memcpy(at, weight->tile.part[part], weight->tile.part_bytes[part]);
            at += weight->tile.part_bytes[part];
        }
    saved_count++;
    return CKPT_OK;
}

static ckpt_code restore_copy(run_weight *weight, const void *from, ckpt_error *err)
{
    const char *at = from;

    (void)err;
    for (int part = 0; part < CKPT_PART_COUNT; part++)
        if (weight->tile.part_bytes[part] > 0) {
            memcpy(weight->tile.part[part], at, weight->tile.part_bytes[part]);
            at += weight->tile.part_bytes[part];
        }
    restored_count++;
    return CKPT_OK;
}

static void test_what_was_evicted_comes_back_from_a_copy(void **state)
{
    static float streamed[VOCAB];
    static float restored[VOCAB];
    const run_backend_ops *cpu = run_backend_find("cpu");
    const uint64_t reads = reads_of_tokens(*state, cpu, 8u << 20, streamed);

    copy_ops = *cpu;
    copy_ops.open = open_copying;
    copy_ops.host_create = create_lot;
    copy_ops.host_free = free_lot;
    copy_ops.weight_save_bytes = copy_bytes;
    copy_ops.weight_save = save_copy;
    copy_ops.weight_restore = restore_copy;
    assert_true(reads_of_tokens(*state, &copy_ops, 8u << 20, restored) < reads / 2);
    assert_memory_equal(streamed, restored, sizeof streamed);
    assert_true(saved_count > 0 && restored_count > saved_count);
    assert_int_equal(lot_count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_any_number_of_parts_gives_the_same_bits),
        cmocka_unit_test(test_what_a_backend_does_not_take_is_decoded_for_it),
        cmocka_unit_test(test_weights_that_fit_are_read_once),
        cmocka_unit_test(test_what_was_evicted_comes_back_from_a_copy),
        cmocka_unit_test(test_more_parts_than_layers_are_refused),
    };

    return cmocka_run_group_tests(tests, open_golden, close_golden);
}
