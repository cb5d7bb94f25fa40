/* Makes a delta between a base and the result of applying deltas to it. */
#include "delta_rework.h"

#include <stdlib.h>
#include <string.h>

#include "delta_apply.h"
#include "delta_names.h"
#include "delta_structure.h"
#include "delta_views.h"
#include "delta_zeros.h"
#include "formats/hf.h"
#include "libckpt/output.h"
#include "libckpt/pick.h"

/* Back to a base that has other tensors than the result. */
typedef struct {
    delta_shape shape;              /* of the base */
    delta_views result;             /* the chain over stored tensors */
    delta_model base;
    ckpt_source zeros;              /* of the base's tensors */
    ckpt_source *from;              /* the result with the tensors of the base */
} rework_back;

typedef struct {
    const delta_rework_options *options;
    delta_chain chain;
    delta_views views;
    file_list names;
    rework_back back;
} rework_job;

/* ---- other files ---- */

/* The last change of a file in the chain; NULL if delta `d` is not the first to change it. */
static const delta_file *find_last(const delta_chain *chain, size_t d, size_t i,
                                   const ckpt_delta **from)
{
    const delta_file *found = &chain->deltas[d]->files[i];

    *from = chain->deltas[d];
    for (size_t before = 0; before < d; before++)
        for (size_t n = 0; n < chain->deltas[before]->file_count; n++)
            if (strcmp(chain->deltas[before]->files[n].name, found->name) == 0)
                return NULL;
    for (size_t after = d + 1; after < chain->count; after++)
        for (size_t n = 0; n < chain->deltas[after]->file_count; n++)
            if (strcmp(chain->deltas[after]->files[n].name, found->name) == 0) {
                found = &chain->deltas[after]->files[n];
                *from = chain->deltas[after];
            }
    return found;
}

/* Carry a changed file: the content in the last delta, or that in the base for a reverse delta. */
static ckpt_code carry_file(const rework_job *job, const ckpt_delta *from, const delta_file *f,
                            const char *directory, delta_carried *out, ckpt_error *err)
{
    const ckpt_folder *base = delta_views_base(&job->views)->place.folder;
    const int is_back = job->options->is_reverse;
    const delta_content_of content = { NULL, is_back ? base : from->place.folder,
                                       is_back ? f->name : f->carried };

    if (is_back ? !folder_has(base, f->name) : f->carried == NULL)
        return delta_carried_remove(out, f->name, err);
    return delta_carried_put(out, directory, f->name, &content, err);
}

static ckpt_code carry_all(void *context, const char *directory, delta_carried *out,
                           ckpt_error *err)
{
    const rework_job *job = context;
    ckpt_code code = delta_carried_begin(out, job->names.count, err);

    for (size_t d = 0; d < job->chain.count; d++)
        for (size_t i = 0; i < job->chain.deltas[d]->file_count && code == CKPT_OK; i++) {
            const ckpt_delta *from;
            const delta_file *f = find_last(&job->chain, d, i, &from);

            if (f != NULL)
                code = carry_file(job, from, f, directory, out, err);
        }
    return code;
}

static ckpt_code list_names(rework_job *job, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t d = 0; d < job->chain.count; d++)
        for (size_t i = 0; i < job->chain.deltas[d]->file_count && code == CKPT_OK; i++)
            code = delta_carried_name(job->chain.deltas[d]->files[i].name, &job->names, err);
    return code;
}

/* ---- the delta ---- */

static ckpt_code check_apart(const rework_job *job, ckpt_error *err)
{
    const char *target = job->options->make.target;
    ckpt_code code;

    if ((code = output_check(target, NULL, OUTPUT_NEVER_REPLACES, err)) != CKPT_OK)
        return code;
    code = output_check_apart(target, job->chain.base, err);
    for (size_t i = 0; i < job->chain.count && code == CKPT_OK; i++)
        code = output_check_apart(target, job->chain.deltas[i]->path, err);
    return code;
}

/* Prove base and result by a pass of its own: the views over them have the tensors of one side
 * only, or no digests. */
static ckpt_code prove(const rework_job *job, ckpt_error *err)
{
    const delta_rework_options *o = job->options;
    const delta_apply_options apply = {
        .base = o->base, .deltas = o->deltas, .delta_count = o->delta_count, .open = o->make.open,
        .check = job->chain.deltas[0]->base.all[0] == '\0' ? DELTA_CHECK_TOUCHED
                                                           : DELTA_CHECK_FULL,
        .run = o->make.run,
    };
    delta_outcome outcome;
    const ckpt_code code = delta_apply(&apply, &outcome, err);

    delta_outcome_release(&outcome);
    return code;
}

static ckpt_code copy_names(const file_list *from, file_list *to, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < from->count && code == CKPT_OK; i++)
        code = file_list_add(to, from->names[i], err);
    return code;
}

/* Tensors of the base that the result has, too, are read from that; the others are zeros. */
static ckpt_code pick_result(rework_back *b, ckpt_error *err)
{
    const ckpt_catalog *base = b->base.tensors->catalog;
    const ckpt_catalog *result = b->result.result->catalog;
    const size_t count = ckpt_catalog_count(base);
    pick_entry *entries = calloc(count + 1, sizeof *entries);
    ckpt_code code;

    if (entries == NULL)
        return ckpt_fail_memory(err, "a view", count);
    for (size_t i = 0; i < count; i++) {
        const int64_t found = catalog_find_same(result, ckpt_catalog_at(base, i));

        entries[i] = found < 0 ? (pick_entry){ &b->zeros, i }
                               : (pick_entry){ b->result.result, (size_t)found };
    }
    code = source_pick(entries, count, &b->from, err);
    free(entries);
    return code;
}

static ckpt_code open_back(rework_job *job, ckpt_error *err)
{
    rework_back *b = &job->back;
    const delta_input result = delta_input_of(job->views.checkpoint);
    const delta_input base = delta_input_of(job->views.real);
    ckpt_code code;

    if ((code = delta_shape_take(&b->shape, job->views.real, err)) != CKPT_OK ||
        (code = copy_names(&job->views.shape.removed, &b->shape.added, err)) != CKPT_OK ||
        (code = copy_names(&job->views.shape.added, &b->shape.removed, err)) != CKPT_OK ||
        (code = delta_model_open(&result, 1, NULL, &b->result.model, err)) != CKPT_OK ||
        (code = delta_views_stack(&job->chain, b->result.model.tensors,
                                  &(delta_patch_options){ .delta = NULL }, &b->result, err)) !=
            CKPT_OK ||
        (code = delta_model_open(&base, 1, NULL, &b->base, err)) != CKPT_OK)
        return code;
    b->zeros = delta_zeros(b->base.tensors->catalog);
    return pick_result(b, err);
}

static void release_back(rework_back *b)
{
    ckpt_source_free(b->from);
    delta_views_release(&b->result);
    delta_model_release(&b->base);
    delta_shape_release(&b->shape);
}

/* With tensors that only one side has. */
static ckpt_code take_structure(rework_job *job, delta_makings *from, ckpt_error *err)
{
    delta_views *v = &job->views;
    ckpt_code code = job->options->make.dry_run ? CKPT_OK : prove(job, err);

    if (code == CKPT_OK && job->options->is_reverse)
        code = open_back(job, err);
    if (code != CKPT_OK)
        return code;
    from->roots_are_told = 1;
    from->before_digest = from->after_digest = NULL;
    if (!job->options->is_reverse) {
        from->structure = &v->shape;
        delta_structure_compare(&v->shape, v->real);
    } else {
        from->structure = &job->back.shape;
        delta_structure_compare(&job->back.shape, v->checkpoint);
        from->model = &job->back.base;
        from->before = job->back.from;
        from->after = job->back.base.tensors;
    }
    return CKPT_OK;
}

static void turn_round(delta_makings *from, const char *base_version)
{
    const delta_makings to = *from;

    from->before = to.after;
    from->after = to.before;
    from->before_digest = to.after_digest;
    from->after_digest = to.before_digest;
    from->told[0] = to.told[1];
    from->told[1] = to.told[0];
    from->base_version = base_version;
}

static void take_fingerprint(const rework_job *job, hash128 *sum)
{
    const ckpt_checkpoint *base = delta_views_base(&job->views);

    store_mix_files(base->store, sum);
    checkpoint_mix_beside(base, sum);
    for (size_t i = 0; i < job->chain.count; i++)
        delta_mix(job->chain.deltas[i], sum);
    hash128_mix(sum, &job->options->is_reverse, sizeof job->options->is_reverse);
}

static ckpt_code run_job(rework_job *job, delta_made *out, ckpt_error *err)
{
    const delta_patch_options patch = { .delta = NULL };
    const delta_rework_options *o = job->options;
    delta_views *v = &job->views;
    delta_makings from = { .carry = carry_all, .carry_context = job, .names = &job->names,
                           .model = &v->model };
    const ckpt_delta *first;
    const ckpt_delta *last;
    ckpt_code code;

    if ((code = delta_chain_open(o->base, o->deltas, o->delta_count, &job->chain, err)) !=
            CKPT_OK ||
        (code = check_apart(job, err)) != CKPT_OK ||
        (code = delta_views_open(&job->chain, &o->make.open, &patch, v, err)) != CKPT_OK ||
        (code = delta_names_check_base(&job->chain, delta_views_base(v), NULL, err)) != CKPT_OK ||
        (code = list_names(job, err)) != CKPT_OK)
        return code;
    first = job->chain.deltas[0];
    last = job->chain.deltas[job->chain.count - 1];
    /* The patches read the base through its digest; read it a second time without digesting it. */
    from.before = v->model.is_stored ? v->model.in.stored_source : v->model.in.logical;
    from.after = v->result;
    from.before_digest = v->model.digest;
    from.after_digest = v->digest;
    from.told[0] = &first->base;
    from.told[1] = &last->result;
    from.base_version = first->base_version;
    if (o->is_reverse)
        turn_round(&from, last->version);
    if (v->real != NULL && (code = take_structure(job, &from, err)) != CKPT_OK)
        return code;
    take_fingerprint(job, &from.fingerprint);
    from.fixed_bytes = v->model.in.fixed_bytes + delta_model_bytes(&v->model);
    from.thread_bytes = v->patch_count * (uint64_t)DELTA_PATCH_THREAD_BYTES;
    return delta_make_from(&from, &o->make, out, err);
}

ckpt_code delta_rework(const delta_rework_options *options, delta_made *out, ckpt_error *err)
{
    rework_job job = { .options = options };
    ckpt_code code;

    *out = (delta_made){ .carried_count = 0 };
    code = run_job(&job, out, err);
    release_back(&job.back);
    delta_views_release(&job.views);
    delta_chain_release(&job.chain);
    file_list_free(&job.names);
    return code;
}
