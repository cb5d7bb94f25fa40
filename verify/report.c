/* Writes the report of a conversion. */
#include "report.h"

#include <assert.h>

#include "libckpt/digest.h"
#include "json_file.h"
#include "json_line.h"
#include "ledger.h"
#include "losses.h"

typedef struct {
    encode_stats stats;            /* spread: the largest */
    map_ledger ledger;             /* stored tensors of the source, by fate */
    uint64_t re_encoded;           /* target tensors in another encoding than the source's */
    uint64_t kept;
} report_totals;

/* The source tensor of a target tensor; NULL if it came from --fill-from. */
static const ckpt_tensor *find_origin(const ckpt_outcome *o, size_t target)
{
    int64_t found;

    if (o->origins != NULL && o->origins[target] != NULL)
        return NULL;
    found = ckpt_catalog_find(o->source_logical,
                              ckpt_catalog_at(o->target_logical, target)->name);
    return found == CKPT_NOT_FOUND ? NULL : ckpt_catalog_at(o->source_logical, (size_t)found);
}

static int is_kept(const ckpt_outcome *o, size_t target)
{
    return o->kept != NULL && o->kept[target];
}

static report_totals add_up(const ckpt_outcome *o)
{
    report_totals totals = { .ledger = map_ledger_of(o->fates, ckpt_catalog_count(o->stored)) };

    for (size_t i = 0; i < ckpt_catalog_count(o->target_logical); i++) {
        const ckpt_tensor *origin = find_origin(o, i);

        totals.re_encoded += origin != NULL &&
                             !catalog_same_encoding(origin, ckpt_catalog_at(o->target_logical, i));
        totals.kept += (uint64_t)is_kept(o, i);
        if (o->stats == NULL || is_kept(o, i))
            continue;
        if (o->stats[i].spread > totals.stats.spread)
            totals.stats.spread = o->stats[i].spread;
        totals.stats.inexact += o->stats[i].inexact;
        totals.stats.returned += o->stats[i].returned;
        totals.stats.exceptions += o->stats[i].exceptions;
        totals.stats.zero_groups += o->stats[i].zero_groups;
        totals.stats.replaced += o->stats[i].replaced;
    }
    return totals;
}

static void put_stats(json_writer *w, const encode_stats *stats)
{
    json_member_u64(w, "spread", stats->spread);
    json_member_u64(w, "inexact", stats->inexact);
    json_member_u64(w, "returned", stats->returned);
    json_member_u64(w, "exceptions", stats->exceptions);
    json_member_u64(w, "zero_groups", stats->zero_groups);
    json_member_u64(w, "replaced", stats->replaced);
}

static void put_side(json_writer *w, const char *key, const outcome_side *side)
{
    json_member_object(w, key);
    json_member_string(w, "path", side->path);
    json_member_string(w, "layout", side->layout);
    json_member_string(w, "names", side->names);
    json_member_u64(w, "file_count", side->file_count);
    json_member_u64(w, "bytes", side->total_bytes);
    json_put_object_end(w);
}

static void put_totals(json_writer *w, const ckpt_outcome *o)
{
    const report_totals totals = add_up(o);

    json_member_object(w, "totals");
    json_member_u64(w, "stored_tensor_count", ckpt_catalog_count(o->stored));
    ledger_put(w, &totals.ledger);
    json_member_u64(w, "target_tensors", ckpt_catalog_count(o->target_logical));
    json_member_u64(w, "re_encoded", totals.re_encoded);
    json_member_u64(w, "kept", totals.kept);
    put_stats(w, &totals.stats);
    json_put_object_end(w);
}

/* The name of a stored tensor's fate, and the key of the related tensor. */
static void put_fate(json_writer *w, const ckpt_outcome *o, const map_fate *fate)
{
    static const struct {
        const char *word;
        const char *key;
    } words[] = {
        [FATE_USED] = { "used", "as" },
        [FATE_SCALE] = { "scale", "of" },
        [FATE_COPY] = { "copy", "of" },
        [FATE_DROPPED] = { "dropped", "reason" },
    };

    assert(fate->kind != FATE_NONE);           /* reading accounts for every stored tensor */
    json_member_string(w, "fate", words[fate->kind].word);
    json_member_string(w, words[fate->kind].key, fate->kind == FATE_DROPPED ? fate->reason
                       : ckpt_catalog_at(o->source_logical, fate->logical)->name);
    if (fate->rows_left_out > 0) {
        json_member_u64(w, "rows_left_out", fate->rows_left_out);
        json_member_string(w, "reason", fate->reason);
    }
}

static void put_stored(json_writer *w, const ckpt_outcome *o)
{
    json_member_array(w, "source_tensors");
    for (size_t i = 0; i < ckpt_catalog_count(o->stored); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(o->stored, i);
        json_writer line;

        json_line_begin(&line, w);
        json_put_object(&line);
        json_member_string(&line, "name", t->name);
        json_member_string(&line, "dtype", ckpt_dtype_name(t->dtype));
        catalog_put_shape(&line, t);
        json_member_string(&line, "file",
                           t->file < o->file_name_count ? o->file_names[t->file] : NULL);
        put_fate(&line, o, &o->fates[i]);
        json_put_object_end(&line);
        json_line_end(&line, w);
    }
    json_put_array_end(w);
}

static void put_target(json_writer *w, const ckpt_outcome *o, size_t i)
{
    const ckpt_tensor *t = ckpt_catalog_at(o->target_logical, i);
    const ckpt_tensor *origin = find_origin(o, i);
    char encoding[64];
    char hex[CKPT_DIGEST_HEX];
    json_writer line;

    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_string(&line, "name", t->name);
    if (origin != NULL) {
        ckpt_tensor_encoding(origin, encoding, sizeof encoding);
        json_member_string(&line, "from", encoding);
    } else {
        json_member_string(&line, "filled_from", o->origins == NULL ? NULL : o->origins[i]);
    }
    ckpt_tensor_encoding(t, encoding, sizeof encoding);
    json_member_string(&line, "to", encoding);
    if (o->digest != NULL) {
        ckpt_digest_tensor(o->digest, i, hex);
        json_member_string(&line, "value", hex);
    }
    if (is_kept(o, i))
        json_member_bool(&line, "kept", 1);
    else if (o->stats != NULL)
        put_stats(&line, &o->stats[i]);
    if (o->rules != NULL && o->rules[i] != NULL && o->losses != NULL) {
        json_member_object(&line, "quantised");
        json_member_string(&line, "rule", o->rules[i]->name);
        losses_put(&line, &o->losses[i]);
        if (o->losses[i].max_error > 0) {
            json_member_u64(&line, "max_row", o->losses[i].max_row);
            json_member_u64(&line, "max_column", o->losses[i].max_col);
        }
        json_put_object_end(&line);
    }
    json_put_object_end(&line);
    json_line_end(&line, w);
}

static void put_pair(json_writer *w, const char *name, const char *key, const char *value)
{
    json_put_object(w);
    json_member_string(w, "name", name);
    json_member_string(w, key, value);
    json_put_object_end(w);
}

static void put_lists(json_writer *w, const ckpt_outcome *o)
{
    put_stored(w, o);
    json_member_array(w, "target_tensors");
    for (size_t i = 0; i < ckpt_catalog_count(o->target_logical); i++)
        put_target(w, o, i);
    json_put_array_end(w);
    json_member_array(w, "left_out");
    for (size_t i = 0; i < o->drop_count; i++)
        put_pair(w, o->drops[i].name, "reason", o->drops[i].reason);
    json_put_array_end(w);
    json_member_array(w, "other_files");
    for (size_t i = 0; i < o->file_count; i++)
        put_pair(w, o->files[i].name, "action", o->files[i].action);
    json_put_array_end(w);
}

void report_put(json_writer *w, const ckpt_outcome *o)
{
    json_put_object(w);
    json_member_string(w, "schema", "ckpt-report/1");
    json_member_string(w, "version", o->version);
    json_member_names(w, "command", o->words, o->word_count);
    json_member_string(w, "family", o->family);
    put_side(w, "source", &o->source);
    put_side(w, "target", &o->target);
    json_member_double(w, "seconds", o->seconds);
    json_member_string(w, "root", o->root);
    json_member_string(w, "main", o->main_root);
    json_member_string(w, "source_root", o->source_root);
    put_totals(w, o);
    losses_put_summary(w, o);
    json_member_names(w, "notes", o->notes, o->note_count);
    put_lists(w, o);
    json_put_object_end(w);
}

static ckpt_code put_outcome(json_writer *w, const void *outcome, ckpt_error *err)
{
    (void)err;
    report_put(w, outcome);
    return CKPT_OK;
}

ckpt_code report_write(const char *path, const ckpt_outcome *outcome, ckpt_error *err)
{
    return json_file_write(path, put_outcome, outcome, err);
}
