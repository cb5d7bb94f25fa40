/* Prints a comparison as text and JSON. */
#include "compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json_line.h"
#include "libckpt/float_text.h"

const char *ckpt_difference_name(ckpt_difference_kind kind)
{
    static const char *const names[] = {
        [CKPT_DIFFERENT_VALUES] = "values",
        [CKPT_DIFFERENT_SHAPE] = "shape",
        [CKPT_DIFFERENT_CLASS] = "class",
        [CKPT_DIFFERENT_COPY] = "copy",
        [CKPT_DIFFERENT_ENCODING] = "encoding",
        [CKPT_DIFFERENT_BITS] = "bits",
    };

    return names[kind];
}

/* JSON has no number for NaN and infinity: they are strings. */
static void put_float(uint32_t bits, char out[CKPT_DIFFERENCE_BYTES])
{
    char text[FLOAT_TEXT_BYTES];
    float value;

    memcpy(&value, &bits, sizeof value);
    float_text(value, text);
    snprintf(out, CKPT_DIFFERENCE_BYTES, isfinite(value) ? "%s" : "\"%s\"", text);
}

void ckpt_difference_text(const ckpt_difference *difference, int side,
                          char out[CKPT_DIFFERENCE_BYTES])
{
    const ckpt_tensor *t = side == 0 ? difference->a : difference->b;
    const int64_t value = side == 0 ? difference->a_value : difference->b_value;
    char encoding[64];

    switch (difference->kind) {
    case CKPT_DIFFERENT_VALUES:
        if (ckpt_tensor_is_int(t))
            snprintf(out, CKPT_DIFFERENCE_BYTES, "%" PRId64, value);
        else
            put_float((uint32_t)value, out);
        break;
    case CKPT_DIFFERENT_SHAPE:
        catalog_shape_text(t, out, CKPT_DIFFERENCE_BYTES);
        break;
    case CKPT_DIFFERENT_CLASS:
        snprintf(out, CKPT_DIFFERENCE_BYTES, "\"%s\"", digest_class(t));
        break;
    case CKPT_DIFFERENT_ENCODING:
        ckpt_tensor_encoding(t, encoding, sizeof encoding);
        snprintf(out, CKPT_DIFFERENCE_BYTES, "\"%s\"", encoding);
        break;
    case CKPT_DIFFERENT_COPY:
    case CKPT_DIFFERENT_BITS:
        snprintf(out, CKPT_DIFFERENCE_BYTES, "null");
        break;
    }
}

static void put_position(json_writer *w, const ckpt_difference *d, const char *key,
                         uint64_t number)
{
    json_put_key(w, key);
    if (d->kind == CKPT_DIFFERENT_VALUES || d->kind == CKPT_DIFFERENT_BITS ||
        d->kind == CKPT_DIFFERENT_COPY)
        json_put_u64(w, number);
    else
        json_put_null(w);
}

static void put_difference(json_writer *w, const ckpt_difference *d)
{
    static const char *const sides[] = { "a", "b" };
    json_writer line;

    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_string(&line, "name", d->a->name);
    json_member_string(&line, "kind", ckpt_difference_name(d->kind));
    put_position(&line, d, "row", d->row);
    put_position(&line, d, "col", d->col);
    for (int side = 0; side < 2; side++) {
        char text[CKPT_DIFFERENCE_BYTES];

        ckpt_difference_text(d, side, text);
        json_put_key(&line, sides[side]);
        json_put_raw(&line, text);
    }
    put_position(&line, d, "count", d->count);
    if (d->kind == CKPT_DIFFERENT_COPY) {
        json_member_string(&line, "side", sides[d->side]);
        json_member_string(&line, "file", d->file);
    }
    json_put_object_end(&line);
    json_line_end(&line, w);
}

static void put_input(json_writer *w, const char *key, const compare_input *input)
{
    if (input->path == NULL)
        return;
    json_member_object(w, key);
    json_member_string(w, "path", input->path);
    json_member_string(w, "layout", input->layout);
    json_member_string(w, "family", input->family);
    json_member_names(w, "notes", (const char *const *)input->notes->names, input->notes->count);
    json_put_object_end(w);
}

void compare_put_members(json_writer *w, const ckpt_comparison *c)
{
    json_member_bool(w, "same", ckpt_comparison_is_same(c));
    put_input(w, "a", &c->inputs[0]);
    put_input(w, "b", &c->inputs[1]);
    if (c->inputs[0].path != NULL)
        json_member_string(w, "version", CKPT_VERSION);
    json_member_u64(w, "compared", c->compared);
    json_member_u64(w, "elements", c->element_count);
    json_member_u64(w, "other_encodings", c->other_encoding_count);
    json_put_key(w, "first_difference");
    if (c->differing_count > 0)
        put_difference(w, &c->differing[0]);
    else
        json_put_null(w);
    json_member_array(w, "differing");
    for (size_t i = 0; i < c->differing_count; i++)
        put_difference(w, &c->differing[i]);
    json_put_array_end(w);
    json_member_names(w, "missing_in_a", c->missing_in_a, c->missing_in_a_count);
    json_member_names(w, "missing_in_b", c->missing_in_b, c->missing_in_b_count);
    json_member_names(w, "re_encoded", c->re_encoded, c->re_encoded_count);
    config_verdict_put(w, &c->config, "a", "b");
    json_put_key(w, "companions");
    companions_put(w, &c->companions);
    if (c->by_rule_count > 0) {
        json_member_object(w, "by_rule");
        json_member_u64(w, "tensor_count", c->by_rule_count);
        json_member_u64(w, "made", c->blocks.made);
        json_member_u64(w, "kept", c->blocks.kept);
        json_member_u64(w, "wrong", c->blocks.wrong);
        json_put_object_end(w);
    }
}
