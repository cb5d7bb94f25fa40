/* Makes a delta from two checkpoints. */
#include "delta_make.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "delta_names.h"
#include "delta_side.h"
#include "delta_skyrl.h"
#include "delta_stream.h"
#include "delta_structure.h"
#include "delta_write.h"
#include "formats/hf.h"
#include "formats/notes.h"
#include "libckpt/output.h"
#include "libckpt/packed.h"
#include "libckpt/size.h"
#include "libckpt/tensor.h"
#include "libckpt/text.h"

/* ---- the version ---- */

/* The number at the end of "weight_v000012" or "delta-00000012", or 0. */
static uint64_t version_of_name(const char *path, const char *prefix)
{
    const char *at = path == NULL ? NULL : strstr(path, prefix);
    uint64_t number = 0;

    for (const char *next = at; next != NULL; next = strstr(at + 1, prefix))
        at = next;
    if (at == NULL)
        return 0;
    at += strlen(prefix);
    for (; *at >= '0' && *at <= '9' && number < UINT32_MAX; at++)
        number = number * 10 + (uint64_t)(*at - '0');
    return *at == '\0' || *at == '/' ? number : 0;
}

static uint64_t choose_version(const delta_make_options *o)
{
    const uint64_t named = version_of_name(
        o->target, o->container == DELTA_FOR_SKYRL ? "delta-" : "weight_v");

    return o->version != 0 ? o->version : named != 0 ? named : 1;
}

/* ---- results ---- */

typedef struct {
    const delta_makings *from;
    const delta_make_options *options;
    delta_made *out;
    ckpt_output *output;
    delta_changes changes;
    delta_entry *entries;
    delta_carried carried;
    char base_version[DELTA_VERSION_BYTES];
} make_job;

/* Elements of a stored tensor: values, as changes are counted. Stored U8 and I32 may be pairs or
 * more of 4-bit codes. */
static uint64_t count_elements(const make_job *job, size_t part, const ckpt_tensor *stored)
{
    const ckpt_tensor *t = ckpt_catalog_at(job->from->after->catalog, part / CKPT_PART_COUNT);
    const ckpt_dtype dtype = catalog_part_dtype(t, (ckpt_part)(part % CKPT_PART_COUNT));

    return ckpt_part_bytes(stored, CKPT_DATA) * 8 / ckpt_dtype_bits(dtype);
}

/* Collect the changes of stored tensors, and sums over all. */
static ckpt_code take_entries(make_job *job, size_t *count, ckpt_error *err)
{
    const delta_model *m = job->from->model;
    const size_t parts = CKPT_PART_COUNT * ckpt_catalog_count(job->from->after->catalog);

    *count = 0;
    job->entries = calloc(ckpt_catalog_count(m->in.stored) + 1, sizeof *job->entries);
    if (job->entries == NULL)
        return ckpt_fail_memory(err, "a list of changes", parts);
    for (size_t i = 0; i < parts; i++) {
        const delta_change *c = &job->changes.changes[i];

        for (int64_t s = m->first[i]; s >= 0; s = m->next[s]) {
            const ckpt_tensor *t = ckpt_catalog_at(m->in.stored, (size_t)s);
            const delta_class tensor = {
                .tensor_count = 1, .changed_count = c->is_changed != 0,
                .bytes = ckpt_part_bytes(t, CKPT_DATA),
                .elements = count_elements(job, i, t),
                .changed_bytes = c->count.byte_count, .changed_elements = c->count.element_count,
                .packed_bytes = c->packed_bytes,
            };

            delta_summary_add(&job->out->summary, delta_class_of(t->name, t->dtype), &tensor);
            if (c->is_changed)
                job->entries[(*count)++] = (delta_entry){
                    t, job->changes.spools[c->spool], c->offset, c->packed_bytes, c->before,
                    c->after_xxh3, c->after, tensor.elements, c->count.byte_count,
                    c->count.element_count };
        }
    }
    return CKPT_OK;
}

/* Note the classes that changed in most of their elements: they were probably quantised by another
 * rule. One note, as all do where two models have nothing in common. */
static ckpt_code note_drift(make_job *job, ckpt_error *err)
{
    const delta_shape *s = job->from->structure;
    delta_class drifted = { .name = NULL };
    char names[256] = "";
    unsigned count = 0;
    unsigned drifted_count = 0;

    if (s != NULL)                 /* all elements of an added tensor count as changed */
        return note_add(&job->out->notes, err,
                        "%s added and %zu removed, counting those that have another "
                        "dtype or shape: only ckpt-delta applies this",
                        text_count(s->added.count, "tensor is", "tensors are").text,
                        s->removed.count);
    for (unsigned i = 0; i < DELTA_CLASSES; i++) {
        const delta_class *c = &job->out->summary.classes[i];
        const size_t used = strlen(names);

        count += c->tensor_count > 0;
        if (c->changed_elements <= c->elements / 2)
            continue;
        snprintf(names + used, sizeof names - used, "%s%s", used == 0 ? "" : ", ", c->name);
        drifted.elements += c->elements;
        drifted.changed_elements += c->changed_elements;
        drifted_count++;
    }
    if (drifted_count == 0)
        return CKPT_OK;
    return note_add(&job->out->notes, err, "more than half of the elements changed in %u of %u "
                    "classes of tensors (%s), %" PRIu64 " of %" PRIu64 ": perhaps another rule of "
                    "quantisation made them", drifted_count, count, names,
                    drifted.changed_elements, drifted.elements);
}

static ckpt_code write_delta(make_job *job, size_t count, const ckpt_run_options *run,
                             ckpt_error *err)
{
    const delta_make_options *o = job->options;
    delta_content content = {
        .version = job->out->version, .base_version = job->base_version,
        .container = o->container, .encoding = o->diff.encoding, .checksum = o->diff.checksum,
        .file_bytes_max = o->file_bytes_max, .entries = job->entries, .count = count,
        .run = run, .with_side = 1, .quantised_by = o->layout.words.quantise,
        .base = job->out->before, .result = job->out->after,
        .total_count = job->out->summary.total.tensor_count,
        .total_bytes = job->out->summary.total.bytes,
        .element_count = job->out->summary.total.elements,
        .carried = job->carried.files, .carried_count = job->carried.count,
        .structure = job->from->structure,
    };

    return delta_write(output_directory(job->output), &content, err);
}

/* Compare the roots with those that the deltas tell, whose tensors fit. If one of them is right, so
 * are all other tensors, and the delta that tells the other is damaged. */
static ckpt_code check_told(const delta_makings *from, delta_roots *const roots[2], ckpt_error *err)
{
    delta_root_verdict verdicts[2] = { DELTA_ROOT_UNKNOWN, DELTA_ROOT_UNKNOWN };

    for (int i = 0; i < 2; i++)
        if (from->told[i] != NULL)
            verdicts[i] = delta_roots_judge(from->told[i], roots[i]);
    for (int i = 0; i < 2; i++) {
        if (verdicts[i] != DELTA_ROOT_WRONG)
            continue;
        if (verdicts[1 - i] == DELTA_ROOT_RIGHT)
            return ckpt_fail(err, CKPT_E_FORMAT, "the deltas fit '%s', but one of them tells a "
                             "wrong root: expected %s, got %s", from->model->in.path,
                             roots[i]->all, from->told[i]->all);
        return ckpt_fail(err, CKPT_E_DIFFERENT, "'%s' has a tensor that the deltas do not change "
                         "and that is not what they were made from: expected root %s, got %s",
                         from->model->in.path, from->told[i]->all, roots[i]->all);
    }
    return CKPT_OK;
}

/* Find the roots of both: computed by the pass over the tensors, else by one more pass for each. */
static ckpt_code take_roots(make_job *job, const ckpt_run_options *run, ckpt_error *err)
{
    const delta_makings *from = job->from;
    delta_target *const *inputs = from->inputs;
    const ckpt_digest *digests[] = { from->before_digest, from->after_digest };
    delta_roots *roots[] = { &job->out->before, &job->out->after };
    ckpt_code code = CKPT_OK;

    for (int i = 0; i < 2 && code == CKPT_OK; i++) {
        if (from->roots_are_told) {
            *roots[i] = *from->told[i];
        } else if (digests[i] != NULL) {
            code = delta_digest_roots(digests[i], roots[i], err);
        } else if (inputs[i] != NULL) {
            const delta_model all = { .in = inputs[i]->in, .is_stored = 1 };

            code = delta_model_roots(&all, run, roots[i], err);
        }
        if (code == CKPT_OK && inputs[i] != NULL)
            code = delta_target_check_root(inputs[i], roots[i]->all, &job->out->notes, err);
    }
    if (code == CKPT_OK)
        code = check_told(from, roots, err);
    if (code == CKPT_OK && job->out->after.all[0] == '\0')
        code = note_add(&job->out->notes, err, "the values have no digest: the delta has no roots");
    return code;
}

static ckpt_code check_inputs(const delta_makings *from, ckpt_error *err)
{
    delta_target *const *inputs = from->inputs;
    ckpt_code code = CKPT_OK;
    int is_touched = 0;

    for (int i = 0; i < 2 && code == CKPT_OK; i++)
        if (inputs[i] != NULL)
            code = store_check_unchanged(inputs[i]->source->store, &is_touched, err);
    return code;
}

/* 1 if small reads cost no more than large ones: a packed checkpoint is decoded by chunks, a plan
 * and the views of a chain work on whole tiles. */
static int is_as_stored(const delta_target *input)
{
    return input != NULL && input->plan == NULL &&
           packed_bytes(input->checkpoint->place.folder) == 0;
}

static ckpt_code run_job(make_job *job, ckpt_error *err)
{
    const delta_makings *from = job->from;
    const char *directory = output_directory(job->output);
    const delta_pair pair = { from->model, from->before, from->after, directory,
                              is_as_stored(from->inputs[0]) && is_as_stored(from->inputs[1]),
                              from->inputs[0] != NULL && from->inputs[1] != NULL };
    ckpt_run_options run = job->options->run;
    size_t count;
    ckpt_code code;

    run.fixed_bytes += from->fixed_bytes;
    run.thread_count = (unsigned)size_max(1, copy_thread_count(
        &run, from->thread_bytes + DELTA_DIFF_THREAD_BYTES));
    run.fixed_bytes += run.thread_count * (from->thread_bytes + DELTA_DIFF_THREAD_BYTES);
    if ((code = delta_diff(&pair, &job->options->diff, &run, &job->changes, err)) != CKPT_OK ||
        (code = take_roots(job, &run, err)) != CKPT_OK ||
        (code = take_entries(job, &count, err)) != CKPT_OK ||
        (from->inputs[1] != NULL &&
         (code = delta_target_loss(from->inputs[1], &job->out->is_rounded, &job->out->loss,
                                   err)) != CKPT_OK) ||
        (code = note_drift(job, err)) != CKPT_OK || (code = check_inputs(from, err)) != CKPT_OK)
        return code;
    if ((code = from->carry(from->carry_context, directory, &job->carried, err)) != CKPT_OK)
        return code;
    job->out->carried_count = job->carried.count;
    if (from->structure != NULL &&
        (code = delta_structure_write(from->structure, directory, err)) != CKPT_OK)
        return code;
    if ((code = write_delta(job, count, &run, err)) == CKPT_OK && job->options->send_to != NULL)
        code = delta_stream_send(directory, *job->options->send_to, err);
    return code;
}

/* A dry run only looks at the place. */
static ckpt_code begin_output(make_job *job, file_list *names, ckpt_error *err)
{
    const delta_make_options *o = job->options;
    const uint64_t numbers[] = { o->diff.encoding, o->diff.checksum, (uint64_t)o->diff.level,
                                 o->file_bytes_max, o->container };
    output_options options = { .path = o->target, .fingerprint = job->from->fingerprint,
                               .restart = o->restart, .files = names,
                               .overwrite = OUTPUT_NEVER_REPLACES };
    ckpt_code code = file_list_add(names, DELTA_SIDE_FILE, err);

    hash128_mix(&options.fingerprint, numbers, sizeof numbers);
    hash128_mix(&options.fingerprint, job->out->version, strlen(job->out->version));
    if (code == CKPT_OK && o->container == DELTA_FOR_SKYRL)
        code = file_list_add(names, DELTA_SKYRL_FILE, err);
    for (size_t i = 0; i < job->from->names->count && code == CKPT_OK; i++)
        code = file_list_add(names, job->from->names->names[i], err);
    if (code == CKPT_OK && job->from->structure != NULL)
        code = delta_structure_names(job->from->structure, names, err);
    if (code == CKPT_OK)
        code = o->dry_run ? output_check_begin(&options, err)
                          : output_begin(&options, &job->output, err);
    return code;
}

/* The plain form has no word for added and removed tensors, and its readers do not know ours. */
static ckpt_code check_structure(const delta_makings *from, const delta_make_options *o,
                                 ckpt_error *err)
{
    if (from->structure == NULL ||
        (o->container == DELTA_FOR_SLIME && o->diff.encoding == DELTA_XOR))
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE, "a delta that adds or removes tensors has the format slime "
                     "and the encoding xor only");
}

/* Nothing in the partial output can be used by a later run. */
static ckpt_code end_output(make_job *job, ckpt_code code, ckpt_error *err)
{
    ckpt_output *output = job->output;

    job->output = NULL;
    if (output == NULL)
        return code;
    if (code == CKPT_OK && !job->options->discard)
        return output_commit(output, err);
    if (code == CKPT_OK)
        return output_discard(output, err);
    output_discard(output, NULL);
    return code;
}

/* What a dry run knows: how many tensors there are. */
static void count_tensors(const delta_makings *from, delta_made *out)
{
    const ckpt_catalog *stored = from->model->in.stored;

    for (size_t i = 0; i < ckpt_catalog_count(stored); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(stored, i);
        const delta_class tensor = { .tensor_count = 1, .bytes = ckpt_part_bytes(t, CKPT_DATA) };

        delta_summary_add(&out->summary, delta_class_of(t->name, t->dtype), &tensor);
    }
}

ckpt_code delta_make_from(const delta_makings *from, const delta_make_options *options,
                          delta_made *out, ckpt_error *err)
{
    make_job job = { .from = from, .options = options, .out = out };
    const uint64_t version = choose_version(options);
    file_list names = { NULL, 0 };
    ckpt_code code;

    snprintf(out->version, sizeof out->version, "%06" PRIu64, version);
    if (from->base_version != NULL)
        snprintf(job.base_version, sizeof job.base_version, "%s", from->base_version);
    else
        snprintf(job.base_version, sizeof job.base_version, "%06" PRIu64, version - 1);
    if ((code = check_structure(from, options, err)) != CKPT_OK)
        return code;
    code = begin_output(&job, &names, err);
    if (code == CKPT_OK && options->dry_run)
        count_tensors(from, out);
    else if (code == CKPT_OK)
        code = run_job(&job, err);
    delta_changes_release(&job.changes);
    code = end_output(&job, code, err);
    delta_carried_release(&job.carried);
    file_list_free(&names);
    free(job.entries);
    return code;
}

void delta_made_release(delta_made *made)
{
    file_list_free(&made->notes);
}

/* ---- two checkpoints ---- */

typedef struct {
    delta_target before;
    delta_target after;
    delta_model before_model;
    delta_model after_model;
    file_list names;
    int has_shape;                  /* `before` lacks tensors, or has more, or others */
    delta_shape shape;              /* then: that of `after`, and `before` in it */
    ckpt_checkpoint *shaped;
} make_inputs;

static ckpt_code carry_inputs(void *context, const char *directory, delta_carried *out,
                              ckpt_error *err)
{
    const make_inputs *in = context;

    return delta_carry(&in->before, &in->after, directory, out, err);
}

/* 1 when stored names, dtypes and shapes are equal. */
static int have_same_tensors(const ckpt_checkpoint *a, const ckpt_checkpoint *b)
{
    const ckpt_catalog *left = a->store->catalog;
    const ckpt_catalog *right = b->store->catalog;

    for (size_t i = 0; i < ckpt_catalog_count(left); i++)
        if (catalog_find_same(right, ckpt_catalog_at(left, i)) < 0)
            return 0;
    return ckpt_catalog_count(left) == ckpt_catalog_count(right);
}

static int is_hf(const delta_target *t)
{
    return t->checkpoint != NULL && (t->checkpoint->format == &format_hf ||
                                     t->checkpoint->format == &format_safetensors_file);
}

/* Report a tensor that only one of two Hugging Face directories has, or whose dtype or shape
 * differs: the delta format cannot express that. */
static ckpt_code fail_structure(const delta_target *a, const delta_target *b, ckpt_error *err)
{
    const delta_target *sides[] = { a, b };

    for (int i = 0; i < 2; i++) {
        const ckpt_catalog *have = sides[i]->in.stored;
        const ckpt_catalog *other = sides[1 - i]->in.stored;

        for (size_t n = 0; n < ckpt_catalog_count(have); n++)
            if (ckpt_catalog_find(other, ckpt_catalog_at(have, n)->name) < 0)
                return ckpt_fail(err, CKPT_E_USAGE, "tensor '%s' is in '%s' and not in '%s': a "
                                 "delta that other programs read cannot %s a tensor "
                                 "(--structural writes one of ckpt's own)",
                                 ckpt_catalog_at(have, n)->name, sides[i]->in.path,
                                 sides[1 - i]->in.path, i == 0 ? "remove" : "add");
    }
    return CKPT_OK;
}

static int is_quantised(const ckpt_checkpoint *c)
{
    const ckpt_catalog *logical = c->logical->catalog;

    for (size_t i = 0; i < ckpt_catalog_count(logical); i++)
        if (ckpt_catalog_at(logical, i)->scale_dtype != CKPT_NONE)
            return 1;
    return 0;
}

/* With rules the new checkpoint is quantised by them, and the old one, too, unless it is quantised
 * already: then it is read as it is, and blocks that did not change keep its bytes. */
static ckpt_code open_quantised(const delta_make_options *o, delta_layout *layout, make_inputs *in,
                                ckpt_error *err)
{
    delta_layout old = *layout;
    ckpt_code code;

    if ((code = delta_target_open(o->before, &o->open, &in->before, err)) != CKPT_OK)
        return code;
    if (is_quantised(in->before.checkpoint)) {
        old.words.quantise = old.words.max_relf = old.words.nonfinite = NULL;
        old.words.input_scale = NULL;
        old.quantise = (quantise_policy){ .only = NULL };
        old.sticky_scale = old.quantise_f32 = 0;
        if (layout->like == NULL && is_hf(&in->before))
            layout->like = o->before;
    }
    if (old.words.quantise == NULL && is_hf(&in->before) && !delta_layout_is_given(&old))
        return delta_target_plan(o->after, layout, &o->open, &in->after, err);
    delta_target_release(&in->before);
    in->before = (delta_target){ .checkpoint = NULL };
    if ((code = delta_target_plan(o->before, &old, &o->open, &in->before, err)) != CKPT_OK)
        return code;
    return delta_target_plan(o->after, layout, &o->open, &in->after, err);
}

/* Open OLD with the files and tensors of NEW. */
static ckpt_code open_shaped(const delta_make_options *o, make_inputs *in, ckpt_error *err)
{
    const ckpt_checkpoint *before = in->before.checkpoint;
    const ckpt_checkpoint *after = in->after.checkpoint;
    ckpt_code code;

    if (before->format != &format_hf || after->format != &format_hf)
        return ckpt_fail(err, CKPT_E_USAGE, "--structural: expected two Hugging Face directories, "
                         "'%s' is a single file",
                         before->format != &format_hf ? o->before : o->after);
    if ((code = delta_shape_take(&in->shape, after, err)) != CKPT_OK)
        return code;
    delta_structure_compare(&in->shape, before);
    return delta_shape_open(&in->shape, before, &o->open, &in->shaped, err);
}

/* Use the stored tensors if both inputs have the same ones; else plan both in one target layout. */
static ckpt_code open_inputs(const delta_make_options *o, make_inputs *in, ckpt_error *err)
{
    delta_layout layout = o->layout;
    ckpt_code code;

    layout.target = o->target;
    if (layout.words.quantise != NULL)
        return open_quantised(o, &layout, in, err);
    if (!delta_layout_is_given(&layout)) {
        if ((code = delta_target_open(o->before, &o->open, &in->before, err)) != CKPT_OK ||
            (code = delta_target_open(o->after, &o->open, &in->after, err)) != CKPT_OK)
            return code;
        in->has_shape = o->structural && is_hf(&in->before) && is_hf(&in->after) &&
                        !have_same_tensors(in->before.checkpoint, in->after.checkpoint);
        if (is_hf(&in->before) && is_hf(&in->after) && !in->has_shape &&
            (have_same_tensors(in->before.checkpoint, in->after.checkpoint) ||
             (code = fail_structure(&in->before, &in->after, err)) != CKPT_OK))
            return code;
        if (in->has_shape)
            return open_shaped(o, in, err);
        delta_target_release(&in->after);
        in->after = (delta_target){ .checkpoint = NULL };
        if (is_hf(&in->before)) {
            layout.like = o->before;
            return delta_target_plan(o->after, &layout, &o->open, &in->after, err);
        }
        delta_target_release(&in->before);
        in->before = (delta_target){ .checkpoint = NULL };
    }
    if ((code = delta_target_plan(o->before, &layout, &o->open, &in->before, err)) != CKPT_OK)
        return code;
    return delta_target_plan(o->after, &layout, &o->open, &in->after, err);
}

static ckpt_code open_models(make_inputs *in, ckpt_error *err)
{
    const delta_input before = in->has_shape ? delta_input_of(in->shaped) : in->before.in;
    const int is_stored =
        delta_input_needs_stored(&before) || delta_input_needs_stored(&in->after.in);
    ckpt_code code;

    if (is_stored && (before.stored_source == NULL || in->after.in.stored_source == NULL))
        return ckpt_fail(err, CKPT_E_USAGE, "the target layout packs several tensors into one, "
                         "which a delta cannot be streamed over: convert both first, or choose "
                         "other --names");
    if ((code = delta_model_open(&before, is_stored, NULL, &in->before_model, err)) != CKPT_OK)
        return code;
    return delta_model_open(&in->after.in, is_stored, &in->before_model, &in->after_model, err);
}

/* A base that is planned is another folder than the old checkpoint's. */
static ckpt_code check_names(const make_inputs *in, ckpt_error *err)
{
    if (in->before.plan != NULL)
        return CKPT_OK;
    return delta_names_check_lists(in->after.in.path, &in->after.source->extras,
                                   in->before.in.path, &in->before.source->extras, err);
}

static hash128 inputs_fingerprint(const make_inputs *in)
{
    hash128 sum = { 0, 0 };

    hash128_mix(&sum, "delta diff " CKPT_VERSION, sizeof "delta diff " CKPT_VERSION);
    store_mix_files(in->before.source->store, &sum);
    checkpoint_mix_beside(in->before.source, &sum);
    store_mix_files(in->after.source->store, &sum);
    checkpoint_mix_beside(in->after.source, &sum);
    return sum;
}

static ckpt_code make_with(const delta_make_options *o, make_inputs *in, delta_made *out,
                           ckpt_error *err)
{
    delta_makings from = { .inputs = { &in->before, &in->after }, .carry = carry_inputs,
                           .carry_context = in, .names = &in->names };
    ckpt_code code;

    if ((code = output_check(o->target, "hf", OUTPUT_NEVER_REPLACES, err)) != CKPT_OK ||
        (code = open_inputs(o, in, err)) != CKPT_OK ||
        (code = output_check_apart(o->target, o->before, err)) != CKPT_OK ||
        (code = output_check_apart(o->target, o->after, err)) != CKPT_OK ||
        (code = check_names(in, err)) != CKPT_OK || (code = open_models(in, err)) != CKPT_OK ||
        (code = delta_carry_names(&in->after, &in->names, err)) != CKPT_OK)
        return code;
    from.model = &in->before_model;
    from.before = in->before_model.tensors;
    from.after = in->after_model.tensors;
    if (in->has_shape)
        from.structure = &in->shape;     /* the root of `before` takes a pass of its own */
    else
        from.before_digest = in->before_model.digest;
    from.after_digest = in->after_model.digest;
    from.fingerprint = inputs_fingerprint(in);
    from.fixed_bytes = in->before.in.fixed_bytes + in->after.in.fixed_bytes +
                       (in->has_shape ? ckpt_checkpoint_bytes(in->shaped) + in->shape.held_bytes
                                      : 0) +
                       delta_model_bytes(&in->before_model) + delta_model_bytes(&in->after_model);
    return delta_make_from(&from, o, out, err);
}

ckpt_code delta_make(const delta_make_options *options, delta_made *out, ckpt_error *err)
{
    make_inputs in = { .before = { .checkpoint = NULL } };
    ckpt_code code;

    *out = (delta_made){ .carried_count = 0 };
    code = make_with(options, &in, out, err);
    delta_model_release(&in.after_model);
    delta_model_release(&in.before_model);
    ckpt_close(in.shaped);
    delta_shape_release(&in.shape);
    delta_target_release(&in.after);
    delta_target_release(&in.before);
    file_list_free(&in.names);
    return code;
}
