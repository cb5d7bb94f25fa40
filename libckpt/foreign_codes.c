/* foreign_codes.c: packages that quantise weights in a form of their own. */
#include "foreign_codes.h"

#include "map.h"
#include "text.h"

/* Only names that no other package gives to a tensor. The first row that fits counts: GPTQ and AWQ
 * both have X.qweight, and only GPTQ has the group of each row, X.g_idx, which some writers leave
 * out. */
static const struct {
    const char *end;
    const char *name;
} marks[] = {
    { ".g_idx", "GPTQ" },
    { ".qweight", "AWQ" },
    { ".quant_state.bitsandbytes__nf4", "bitsandbytes, NF4" },
    { ".quant_state.bitsandbytes__fp4", "bitsandbytes, FP4" },
    { ".SCB", "bitsandbytes, LLM.int8" },
    { ".trellis", "EXL3" },
    { ".W_q", "HQQ" },
};

static int has_ending(const ckpt_catalog *catalog, const char *end)
{
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++)
        if (text_ends_with(ckpt_catalog_at(catalog, i)->name, end))
            return 1;
    return 0;
}

/* GPTQ packs rows into a word: X.qweight has as many columns as X.scales. AWQ packs columns. */
static int packs_rows(const ckpt_catalog *catalog)
{
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);
        const ckpt_tensor *scales =
            text_ends_with(t->name, ".qweight") ? pair_find_scale(catalog, t->name) : NULL;

        if (scales != NULL && ckpt_tensor_cols(scales) == ckpt_tensor_cols(t))
            return 1;
    }
    return 0;
}

/* MLX has U32 words of codes, X.weight, beside X.biases (one for a group, not X.bias), or, in
 * MXFP4, beside U8 scales alone. */
static int is_mlx(const ckpt_catalog *catalog)
{
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);
        const ckpt_tensor *scales;

        if (t->dtype != CKPT_U32 || !text_ends_with(t->name, ".weight"))
            continue;
        scales = pair_find_scale(catalog, t->name);
        return (scales != NULL && scales->dtype == CKPT_U8) || has_ending(catalog, ".biases");
    }
    return 0;
}

const char *foreign_codes_name(const ckpt_catalog *catalog)
{
    if (packs_rows(catalog))
        return "GPTQ";
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (has_ending(catalog, marks[i].end))
            return marks[i].name;
    return is_mlx(catalog) ? "MLX" : NULL;
}
