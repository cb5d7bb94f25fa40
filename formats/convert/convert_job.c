/* Implements convert.h with the three stages. */
#include <stdlib.h>

#include "convert_private.h"
#include "formats/ids.h"
#include "libckpt/sink.h"

ckpt_code convert_plan(const convert_options *options, convert_job **out, ckpt_error *err)
{
    convert_job *job = calloc(1, sizeof *job);
    job_plan *plan = NULL;
    ckpt_code code;

    if (job == NULL)
        return ckpt_fail_memory(err, "a conversion", sizeof *job);
    if ((code = job_plan_make(options, &plan, err)) != CKPT_OK) {
        free(job);
        return code;
    }
    job->plan = plan;
    job->output.plan = plan;
    *out = job;
    return CKPT_OK;
}

void convert_free(convert_job *job)
{
    if (job == NULL)
        return;
    job_output_close(&job->output);
    job_result_release(&job->result);
    job_plan_free((job_plan *)job->plan);      /* no longer used by anyone else */
    free(job);
}

/* ---- the plan ---- */

void convert_summarise(const convert_job *job, convert_summary *out)
{
    const job_plan *plan = job->plan;

    *out = (convert_summary){
        .from = plan->picked->catalog,
        .to = plan->targets,
        .rules = plan->rules,
        .in_bytes = plan->in_bytes,
        .out_bytes = plan->out_bytes,
        .fixed_bytes = plan->fixed_bytes,
        .tile_bytes = plan->tile_bytes,
        .key_count = ckpt_catalog_count(store_names(plan->store)),
        .piece_count = ckpt_catalog_count(plan->store->catalog),
        .is_cut = plan->store->keys != NULL,
        .file_count = plan->store->file_count,
        .notes = (const char *const *)plan->notes.names,
        .note_count = plan->notes.count,
        .may_be_there = job->may_be_there,
    };
    out->is_room_known = convert_find_planned_room(plan, &out->room, NULL) == CKPT_OK;
}

const char *convert_file(const convert_job *job, size_t i, uint64_t *size_bytes)
{
    const store_file *f = &job->plan->store->files[i];

    *size_bytes = f->size_bytes;
    return f->name;
}

ckpt_code convert_list_files(const convert_job *job, file_list *out, ckpt_error *err)
{
    return convert_name_files(job->plan, out, err);
}

/* Reads the integers that get a smaller dtype. */
typedef struct {
    ckpt_sink base;
    const job_plan *plan;
} narrow_sink;

static int narrow_wants(const ckpt_sink *self, size_t tensor)
{
    const job_plan *plan = ((const narrow_sink *)self)->plan;
    const ckpt_tensor *from = ckpt_catalog_at(plan->picked->catalog, tensor);
    const ckpt_tensor *to = ckpt_catalog_at(plan->targets, tensor);

    return ckpt_tensor_is_int(from) && ckpt_dtype_bits(to->dtype) < ckpt_dtype_bits(from->dtype);
}

/* They are few, as tables of expert ids are. */
static ckpt_code check_narrowed(const job_plan *plan, ckpt_error *err)
{
    static const sink_ops ops = { narrow_wants, sink_put_nothing, NULL, NULL };
    narrow_sink sink = { { &ops }, plan };
    const encode_options options = pipeline_encode_options(plan);
    ckpt_run_options run = pipeline_run_options(plan);
    ckpt_source *encoded = NULL;
    size_t i = 0;
    ckpt_code code;

    while (i < ckpt_catalog_count(plan->targets) && !narrow_wants(&sink.base, i))
        i++;
    if (i == ckpt_catalog_count(plan->targets))
        return CKPT_OK;
    run.progress = NULL;
    if ((code = source_encode(plan->picked, plan->targets, &options, &encoded, err)) == CKPT_OK)
        code = ckpt_copy(encoded, &sink.base, &run, err);
    ckpt_source_free(encoded);
    return code;
}

ckpt_code convert_check_ids(const job_plan *plan, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if (plan->options.feed != NULL)
        return CKPT_OK;
    if (plan->options.format->checks_ids)
        code = checkpoint_check_ids(plan->source, err);
    return code == CKPT_OK ? check_narrowed(plan, err) : code;
}

ckpt_code convert_check_run(convert_job *job, ckpt_error *err)
{
    const job_plan *plan = job->plan;
    ckpt_code code = convert_check_ids(plan, err);

    if (code == CKPT_OK && plan->share != NULL && file_is_directory(plan->options.target))
        code = convert_may_be_result(plan, &job->may_be_there, err);
    return code == CKPT_OK && !job->may_be_there ? job_output_check_begin(&job->output, err) : code;
}

ckpt_code convert_check_space(const convert_job *job, ckpt_error *err)
{
    const convert_options *o = &job->plan->options;
    convert_room room;
    ckpt_code code;

    if (o->feed != NULL || o->no_space_check ||
        (code = convert_find_planned_room(job->plan, &room, err)) != CKPT_OK)
        return o->feed != NULL || o->no_space_check ? CKPT_OK : code;
    return convert_require_room(&room, o->target, "", err);
}

ckpt_code convert_describe(convert_job *job, const char *directory, ckpt_error *err)
{
    return job_output_describe(&job->output, directory, err);
}

/* ---- after the run ---- */

convert_state convert_state_of(const convert_job *job)
{
    return job->result.is_there     ? CONVERT_THERE
           : job->result.is_waiting ? CONVERT_WAITING
                                    : CONVERT_WRITTEN;
}

const char *convert_directory(const convert_job *job)
{
    return job_output_directory(&job->output);
}

ckpt_code convert_outcome(convert_job *job, ckpt_outcome *out, ckpt_error *err)
{
    return job_result_tell(&job->result, job->plan, &job->output.others, out, err);
}

ckpt_code convert_commit(convert_job *job, ckpt_error *err)
{
    return job_output_commit(&job->output, err);
}
