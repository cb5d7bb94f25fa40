/* Writes findings as text and JSON. */
#include <inttypes.h>
#include <stdio.h>

#include "json_line.h"
#include "value_check.h"
#include "libckpt/text.h"

const char *value_kind_name(value_kind kind)
{
    static const char *const names[VALUE_KIND_COUNT] = {
        [VALUE_NAN] = "nan",
        [VALUE_INFINITY] = "infinity",
        [VALUE_SCALE_NAN] = "scale_nan",
        [VALUE_WHOLE_SCALE] = "whole_scale",
        [VALUE_ID_RANGE] = "id_range",
        [VALUE_ID_REPEATED] = "id_repeated",
        [VALUE_ZERO_TENSOR] = "zero_tensor",
        [VALUE_SAME_EXPERTS] = "same_experts",
        [VALUE_NARROW] = "narrow_dtype",
        [VALUE_SCALE_ZERO] = "scale_zero",
        [VALUE_SCALE_SPREAD] = "scale_spread",
        [VALUE_UNEQUAL_PAIR] = "unequal_pair",
        [VALUE_SATURATED] = "saturated",
        [VALUE_ZERO_ROWS] = "zero_rows",
        [VALUE_OUTLIER] = "outlier",
    };

    return names[kind];
}

int value_kind_is_fault(value_kind kind)
{
    return kind <= VALUE_NARROW;
}

static void text_of_many(const value_finding *f, const char *what, char out[VALUE_TEXT_BYTES])
{
    snprintf(out, VALUE_TEXT_BYTES, "%" PRIu64 " %s, first at row %" PRIu64 " column %" PRIu64,
             f->count, what, f->row, f->col);
}

static void text_of_ids(const value_finding *f, const char *what, char out[VALUE_TEXT_BYTES])
{
    snprintf(out, VALUE_TEXT_BYTES,
             "%" PRIu64 " ids %s, the first is %.0f at row %" PRIu64 " column %" PRIu64, f->count,
             what, f->number, f->row, f->col);
}

void value_finding_text(const value_finding *f, char out[VALUE_TEXT_BYTES])
{
    switch (f->kind) {
    case VALUE_NAN:
        snprintf(out, VALUE_TEXT_BYTES, "%" PRIu64 " NaN; the first value that is not finite is at "
                 "row %" PRIu64 " column %" PRIu64, f->count, f->row, f->col);
        break;
    case VALUE_INFINITY:
        snprintf(out, VALUE_TEXT_BYTES, "%" PRIu64 " infinities; the first value that is not "
                 "finite is at row %" PRIu64 " column %" PRIu64, f->count, f->row, f->col);
        break;
    case VALUE_SCALE_NAN:
        text_of_many(f, "scales are not finite", out);
        break;
    case VALUE_SCALE_ZERO:
        text_of_many(f, "scales are 0 or the byte 0x00", out);
        break;
    case VALUE_SCALE_SPREAD:
        snprintf(out, VALUE_TEXT_BYTES,
                 "scales of %" PRIu64 " blocks of 128 x 128 are up to 2^%.0f apart: FP8 may not "
                 "hold them; first in block row %" PRIu64 " column %" PRIu64,
                 f->count, f->number, f->row, f->col);
        break;
    case VALUE_WHOLE_SCALE:
        snprintf(out, VALUE_TEXT_BYTES, "the scale of %s is %g, expected a finite number above 0",
                 f->other, f->number);
        break;
    case VALUE_UNEQUAL_PAIR:
        snprintf(out, VALUE_TEXT_BYTES, "its scale of the whole tensor is %.9g, that of '%s' is "
                 "another: servers join the two under one", f->number, f->other);
        break;
    case VALUE_SATURATED:
        snprintf(out, VALUE_TEXT_BYTES, "%s (%.2f %%) with the largest magnitude",
                 text_count(f->count, "code", "codes").text, 100 * f->number);
        break;
    case VALUE_ID_RANGE:
        text_of_ids(f, "are of no expert", out);
        break;
    case VALUE_ID_REPEATED:
        text_of_ids(f, "occur twice in their row", out);
        break;
    case VALUE_ZERO_TENSOR:
        snprintf(out, VALUE_TEXT_BYTES, "all %" PRIu64 " values are 0", f->count);
        break;
    case VALUE_ZERO_ROWS:
        snprintf(out, VALUE_TEXT_BYTES, "%s 0, first row %" PRIu64,
                 text_count(f->count, "row is", "rows are").text, f->row);
        break;
    case VALUE_SAME_EXPERTS:
        snprintf(out, VALUE_TEXT_BYTES, "has the bytes of '%s'", f->other);
        break;
    case VALUE_NARROW:
        snprintf(out, VALUE_TEXT_BYTES, "has %" PRIu64 " bits of precision, the official dtype has "
                 "%.0f", f->count, f->number);
        break;
    case VALUE_OUTLIER:
        snprintf(out, VALUE_TEXT_BYTES, "rms is far from that of its %" PRIu64 " siblings: robust "
                 "z-score %.1f", f->count, f->number);
        break;
    case VALUE_KIND_COUNT:
        break;
    }
}

static void put_finding(json_writer *w, const value_finding *f)
{
    char text[VALUE_TEXT_BYTES] = "";
    json_writer line;

    value_finding_text(f, text);
    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_string(&line, "kind", value_kind_name(f->kind));
    json_member_bool(&line, "fault", value_kind_is_fault(f->kind));
    json_member_string(&line, "name", f->name);
    if (f->row != UINT64_MAX) {
        json_member_u64(&line, "row", f->row);
        json_member_u64(&line, "col", f->col);
    }
    json_member_u64(&line, "count", f->count);
    json_member_double(&line, "number", f->number);
    if (f->other != NULL)
        json_member_string(&line, "other", f->other);
    json_member_string(&line, "text", text);
    json_put_object_end(&line);
    json_line_end(&line, w);
}

void value_findings_put(json_writer *w, const value_findings *findings)
{
    json_member_u64(w, "values_checked", findings->tensor_count);
    json_member_u64(w, "faults", findings->fault_count);
    json_member_array(w, "findings");
    for (size_t i = 0; i < findings->count; i++)
        put_finding(w, &findings->items[i]);
    json_put_array_end(w);
}
