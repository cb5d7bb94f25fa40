/* What ckpt-verify certify would read and write. */
#include "certify_plan.h"

#include <inttypes.h>
#include <stdio.h>

#include "libckpt/text.h"

typedef struct {
    uint64_t stored_count;
    uint64_t bytes;
} stored_size;

static stored_size size_of(const ckpt_checkpoint *checkpoint)
{
    const ckpt_catalog *stored = ckpt_source_catalog(ckpt_stored(checkpoint));
    stored_size size = { .stored_count = ckpt_catalog_count(stored) };

    for (size_t i = 0; i < size.stored_count; i++)
        size.bytes += ckpt_tensor_bytes(ckpt_catalog_at(stored, i));
    return size;
}

static size_t logical_count(const ckpt_checkpoint *checkpoint)
{
    return ckpt_catalog_count(ckpt_source_catalog(ckpt_logical(checkpoint)));
}

/* The first is read once more for each delta. */
static uint64_t read_bytes(const certify_plan *plan)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < plan->count && !plan->structure_only; i++)
        bytes += size_of(plan->checkpoints[i]).bytes * (i == 0 ? 1 + plan->deltas->count : 1);
    return bytes;
}

static void print_json(const certify_plan *plan)
{
    json_writer w;

    cli_json_begin(&w, "ckpt-certify-plan/1");
    json_put_object(&w);
    json_member_array(&w, "checkpoints");
    for (size_t i = 0; i < plan->count; i++) {
        const ckpt_checkpoint *c = plan->checkpoints[i];
        const stored_size size = size_of(c);

        json_put_object(&w);
        json_member_string(&w, "path", checkpoint_path(c));
        json_member_string(&w, "layout", ckpt_layout_name(c));
        json_member_string(&w, "family", ckpt_family_name(c));
        json_member_u64(&w, "tensor_count", logical_count(c));
        json_member_u64(&w, "stored_count", size.stored_count);
        json_member_u64(&w, "bytes", size.bytes);
        json_put_object_end(&w);
    }
    json_put_array_end(&w);
    json_member_array(&w, "deltas");
    for (size_t i = 0; i < plan->deltas->count; i++)
        json_put_string(&w, plan->deltas->items[i]);
    json_put_array_end(&w);
    json_member_u64(&w, "read_bytes", read_bytes(plan));
    json_member_array(&w, "outputs");
    for (size_t i = 0; i < PLACE_COUNT; i++)
        if (plan->places->outputs[i] != NULL)
            json_put_string(&w, plan->places->outputs[i]);
    json_put_array_end(&w);
    json_put_object_end(&w);
    cli_json_end(&w);
}

static void print_text(const certify_plan *plan)
{
    char text[CLI_SIZE_TEXT_BYTES];

    for (size_t i = 0; i < plan->count; i++) {
        const ckpt_checkpoint *c = plan->checkpoints[i];
        const stored_size size = size_of(c);

        cli_size_text(size.bytes, text);
        printf("%s: %s, stored as %" PRIu64 " in %s, family %s, %s\n", cli_name(checkpoint_path(c)),
               text_count(logical_count(c), "tensor", "tensors").text, size.stored_count,
               ckpt_layout_name(c), ckpt_family_name(c), text);
    }
    for (size_t i = 0; i < plan->deltas->count; i++)
        printf("%s: a delta, or a folder of them\n", cli_name(plan->deltas->items[i]));
    cli_size_text(read_bytes(plan), text);
    if (plan->structure_only)
        puts("no values are read");
    else
        printf("%s of tensors are read%s\n", text,
               plan->deltas->count > 0 ? ", the first checkpoint once more for each delta" : "");
    for (size_t i = 0; i < PLACE_COUNT; i++)
        if (plan->places->outputs[i] != NULL)
            printf("%s goes to '%s', which is not written now\n",
                   certify_place_name((certify_output)i), cli_name(plan->places->outputs[i]));
}

void certify_plan_print(const certify_plan *plan, const cli_common *common)
{
    if (common->json)
        print_json(plan);
    else
        print_text(plan);
}
