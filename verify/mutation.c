/* The kinds of mutations, and how one is made. */
#include "mutation.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/array.h"
#include "mutation_private.h"

static const struct {
    const char *name;
    mutation_function *tensors;    /* one of these two is set */
    mutation_beside *beside;
    const char *text;
} kinds[] = {
    { "swap_experts", mutate_swap_experts, NULL, "two experts of a layer change places" },
    { "duplicate_expert", mutate_duplicate_expert, NULL, "an expert is a copy of another" },
    { "swap_gate_up", mutate_swap_gate_up, NULL,
      "two projections of one shape of an expert change places" },
    { "swap_projections", mutate_swap_projections, NULL,
      "two matrices of one shape of a layer change places" },
    { "swap_norms", mutate_swap_norms, NULL, "two vectors of a layer change places" },
    { "swap_layers", mutate_swap_layers, NULL, "a tensor of two layers changes places" },
    { "swap_embedding_head", mutate_swap_embedding_head, NULL,
      "two matrices of no layer change places" },
    { "drop_tensor", mutate_drop_tensor, NULL, "a tensor is missing" },
    { "add_tensor", mutate_add_tensor, NULL, "a tensor is there twice, under another name" },
    { "transpose_square", mutate_transpose_square, NULL, "a square matrix is transposed" },
    { "rotate_rows", mutate_rotate_rows, NULL, "rows of a matrix move up by one" },
    { "swap_rows", mutate_swap_rows, NULL, "two rows of a matrix change places" },
    { "swap_columns", mutate_swap_columns, NULL, "two columns of a matrix change places" },
    { "negate_tensor", mutate_negate, NULL, "a tensor has the other sign" },
    { "zero_row", mutate_zero_row, NULL, "a row is 0" },
    { "zero_tensor", mutate_zero_tensor, NULL, "a matrix is 0" },
    { "set_nan", mutate_nan, NULL, "one element is NaN" },
    { "set_infinity", mutate_infinity, NULL, "one element is infinite" },
    { "scale_up", mutate_scale_up, NULL, "one scale is one code larger" },
    { "scale_all_up", mutate_scale_all_up, NULL, "all scales of a tensor are doubled" },
    { "swap_scales", mutate_swap_scales, NULL, "the scales of two blocks change places" },
    { "swap_nibbles", mutate_swap_nibbles, NULL, "FP4 codes are packed in the other order" },
    { "narrow_vector", mutate_narrow_vector, NULL, "an F32 vector was rounded to BF16" },
    { "narrow_matrix", mutate_narrow_matrix, NULL, "an F32 matrix was rounded to BF16" },
    { "id_out_of_range", mutate_id_range, NULL, "an integer is beyond all others" },
    { "id_repeated", mutate_id_repeated, NULL, "an integer is that of its neighbour" },
    { "flip_bit_f32", mutate_flip_f32, NULL, "the last bit of one F32 element" },
    { "flip_bit_bf16", mutate_flip_bf16, NULL, "the last bit of one BF16 element" },
    { "flip_bit_fp8", mutate_flip_fp8, NULL, "the last bit of one FP8 code" },
    { "flip_bit_fp8_scale", mutate_flip_fp8_scale, NULL, "one bit of a scale of FP8 codes" },
    { "flip_bit_fp4", mutate_flip_fp4, NULL, "the last bit of one FP4 code" },
    { "flip_bit_fp4_scale", mutate_flip_fp4_scale, NULL, "one bit of a scale of FP4 codes" },
    { "flip_bit_tensor_scale", mutate_flip_tensor_scale, NULL,
      "one bit of the scale of a whole tensor" },
    { "flip_bit_int", mutate_flip_int, NULL, "the last bit of one integer" },
    { "flip_bit_every_kind", mutate_flip_every_kind, NULL,
      "one bit in one tensor of each kind; each must be found" },
    { "config_rope_theta", NULL, mutate_rope_theta, "another rope_theta in config.json" },
    { "config_norm_eps", NULL, mutate_norm_eps, "another rms_norm_eps in config.json" },
    { "config_top_k", NULL, mutate_top_k, "another num_experts_per_tok in config.json" },
    { "config_routed_scale", NULL, mutate_routed_scale,
      "another routed_scaling_factor in config.json" },
    { "config_gone", NULL, mutate_config_gone, "config.json is missing" },
    { "swap_tokenizer_files", NULL, mutate_swap_tokenizer_files,
      "tokenizer.json and tokenizer_config.json change places" },
    { "change_tokenizer", NULL, mutate_tokenizer, "one byte of tokenizer.json" },
    { "change_template", NULL, mutate_template, "one byte of chat_template.jinja" },
};

size_t mutation_count(void)
{
    return sizeof kinds / sizeof *kinds;
}

const char *mutation_name(size_t kind)
{
    return kinds[kind].name;
}

const char *mutation_describe(size_t kind)
{
    return kinds[kind].text;
}

size_t mutation_find(const char *name)
{
    size_t i = 0;

    while (i < mutation_count() && strcmp(kinds[i].name, name) != 0)
        i++;
    return i;
}

ckpt_code mutation_skip(mutation *out, const char *reason)
{
    out->reason = reason;
    return CKPT_OK;
}

ckpt_code mutation_edit_add(mutation_maker *m, const mutation_edit *edit, ckpt_error *err)
{
    mutation_edit *room = array_room(m->changes.edits, m->changes.edit_count, sizeof *room,
                                     "a mutation", err);

    if (room == NULL)
        return CKPT_E_MEMORY;
    m->changes.edits = room;
    room[m->changes.edit_count++] = *edit;
    return CKPT_OK;
}

static ckpt_code make_tensors(size_t kind, const mutation_input *in, mutation *out,
                              ckpt_error *err)
{
    mutation_maker m = { .in = in, .catalog = in->source->catalog, .out = out,
                         .changes = { .dropped = SIZE_MAX } };
    ckpt_code code = kinds[kind].tensors(&m, err);

    if (code == CKPT_OK && out->reason == NULL)
        code = source_mutate(in->source, &m.changes, &out->source, &out->touched, err);
    if (m.changes.dropped != SIZE_MAX)
        out->dropped = ckpt_catalog_at(m.catalog, m.changes.dropped)->name;
    free(m.changes.edits);
    return code;
}

ckpt_code mutation_make(size_t kind, const mutation_input *in, mutation *out, ckpt_error *err)
{
    memset(out, 0, sizeof *out);
    out->name = kinds[kind].name;
    return kinds[kind].tensors != NULL ? make_tensors(kind, in, out, err)
                                       : kinds[kind].beside(in, out, err);
}

void mutation_release(mutation *m)
{
    for (size_t i = 0; i < m->file_count; i++) {
        free(m->files[i].name);
        free(m->files[i].bytes);
    }
    ckpt_source_free(m->source);
    free(m->touched);
    free(m->config);
    memset(m, 0, sizeof *m);
}
