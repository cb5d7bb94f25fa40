/* Writes the result: DST.partial, the planned files, and the files beside the weights. */
#include "convert_output.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "config_rewrite.h"
#include "formats/config_scheme.h"
#include "formats/hf.h"
#include "libckpt/size.h"

const char *job_output_directory(const job_output *output)
{
    return output_directory(output->partial);
}

/* ---- the beginning ---- */

/* Put the planned files into `directory`. */
static ckpt_code move_store(ckpt_store *store, const char *directory, ckpt_error *err)
{
    char *copy = strdup(directory);

    if (copy == NULL)
        return ckpt_fail_memory(err, "a path", strlen(directory));
    free(store->directory);
    store->directory = copy;
    return CKPT_OK;
}

/* The modification times of all inputs. */
static uint64_t source_times(const job_plan *plan)
{
    const ckpt_checkpoint *inputs[] = { plan->source, plan->fill };
    uint64_t sum = 1;

    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++)
        for (size_t f = 0; inputs[i] != NULL && f < inputs[i]->store->file_count; f++) {
            const uint64_t time = file_identity_of(inputs[i]->store->files[f].file)->touch;

            sum = kernels_get()->hash_bytes(&time, sizeof time, sum).low64;
        }
    return sum;
}

/* Report that DST has its name, so the source may be deleted. `context` is the job_output. */
static ckpt_code tell_named(void *context, ckpt_error *err)
{
    const convert_options *o = &((const job_output *)context)->plan->options;

    return o->feed->named(o->feed, o->target, err);
}

/* `files` are borrowed. */
static output_options make_options(job_output *output, const file_list *files)
{
    const job_plan *plan = output->plan;
    const convert_options *o = &plan->options;

    return (output_options){
        .path = o->target,
        .layout = o->format->name,
        .overwrite = o->overwrite,
        .fingerprint = plan->fingerprint,
        .tensor_count = ckpt_catalog_count(plan->targets),
        .share = o->share,
        .share_count = o->share_count,
        .restart = o->restart,
        .keep_others = o->feed != NULL, /* the source of its data may have been deleted */
        .files = files,
        .named = o->feed == NULL ? NULL : tell_named,
        .named_context = output,
        .source_times = source_times(plan),
        .run = &o->copy,
        .sync_bytes = plan->out_bytes,
    };
}

ckpt_code job_output_check_begin(job_output *output, ckpt_error *err)
{
    const output_options options = make_options(output, NULL);

    return output_check_begin(&options, err);
}

ckpt_code job_output_begin(job_output *output, ckpt_error *err)
{
    const job_plan *plan = output->plan;
    file_list files = { NULL, 0 };
    const output_options options = make_options(output, &files);
    ckpt_code code;

    if ((code = convert_name_files(plan, &files, err)) == CKPT_OK)
        code = output_begin(&options, &output->partial, err);
    file_list_free(&files);
    if (code != CKPT_OK)
        return code;
    if ((code = move_store(plan->store, job_output_directory(output), err)) != CKPT_OK)
        return code;
    return output_make_files(plan->store, err);
}

ckpt_code job_output_begin_spill(job_output *output, ckpt_error *err)
{
    const job_plan *plan = output->plan;
    const side_data_options side = {
        .directory = job_output_directory(output),
        .catalog = plan->targets,
        .share = plan->options.share,
        .share_count = plan->options.share_count,
        .synced_bytes = journal_side_bytes(output_journal(output->partial)),
    };

    return plan->writes_side_data ? side_data_begin(&side, &output->spill, err) : CKPT_OK;
}

ckpt_code job_output_sync_spill(void *context, ckpt_error *err)
{
    const job_output *output = context;
    uint64_t synced_bytes;
    const ckpt_code code = side_data_sync(output->spill, &synced_bytes, err);

    return code == CKPT_OK
               ? journal_append_side(output_journal(output->partial), synced_bytes, err)
               : code;
}

/* ---- bytes around the tensors' data ---- */

ckpt_code job_output_seal(const job_output *output, const uint8_t *tensors, ckpt_error *err)
{
    const job_plan *plan = output->plan;
    uint8_t *owned;
    ckpt_code code;

    if (plan->options.format->seal == NULL)
        return CKPT_OK;
    owned = calloc(ckpt_catalog_count(plan->store->catalog) + 1, 1);
    if (owned == NULL)
        return ckpt_fail_memory(err, "a share", ckpt_catalog_count(plan->store->catalog));
    for (size_t i = 0; i < plan->layout->count; i++)
        owned[plan->layout->extents[i].stored] |=
            tensors == NULL || tensors[plan->layout->extents[i].logical];
    code = plan->options.format->seal(plan->store, owned, err);
    free(owned);
    return code;
}

/* ---- the other files ---- */

/* Small files whose text is in the plan; NULL: it is not written. */
typedef struct {
    const char *name;
    const char *text;
} planned_text;

enum { PLANNED_TEXTS = 3 };

static void list_texts(const job_plan *plan, planned_text out[PLANNED_TEXTS])
{
    out[0] = (planned_text){ "config.json", plan->config_text };
    out[1] = (planned_text){ CONFIG_INFERENCE_FILE, plan->inference_text };
    out[2] = (planned_text){ CONFIG_MODELOPT_FILE, plan->modelopt_text };
}

static int has_text(const char *directory, const planned_text *planned)
{
    char *path = file_join(directory, planned->name);
    char *text = NULL;
    size_t size = 0;
    int same;

    same = path != NULL &&
           file_read_all(path, strlen(planned->text), &text, &size, NULL) == CKPT_OK &&
           size == strlen(planned->text) && memcmp(text, planned->text, size) == 0;
    free(text);
    free(path);
    return same;
}

static int has_same_bytes(const ckpt_file *a, const ckpt_file *b)
{
    enum { PIECE_BYTES = 1 << 16 };
    const uint64_t size = file_size(a);
    char *pieces = malloc(2 * PIECE_BYTES);
    int same = pieces != NULL && file_size(b) == size;

    for (uint64_t at = 0; same && at < size; at += PIECE_BYTES) {
        const size_t count = (size_t)size_min(PIECE_BYTES, size - at);

        same = file_read_at(a, at, pieces, count, NULL) == CKPT_OK &&
               file_read_at(b, at, pieces + PIECE_BYTES, count, NULL) == CKPT_OK &&
               memcmp(pieces, pieces + PIECE_BYTES, count) == 0;
    }
    free(pieces);
    return same;
}

/* Is a carried file there? Its bytes are those of the source, unless carry_file rewrites it. */
static int has_carried(const job_plan *plan, const char *name)
{
    char *path = file_join(plan->store->directory, name);
    ckpt_file *to = NULL;
    ckpt_file *from = NULL;
    int same = path != NULL && file_open(path, &to, NULL) == CKPT_OK;

    if (same && (strcmp(name, CONFIG_INFERENCE_FILE) != 0 || plan->like != NULL))
        same = folder_open_file(plan->source->place.folder, name, &from, NULL) == CKPT_OK &&
               has_same_bytes(from, to);
    file_close(from, NULL);
    file_close(to, NULL);
    free(path);
    return same;
}

int job_output_has_others(const job_plan *plan)
{
    const file_list *extras = &plan->source->extras;
    planned_text texts[PLANNED_TEXTS];
    int same = 1;

    list_texts(plan, texts);
    for (size_t i = 0; i < PLANNED_TEXTS && same; i++)
        same = texts[i].text == NULL || has_text(plan->store->directory, &texts[i]);
    for (size_t i = 0; i < extras->count && same; i++)
        same = !convert_carries(plan, extras->names[i]) || has_carried(plan, extras->names[i]);
    return same;
}

int job_output_has_index(const job_plan *plan)
{
    const format_target target = job_plan_target(plan);

    if (plan->like != NULL)
        return plan->like->has_index;
    return plan->options.format == &format_hf && hf_has_index(plan->store, &target);
}

static ckpt_code write_text(job_output *output, const char *name, const char *text,
                            ckpt_error *err)
{
    char *path = file_join(job_output_directory(output), name);
    ckpt_code code;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    if ((code = file_make_parents(path, err)) == CKPT_OK &&
        (code = file_write_all(path, text, strlen(text), err)) == CKPT_OK)
        code = file_list_add(&output->others, name, err);
    free(path);
    return code;
}

static ckpt_code rewrite_inference(const job_plan *plan, const char *name, const char *to,
                                   ckpt_error *err)
{
    folder_text text;
    char *edited = NULL;
    ckpt_code code;

    code = folder_read_all(plan->source->place.folder, name, CONFIG_BYTES_MAX, &text, err);
    if (code == CKPT_OK &&
        (code = config_rewrite_inference(text.bytes, plan->targets, &edited, err)) == CKPT_OK)
        code = file_write_all(to, edited, strlen(edited), err);
    folder_text_release(&text);
    free(edited);
    return code;
}

static ckpt_code carry_file(job_output *output, const char *name, ckpt_error *err)
{
    const job_plan *plan = output->plan;
    char *to = file_join(job_output_directory(output), name);
    ckpt_code code;

    if (to == NULL)
        code = ckpt_fail_memory(err, "a path", strlen(name));
    else if ((code = file_make_parents_below(job_output_directory(output), name, err)) == CKPT_OK)
        code = strcmp(name, CONFIG_INFERENCE_FILE) == 0 && plan->like == NULL
                   ? rewrite_inference(plan, name, to, err)
                   : folder_copy(plan->source->place.folder, name, to, err);
    if (code == CKPT_OK)
        code = file_list_add(&output->others, name, err);
    free(to);
    return code;
}

ckpt_code job_output_write_index(const job_output *output, const char *root, ckpt_error *err)
{
    const job_plan *plan = output->plan;
    format_target target = job_plan_target(plan);
    char *to;
    ckpt_code code;

    target.root = root;
    if (plan->like == NULL)
        return plan->options.format->finish(plan->store, &target, err);
    if (!job_output_has_index(plan))
        return CKPT_OK;
    to = file_join(plan->store->directory, HF_INDEX_FILE);
    code = to == NULL ? ckpt_fail_memory(err, "a path", sizeof HF_INDEX_FILE)
                      : folder_copy(plan->like->store->folder, HF_INDEX_FILE, to, err);
    free(to);
    return code;
}

ckpt_code job_output_describe(const job_output *output, const char *directory, ckpt_error *err)
{
    ckpt_store *store = output->plan->store;
    file_list written = { NULL, 0 };
    ckpt_code code;

    if (file_exists(directory))
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' already exists: --describe writes into a new "
                         "folder", directory);
    if ((code = output_check_apart(directory, output->plan->options.source, err)) != CKPT_OK ||
        (code = move_store(store, directory, err)) != CKPT_OK)
        return code;
    for (size_t i = 0; i < store->file_count && code == CKPT_OK; i++) {
        char *path = file_join(directory, store->files[i].name);

        code = path == NULL ? ckpt_fail_memory(err, "a path", strlen(directory))
                            : file_make_parents(path, err);
        free(path);
    }
    if (code == CKPT_OK)
        code = job_output_write_index(output, NULL, err);
    if (code == CKPT_OK && (code = file_list_tree(directory, &written, err)) == CKPT_OK &&
        written.count == 0) {
        code = ckpt_fail(err, CKPT_E_USAGE, "--describe has nothing to write: layout %s has no "
                         "small files here", output->plan->options.format->name);
        rmdir(directory);
    }
    file_list_free(&written);
    return code;
}

ckpt_code job_output_write_others(job_output *output, ckpt_error *err)
{
    const job_plan *plan = output->plan;
    const file_list *extras = &plan->source->extras;
    planned_text texts[PLANNED_TEXTS];
    ckpt_code code = CKPT_OK;

    list_texts(plan, texts);
    for (size_t i = 0; i < PLANNED_TEXTS && code == CKPT_OK; i++)
        if (texts[i].text != NULL)
            code = write_text(output, texts[i].name, texts[i].text, err);
    for (size_t i = 0; i < extras->count && code == CKPT_OK; i++)
        if (convert_carries(plan, extras->names[i]))
            code = carry_file(output, extras->names[i], err);
    if (code == CKPT_OK && convert_carries_side_data(plan))
        code = carry_file(output, SIDE_DATA_FILE, err);
    return code;
}

/* ---- the end ---- */

ckpt_code job_output_commit(job_output *output, ckpt_error *err)
{
    ckpt_output *partial = output->partial;

    output->partial = NULL;
    return output_commit(partial, err);
}

/* Close its files and give up the partial output. */
static ckpt_output *take_partial(job_output *output)
{
    ckpt_output *partial = output->partial;

    output->partial = NULL;
    store_close_files(output->plan->store, NULL);
    return partial;
}

void job_output_discard(job_output *output)
{
    output_discard(take_partial(output), NULL);     /* the refusal is reported, not this error */
}

void job_output_withdraw(job_output *output)
{
    output_withdraw(take_partial(output), NULL);       /* an earlier error is reported */
}

void job_output_close(job_output *output)
{
    side_data_close(output->spill);
    output_close(output->partial);
    file_list_free(&output->others);
}
