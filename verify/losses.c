/* Sums losses and writes them as text and JSON. */
#include "losses.h"

#include <stdio.h>
#include <string.h>

#include "libckpt/text.h"

static int is_restored(const ckpt_outcome *o, size_t i)
{
    return o->losses[i].blocks > 0 && o->losses[i].kept_blocks == o->losses[i].blocks &&
           !o->rules[i]->keeps_exact;
}

void losses_add_up(const ckpt_outcome *o, loss_summary *out)
{
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < ckpt_catalog_count(o->target_logical); i++) {
        const quantise_loss *loss = &o->losses[i];
        const double error = quantise_loss_relative(loss);
        const uint64_t replaced = o->stats == NULL ? 0 : o->stats[i].replaced;
        const int is_changed = error > 0.0 || replaced > 0;

        if (o->rules[i] == NULL)
            continue;
        out->restored_count += (size_t)is_restored(o, i);
        out->exact_count += !is_restored(o, i) && !is_changed;
        out->rounded_count += !is_restored(o, i) && is_changed;
        out->replaced += replaced;
        if (error > out->worst_error) {
            out->worst_error = error;
            out->worst = i;
        }
        quantise_loss_merge(&out->total, loss);
        quantise_loss_merge(
            &out->classes[weight_class_of(ckpt_catalog_at(o->target_logical, i)->name)], loss);
    }
}

void losses_put(json_writer *w, const quantise_loss *loss)
{
    json_member_u64(w, "elements", loss->elements);
    json_member_u64(w, "blocks", loss->blocks);
    json_member_u64(w, "kept_blocks", loss->kept_blocks);
    json_member_u64(w, "rounded", loss->rounded);
    json_member_u64(w, "saturated", loss->saturated);
    json_member_u64(w, "underflowed", loss->underflowed);
    json_member_u64(w, "dropped_signs", loss->dropped_signs);
    json_member_double(w, "max_abs", (double)loss->max_error);
    json_member_double(w, "relative_error", quantise_loss_relative(loss));
    json_member_double(w, "sqnr_db", quantise_loss_sqnr(loss));
}

/* ---- rules ---- */

enum { RULES_MAX = 16 };

typedef struct {
    const quantise_rule *rules[RULES_MAX];
    size_t tensors[RULES_MAX];
    size_t count;
} used_rules;

static void find_rules(const ckpt_outcome *o, used_rules *out)
{
    out->count = 0;
    for (size_t i = 0; i < ckpt_catalog_count(o->target_logical); i++) {
        size_t r = 0;

        if (o->rules[i] == NULL)
            continue;
        while (r < out->count && out->rules[r] != o->rules[i])
            r++;
        if (r == RULES_MAX)
            continue;
        if (r == out->count) {
            out->rules[out->count] = o->rules[i];
            out->tensors[out->count++] = 0;
        }
        out->tensors[r]++;
    }
}

void losses_rules_text(const ckpt_outcome *o, char *out, size_t out_bytes)
{
    used_rules used;
    size_t length = 0;

    out[0] = '\0';
    find_rules(o, &used);
    for (size_t r = 0; r < used.count && length < out_bytes; r++)
        length += (size_t)snprintf(out + length, out_bytes - length, "%s%s (%s)",
                                   r == 0 ? "" : ", ", used.rules[r]->name,
                                   text_count(used.tensors[r], "tensor", "tensors").text);
}

static void put_rules(json_writer *w, const ckpt_outcome *o)
{
    used_rules used;

    find_rules(o, &used);
    json_member_object(w, "rules");
    for (size_t r = 0; r < used.count; r++)
        json_member_u64(w, used.rules[r]->name, used.tensors[r]);
    json_put_object_end(w);
}

/* ---- the summary ---- */

static void put_total(json_writer *w, const char *key, const quantise_loss *loss)
{
    json_member_object(w, key);
    losses_put(w, loss);
    json_put_object_end(w);
}

void losses_put_summary(json_writer *w, const ckpt_outcome *o)
{
    loss_summary sum;

    if (o->rules == NULL || o->losses == NULL)
        return;
    losses_add_up(o, &sum);
    json_member_object(w, "quantised");
    put_rules(w, o);
    json_member_u64(w, "exact_tensors", sum.exact_count);
    json_member_u64(w, "restored_tensors", sum.restored_count);
    json_member_u64(w, "rounded_tensors", sum.rounded_count);
    json_member_string(w, "worst_tensor", sum.worst_error == 0.0 ? NULL
                       : ckpt_catalog_at(o->target_logical, sum.worst)->name);
    json_member_double(w, "worst_relative_error", sum.worst_error);
    json_member_u64(w, "replaced", sum.replaced);
    put_total(w, "total", &sum.total);
    json_member_object(w, "classes");
    for (int class = 0; class < WEIGHT_CLASS_COUNT; class++)
        if (sum.classes[class].blocks > 0)
            put_total(w, weight_class_name((weight_class)class), &sum.classes[class]);
    json_put_object_end(w);
    json_put_object_end(w);
}
