/* A comparison in words and in JSON. */
#include "compare.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "json_line.h"

const char *compare_kind_name(compare_kind kind)
{
    static const char *const names[] = {
        [COMPARE_VALUES] = "values",
        [COMPARE_SHAPE] = "shape",
        [COMPARE_CLASS] = "class",
        [COMPARE_COPY] = "copy",
        [COMPARE_ENCODING] = "encoding",
        [COMPARE_BITS] = "bits",
    };

    return names[kind];
}

/* The fewest digits that read back as the same F32. */
static void float_text(uint32_t bits, char out[COMPARE_TEXT_BYTES])
{
    float value;

    memcpy(&value, &bits, sizeof value);
    if (isnan(value)) {
        snprintf(out, COMPARE_TEXT_BYTES, "\"NaN\"");
    } else if (isinf(value)) {
        snprintf(out, COMPARE_TEXT_BYTES, value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    } else {
        for (int digits = 1; digits <= 9; digits++) {
            snprintf(out, COMPARE_TEXT_BYTES, "%.*g", digits, (double)value);
            if (strtof(out, NULL) == value)
                return;
        }
    }
}

void compare_text(const compare_difference *difference, int side, char out[COMPARE_TEXT_BYTES])
{
    const ckpt_tensor *t = side == 0 ? difference->a : difference->b;
    const int64_t value = side == 0 ? difference->a_value : difference->b_value;
    char encoding[64];

    switch (difference->kind) {
    case COMPARE_VALUES:
        if (ckpt_tensor_is_int(t))
            snprintf(out, COMPARE_TEXT_BYTES, "%" PRId64, value);
        else
            float_text((uint32_t)value, out);
        break;
    case COMPARE_SHAPE:
        catalog_shape_text(t, out, COMPARE_TEXT_BYTES);
        break;
    case COMPARE_CLASS:
        snprintf(out, COMPARE_TEXT_BYTES, "\"%s\"", digest_class(t));
        break;
    case COMPARE_ENCODING:
        ckpt_tensor_encoding(t, encoding, sizeof encoding);
        snprintf(out, COMPARE_TEXT_BYTES, "\"%s\"", encoding);
        break;
    case COMPARE_COPY:
    case COMPARE_BITS:
        snprintf(out, COMPARE_TEXT_BYTES, "null");
        break;
    }
}

static void put_position(json_writer *w, const compare_difference *d, const char *key,
                         uint64_t number)
{
    json_put_key(w, key);
    if (d->kind == COMPARE_VALUES || d->kind == COMPARE_BITS || d->kind == COMPARE_COPY)
        json_put_u64(w, number);
    else
        json_put_null(w);
}

static void put_difference(json_writer *w, const compare_difference *d)
{
    static const char *const sides[] = { "a", "b" };
    json_writer line;

    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_string(&line, "name", d->a->name);
    json_member_string(&line, "kind", compare_kind_name(d->kind));
    put_position(&line, d, "row", d->row);
    put_position(&line, d, "col", d->col);
    for (int side = 0; side < 2; side++) {
        char text[COMPARE_TEXT_BYTES];

        compare_text(d, side, text);
        json_put_key(&line, sides[side]);
        json_put_raw(&line, text);
    }
    put_position(&line, d, "count", d->count);
    if (d->kind == COMPARE_COPY) {
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

void compare_put(json_writer *w, const ckpt_comparison *c)
{
    json_put_object(w);
    json_member_bool(w, "same", compare_is_same(c));
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
    json_put_object_end(w);
}
