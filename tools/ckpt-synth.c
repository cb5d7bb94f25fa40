/* ckpt-synth: writes an official-layout checkpoint with synthetic values. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "option_words.h"
#include "formats/convert/convert_plan.h"
#include "formats/given_config.h"
#include "formats/hf.h"
#include "formats/maps.h"
#include "libckpt/config_number.h"
#include "libckpt/config_words.h"
#include "libckpt/output.h"
#include "libckpt/synth.h"
#include "libckpt/text.h"

static struct {
    cli_common common;
    const char *config;
    const char *last_arg;
    uint64_t layers;
    uint64_t seed;
    int sparse;
    int overwrite;
    int restart;
    int no_space_check;
} opt = { .common = CLI_COMMON_DEFAULTS, .layers = UINT64_MAX, .seed = 1 };

static const cli_option options[] = {
    { CLI_STRING, "config", "FILE|NAME", &opt.config,
      "a config.json, or a built-in one (required): flash, pro and tiny of DeepSeek-V4; "
      "v41-flash, v3, v3.2, kimi-k2; kimi-int4, a small one with INT4 experts" },
    CLI_LAST_ARG(opt.last_arg),
    { CLI_COUNT, "layers", "N", &opt.layers,
      "write only the first N layers and the MTP blocks (default: all)" },
    { CLI_U64, "seed", "S", &opt.seed, "random seed of the values (default 1)" },
    { CLI_FLAG, "sparse", NULL, &opt.sparse,
      "write real headers but sparse data: every value is zero, no disk space is used" },
    { CLI_FLAG, "overwrite", NULL, &opt.overwrite,
      "replace DST if it contains nothing but a checkpoint, and the leftovers of an unfinished "
      "run" },
    { CLI_FLAG, "restart", NULL, &opt.restart,
      "discard an unfinished run with other options instead of refusing" },
    { CLI_FLAG, "no-space-check", NULL, &opt.no_space_check,
      "start even if the disk is too small" },
    CLI_COMMON(opt.common),
    CLI_OPTIONS_END,
};

static const cli_rule rules[] = {
    { "sparse", NULL, "seed|no-space-check" },          /* every value is zero */
    { NULL, NULL, NULL }
};

static const cli_words words[] = { { "config", word_of_config }, { NULL, NULL } };

static const cli_topic known_files[] = {
    { "DST.partial", "An unfinished output. The same command resumes it, --restart discards it." },
    { NULL, NULL }
};

static const cli_command command = {
    .name = "ckpt-synth",
    .summary = "write an official-layout checkpoint with synthetic values",
    .usage = "[OPTIONS] --config CONFIG DST",
    .description =
        "Writes a checkpoint of a known model family (DeepSeek-V4, V4.1, V3, V3.2, Kimi-K2, GLM-5, "
        "GLM-4.5, Qwen3, Qwen3-MoE, Llama) with the names, dtypes, shapes and files of releases, "
        "for tests, benchmarks and full-scale dry runs. Codes and scales are distributed like "
        "those of real weights. The bytes depend only on the config and the seed.",
    .examples = "ckpt-synth --config tiny small\n"
                "ckpt-synth --config flash --layers 4 slice\n"
                "ckpt-synth --config pro --sparse pro",
    .options = options,
    .rules = rules,
    .arg_min = 1,
    .arg_max = 1,
    .surplus = "one DST at a time; the config is given with --config",
    .last_arg = &opt.last_arg,
    .words = words,
    .files = known_files,
    .see_also = "ckpt-inspect(1)",
};

typedef struct {
    char *text;                /* config.json */
    json_document *config;
    ckpt_family *family;
    ckpt_catalog *logical;
    ckpt_map *map;
    ckpt_store *store;
    ckpt_layout *layout;
    ckpt_output *output;
    uint64_t expert_count;
    ckpt_source *values;
} synth_job;

/* ---- the config ---- */

/* Read the config that --config names. Refuses a DST that would replace it. */
static ckpt_code read_config(synth_job *job, const char *path, ckpt_error *err)
{
    size_t size = 0;
    ckpt_code code = CKPT_OK;

    if (opt.config == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--config is missing: expected FILE, flash, pro, "
                         "tiny, v41-flash, v3, v3.2, kimi-k2 or kimi-int4");
    if (!given_config_is_builtin(opt.config))
        code = output_check_apart(path, opt.config, err);
    if (code == CKPT_OK)
        code = given_config_read(opt.config, &job->text, &size, err);
    if (code != CKPT_OK ||
        (code = json_parse(job->text, size, opt.config, &job->config, err)) != CKPT_OK)
        return code;
    return json_is_object(json_root(job->config))
               ? CKPT_OK
               : ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not an object", opt.config);
}

static ckpt_code edit(synth_job *job, const char *key, const char *value, ckpt_error *err)
{
    char *edited;
    const ckpt_code code = json_edit(job->text, key, value, &edited, err);

    if (code != CKPT_OK)
        return code;
    free(job->text);
    job->text = edited;
    return CKPT_OK;
}

/* Shorten compress_ratios to N layers: keep the first N entries and those after the last layer. */
static ckpt_code cut_ratios(synth_job *job, uint64_t layers, ckpt_error *err)
{
    const json_value *list = json_member(json_root(job->config), "compress_ratios");
    ckpt_code code;
    char *text = NULL;
    size_t text_bytes = 0;
    uint64_t i = 0;
    FILE *stream;

    if (!json_is_array(list))
        return CKPT_OK;
    if ((stream = open_memstream(&text, &text_bytes)) == NULL)
        return ckpt_fail_memory(err, "a config", 0);
    for (const json_value *v = json_first(list); v != NULL; v = json_next(v), i++) {
        uint64_t ratio = 0;

        json_u64(v, &ratio);
        if (i < opt.layers || i >= layers)
            fprintf(stream, "%s%llu", i == 0 ? "[" : ", ", (unsigned long long)ratio);
    }
    fputc(']', stream);
    fclose(stream);
    code = edit(job, "compress_ratios", text, err);
    free(text);
    return code;
}

/* The part of the config in which the number of layers is found, see config_number.h; NULL: its
 * root. */
static const char *layers_part(const json_value *config)
{
    for (int i = 0; i < CONFIG_LANGUAGE_PARTS; i++)
        if (config_member_here(json_member(config, config_language_parts[i]),
                               CONFIG_LAYER_COUNT) != NULL)
            return config_language_parts[i];
    return NULL;
}

static ckpt_code put_layers(synth_job *job, ckpt_error *err)
{
    const char *part = layers_part(json_root(job->config));
    char *text = NULL;
    char *edited = NULL;
    char number[24];
    ckpt_code code;

    snprintf(number, sizeof number, "%llu", (unsigned long long)opt.layers);
    if (part == NULL)
        return edit(job, CONFIG_LAYER_COUNT, number, err);
    if ((code = json_member_text(job->text, part, &text, err)) == CKPT_OK &&
        (code = json_edit(text, CONFIG_LAYER_COUNT, number, &edited, err)) == CKPT_OK)
        code = edit(job, part, edited, err);
    free(edited);
    free(text);
    return code;
}

static ckpt_code cut_layers(synth_job *job, ckpt_error *err)
{
    uint64_t layers;
    ckpt_code code;

    if (opt.layers == UINT64_MAX)
        return CKPT_OK;
    if (!json_u64(config_member(json_root(job->config), CONFIG_LAYER_COUNT), &layers))
        return ckpt_fail(err, CKPT_E_USAGE, "--layers: the config has no '%s'",
                         CONFIG_LAYER_COUNT);
    if (opt.layers > layers)
        return ckpt_fail(err, CKPT_E_USAGE, "--layers %llu: the config has only %llu",
                         (unsigned long long)opt.layers, (unsigned long long)layers);
    if (opt.layers == layers)
        return CKPT_OK;
    if ((code = cut_ratios(job, layers, err)) != CKPT_OK ||
        (code = put_layers(job, err)) != CKPT_OK)
        return code;
    json_free(job->config);
    job->config = NULL;
    return json_parse(job->text, strlen(job->text), opt.config, &job->config, err);
}

/* ---- the plan ---- */

static ckpt_code add_files(synth_job *job, ckpt_error *err)
{
    uint32_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(job->logical); i++)
        if (ckpt_catalog_at(job->logical, i)->file >= count)
            count = ckpt_catalog_at(job->logical, i)->file + 1;
    return format_add_files(&format_hf, job->store, count, err);
}

/* Checked before anything is written. */
static ckpt_code plan_values(synth_job *job, ckpt_error *err)
{
    const synth_options values = { .seed = opt.seed, .expert_count = job->expert_count };

    return opt.sparse ? CKPT_OK : source_synth(job->logical, &values, &job->values, err);
}

static ckpt_code fail_family(ckpt_error *err)
{
    static const char ending[] = ".family";
    char known[256] = "";

    for (size_t i = 0; i < ckpt_builtin_map_count; i++) {
        const char *name = ckpt_builtin_maps[i].name;
        const size_t used = strlen(known);

        if (text_ends_with(name, ending))
            snprintf(known + used, sizeof known - used, " %.*s",
                     (int)(strlen(name) - strlen(ending)), name);
    }
    return ckpt_fail(err, CKPT_E_USAGE, "config '%s': unknown model family; known are%s",
                     opt.config, known);
}

/* The tensors that the config requires, and how they are called. */
static ckpt_code plan_names(synth_job *job, ckpt_error *err)
{
    const json_value *config = json_root(job->config);
    ckpt_code code;

    if ((code = checkpoint_find_family(config, &job->family, err)) != CKPT_OK)
        return code;
    if (job->family == NULL)
        return fail_family(err);
    if ((code = family_expand(job->family, config, &job->logical, err)) != CKPT_OK)
        return code;
    return checkpoint_find_map(family_name(job->family), family_names(job->family, config), config,
                               &job->map, err);
}

static ckpt_code plan(synth_job *job, const char *path, ckpt_error *err)
{
    ckpt_code code;

    if ((code = read_config(job, path, err)) != CKPT_OK ||
        (code = output_check(path, format_hf.name, opt.overwrite, err)) != CKPT_OK ||
        (code = cut_layers(job, err)) != CKPT_OK)
        return code;
    if ((code = plan_names(job, err)) != CKPT_OK)
        return code == CKPT_E_FORMAT ? ckpt_fail(err, code, "'%s': %s", opt.config, err->text)
                                     : code;
    if ((job->store = store_create(path)) == NULL)
        return ckpt_fail_memory(err, "a plan", sizeof *job->store);
    if ((code = add_files(job, err)) != CKPT_OK ||
        (code = map_write(&(map_write_input){ job->map, job->logical, NULL },
                          job->store->catalog, &job->layout, err)) != CKPT_OK)
        return code;
    config_number(config_member(json_root(job->config), CONFIG_EXPERT_COUNT), &job->expert_count);
    code = format_hf.lay_out(job->store, &(format_target){ .with_index = 1 }, err);
    return code == CKPT_OK ? plan_values(job, err) : code;
}

/* ---- the values ---- */

static ckpt_code fill(synth_job *job, ckpt_error *err)
{
    const file_sink_options files = { .store = job->store, .layout = job->layout };
    cli_meter meter;
    const ckpt_run_options copy = cli_run_options(&opt.common, &meter);
    ckpt_sink *sink = NULL;
    ckpt_code code;

    cli_progress_phase(&meter, "writing", 0);
    if ((code = sink_files_create(&files, &sink, err)) == CKPT_OK)
        code = ckpt_copy(job->values, sink, &copy, err);
    cli_meter_end(&meter);
    sink_files_free(sink);
    return code;
}

/* Refuse before the first value rather than at a full disk. */
static ckpt_code check_room(const synth_job *job, const char *path, ckpt_error *err)
{
    convert_room room;
    ckpt_code code;

    if (opt.sparse || opt.no_space_check)
        return CKPT_OK;
    code = convert_target_room(job->store, 0, path, &room, err);
    return code == CKPT_OK ? convert_require_room(&room, path, ", --sparse needs no room", err)
                           : code;
}

static ckpt_code write_config(synth_job *job, ckpt_error *err)
{
    char *path = file_join(job->store->directory, "config.json");
    ckpt_code code;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", 0);
    code = file_write_all(path, job->text, strlen(job->text), err);
    free(path);
    return code;
}

static output_options output_is(const synth_job *job, const char *path)
{
    const uint64_t seed = opt.seed * 2 + (opt.sparse != 0);

    return (output_options){
        .path = path,
        .layout = format_hf.name,
        .overwrite = opt.overwrite,
        .restart = opt.restart,
        .fingerprint = kernels_get()->hash_bytes(job->text, strlen(job->text), seed),
    };
}

static ckpt_code run(synth_job *job, const char *path, ckpt_error *err)
{
    const format_target index = { .with_index = 1 };
    const output_options place = output_is(job, path);
    ckpt_output *output;
    char *directory;
    ckpt_code code;

    if ((code = output_begin(&place, &job->output, err)) != CKPT_OK)
        return code;
    if ((code = check_room(job, path, err)) != CKPT_OK) {
        output_withdraw(job->output, NULL); /* leave nothing behind */
        job->output = NULL;
        return code;
    }
    if ((directory = strdup(output_directory(job->output))) == NULL)
        return ckpt_fail_memory(err, "a path", 0);
    free(job->store->directory);
    job->store->directory = directory;
    if ((code = output_make_files(job->store, err)) != CKPT_OK ||
        (!opt.sparse && (code = fill(job, err)) != CKPT_OK) ||
        (code = store_close_files(job->store, err)) != CKPT_OK ||
        (code = format_hf.finish(job->store, &index, err)) != CKPT_OK ||
        (code = write_config(job, err)) != CKPT_OK)
        return code;
    output = job->output;
    job->output = NULL;
    return output_commit(output, err);
}

/* A dry run refuses the places that a run would refuse. */
static ckpt_code check(const synth_job *job, const char *path, ckpt_error *err)
{
    const output_options place = output_is(job, path);

    return output_check_begin(&place, err);
}

static uint64_t find_payload_bytes(const synth_job *job)
{
    uint64_t payload_bytes = 0;

    for (size_t i = 0; i < ckpt_catalog_count(job->store->catalog); i++)
        payload_bytes += ckpt_part_bytes(ckpt_catalog_at(job->store->catalog, i), CKPT_DATA);
    return payload_bytes;
}

static uint64_t find_header_bytes(const synth_job *job)
{
    uint64_t header_bytes = 0;

    for (size_t i = 0; i < job->store->file_count; i++)
        header_bytes += job->store->files[i].header_bytes;
    return header_bytes;
}

static void print_plan(const synth_job *job)
{
    const uint64_t payload_bytes = find_payload_bytes(job);
    const uint64_t header_bytes = find_header_bytes(job);
    json_writer w;

    if (opt.common.json) {
        cli_json_begin(&w, "ckpt-synth/1");
        json_put_object(&w);
        json_member_u64(&w, "tensor_count", ckpt_catalog_count(job->store->catalog));
        json_member_u64(&w, "file_count", job->store->file_count);
        json_member_u64(&w, "payload_bytes", payload_bytes);
        json_member_u64(&w, "header_bytes", header_bytes);
        json_put_object_end(&w);
        cli_json_end(&w);
        return;
    }
    printf("%s in %s: %llu bytes, and %llu of headers\n",
           text_count(ckpt_catalog_count(job->store->catalog), "tensor", "tensors").text,
           text_count(job->store->file_count, "file", "files").text,
           (unsigned long long)payload_bytes, (unsigned long long)header_bytes);
}

int main(int argc, char **argv)
{
    synth_job job = { .text = NULL };
    cli_args args;
    ckpt_error err;
    ckpt_code code;
    int status = cli_parse(&command, argc, argv, &args);

    if (status != CLI_GO)
        return cli_finish(status);
    code = plan(&job, args.items[0], &err);
    if (code == CKPT_OK)
        code =
            opt.common.dry_run ? check(&job, args.items[0], &err) : run(&job, args.items[0], &err);
    if (code == CKPT_OK && (opt.common.dry_run || opt.common.json))
        print_plan(&job);
    if (code == CKPT_OK && opt.common.dry_run)
        code = check_room(&job, args.items[0], &err);
    fflush(stdout);                    /* the closing line is the last one */
    if (code == CKPT_OK && !opt.common.dry_run)
        cli_say_written(&opt.common,
                        &(cli_written){ .path = args.items[0],
                                        .tensor_count = ckpt_catalog_count(job.store->catalog),
                                        .bytes = find_payload_bytes(&job) +
                                                 find_header_bytes(&job) });
    output_close(job.output);
    ckpt_source_free(job.values);
    layout_free(job.layout);
    store_free(job.store);
    map_free(job.map);
    catalog_free(job.logical);
    family_free(job.family);
    json_free(job.config);
    free(job.text);
    return cli_finish(code == CKPT_OK ? CLI_DONE : cli_fail(&err));
}
