/* Mutations of files beside the weights: config.json, tokenizer, template. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "libckpt/config_words.h"
#include "libckpt/json.h"
#include "mutation_private.h"

enum { FILE_BYTES_MAX = 1 << 28, NUMBER_BYTES = 40 };

static const char no_config[] = "no config.json";
static const char no_member[] = "config.json has no such number at its top";
static const char no_file[] = "no such file";

/* ---- config.json ---- */

/* Change the number of `key`: flip the lowest bit of an integer, double any other number. */
static ckpt_code change_number(const mutation_input *in, const char *key, mutation *out,
                               ckpt_error *err)
{
    json_document *config = NULL;
    const json_value *member;
    char text[NUMBER_BYTES];
    uint64_t whole;
    double number;
    ckpt_code code;

    if (in->config == NULL)
        return mutation_skip(out, no_config);
    if ((code = json_parse(in->config, strlen(in->config), "config.json", &config, err)) !=
        CKPT_OK)
        return code;
    member = json_member(json_root(config), key);
    if (!json_number(member, &number)) {
        out->reason = no_member;
    } else {
        if (json_u64(member, &whole))
            snprintf(text, sizeof text, "%llu", (unsigned long long)(whole ^ 1));
        else
            snprintf(text, sizeof text, "%.17g", number * 2 + (number == 0));
        snprintf(out->text, MUTATION_TEXT_BYTES, "%s: %s", key, text);
        code = json_edit(in->config, key, text, &out->config, err);
    }
    json_free(config);
    return code;
}

ckpt_code mutate_rope_theta(const mutation_input *in, mutation *out, ckpt_error *err)
{
    return change_number(in, "rope_theta", out, err);
}

ckpt_code mutate_norm_eps(const mutation_input *in, mutation *out, ckpt_error *err)
{
    return change_number(in, "rms_norm_eps", out, err);
}

ckpt_code mutate_top_k(const mutation_input *in, mutation *out, ckpt_error *err)
{
    return change_number(in, CONFIG_ACTIVE_EXPERTS, out, err);
}

ckpt_code mutate_routed_scale(const mutation_input *in, mutation *out, ckpt_error *err)
{
    return change_number(in, "routed_scaling_factor", out, err);
}

/* ---- files ---- */

static ckpt_code put_file(mutation *out, const char *name, const char *bytes, size_t size,
                          ckpt_error *err)
{
    mutation_file *f = &out->files[out->file_count++];

    f->size = size;
    f->name = strdup(name);
    f->bytes = bytes == NULL ? NULL : malloc(size + 1);
    if (f->name == NULL || (bytes != NULL && f->bytes == NULL))
        return ckpt_fail_memory(err, name, size);
    if (bytes != NULL)
        memcpy(f->bytes, bytes, size);
    return CKPT_OK;
}

static int has(const mutation_input *in, const char *name)
{
    return in->folder != NULL && folder_has(in->folder, name);
}

static ckpt_code drop_file(const mutation_input *in, const char *name, mutation *out,
                           ckpt_error *err)
{
    if (!has(in, name))
        return mutation_skip(out, no_file);
    snprintf(out->text, MUTATION_TEXT_BYTES, "'%s'", name);
    return put_file(out, name, NULL, 0, err);
}

/* Flip a bit in the middle of a file; not applicable to an empty one. */
static ckpt_code change_file(const mutation_input *in, const char *name, mutation *out,
                             ckpt_error *err)
{
    folder_text text = { 0 };
    ckpt_code code;

    if (!has(in, name))
        return mutation_skip(out, no_file);
    code = folder_read_all(in->folder, name, FILE_BYTES_MAX, &text, err);
    if (code == CKPT_OK && text.size == 0) {
        out->reason = no_file;
    } else if (code == CKPT_OK) {
        text.bytes[text.size / 2] ^= 1;
        snprintf(out->text, MUTATION_TEXT_BYTES, "'%s', byte %zu", name, text.size / 2);
        code = put_file(out, name, text.bytes, text.size, err);
    }
    folder_text_release(&text);
    return code;
}

ckpt_code mutate_config_gone(const mutation_input *in, mutation *out, ckpt_error *err)
{
    return in->has_place_for_config ? drop_file(in, "config.json", out, err)
                                    : mutation_skip(out, "its layout has no place for one");
}

ckpt_code mutate_swap_tokenizer_files(const mutation_input *in, mutation *out, ckpt_error *err)
{
    static const char *const names[] = { "tokenizer.json", "tokenizer_config.json" };
    folder_text texts[2] = { { 0 }, { 0 } };
    ckpt_code code = CKPT_OK;

    if (!has(in, names[0]) || !has(in, names[1]))
        return mutation_skip(out, no_file);
    for (int i = 0; i < 2 && code == CKPT_OK; i++)
        code = folder_read_all(in->folder, names[i], FILE_BYTES_MAX, &texts[i], err);
    if (code == CKPT_OK && texts[0].size == texts[1].size &&
        memcmp(texts[0].bytes, texts[1].bytes, texts[0].size) == 0)
        out->reason = "the two files are the same";
    for (int i = 0; i < 2 && code == CKPT_OK && out->reason == NULL; i++)
        code = put_file(out, names[i], texts[1 - i].bytes, texts[1 - i].size, err);
    for (int i = 0; i < 2; i++)
        folder_text_release(&texts[i]);
    snprintf(out->text, MUTATION_TEXT_BYTES, "'%s' and '%s'", names[0], names[1]);
    return code;
}

ckpt_code mutate_tokenizer(const mutation_input *in, mutation *out, ckpt_error *err)
{
    return change_file(in, "tokenizer.json", out, err);
}

ckpt_code mutate_template(const mutation_input *in, mutation *out, ckpt_error *err)
{
    return change_file(in, "chat_template.jinja", out, err);
}
