/* Mutations of whole tensors: exchanged, removed or duplicated. */
#include <stdio.h>
#include <string.h>

#include "libckpt/plan.h"
#include "libckpt/tensor_class.h"
#include "libckpt/values.h"
#include "mutation_private.h"
#include "tensor_group.h"

static const char no_expert[] = "no two experts that differ";
static const char no_pair[] = "no two such tensors of one shape";
static const char no_tensor[] = "no such tensor";

static const ckpt_tensor *at(const mutation_maker *m, size_t i)
{
    return ckpt_catalog_at(m->catalog, i);
}

/* Give tensor a the content of b. */
static ckpt_code replace(mutation_maker *m, size_t a, size_t b, ckpt_error *err)
{
    return mutation_edit_add(m, &(mutation_edit){ .kind = EDIT_REPLACE, .tensor = a, .from = b },
                             err);
}

static ckpt_code exchange(mutation_maker *m, const size_t pair[2], ckpt_error *err)
{
    const ckpt_code code = replace(m, pair[0], pair[1], err);

    snprintf(m->out->text, MUTATION_TEXT_BYTES, "'%.100s' and '%.100s'", at(m, pair[0])->name,
             at(m, pair[1])->name);
    return code == CKPT_OK ? replace(m, pair[1], pair[0], err) : code;
}

static ckpt_code exchange_pair(mutation_maker *m, mutation_fits *fits, mutation_pairs *pairs,
                               ckpt_error *err)
{
    size_t pair[2];

    return mutation_pick_pair(m, fits, pairs, pair) ? exchange(m, pair, err)
                                                    : mutation_skip(m->out, no_pair);
}

/* ---- experts ---- */

static int is_expert(const ckpt_tensor *t)
{
    return plan_is_expert(t->name);
}

/* Length of the name up to the end of the expert's number. */
static size_t expert_bytes(const char *name)
{
    size_t digits;
    const char *number = tensor_expert_number(name, &digits);

    return number == NULL ? 0 : (size_t)(number - name) + digits;
}

static int is_same_expert(const ckpt_tensor *a, const ckpt_tensor *b)
{
    const size_t bytes = expert_bytes(a->name);

    return bytes > 0 && bytes == expert_bytes(b->name) && memcmp(a->name, b->name, bytes) == 0;
}

/* 1 for the same weight of two experts of one layer. */
static int is_sibling(const ckpt_tensor *a, const ckpt_tensor *b)
{
    size_t digits[2];
    const char *number[2] = { tensor_expert_number(a->name, &digits[0]),
                              tensor_expert_number(b->name, &digits[1]) };

    return number[0] != NULL && number[1] != NULL &&
           number[0] - a->name == number[1] - b->name &&
           memcmp(a->name, b->name, (size_t)(number[0] - a->name)) == 0 &&
           !is_same_expert(a, b) && strcmp(number[0] + digits[0], number[1] + digits[1]) == 0;
}

/* Give an expert all weights of another one; `both`: exchange them. */
static ckpt_code move_expert(mutation_maker *m, int both, ckpt_error *err)
{
    size_t pair[2];
    ckpt_code code = CKPT_OK;

    if (!mutation_pick_pair(m, is_expert, is_sibling, pair))
        return mutation_skip(m->out, no_expert);
    for (size_t i = 0; i < ckpt_catalog_count(m->catalog) && code == CKPT_OK; i++) {
        size_t k = 0;

        if (!is_same_expert(at(m, i), at(m, pair[0])))
            continue;
        while (k < ckpt_catalog_count(m->catalog) &&
               !(is_same_expert(at(m, k), at(m, pair[1])) && is_sibling(at(m, i), at(m, k)) &&
                 catalog_same_shape(at(m, i), at(m, k)) &&
                 catalog_same_encoding(at(m, i), at(m, k))))
            k++;
        if (k == ckpt_catalog_count(m->catalog))
            continue;
        if ((code = replace(m, i, k, err)) == CKPT_OK && both)
            code = replace(m, k, i, err);
    }
    snprintf(m->out->text, MUTATION_TEXT_BYTES, "the experts of '%.100s' and '%.100s'",
             at(m, pair[0])->name, at(m, pair[1])->name);
    return code;
}

ckpt_code mutate_swap_experts(mutation_maker *m, ckpt_error *err)
{
    return move_expert(m, 1, err);
}

ckpt_code mutate_duplicate_expert(mutation_maker *m, ckpt_error *err)
{
    return move_expert(m, 0, err);
}

ckpt_code mutate_swap_gate_up(mutation_maker *m, ckpt_error *err)
{
    return exchange_pair(m, is_expert, is_same_expert, err);
}

/* ---- other pairs ---- */

static int is_layer_matrix(const ckpt_tensor *t)
{
    return t->rank > 1 && tensor_layer_bytes(t->name) > 0 && !is_expert(t) &&
           !ckpt_tensor_is_int(t);
}

static int is_layer_vector(const ckpt_tensor *t)
{
    return t->rank == 1 && tensor_layer_bytes(t->name) > 0 && !ckpt_tensor_is_int(t);
}

static int is_layer_tensor(const ckpt_tensor *t)
{
    return is_layer_matrix(t) || is_layer_vector(t);
}

static int is_outer_matrix(const ckpt_tensor *t)
{
    return t->rank > 1 && tensor_layer_bytes(t->name) == 0;
}

static int is_of_same_layer(const ckpt_tensor *a, const ckpt_tensor *b)
{
    return !is_expert(b) && tensor_same_layer(a->name, b->name);
}

static int is_of_same_kind(const ckpt_tensor *a, const ckpt_tensor *b)
{
    return tensor_same_kind(a->name, b->name);
}

ckpt_code mutate_swap_projections(mutation_maker *m, ckpt_error *err)
{
    return exchange_pair(m, is_layer_matrix, is_of_same_layer, err);
}

ckpt_code mutate_swap_norms(mutation_maker *m, ckpt_error *err)
{
    return exchange_pair(m, is_layer_vector, is_of_same_layer, err);
}

ckpt_code mutate_swap_layers(mutation_maker *m, ckpt_error *err)
{
    return exchange_pair(m, is_layer_tensor, is_of_same_kind, err);
}

ckpt_code mutate_swap_embedding_head(mutation_maker *m, ckpt_error *err)
{
    return exchange_pair(m, is_outer_matrix, is_of_same_layer, err);
}

/* ---- removed and added tensors ---- */

/* 1 for a tensor outside the MTP blocks, which a layout may lack. */
static int is_needed(const ckpt_tensor *t)
{
    return !digest_is_mtp(t->name);
}

ckpt_code mutate_drop_tensor(mutation_maker *m, ckpt_error *err)
{
    const int64_t i = mutation_pick(m, is_needed);

    (void)err;
    if (i == CKPT_NOT_FOUND)
        return mutation_skip(m->out, no_tensor);
    m->changes.dropped = (size_t)i;
    snprintf(m->out->text, MUTATION_TEXT_BYTES, "'%.200s'", at(m, (size_t)i)->name);
    return CKPT_OK;
}

ckpt_code mutate_add_tensor(mutation_maker *m, ckpt_error *err)
{
    static const char name[] = "added_by_mutation.weight";
    const int64_t i = mutation_pick(m, is_needed);

    (void)err;
    if (i == CKPT_NOT_FOUND || ckpt_catalog_find(m->catalog, name) != CKPT_NOT_FOUND)
        return mutation_skip(m->out, no_tensor);
    m->changes.added = name;
    m->changes.added_like = (size_t)i;
    snprintf(m->out->text, MUTATION_TEXT_BYTES, "'%s', with the values of '%.150s'", name,
             at(m, (size_t)i)->name);
    return CKPT_OK;
}
