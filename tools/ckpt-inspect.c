/* ckpt-inspect: prints the contents of a checkpoint, by default from its headers only. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "inspect_loader.h"
#include "inspect_values.h"
#include "open_options.h"
#include "option_words.h"
#include "remote_places.h"
#include "formats/format.h"
#include "formats/ids.h"
#include "libckpt/codes.h"
#include "libckpt/config_number.h"
#include "libckpt/config_words.h"
#include "libckpt/memory.h"
#include "libckpt/stored_form.h"
#include "libckpt/text.h"
#include "verify/json_line.h"
#include "verify/statistics_put.h"

enum { LABEL_BYTES = 64, LABELS_MAX = 128, NAME_WIDTH_MAX = 72, MEMBER_BYTES = 64 };

static struct {
    cli_common common;
    ckpt_open_options open;
    cli_list globs;
    int logical;
    int summary;
    int stat;
    int histogram;
    int names_only;
    int null;
    int jsonl;
    const char *values;
    const char *loader;
} opt = { .common = CLI_COMMON_DEFAULTS };

static const cli_option options[] = {
    { CLI_LIST, "tensors", "GLOB", &opt.globs,
      "only tensors whose names match, as in '*.experts.7.*'; may be repeated" },
    { CLI_FLAG, "logical", NULL, &opt.logical,
      "canonical tensors: native names, full shapes, weights with their scales" },
    { CLI_FLAG, "summary", NULL, &opt.summary, "totals only, no list of tensors" },
    { CLI_FLAG, "names-only", NULL, &opt.names_only, "the names of the tensors, one in a line" },
    { CLI_FLAG, "null", NULL, &opt.null,
      "with --names-only: a byte 0 behind every name, for xargs -0" },
    { CLI_FLAG, "jsonl", NULL, &opt.jsonl, "one JSON object in a line for every tensor" },
    CLI_CONFIG_OPTION(opt.open),
    { CLI_CHOICE, "for", "vllm|sglang|transformers|megatron", &opt.loader,
      "will this program load it, and why not: config.json, names, encodings and scales by the "
      "rules of its source; no list of tensors" },
    { CLI_HEADING, NULL, NULL, NULL, "Values (these read the data of the tensors; --logical)" },
    { CLI_FLAG, "stat", NULL, &opt.stat,
      "range, mean, root mean square, zeros, NaN and infinities of every tensor; range of scales, "
      "share of saturated codes" },
    { CLI_FLAG, "histogram", NULL, &opt.histogram,
      "draw how many values lie at each power of two, and how often each FP8 or FP4 code occurs" },
    { CLI_STRING, "values", "ROWS", &opt.values,
      "print the decoded values of rows, as in 5 or 0-3; rows are those of all dimensions but the "
      "last" },
    CLI_READ_OPTIONS(opt.open, opt.common)
};

static const cli_rule rules[] = {
    { "for", NULL, "stat|values|summary|tensors|logical|names-only|jsonl" },
    { "names-only", NULL, "json|jsonl|stat|values|summary" },
    { "null", "names-only", NULL },
    { "jsonl", NULL, "json|summary|histogram" },
    { "stat", NULL, "summary" },
    { "histogram", "stat", NULL },
    { "values", "tensors", "summary" },
    { NULL, NULL, NULL }
};

static const cli_words option_words[] = { { "config", word_of_config }, { NULL, NULL } };

static const cli_hint hints[] = {
    { "--revision", "put it behind the name: hf://OWNER/NAME@REVISION" },
    { "--layers", "use --tensors 'layers.0.*'" }, { "--layer", "use --tensors 'layers.0.*'" },
    { "--filter", "use --tensors GLOB" }, { "--keys", "use --names-only" },
    { "--stats", "use --stat" }, { "-m", "give its path as the argument" },
    { "--model", "give its path as the argument" }, { NULL, NULL }
};

static const cli_topic known_files[] = {
    { "PATH/config.json", "Says the family and the encodings; compared with the tensors." },
    { "PATH/*.safetensors.index.json", "Says which file has which tensor." },
    { NULL, NULL }
};

static const cli_command command = {
    .name = "ckpt-inspect",
    .summary = "list what a checkpoint contains",
    .usage = "[OPTIONS] PATH",
    .description =
        "Lists name, dtype (with --logical: encoding), shape, bytes and file of every tensor, then "
        "totals by dtype, layout, model family, naming style and config. Reads only headers and "
        "tables of expert ids, so a checkpoint of any size takes seconds. The structure is checked "
        "as well.\n"
        "\n"
        "--for knows what the loading code of vLLM 0.33, SGLang, transformers 5.23 and "
        "megatron-core asks of DeepSeek-V4, and less of other models; it says so. What no rule "
        "looks at is not promised.\n"
        "\n"
        "--stat and --values read data: of all tensors, or of those that --tensors chooses. Values "
        "are code times scale, as one F32 product, and -0 is +0. NaN and infinities are counted, "
        "and are in no other figure. A code is saturated when it has the largest magnitude of its "
        "dtype."
        "\n\n" REMOTE_HELP("PATH"),
    .exit_notes = "0  done; with --for: no rule speaks against loading\n"
                  "1  with --for: it will not load\n"
                  "2  error; one line on stderr says what failed",
    .examples = "ckpt-inspect DeepSeek-V4-Flash\n"
                "ckpt-inspect --for vllm DeepSeek-V4-Flash\n"
                "ckpt-inspect --logical --tensors 'layers.3.attn.*' DeepSeek-V4-Flash\n"
                "ckpt-inspect --names-only DeepSeek-V4-Flash | grep norm\n"
                "ckpt-inspect --json DeepSeek-V4-Flash | jq .totals\n"
                "ckpt-inspect --stat --histogram --tensors 'layers.3.attn.*' DeepSeek-V4-Flash\n"
                "ckpt-inspect --values 0-3 --tensors layers.3.attn.wq_a.weight DeepSeek-V4-Flash",
    .options = options,
    .words = option_words,
    .rules = rules,
    .hints = hints,
    .arg_min = 1,
    .arg_max = 1,
    .surplus = "a checkpoint of several files is given by its folder",
    .files = known_files,
    .see_also = "ckpt-verify(1) ckpt-json(5)",
};

/* One line of the totals: all tensors of one dtype or encoding. */
typedef struct {
    char label[LABEL_BYTES];
    uint64_t tensor_count;
    uint64_t element_count;
    uint64_t total_bytes;
} inspect_total;

typedef struct {
    const ckpt_checkpoint *checkpoint;
    ckpt_source *source;                /* stored or logical */
    const ckpt_catalog *catalog;        /* of the source */
    uint8_t *chosen;                    /* by tensor */
    source_statistics statistics;       /* with --stat */
    inspect_rows rows;                  /* with --values */
    inspect_total totals[LABELS_MAX];   /* largest first */
    size_t total_count;
    inspect_total all;
    int name_width;
    int label_width;
    int shape_width;
} inspection;

static int is_chosen(const ckpt_tensor *t)
{
    return opt.globs.count == 0 ||
           text_matches_any(t->name, opt.globs.items, opt.globs.count);
}

static void make_label(const ckpt_tensor *t, char out[LABEL_BYTES])
{
    if (opt.logical)
        ckpt_tensor_encoding(t, out, LABEL_BYTES);
    else
        snprintf(out, LABEL_BYTES, "%s", stored_form_name(t));
}

/* ---- totals ---- */

static void add_to(inspect_total *total, const ckpt_tensor *t)
{
    total->tensor_count++;
    total->element_count += ckpt_tensor_rows(t) * ckpt_tensor_cols(t);
    total->total_bytes += ckpt_tensor_bytes(t);
}

static inspect_total *find_total(inspection *in, const char *label)
{
    size_t i = 0;

    while (i < in->total_count && strcmp(in->totals[i].label, label) != 0)
        i++;
    if (i == LABELS_MAX)               /* more encodings than any checkpoint has */
        return &in->totals[LABELS_MAX - 1];
    if (i == in->total_count)
        snprintf(in->totals[in->total_count++].label, LABEL_BYTES, "%s", label);
    return &in->totals[i];
}

static int compare_totals(const void *left, const void *right)
{
    const inspect_total *a = left;
    const inspect_total *b = right;

    if (a->total_bytes != b->total_bytes)
        return a->total_bytes < b->total_bytes ? 1 : -1;
    return strcmp(a->label, b->label);
}

static void widen(int *width, size_t size, int most)
{
    if ((int)size > *width)
        *width = (int)size < most ? (int)size : most;
}

/* Text fields of a tensor's line. */
typedef struct {
    const ckpt_tensor *tensor;
    char label[LABEL_BYTES];
    char shape[256];
} inspect_words;

/* Make the text of tensor `i`; 0: it is not chosen. */
static int describe(const inspection *in, size_t i, inspect_words *out)
{
    if (!in->chosen[i])
        return 0;
    out->tensor = ckpt_catalog_at(in->catalog, i);
    make_label(out->tensor, out->label);
    catalog_shape_text(out->tensor, out->shape, sizeof out->shape);
    return 1;
}

static void count_tensors(inspection *in)
{
    for (size_t i = 0; i < ckpt_catalog_count(in->catalog); i++) {
        inspect_words words;

        in->chosen[i] = (uint8_t)is_chosen(ckpt_catalog_at(in->catalog, i));
        if (!describe(in, i, &words))
            continue;
        add_to(find_total(in, words.label), words.tensor);
        add_to(&in->all, words.tensor);
        widen(&in->name_width, strlen(cli_name(words.tensor->name)), NAME_WIDTH_MAX);
        widen(&in->label_width, strlen(words.label), LABEL_BYTES);
        widen(&in->shape_width, strlen(words.shape), 32);
    }
    qsort(in->totals, in->total_count, sizeof *in->totals, compare_totals);
}

/* ---- text ---- */

static void print_tensors(const inspection *in)
{
    for (size_t i = 0; i < ckpt_catalog_count(in->catalog); i++) {
        inspect_words words;

        if (!describe(in, i, &words))
            continue;
        printf("%-*s  %-*s  %-*s  %12" PRIu64, in->name_width, cli_name(words.tensor->name),
               in->label_width, words.label, in->shape_width, words.shape,
               ckpt_tensor_bytes(words.tensor));
        printf(opt.logical ? "\n" : "  %s\n",
               cli_name(ckpt_file_name(in->checkpoint, words.tensor->file)));
    }
    if (in->all.tensor_count > 0)
        putchar('\n');
}

static void print_total(const inspect_total *total, const char *label)
{
    char size[CLI_SIZE_TEXT_BYTES];

    cli_size_text(total->total_bytes, size);
    printf("%-24s  %9" PRIu64 "  %16" PRIu64 "  %16" PRIu64 "  %9s\n", label, total->tensor_count,
           total->element_count, total->total_bytes, size);
}

/* Print a member by the first of its spellings that the config has, preceded by *word. */
static void print_member(const json_value *config, const char *spellings, const char **word)
{
    char name[MEMBER_BYTES];

    for (const char *at = spellings; *at != '\0'; at += *at == '|') {
        const int length = (int)strcspn(at, "|");
        const json_value *value;
        uint64_t number;

        snprintf(name, sizeof name, "%.*s", length, at);
        at += length;
        if ((value = config_member(config, name)) == NULL)
            continue;
        if (json_string(value) != NULL)
            printf("%s%s %s", *word, name, cli_name(json_string(value)));
        else if (json_u64(value, &number))
            printf("%s%s %" PRIu64, *word, name, number);
        else
            return;
        *word = ", ";
        return;
    }
}

/* The most interesting members of config.json. */
static void print_config(const ckpt_checkpoint *c)
{
    static const char *const members[] = {
        CONFIG_MODEL_TYPE, CONFIG_LAYER_COUNT, "hidden_size", CONFIG_EXPERT_COUNT,
        CONFIG_NEXT_TOKEN_BLOCKS, "vocab_size", "torch_dtype|dtype", "expert_dtype" };
    const char *word = "config    ";

    for (size_t i = 0; c->config != NULL && i < sizeof members / sizeof *members; i++)
        print_member(json_root(c->config), members[i], &word);
    if (word[0] == ',')
        putchar('\n');
}

static void print_text(const inspection *in)
{
    const ckpt_checkpoint *c = in->checkpoint;

    if (opt.stat)
        inspect_print_statistics(in->catalog, in->chosen, &in->statistics);
    else if (!opt.summary)
        print_tensors(in);
    if (opt.histogram)
        inspect_print_histograms(in->catalog, in->chosen, &in->statistics);
    printf("%-24s  %9s  %16s  %16s\n", opt.logical ? "encoding" : "dtype", "tensors", "elements",
           "bytes");
    for (size_t i = 0; i < in->total_count; i++)
        print_total(&in->totals[i], in->totals[i].label);
    print_total(&in->all, "all");
    printf("\nlayout    %s, %s\n", ckpt_layout_name(c),
           text_count(c->store->file_count, "file", "files").text);
    printf("family    %s\nnames     %s\n", ckpt_family_name(c), ckpt_names_style(c));
    print_config(c);
    for (size_t i = 0; i < c->notes.count; i++)
        printf("note      %s\n", c->notes.names[i]);
}

/* Names for other programs. With --null they are not escaped, because NUL ends each. */
static void print_tensor_names(const inspection *in)
{
    for (size_t i = 0; i < ckpt_catalog_count(in->catalog); i++) {
        const char *name = ckpt_catalog_at(in->catalog, i)->name;

        if (in->chosen[i])
            printf("%s%c", opt.null ? name : cli_name(name), opt.null ? '\0' : '\n');
    }
}

/* ---- JSON ---- */

/* Put a tensor as one object; `line` is compact. */
static ckpt_code put_tensor(json_writer *line, const inspection *in, size_t i,
                            ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(in->catalog, i);
    ckpt_code code = CKPT_OK;
    char label[LABEL_BYTES];

    make_label(t, label);
    json_put_object(line);
    json_member_string(line, "name", t->name);
    if (!opt.logical || codes_are_bare(t))
        json_member_string(line, "dtype", label);
    if (opt.logical) {
        codes_encoding(t, label, sizeof label);
        json_member_string(line, "encoding", label);
    }
    catalog_put_shape(line, t);
    json_member_u64(line, "bytes", ckpt_tensor_bytes(t));
    if (!opt.logical)
        json_member_string(line, "file", ckpt_file_name(in->checkpoint, t->file));
    if (opt.stat) {
        json_put_key(line, "statistics");
        if (codes_are_decoded(t))
            statistics_put(line, &in->statistics.tensors[i], t);
        else
            json_put_null(line);
    }
    if (opt.values != NULL) {
        if ((code = inspect_put_scales(in->source, i, line, err)) != CKPT_OK)
            return code;
        json_member_array(line, "values");
        code = inspect_put_rows(in->source, i, &in->rows, line, err);
        json_put_array_end(line);
    }
    json_put_object_end(line);
    return code;
}

static ckpt_code put_tensors(json_writer *w, const inspection *in, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    json_writer line;

    for (size_t i = 0; i < ckpt_catalog_count(in->catalog) && code == CKPT_OK; i++) {
        if (!in->chosen[i])
            continue;
        json_line_begin(&line, w);
        code = put_tensor(&line, in, i, err);
        json_line_end(&line, w);
    }
    return code;
}

static ckpt_code print_lines(const inspection *in, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;
    json_writer w;

    for (size_t i = 0; i < ckpt_catalog_count(in->catalog) && code == CKPT_OK; i++) {
        if (!in->chosen[i])
            continue;
        cli_json_line(&w, "ckpt-inspect-tensor/1");
        code = put_tensor(&w, in, i, err);
        cli_json_end(&w);
    }
    return code;
}

static void put_total(json_writer *w, const inspect_total *total, const char *label)
{
    json_writer line;

    json_put_key(w, label);
    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_u64(&line, "tensor_count", total->tensor_count);
    json_member_u64(&line, "elements", total->element_count);
    json_member_u64(&line, "bytes", total->total_bytes);
    json_put_object_end(&line);
    json_line_end(&line, w);
}

static void put_files(json_writer *w, const ckpt_store *store)
{
    json_member_array(w, "files");
    for (size_t i = 0; i < store->file_count; i++) {
        json_writer line;

        json_line_begin(&line, w);
        json_put_object(&line);
        json_member_string(&line, "name", store->files[i].name);
        json_member_u64(&line, "bytes", store->files[i].size_bytes);
        json_put_object_end(&line);
        json_line_end(&line, w);
    }
    json_put_array_end(w);
}

static ckpt_code put_all(json_writer *w, const inspection *in, ckpt_error *err)
{
    const ckpt_checkpoint *c = in->checkpoint;
    ckpt_code code = CKPT_OK;

    json_put_object(w);
    json_member_string(w, "path", c->place.path);
    json_member_string(w, "layout", ckpt_layout_name(c));
    json_member_string(w, "family", ckpt_family_name(c));
    json_member_string(w, "names", ckpt_names_style(c));
    put_files(w, c->store);
    json_member_object(w, "totals");
    put_total(w, &in->all, "all");
    for (size_t i = 0; i < in->total_count; i++)
        put_total(w, &in->totals[i], in->totals[i].label);
    json_put_object_end(w);
    json_member_names(w, "notes", (const char *const *)c->notes.names, c->notes.count);
    json_put_key(w, "config");
    if (c->config_text != NULL)
        json_put_raw(w, c->config_text);
    else
        json_put_null(w);
    if (!opt.summary) {
        json_member_array(w, "tensors");
        code = put_tensors(w, in, err);
        json_put_array_end(w);
    }
    json_put_object_end(w);
    return code;
}

/* ---- values ---- */

static ckpt_code read_statistics(inspection *in, ckpt_error *err)
{
    static cli_meter meter;      /* outlives this function: cli_fail erases its line */
    statistics_options with = { .wanted = in->chosen, .exponents = opt.histogram,
                                .codes = opt.histogram || opt.common.json || opt.jsonl };
    ckpt_code code;

    with.run = cli_run_options(&opt.common, &meter);
    with.run.fixed_bytes = ckpt_checkpoint_bytes(in->checkpoint);
    code = statistics_of_source(in->source, &with, &in->statistics, err);
    cli_meter_end(&meter);
    return code;
}

static ckpt_code print_rows(const inspection *in, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(in->catalog) && code == CKPT_OK; i++) {
        inspect_words words;

        if (!describe(in, i, &words))
            continue;
        printf("%s  %s  %s\n", cli_name(words.tensor->name), words.label, words.shape);
        if ((code = inspect_put_scales(in->source, i, NULL, err)) == CKPT_OK)
            code = inspect_put_rows(in->source, i, &in->rows, NULL, err);
    }
    return code;
}

/* Check rows and compute statistics before anything is printed, so that errors come first. */
static ckpt_code read_values(inspection *in, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < ckpt_catalog_count(in->catalog) && opt.values != NULL; i++)
        if (in->chosen[i] && (code = inspect_check_rows(ckpt_catalog_at(in->catalog, i),
                                                        &in->rows, err)) != CKPT_OK)
            return code;
    return opt.stat ? read_statistics(in, err) : CKPT_OK;
}

static ckpt_code print_all(const inspection *in, ckpt_error *err)
{
    json_writer w;
    ckpt_code code = checkpoint_check_unchanged(in->checkpoint, err);

    if (code != CKPT_OK)
        return code;
    if (opt.common.json) {
        cli_json_begin(&w, "ckpt-inspect/1");
        code = put_all(&w, in, err);
        cli_json_end(&w);
        return code;
    }
    if (opt.jsonl)
        return print_lines(in, err);
    if (opt.names_only) {
        print_tensor_names(in);
        return CKPT_OK;
    }
    if (opt.stat || opt.values == NULL)
        print_text(in);
    return opt.values == NULL ? CKPT_OK : print_rows(in, err);
}

/* The names of files and those of the family differ: a pattern of the one may be meant for the
 * other. */
static ckpt_code fail_glob(const inspection *in, const char *glob, const char *path,
                           ckpt_error *err)
{
    const ckpt_catalog *others = ckpt_source_catalog(
        opt.logical ? ckpt_stored(in->checkpoint) : ckpt_logical(in->checkpoint));
    const char *what = !catalog_has_match(others, glob) ? ""
                       : opt.logical                    ? ", but its stored names: --logical, "
                                                          "--stat and --values take those that "
                                                          "--logical lists"
                                                        : ", but with --logical";

    return ckpt_fail(err, CKPT_E_USAGE, "--tensors '%s' matches no tensor of '%s'%s", glob, path,
                     what);
}

static ckpt_code check_globs(const inspection *in, const char *path, ckpt_error *err)
{
    for (size_t i = 0; i < opt.globs.count; i++)
        if (!catalog_has_match(in->catalog, opt.globs.items[i]))
            return fail_glob(in, opt.globs.items[i], path, err);
    return CKPT_OK;
}

/* Limits below MEMORY_FLOOR_BYTES are raised for opening; a checkpoint must fit the one given. */
static ckpt_code check_memory(const ckpt_checkpoint *c, ckpt_error *err)
{
    const uint64_t need = ckpt_checkpoint_bytes(c);

    if (opt.common.memory_bytes >= MEMORY_FLOOR_BYTES || need <= opt.common.memory_bytes)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_MEMORY, "the memory limit of %" PRIu64 " bytes is too small: at "
                     "least %" PRIu64 " are needed, for catalogs", opt.common.memory_bytes, need);
}

static ckpt_code inspect(const char *path, int *status, ckpt_error *err)
{
    static inspection in;
    ckpt_checkpoint *c = NULL;
    ckpt_code code;

    opt.logical |= opt.stat || opt.values != NULL;
    if (opt.values != NULL && !inspect_parse_rows(opt.values, &in.rows))
        return ckpt_fail(err, CKPT_E_USAGE, "--values '%s': expected a row, as in 5, or the first "
                         "and the last, as in 0-3", opt.values);
    opt.open.places = remote_places(&opt.common);
    if ((code = ckpt_open(path, &opt.open, &c, err)) != CKPT_OK ||
        (code = checkpoint_note_ids(c, err)) != CKPT_OK)
        goto out;
    if ((code = check_memory(c, err)) != CKPT_OK)
        goto out;
    if (opt.loader != NULL) {
        code = inspect_for(c, opt.loader, opt.common.json, status, err);
        goto out;
    }
    if ((code = inspect_note_config(c, err)) != CKPT_OK)
        goto out;
    if (opt.stat && (code = checkpoint_note_root(c, CHECKPOINT_ROOT_CHECK, &c->notes,
                                                 err)) != CKPT_OK)
        goto out;
    in.checkpoint = c;
    in.source = opt.logical ? ckpt_logical(c) : ckpt_stored(c);
    in.catalog = ckpt_source_catalog(in.source);
    in.chosen = calloc(ckpt_catalog_count(in.catalog) + 1, sizeof *in.chosen);
    if (in.chosen == NULL) {
        code = ckpt_fail_memory(err, "a list", ckpt_catalog_count(in.catalog));
        goto out;
    }
    count_tensors(&in);
    if ((code = check_globs(&in, path, err)) == CKPT_OK &&
        (code = read_values(&in, err)) == CKPT_OK)
        code = print_all(&in, err);
    if (code == CKPT_OK && opt.values != NULL)       /* they were read while they were printed */
        code = checkpoint_check_unchanged(c, err);
out:
    statistics_release(&in.statistics);
    free(in.chosen);
    ckpt_close(c);
    return code;
}

int main(int argc, char **argv)
{
    cli_args args;
    ckpt_error err;
    int status = cli_parse(&command, argc, argv, &args);

    if (status != CLI_GO)
        return cli_finish(status);
    status = CLI_DONE;
    if (inspect(args.items[0], &status, &err) != CKPT_OK)
        status = cli_fail(&err);
    return cli_finish(status);
}
