/* Compares two open checkpoints: values, copies and configs; implements ckpt_compare. */
#include "compare.h"

#include <stdlib.h>

#include "certificate_read.h"
#include "libckpt/checkpoint.h"
#include "libckpt/options.h"
#include "tokenizer_compare.h"

/* Ranks that disagree count as a difference here, not as an error. */
static ckpt_code keep_copies(const ckpt_checkpoint *c, ckpt_error *err)
{
    return store_keep_copies(checkpoint_store(c),
                             ckpt_catalog_count(ckpt_source_catalog(ckpt_logical(c))), err);
}

/* Compare the configs unless excluded; describe the inputs in the result. */
static ckpt_code compare_configs(const ckpt_checkpoint *a, const ckpt_checkpoint *b,
                                 const ckpt_compare_options *asked, ckpt_comparison *result,
                                 ckpt_error *err)
{
    const ckpt_checkpoint *const sides[] = { a, b };

    for (int i = 0; i < 2; i++)
        result->inputs[i] = (compare_input){ checkpoint_path(sides[i]),
                                             ckpt_layout_name(sides[i]),
                                             ckpt_family_name(sides[i]),
                                             checkpoint_notes(sides[i]) };
    return asked->weights_only ? CKPT_OK
                               : config_verdict_make(checkpoint_config(a), checkpoint_config(b),
                                                     asked->main_only, &result->config, err);
}

/* Compare the tokenizer and other files beside the weights, if both sides have some. A tokenizer
 * may also be in the weights; one side alone is reported. */
static ckpt_code compare_companions(const ckpt_checkpoint *a, const ckpt_checkpoint *b,
                                    ckpt_comparison *result, ckpt_error *err)
{
    const ckpt_checkpoint *const sides[] = { a, b };
    ckpt_code code = CKPT_OK;

    for (int i = 0; i < 2 && code == CKPT_OK; i++) {
        code = certificate_read_companions(checkpoint_folder(sides[i]), &result->files[i], err);
        result->files[i].opened = sides[i];
    }
    if (code != CKPT_OK)
        return code;
    if (result->files[0].file_count == 0 || result->files[1].file_count == 0)
        return tokenizers_compare(a, b, &result->companions, err);
    return companions_compare(&result->files[0], &result->files[1], &result->companions, err);
}

ckpt_code compare_checkpoints(const ckpt_checkpoint *a, const ckpt_checkpoint *b,
                              const compare_options *options, ckpt_comparison **out,
                              ckpt_error *err)
{
    compare_options with = *options;
    ckpt_comparison *result = calloc(1, sizeof *result);
    ckpt_code code;

    if (result == NULL)
        return ckpt_fail_memory(err, "a comparison", sizeof *result);
    with.stores[0] = checkpoint_store(a);
    with.stores[1] = checkpoint_store(b);
    with.asked.run.fixed_bytes += ckpt_checkpoint_bytes(a) + ckpt_checkpoint_bytes(b);
    if ((code = keep_copies(a, err)) != CKPT_OK || (code = keep_copies(b, err)) != CKPT_OK ||
        (code = compare_sources(ckpt_logical(a), ckpt_logical(b), &with, result, err)) != CKPT_OK ||
        (code = compare_configs(a, b, &with.asked, result, err)) != CKPT_OK ||
        (!with.asked.weights_only &&
         (code = compare_companions(a, b, result, err)) != CKPT_OK) ||
        (code = checkpoint_check_unchanged(a, err)) != CKPT_OK ||
        (code = checkpoint_check_unchanged(b, err)) != CKPT_OK)
        ckpt_comparison_free(result);
    else
        *out = result;
    return code;
}

ckpt_code ckpt_compare(const ckpt_checkpoint *a, const ckpt_checkpoint *b,
                       const ckpt_compare_options *options, ckpt_comparison **out,
                       ckpt_error *err)
{
    compare_options with = { .measure = 0 };
    ckpt_code code;

    if (options != NULL)
        with.asked = *options;
    if ((code = options_check_reserved(with.asked.reserved, CKPT_RESERVED, err)) != CKPT_OK)
        return code;
    return compare_checkpoints(a, b, &with, out, err);
}

void ckpt_comparison_free(ckpt_comparison *comparison)
{
    if (comparison == NULL)
        return;
    compare_release(comparison);
    free(comparison);
}

size_t ckpt_comparison_compared(const ckpt_comparison *comparison)
{
    return comparison->compared;
}

const ckpt_difference *ckpt_comparison_difference(const ckpt_comparison *comparison, size_t i)
{
    return i < comparison->differing_count ? &comparison->differing[i] : NULL;
}

const char *ckpt_comparison_missing(const ckpt_comparison *comparison, int side, size_t i)
{
    if (side == 0)
        return i < comparison->missing_in_a_count ? comparison->missing_in_a[i] : NULL;
    return i < comparison->missing_in_b_count ? comparison->missing_in_b[i] : NULL;
}

const char *ckpt_comparison_config(const ckpt_comparison *comparison, size_t i)
{
    const config_comparison *config = &comparison->config.comparison;

    return i < config->count ? config->differing[i].name : NULL;
}
