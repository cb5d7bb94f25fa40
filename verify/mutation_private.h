/* mutation_private.h: private to the mutation_*.c files. */
#ifndef CKPT_MUTATION_PRIVATE_H
#define CKPT_MUTATION_PRIVATE_H

#include "mutation.h"

/* State of making a mutation of tensors. */
typedef struct {
    const mutation_input *in;
    const ckpt_catalog *catalog;
    mutation *out;
    mutation_changes changes;
} mutation_maker;

/* Mark the mutation as not applicable; `reason` is a literal. */
ckpt_code mutation_skip(mutation *out, const char *reason);

ckpt_code mutation_edit_add(mutation_maker *m, const mutation_edit *edit, ckpt_error *err);

/* ---- choice (mutation_pick.c) ---- */

typedef int mutation_fits(const ckpt_tensor *tensor);
typedef int mutation_pairs(const ckpt_tensor *a, const ckpt_tensor *b);

/* Choose the smallest tensor that fits; of equal ones the first from the middle of the catalog.
 * CKPT_NOT_FOUND: none. */
int64_t mutation_pick(const mutation_maker *m, mutation_fits *fits);
/* Choose two tensors of equal shape and encoding with different values; 0: there are none. */
int mutation_pick_pair(const mutation_maker *m, mutation_fits *fits, mutation_pairs *pairs,
                       size_t out[2]);

/* Find a byte whose change alters a value: of an element that is not NaN, or of a scale whose block
 * has a code that is not 0. out->found is 0 if the rows searched have none. */
typedef struct {
    uint64_t row;                  /* of the part */
    uint64_t col;                  /* of the part, in elements */
    uint64_t byte;                 /* position in the row of the element's lowest byte */
    uint8_t mask;                  /* its lowest bit; for F32 scales a higher one */
    int found;
} mutation_place;
ckpt_code mutation_find_place(const mutation_maker *m, size_t tensor, ckpt_part part,
                              mutation_place *out, ckpt_error *err);

/* ---- kinds ---- */

typedef ckpt_code mutation_function(mutation_maker *m, ckpt_error *err);
mutation_function mutate_swap_experts, mutate_swap_gate_up, mutate_swap_projections,
    mutate_swap_norms, mutate_swap_layers, mutate_swap_embedding_head, mutate_duplicate_expert,
    mutate_drop_tensor, mutate_add_tensor, mutate_transpose_square, mutate_rotate_rows,
    mutate_swap_rows, mutate_swap_columns, mutate_negate, mutate_zero_row, mutate_zero_tensor,
    mutate_nan, mutate_infinity, mutate_scale_up, mutate_scale_all_up, mutate_swap_scales,
    mutate_swap_nibbles, mutate_narrow_vector, mutate_narrow_matrix, mutate_id_range,
    mutate_id_repeated, mutate_flip_f32, mutate_flip_bf16, mutate_flip_fp8, mutate_flip_fp8_scale,
    mutate_flip_fp4, mutate_flip_fp4_scale, mutate_flip_int,
    mutate_flip_tensor_scale, mutate_flip_every_kind;

typedef ckpt_code mutation_beside(const mutation_input *in, mutation *out, ckpt_error *err);
mutation_beside mutate_rope_theta, mutate_norm_eps, mutate_top_k, mutate_routed_scale,
    mutate_config_gone, mutate_swap_tokenizer_files, mutate_tokenizer,
    mutate_template;

#endif
