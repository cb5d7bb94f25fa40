/* foreign_codes.c: packages that quantise weights in a form of their own. */
#include "foreign_codes.h"

#include "text.h"

/* Only names that no other package gives to a tensor. The first row that fits counts: GPTQ and AWQ
 * both have X.qweight, and only GPTQ has the group of each row, X.g_idx. */
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
};

static int has_ending(const ckpt_catalog *catalog, const char *end)
{
    for (size_t i = 0; i < ckpt_catalog_count(catalog); i++)
        if (text_ends_with(ckpt_catalog_at(catalog, i)->name, end))
            return 1;
    return 0;
}

/* MLX has U32 words of codes, X.weight, beside X.biases (one for a group, not X.bias). */
static int is_mlx(const ckpt_catalog *catalog)
{
    int has_words = 0;

    for (size_t i = 0; i < ckpt_catalog_count(catalog) && !has_words; i++) {
        const ckpt_tensor *t = ckpt_catalog_at(catalog, i);

        has_words = t->dtype == CKPT_U32 && text_ends_with(t->name, ".weight");
    }
    return has_words && has_ending(catalog, ".biases");
}

const char *foreign_codes_name(const ckpt_catalog *catalog)
{
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (has_ending(catalog, marks[i].end))
            return marks[i].name;
    return is_mlx(catalog) ? "MLX" : NULL;
}
