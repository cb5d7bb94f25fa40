/* ckpt-run: run a model from any layout and write its logits. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "libckpt/checkpoint.h"
#include "tools/cli/cli.h"
#include "run_chat.h"
#include "run_devices.h"
#include "run_job.h"
#include "run_passes.h"
#include "run_places.h"
#include "run_print.h"
#include "formats/format.h"
#include "libckpt/json.h"
#include "libckpt/size.h"
#include "libckpt/text.h"
#include "verify/manifest.h"

static run_asked opt = {
    .common = CLI_COMMON_DEFAULTS, .numerics = "deploy", .backend = "cpu",
    .text = RUN_TEXT_DEFAULTS, .positions = "all", .format = "safetensors", .temperature = "0",
    .feed = UINT64_MAX,
};

static const cli_option options[] = {
    { CLI_HEADING, NULL, NULL, NULL, "Input and output" },
    { CLI_STRING, "tokens", "FILE|-", &opt.tokens,
      "token ids: text (one prompt a line), JSON, .npy or safetensors" },
    RUN_TEXT_OPTIONS(opt.text),
    { CLI_STRING, "out", "FILE", &opt.out, "write tokens, positions and logits; ckpt-verify "
      "logits reads names that end in .safetensors" },
    { CLI_CHOICE, "format", "safetensors|jsonl", &opt.format,
      "format of --out (default safetensors)" },
    { CLI_STRING, "positions", "LIST", &opt.positions,
      "positions whose logits are written: all, last, or 0,5,10-20 (default all)" },
    { CLI_COUNT, "top", "K", &opt.top,
      "write only the K largest logits of a position and log-sum-exp (default: full rows)" },
    { CLI_FLAG, "mtp", NULL, &opt.mtp, "also run the MTP block and write its logits" },
    { CLI_STRING, "against", "FILE", &opt.against,
      "compare the output with FILE, as `ckpt-verify logits` does" },
    { CLI_STRING, "against-tensor", "NAME", &opt.against_tensor,
      "tensor of FILE to compare with (default: logits or top_logits, and those of MTP)" },
    CLI_LOGITS_LIMITS(opt.limits),
    { CLI_HEADING, NULL, NULL, NULL, "Numerics" },
    { CLI_CHOICE, "numerics", "exact|deploy", &opt.numerics,
      "exact: F32, stored weights; deploy: rounding as in the deployed model (default deploy)" },
    { CLI_CHOICE, "backend", "cpu|cuda", &opt.backend, "compute backend (default cpu)" },
    { CLI_STRING, "devices", "LIST", &opt.devices,
      "cuda: distribute the layers over these devices, as in 0,1 (default 0)" },
    { CLI_SIZE, "device-memory", "SIZE", &opt.device_memory,
      "cuda: limit on weights, rows and state per device (default 80 % of the free memory); up to "
      "300MiB of work space and the driver's memory are not included" },
    { CLI_COUNT, "feed", "N", &opt.feed,
      "tokens of a prompt per pass; 1: token by token, as in decoding (default all)" },
    { CLI_COUNT, "chunk", "N", &opt.chunk, "tokens that attention processes at once (default 64)" },
    { CLI_HEADING, NULL, NULL, NULL, "Generation" },
    { CLI_COUNT, "generate", "N", &opt.generate_count,
      "generate N tokens, or up to the config's end-of-sequence token" },
    { CLI_STRING, "temperature", "T", &opt.temperature,
      "sampling temperature; 0: always the best token (default 0)" },
    { CLI_STRING, "seed", "S", &opt.seed, "random seed for sampling (default 0)" },
    { CLI_HEADING, NULL, NULL, NULL, "Trace" },
    { CLI_STRING, "trace", "FILE", &opt.trace,
      "write digest and statistics of every point of every layer, one JSON object per line" },
    { CLI_STRING, "trace-positions", "LIST", &opt.trace_positions,
      "positions whose values are written to the trace, as in 0,5,10-20 (default none)" },
    { CLI_FLAG, "digest", NULL, &opt.digest,
      "compute the value digest for the header (default: from the manifest, if any)" },
    { CLI_HEADING, NULL, NULL, NULL, "Reading" },
    { CLI_STRING, "config", "FILE", &opt.config,
      "config.json, also in DeepSeek's inference form (default: the checkpoint's)" },
    { CLI_FLAG, "lenient", NULL, &opt.open.lenient,
      "accept stale index entries, orphan scales and unknown tensors" },
    { CLI_FLAG, "u8-scales", NULL, &opt.open.u8_scales, "interpret U8 scales as E8M0 codes" },
    { CLI_FLAG, "keep-copies", NULL, &opt.open.keep_copies,
      "allow MTP copies of embedding and head that differ from the originals" },
    { CLI_STRING, "map", "FILE", &opt.open.map_file,
      "read tensor names by this map instead of the built-in ones" },
    CLI_COMMON(opt.common),
    CLI_OPTIONS_END,
};

/* Without these options the dependent one would have no effect. */
static const cli_rule rules[] = {
    { "tokens", NULL, "prompt|messages|prompts|chat" },
    { "prompt", NULL, "messages|prompts|chat" },
    { "messages", NULL, "prompts|chat|instructions" },
    { "prompts", NULL, "chat" },
    { "chat", NULL, "out|trace|json|dry-run|parse|feed" },
    { "mode", "prompt|messages|prompts|chat", NULL },
    { "instructions", "prompt|prompts|chat", NULL },
    { "tokenizer", "prompt|messages|prompts|chat", NULL },
    { "parse", "prompt|messages|prompts", NULL },
    { "parse", "generate", "out" },
    { "format", "out", NULL },
    { "positions", "out|trace", NULL },
    { "top", "out", NULL },
    { "mtp", "out|trace", NULL },
    { "digest", "out|json", NULL },
    { "against", "out", NULL },
    { "against-tensor", "against", NULL },
    CLI_LOGITS_RULES("against"),
    { "seed", "temperature", NULL },
    { "trace-positions", "trace", NULL },
    { NULL, NULL, NULL }
};

static const cli_hint hints[] = {
    { "--max-tokens", "use --generate" }, { "--max-new-tokens", "use --generate" },
    { "-n", "use --generate" }, { "--gpu", "use --backend cuda" },
    { "--cuda", "use --backend cuda" }, { "gpu", "it is called cuda" },
    { "--model", "give its path as the last argument" },
    { "--top-p", "sampling is by --temperature alone" },
    { "--top-k", "sampling is by --temperature alone" },
    { "--stop", "an answer ends at the config's end-of-sequence token, or after --generate N" },
    { "-m", "give its path as the last argument" }, { "-p", "use --prompt" }, { NULL, NULL }
};

static const cli_topic environment[] = {
    { "OMP_WAIT_POLICY", "passive unless it is set: threads that wait use no CPU time." },
    { "CUDA_VISIBLE_DEVICES", "With --backend cuda: the devices that --devices counts." },
    { NULL, NULL }
};

static const cli_topic known_files[] = {
    { "PATH/config.json", "The model; --config names another file." },
    { "PATH/tokenizer.json", "For texts; --tokenizer names another file." },
    { NULL, NULL }
};

static const cli_command command = {
    .name = "ckpt-run",
    .summary = "run a DeepSeek-V4 model and write its logits",
    .usage = "[OPTIONS] --tokens FILE|--prompt TEXT|--messages FILE|--prompts FILE|--chat PATH",
    .description =
        "Runs the model of the checkpoint PATH, in any layout and encoding, layer by layer: it "
        "needs memory for one layer, and loads the experts that the prompts use group by group. "
        "Checkpoints with the same values give bit-identical results, whatever --threads, --chunk "
        "and --feed are. FP8, MXFP8, FP4, NVFP4 and all other encodings that ckpt decodes run as "
        "they are stored: a weight is the F32 product of code and scale, in NVFP4 that times the "
        "scale of the tensor, rounded to F32 again; --numerics deploy rounds what is multiplied "
        "with it, not the weight. On a device, Q8_0 and NVFP4 of GGUF take the memory of F32, "
        "because the host decodes them.\n"
        "\n"
        "Without --out the best token after each prompt, or the generated text, is printed. --json "
        "also reports for each layer its time, the part of it spent waiting for weights, the bytes "
        "copied to the device and the bytes of weights; and how long prompts and single tokens "
        "took.\n"
        "\n"
        "--messages and --prompts take text for the model, --chat lines of a terminal. While "
        "tokens are generated, weights stay in memory or on the devices as far as there is room; a "
        "device copies what it had to give up from host memory as far as --memory allows (--memory "
        "50% for many tokens), else it is read from the files again.",
    .exit_notes = "0  done\n1  differs from --against\n"
                  "2  error; one line on stderr says what failed",
    .examples = "ckpt-run --tokens prompts.json --out logits.safetensors DeepSeek-V4-Flash\n"
                "echo 0 17 42 | ckpt-run --tokens - --generate 8 DeepSeek-V4-Flash\n"
                "ckpt-run --messages talk.json --generate 500 --parse DeepSeek-V4-Flash\n"
                "ckpt-run --chat --temperature 0.6 --backend cuda --devices 0,1 DeepSeek-V4-Flash\n"
                "ckpt-run --tokens p.npy --out o.safetensors --against golden.safetensors model\n"
                "ckpt-run --numerics exact --top 64 --tokens p.npy --out top.safetensors model",
    .options = options,
    .rules = rules,
    .hints = hints,
    .arg_min = 1,
    .arg_max = 1,
    .surplus = "one model at a time; a text is given with --prompt, a file of token ids with "
               "--tokens",
    .checks_more = 1,
    .environment = environment,
    .files = known_files,
    .see_also = "ckpt-verify(1) ckpt-json(5)",
};

/* ---- preparing ---- */

/* The digest in the header: computed, or from the manifest beside the checkpoint. */
static ckpt_code find_root(run_job *job, ckpt_error *err)
{
    const ckpt_folder *folder = checkpoint_folder(job->checkpoint);
    ckpt_digest *digest = NULL;
    ckpt_manifest m;
    ckpt_code code = CKPT_OK;

    if (opt.digest) {
        const ckpt_run_options run = { .thread_count = (unsigned)opt.common.thread_count,
                                       .memory_bytes = opt.common.memory_bytes };

        code = ckpt_digest_source(ckpt_logical(job->checkpoint), &run, &digest, err);
        if (code == CKPT_OK)
            code = ckpt_digest_root(digest, 0, job->root, err);
        if (code == CKPT_OK)
            code = checkpoint_check_root(job->checkpoint, job->root, "without --digest they run "
                                         "unchecked", err);
        job->root_source = "computed";
        ckpt_digest_free(digest);
    } else if (folder != NULL && folder_has(folder, MANIFEST_FILE) &&
               (code = manifest_read(folder, MANIFEST_FILE, &m, err)) == CKPT_OK) {
        memcpy(job->root, m.root, sizeof job->root);
        job->root_source = "manifest";
        manifest_release(&m);
    }
    return code;
}

static ckpt_code plan_lines(run_job *job, ckpt_error *err)
{
    const size_t count = job->prompts.count;       /* 0: of a conversation */
    uint64_t total = 0;
    uint64_t mtp_total = 0;

    job->lines = calloc(count + 1, sizeof *job->lines);
    job->plans = calloc(count + 1, sizeof *job->plans);
    job->segments = calloc(count + 1, sizeof *job->segments);
    job->owners = calloc(count + 1, sizeof *job->owners);
    if (job->lines == NULL || job->plans == NULL || job->segments == NULL || job->owners == NULL)
        return ckpt_fail_memory(err, "prompts", count);
    for (size_t i = 0; i < count; i++) {
        run_line *line = &job->lines[i];
        ckpt_code code;

        line->prompt = &job->prompts.prompts[i];
        if ((code = run_positions_parse(opt.positions, line->prompt->count, &line->positions,
                                        &line->position_count, err)) != CKPT_OK)
            return ckpt_fail(err, code, "--positions: %s", err->text);
        line->generated = malloc((opt.generate_count + 1) * sizeof *line->generated);
        if (line->generated == NULL)
            return ckpt_fail_memory(err, "generated tokens", opt.generate_count);
        memset(line->generated, 0xFF, (opt.generate_count + 1) * sizeof *line->generated);
        while (opt.mtp && line->mtp_count < line->position_count &&
               line->positions[line->mtp_count] + 1 < line->prompt->count)
            line->mtp_count++;
        job->plans[i] = (run_result_plan){ line->prompt->tokens, line->prompt->count,
                                           line->positions, line->position_count,
                                           line->mtp_count, opt.generate_count };
        total += line->prompt->count;
        mtp_total += line->mtp_count;
    }
    if (opt.mtp && opt.trace == NULL && count > 0 && mtp_total == 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--mtp needs a position before the last of a prompt: "
                         "the MTP block also takes the token after it");
    job->rows = malloc((total + count + 1) * sizeof *job->rows);
    job->row_owners = malloc((total + count + 1) * sizeof *job->row_owners);
    job->row_positions = malloc((total + count + 1) * sizeof *job->row_positions);
    if (job->rows == NULL || job->row_owners == NULL || job->row_positions == NULL)
        return ckpt_fail_memory(err, "rows", total);
    return CKPT_OK;
}

static ckpt_code open_trace(run_job *job, ckpt_error *err)
{
    run_trace_options trace = { .write = json_write_stdio };
    uint64_t longest = 0;
    uint64_t count = 0;
    ckpt_code code;

    if (opt.trace == NULL)
        return CKPT_OK;
    for (size_t i = 0; i < job->prompts.count; i++)
        longest = size_max(longest, job->prompts.prompts[i].count);
    if (opt.trace_positions != NULL &&
        (code = run_positions_parse(opt.trace_positions, longest, &job->trace_positions, &count,
                                    err)) != CKPT_OK)
        return ckpt_fail(err, code, "--trace-positions: %s", err->text);
    if (opt.common.dry_run)
        return CKPT_OK;
    if ((code = run_trace_file_open(opt.trace, &job->trace_file, err)) != CKPT_OK)
        return code;
    trace.context = job->trace_file.stream;
    trace.positions = job->trace_positions;
    trace.position_count = (size_t)count;
    return run_trace_create(&trace, &job->trace, err);
}

static ckpt_code open_model(run_job *job, ckpt_error *err)
{
    run_options model = {
        .backend = run_backend_find(opt.backend),
        .profile = strcmp(opt.numerics, "exact") == 0 ? RUN_EXACT : RUN_DEPLOY,
        .thread_count = (unsigned)opt.common.thread_count,
        .chunk = (uint32_t)size_min(opt.chunk, UINT32_MAX),
        .mtp = opt.mtp,
        .trace = job->trace,
        .has_times = opt.common.json && !opt.common.dry_run,
        .keeps_weights = opt.generate_count > 1 || opt.text.chat,
        .stop = cli_stop_flag(),
    };
    const run_device_options devices = { opt.devices, opt.device_memory,
                                         opt.common.memory_bytes };
    ckpt_code code;

    if (model.backend == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "backend '%s' is not available in this build",
                         opt.backend);
    if ((code = run_devices_choose(&devices, &model, &job->devices, err)) != CKPT_OK)
        return code;
    code = run_open(ckpt_logical(job->checkpoint), &job->settings.config, &model, &job->model, err);
    return code == CKPT_E_FORMAT && opt.config != NULL
               ? ckpt_fail(err, code, "%s, with --config '%s'", err->text, opt.config)
               : code;
}

static ckpt_code open_results(run_job *job, ckpt_error *err)
{
    const char *metadata[] = {
        "version", CKPT_VERSION, "config_digest", job->settings.config.digest,
        "numerics", opt.numerics, "backend", opt.backend,
        job->root_source == NULL ? NULL : "model_root", job->root,
        "model_root_source", job->root_source, NULL,
    };
    const run_results_options results = {
        .path = opt.out,
        .vocab_size = job->settings.config.vocab_size,
        .top = (uint32_t)opt.top,
        .plans = job->plans,
        .plan_count = job->prompts.count,
        .metadata = metadata,
    };

    return opt.out == NULL ? CKPT_OK : run_results_create(&results, &job->results, err);
}

/* Check what depends on the vocabulary before anything runs. */
static ckpt_code check_prompts(const run_job *job, ckpt_error *err)
{
    if (opt.top > job->settings.config.vocab_size)
        return ckpt_fail(err, CKPT_E_USAGE, "--top %" PRIu64 ", but the vocabulary has %u",
                         opt.top, job->settings.config.vocab_size);
    for (size_t i = 0; i < job->prompts.count; i++)
        for (uint64_t t = 0; t < job->prompts.prompts[i].count; t++)
            if (job->prompts.prompts[i].tokens[t] >= job->settings.config.vocab_size)
                return ckpt_fail(err, CKPT_E_USAGE,
                                 "token %u at position %" PRIu64 " of prompt %zu, but the "
                                 "vocabulary has %u",
                                 job->prompts.prompts[i].tokens[t], t, i,
                                 job->settings.config.vocab_size);
    return CKPT_OK;
}

/* Checks that need no file. */
static ckpt_code check_options(run_job *job, ckpt_error *err)
{
    ckpt_code code;
    char *end;

    job->temperature = strtod(opt.temperature, &end);
    if (opt.tokens == NULL && !run_text_is_asked(&opt.text))
        return ckpt_fail(err, CKPT_E_USAGE, "expected --tokens, --prompt, --messages, --prompts "
                         "or --chat");
    if (*end != '\0' || end == opt.temperature || !(job->temperature >= 0) ||
        job->temperature > 1e6)
        return ckpt_fail(err, CKPT_E_USAGE, "--temperature '%s': expected a number from 0 to 1e6",
                         opt.temperature);
    if (opt.seed != NULL && !cli_parse_u64(opt.seed, &job->seed))
        return ckpt_fail(err, CKPT_E_USAGE, "--seed '%s': expected a whole number of 0 or "
                         "more", opt.seed);
    if (opt.seed != NULL && job->temperature == 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--seed needs a --temperature above 0: at 0 the best "
                         "token is taken, and nothing is drawn");
    if (job->temperature > 0 && opt.generate_count == 0 && opt.out != NULL && !opt.common.json &&
        !run_text_is_asked(&opt.text))
        return ckpt_fail(err, CKPT_E_USAGE, "--temperature needs --generate or --json: with --out "
                         "alone no token is drawn");
    if ((code = run_text_check(&opt.text, err)) != CKPT_OK)
        return code;
    if (opt.generate_count > INT32_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "--generate %" PRIu64 ": expected at most %d",
                         opt.generate_count, INT32_MAX);
    if (opt.against != NULL && strcmp(opt.format, "safetensors") != 0)
        return ckpt_fail(err, CKPT_E_USAGE,
                         "--against needs --out with --format safetensors");
    if (opt.against != NULL && !text_ends_with(opt.out, ".safetensors"))
        return ckpt_fail(err, CKPT_E_USAGE, "--out '%s': --against reads it, expected a name that "
                         "ends in '.safetensors'", opt.out);
    return logits_parse_limits(&opt.limits, job->limits, err);
}

static ckpt_code check_places(const char *path, ckpt_error *err)
{
    const run_places places = { opt.out, opt.trace, path,
                                { opt.tokens, opt.against, opt.config, opt.text.tokenizer,
                                  opt.open.map_file, opt.text.messages, opt.text.prompts } };

    return run_places_check(&places, err);
}

static ckpt_code prepare(run_job *job, const char *path, ckpt_error *err)
{
    const logits_input other = { opt.against, opt.against_tensor };
    const run_text_target words = { &job->text, &job->prompts, &job->words };
    ckpt_code code;

    if (opt.tokens != NULL && opt.tokens[strspn(opt.tokens, "0123456789, ")] == '\0' &&
        !file_exists(opt.tokens))
        return ckpt_fail(err, CKPT_E_USAGE, "--tokens '%s': expected a file with token ids, or - "
                         "for standard input, as in echo 1 2 3 | ckpt-run --tokens - PATH",
                         opt.tokens);
    /* A run may take hours: check first that the other file exists. */
    if ((code = check_options(job, err)) != CKPT_OK ||
        (code = check_places(path, err)) != CKPT_OK ||
        (opt.against != NULL && (code = logits_check(&other, err)) != CKPT_OK) ||
        (code = ckpt_open(path, &opt.open, &job->checkpoint, err)) != CKPT_OK ||
        (code = run_settings_read(opt.config, path, job->checkpoint, &job->settings, err)) !=
            CKPT_OK ||
        (code = opt.tokens != NULL
                    ? run_prompts_read(opt.tokens, &job->prompts, err)
                    : run_text_ask(&opt.text, job->checkpoint, &words, err)) != CKPT_OK ||
        (code = check_prompts(job, err)) != CKPT_OK ||
        (code = plan_lines(job, err)) != CKPT_OK || (code = open_trace(job, err)) != CKPT_OK)
        return code;
    code = open_model(job, err);
    return code == CKPT_OK ? run_trace_file_begin(&job->trace_file, err) : code;
}

/* ---- running ---- */

static ckpt_code finish(run_job *job, ckpt_error *err)
{
    run_results *results = job->results;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < job->prompts.count && results != NULL && code == CKPT_OK; i++)
        code = run_results_put_generated(results, i, job->lines[i].generated, err);
    if (code == CKPT_OK && job->trace != NULL &&
        (code = run_trace_finish(job->trace, err)) == CKPT_OK)
        code = run_trace_file_close(&job->trace_file, err);
    if (code != CKPT_OK || results == NULL)
        return code;
    job->results = NULL;
    return strcmp(opt.format, "jsonl") == 0 ? run_results_commit_jsonl(results, err)
                                            : run_results_commit(results, err);
}

static ckpt_code compare_against(run_job *job, ckpt_error *err)
{
    const logits_input out = { opt.out, NULL };
    const logits_input other = { opt.against, opt.against_tensor };

    return opt.against == NULL ? CKPT_OK : logits_compare(&out, &other, &job->against, err);
}

static int is_different(const run_job *job)
{
    return job->against.position_count > 0 && !logits_is_same(&job->against, job->limits);
}

static ckpt_code run(run_job *job, const char *path, ckpt_error *err)
{
    ckpt_code code;

    job->asked = &opt;
    if ((code = prepare(job, path, err)) != CKPT_OK ||
        (!opt.digest && (code = checkpoint_note_root(job->checkpoint, CHECKPOINT_ROOT_CHECK,
                                                     &job->settings.notes, err)) != CKPT_OK))
        return code;
    run_print_notes(job);
    if (opt.text.chat)
        return run_chat(job, err);
    if (!opt.common.dry_run &&
        ((code = find_root(job, err)) != CKPT_OK ||
         (code = open_results(job, err)) != CKPT_OK || (code = run_passes(job, err)) != CKPT_OK ||
         (code = finish(job, err)) != CKPT_OK || (code = run_words_answer(job, err)) != CKPT_OK ||
         (code = compare_against(job, err)) != CKPT_OK))
        return code;
    run_print(job);
    return opt.common.dry_run ? CKPT_OK
                              : run_say_written(&opt.common, opt.out, job->prompts.count,
                                                job->root_source == NULL ? NULL : job->root, err);
}

static void release(run_job *job)
{
    for (size_t i = 0; job->lines != NULL && i < job->prompts.count; i++) {
        if (job->lines[i].sequence != NULL)
            run_sequence_free(job->model, job->lines[i].sequence);
        free(job->lines[i].positions);
        free(job->lines[i].generated);
    }
    run_close(job->model);
    free(job->devices);
    run_results_abort(job->results);
    run_trace_free(job->trace);
    run_trace_file_abort(&job->trace_file);
    free(job->trace_positions);
    free(job->lines);
    free(job->plans);
    free(job->segments);
    free(job->owners);
    free(job->rows);
    free(job->row_owners);
    free(job->row_positions);
    run_text_free(job->text);
    run_words_release(&job->words);
    run_prompts_free(&job->prompts);
    logits_release(&job->against);
    run_settings_release(&job->settings);
    ckpt_close(job->checkpoint);
}

/*
 * OpenMP threads spin while they wait unless the environment forbade it when the process started;
 * on a busy machine that is several times slower. So execute the program again with the variable
 * set. If that fails, continue without it.
 */
static void wait_passively(char **argv)
{
    if (getenv("OMP_WAIT_POLICY") == NULL && setenv("OMP_WAIT_POLICY", "passive", 0) == 0)
        execv("/proc/self/exe", argv);
}

int main(int argc, char **argv)
{
    run_job job = { 0 };
    cli_args args;
    ckpt_error err;
    ckpt_code code;
    int status;

    wait_passively(argv);
    status = cli_parse(&command, argc, argv, &args);
    if (status != CLI_GO)
        return cli_finish(status);
    if (!args.is_check)
        code = run(&job, args.items[0], &err);
    else if ((code = check_options(&job, &err)) == CKPT_OK && args.checks_places)
        code = check_places(args.items[0], &err);
    status = is_different(&job) ? CLI_DIFFERENT : CLI_DONE;
    release(&job);
    return cli_finish(code == CKPT_OK ? status : cli_fail(&err));
}
