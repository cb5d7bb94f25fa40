/* fuzz_config.c: config.json as conversions edit it; after the first NUL, that of --like. */
#include "formats/convert/config_rewrite.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { TARGET_BF16, TARGET_FP8, TARGET_FP4, TARGET_COUNT };

static ckpt_catalog *make_targets(int kind)
{
    ckpt_tensor t = { .name = "layers.0.ffn.experts.0.w1.weight", .dtype = CKPT_BF16,
                      .stored_dtype = CKPT_BF16, .rank = 2, .shape = { 128, 128 } };
    ckpt_catalog *targets = catalog_create();

    if (kind != TARGET_BF16) {
        t.dtype = kind == TARGET_FP8 ? CKPT_F8_E4M3 : CKPT_F4;
        t.stored_dtype = kind == TARGET_FP8 ? CKPT_F8_E4M3 : CKPT_I8;
        t.scale_dtype = CKPT_F8_E8M0;
        t.block_rows = kind == TARGET_FP8 ? 128 : 1;
        t.block_cols = kind == TARGET_FP8 ? 128 : 32;
    }
    if (targets == NULL || catalog_add(targets, &t, NULL) != CKPT_OK)
        abort();
    return targets;
}

static json_document *parse(const char *text)
{
    json_document *document;

    return json_parse(text, strlen(text), "text", &document, NULL) == CKPT_OK ? document : NULL;
}

/* What is written must be JSON, and say of the encoding what the targets are. */
static void check_rewritten(const char *text, int kind)
{
    json_document *document = parse(text);
    const json_value *root = document == NULL ? NULL : json_root(document);
    const char *expert = json_string(json_member(root, "expert_dtype"));

    if (document == NULL)
        abort();
    if ((json_member(root, "quantization_config") != NULL) != (kind != TARGET_BF16))
        abort();
    if (kind == TARGET_BF16 ? expert != NULL
                            : strcmp(expert, kind == TARGET_FP8 ? "fp8" : "fp4") != 0)
        abort();
    json_free(document);
}

static void rewrite(const char *text, const ckpt_catalog *targets, int kind)
{
    const config_change change = { .targets = targets, .has_expert_dtype = 1 };
    char *once;
    char *twice;

    if (config_rewrite(text, &change, &once, NULL) == CKPT_OK) {
        check_rewritten(once, kind);
        if (config_rewrite(once, &change, &twice, NULL) != CKPT_OK ||
            strcmp(once, twice) != 0)
            abort();                        /* nothing is left to change */
        free(once);
        free(twice);
    }
    if (config_rewrite_inference(text, targets, &once, NULL) == CKPT_OK) {
        json_document *document = parse(once);

        if (document == NULL)
            abort();
        json_free(document);
        free(once);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static ckpt_catalog *targets[TARGET_COUNT];
    char *text = malloc(size + 1);
    json_document *document;
    char *like;
    char *out;

    if (text == NULL)
        abort();
    if (size > 0)
        memcpy(text, data, size);
    text[size] = '\0';
    like = memchr(text, '\0', size) == NULL ? text : text + strlen(text) + 1;
    document = parse(text);
    for (int kind = 0; kind < TARGET_COUNT; kind++) {
        if (targets[kind] == NULL)
            targets[kind] = make_targets(kind);
        if (document != NULL && json_is_object(json_root(document)))
            rewrite(text, targets[kind], kind);
    }
    if (document != NULL && json_is_object(json_root(document)) &&
        config_rewrite_like(text, like, &out, NULL) == CKPT_OK) {
        json_free(document);
        if ((document = parse(out)) == NULL)
            abort();
        free(out);
    }
    json_free(document);
    free(text);
    return 0;
}
