/* Compares two configs, or states why they were not compared. */
#include "config_verdict.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_line.h"
#include "libckpt/error.h"

/* Make a note of members that only one side has and that were therefore not compared. */
static ckpt_code note_lone(config_verdict *v, ckpt_error *err)
{
    enum { NAMES_SHOWN = 10 };
    const config_comparison *c = &v->comparison;
    size_t size = 0;
    FILE *stream;

    if (c->lone_count == 0)
        return CKPT_OK;
    if ((stream = open_memstream(&v->lone_note, &size)) == NULL)
        return ckpt_fail_memory(err, "a note", c->lone_count);
    fputs("members of config.json that were not compared, since only one side has them and the "
          "spellings differ: ", stream);
    for (size_t i = 0; i < c->lone_count && i < NAMES_SHOWN; i++)
        fprintf(stream, "%s%s", i == 0 ? "" : ", ", c->lone[i]);
    if (c->lone_count > NAMES_SHOWN)
        fprintf(stream, " and %zu more", c->lone_count - NAMES_SHOWN);
    if (fclose(stream) != 0)
        return ckpt_fail_memory(err, "a note", c->lone_count);
    v->note = v->lone_note;
    return CKPT_OK;
}

static ckpt_code compare(const config_meaning *a, int main_only, config_verdict *out,
                         ckpt_error *err)
{
    ckpt_code code = config_meaning_compare(a, &out->b, main_only, &out->comparison, err);

    if (code == CKPT_OK)
        code = note_lone(out, err);
    out->is_compared = code == CKPT_OK;
    return code;
}

ckpt_code config_verdict_make_recorded(const config_meaning *a, const json_value *b, int main_only,
                                       config_verdict *out, ckpt_error *err)
{
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if (a->count == 0 || b == NULL) {
        out->note = a->count == 0 && b == NULL ? "config.json was not compared: the checkpoint has "
            "none"
                    : b == NULL ? "config.json was not compared: the layout has none"
                                : "config.json was not compared: the manifest's checkpoint had "
                                    "none";
        return CKPT_OK;
    }
    if ((code = config_meaning_read(b, &out->b, err)) == CKPT_OK)
        code = compare(a, main_only, out, err);
    return code;
}

ckpt_code config_verdict_make(const json_value *a, const json_value *b, int main_only,
                              config_verdict *out, ckpt_error *err)
{
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if (a == NULL || b == NULL) {
        out->note = a == NULL && b == NULL ? "config.json was not compared: neither A nor B has one"
                    : a == NULL            ? "config.json was not compared: A has none"
                                           : "config.json was not compared: B has none";
        return CKPT_OK;
    }
    if ((code = config_meaning_read(a, &out->a, err)) == CKPT_OK &&
        (code = config_meaning_read(b, &out->b, err)) == CKPT_OK)
        code = compare(&out->a, main_only, out, err);
    return code;
}

void config_verdict_release(config_verdict *verdict)
{
    config_comparison_release(&verdict->comparison);
    free(verdict->lone_note);
    config_meaning_release(&verdict->a);
    config_meaning_release(&verdict->b);
    memset(verdict, 0, sizeof *verdict);
}

void config_verdict_put(json_writer *w, const config_verdict *verdict, const char *a_key,
                        const char *b_key)
{
    json_put_key(w, "config");
    if (!verdict->is_compared && verdict->note == NULL) {
        json_put_null(w);
        return;
    }
    json_put_object(w);
    json_member_string(w, "note", verdict->note);
    json_member_u64(w, "compared", verdict->comparison.compared);
    json_member_array(w, "differing");
    for (size_t i = 0; i < verdict->comparison.count; i++) {
        const config_difference *d = &verdict->comparison.differing[i];
        json_writer line;

        json_line_begin(&line, w);
        json_put_object(&line);
        json_member_string(&line, "name", d->name);
        json_put_key(&line, a_key);
        json_put_raw(&line, d->a == NULL ? "null" : d->a);
        json_put_key(&line, b_key);
        json_put_raw(&line, d->b == NULL ? "null" : d->b);
        json_put_object_end(&line);
        json_line_end(&line, w);
    }
    json_put_array_end(w);
    json_put_object_end(w);
}
