/* ckpt-verify: digests a checkpoint, checks it against a manifest, compares it with another. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "tools/download/listing_command.h"
#include "certify_command.h"
#include "difference_print.h"
#include "digest_command.h"
#include "remote_places.h"
#include "logits_command.h"
#include "mutate_command.h"
#include "option_words.h"
#include "open_options.h"
#include "formats/format.h"
#include "formats/hf.h"
#include "formats/ids.h"
#include "formats/mp.h"
#include "formats/notes.h"
#include "verify/check.h"
#include "verify/compare.h"
#include "libckpt/class_rules.h"
#include "libckpt/text.h"

enum { LINES_MAX = 20 };           /* lines of a list printed as text */

static struct {
    cli_common common;
    ckpt_open_options open;
    const char *manifest;
    const char *tensor_a;
    const char *tensor_b;
    const char *trace_a;
    const char *trace_b;
    logits_limit_texts limits;
    int main_only;
    int structure_only;
    int values;
    int weights_only;
    int bits;
    cli_list globs;
    cli_list rules;
    const char *as;
    const char *sort;
    const char *group;
    double tolerance;              /* negative: not given */
    int stat;
} opt = { .common = CLI_COMMON_DEFAULTS, .tolerance = -1 };

#define MAIN_OPTION { CLI_FLAG, "main", NULL, &opt.main_only, "ignore the tensors mtp.*" }

static const cli_option check_options_table[] = {
    { CLI_STRING, "manifest", "FILE", &opt.manifest,
      "the manifest that PATH must match (default: PATH/ckpt-manifest.json or "
      "ckpt-manifest.json.zst)" },
    { CLI_FLAG, "structure-only", NULL, &opt.structure_only,
      "check headers, names and stored checksums but no values; needs no manifest" },
    { CLI_FLAG, "values", NULL, &opt.values,
      "look for faults in the values themselves, too; needs no manifest" },
    { CLI_FLAG, "weights-only", NULL, &opt.weights_only,
      "ignore config.json and what else lies beside the weights (default: members that affect the "
      "forward pass, tokenizer, chat template and prompt encoding must agree)" },
    MAIN_OPTION,
    CLI_CONFIG_OPTION(opt.open),
    CLI_READ_OPTIONS(opt.open, opt.common)
};

static const cli_words check_words[] = { { "config", word_of_config }, { NULL, NULL } };

static const cli_rule check_rules[] = {
    { "structure-only", NULL, "manifest|main|weights-only|values" },
    { NULL, NULL, NULL }
};

static const cli_command check_command = {
    .name = "check",
    .summary = "check a checkpoint against its manifest",
    .usage = "[OPTIONS] PATH",
    .description =
        "Checks the structure: headers, offsets, index, names, weights and their scales, the "
        "tensors that the config requires. A weight file that the index does not list is a "
        "difference, unless --lenient is given. The stored checksums of a torch_dist are checked "
        "as well. All values are digested and compared with the manifest; tensors that differ are "
        "listed, and so are config.json members that affect the forward pass and differ from the "
        "manifest's record, and a missing config.json. So are tokenizer, chat template and prompt "
        "encoding where the manifest has their hashes; what is on one side only, and "
        "generation_config.json, is noted. A GGUF file that ckpt wrote holds its own root, "
        "which is checked, too. A checkpoint with neither is refused, unless --structure-only or "
        "--values is given or a hub listed its files.\n"
        "\n"
        "--values looks for faults without a reference: NaN and infinities, scales that are not "
        "finite, expert ids out of range or repeated in a row, matrices that are all 0, experts "
        "that are byte-identical, scales of whole tensors that are not above 0, dtypes narrower "
        "than the family's. Reported, but not faults: scales of 0, gates under two scales of whole "
        "tensors, FP4 scales too far apart for FP8 blocks, many codes of the largest magnitude, "
        "rows of 0, tensors whose rms differs from that of the same tensor in other layers (robust "
        "z-score above 10).\n"
        "\n"
        "A folder made by ckpt-download is first compared with the hub's listing: every file is "
        "hashed, whatever was recorded about it, without contacting the hub. Missing or different "
        "files are listed and end the check."
        "\n\n" REMOTE_HELP("PATH"),
    .examples = "ckpt-verify check Flash-FP8\n"
                "ckpt-verify check --manifest flash.json Flash-BF16\n"
                "ckpt-verify check --values Trained",
    .options = check_options_table,
    .words = check_words,
    .rules = check_rules,
    .arg_min = 1,
    .arg_max = 1,
    .surplus = "a manifest is given with --manifest, two checkpoints by ckpt-verify compare",
};

static const cli_option compare_options_table[] = {
    MAIN_OPTION,
    { CLI_FLAG, "weights-only", NULL, &opt.weights_only,
      "ignore config.json and what else lies beside the weights (default: members that affect the "
      "forward pass, tokenizer, chat template and prompt encoding must agree)" },
    { CLI_FLAG, "bits", NULL, &opt.bits,
      "also require identical encodings, codes and scales, not only equal values" },
    { CLI_LIST, "tensors", "GLOB", &opt.globs,
      "only tensors whose names match, as in '*.experts.7.*'; may be repeated" },
    { CLI_CHOICE, "as", "bf16|bf16-slime", &opt.as,
      "round the values of both to BF16 first: once, or as slime reads FP8, whose F32 scales it "
      "rounds before the product" },
    { CLI_LIST, "up-to-rule", "RULE", &opt.rules,
      "B's quantised tensors must be what this rule (fp8-b128-ue8m0, fp4-b32-deepseek ...) makes "
      "of A's values, byte by byte, or blocks that stand for exactly A's values; may be repeated" },
    CLI_CONFIG_OPTION(opt.open),
    { CLI_HEADING, NULL, NULL, NULL, "How far values are apart" },
    { CLI_FLAG, "stat", NULL, &opt.stat,
      "print relative Frobenius error, largest error, cosine, share and distance of changes" },
    { CLI_CHOICE, "sort", "error|max|cosine|changed|name", &opt.sort,
      "what stands first (default error)" },
    { CLI_CHOICE, "group", "layer|kind", &opt.group, "sum up by layer, or over all layers" },
    { CLI_NUMBER, "tolerance", "X", &opt.tolerance,
      "values may differ: by a relative error of X in every tensor, with nothing missing and "
      "integers the same; exit status 0 then" },
    CLI_READ_OPTIONS(opt.open, opt.common)
};

static const cli_rule compare_rules[] = {
    { "as", NULL, "bits" },
    { "tolerance", NULL, "bits" },
    { "up-to-rule", NULL, "bits|as|tolerance" },
    { "sort", "stat", NULL },
    { "group", "stat", NULL },
    { NULL, NULL, NULL }
};

static const cli_words compare_words[] = {
    { "config", word_of_config }, { "up-to-rule", word_of_rule }, { NULL, NULL }
};

static const cli_command compare_command = {
    .name = "compare",
    .summary = "compare two checkpoints, value by value",
    .usage = "[OPTIONS] A B",
    .description =
        "Layouts, names on disk and encodings are ignored; -0 equals +0, and all NaN are equal. "
        "Prints for every tensor that differs: row and column of the first difference (rows count "
        "over all dimensions but the last), both values, and the number of differing elements.\n"
        "\n"
        "Members of config.json that affect the forward pass (rope_theta, eps, ratios, top-k ...) "
        "are compared as well, in any spelling; those about encodings are not. So are tokenizer, "
        "chat template and prompt encoding (encoding/) where both have them; what is on one side "
        "only, and generation_config.json, is noted. The tokenizer in a GGUF file is compared with "
        "that of the other side: vocabulary, merges, special ids and chat template.\n"
        "\n"
        "--stat tells how far B is from A. Relative error: sqrt(sum (b - a)^2 / sum a^2). Pairs "
        "with NaN or infinity on a side are counted, and are in no sum. Distances are in units of "
        "the last place of BF16, or of F32 where both sides hold more than BF16 does."
        "\n\n" REMOTE_HELP("A and B"),
    .exit_notes = "0  the same, or within --tolerance\n1  different\n"
                  "2  error; one line on stderr says what failed",
    .examples = "ckpt-verify compare DeepSeek-V4-Flash Flash-BF16\n"
                "ckpt-verify compare --bits DeepSeek-V4-Flash Flash-again\n"
                "ckpt-verify compare --stat --group layer Base Trained\n"
                "ckpt-verify compare --as bf16 DeepSeek-V3 V3-BF16",
    .options = compare_options_table,
    .words = compare_words,
    .rules = compare_rules,
    .arg_min = 2,
    .arg_max = 2,
    .surplus = "the digests of any number are printed by ckpt-verify digest",
};

static const cli_option logits_options_table[] = {
    CLI_LOGITS_LIMITS(opt.limits),
    { CLI_HEADING, NULL, NULL, NULL, "Input" },
    { CLI_STRING, "tensor-a", "NAME", &opt.tensor_a,
      "tensor of A (default: logits or top_logits, and those of MTP)" },
    { CLI_STRING, "tensor-b", "NAME", &opt.tensor_b, "tensor of B (same default)" },
    { CLI_STRING, "trace-a", "FILE", &opt.trace_a,
      "trace of A: report the first layer and point that differ" },
    { CLI_STRING, "trace-b", "FILE", &opt.trace_b, "trace of B" },
    CLI_COMMON_READ(opt.common),
    CLI_OPTIONS_END
};

static const cli_rule logits_rules[] = {
    { "trace-a", "trace-b", NULL },
    { "trace-b", "trace-a", NULL },
    { NULL, NULL, NULL }
};

static const cli_command logits_command = {
    .name = "logits",
    .summary = "compare the logits of two runs",
    .usage = "[OPTIONS] A B",
    .description =
        "A and B are outputs of ckpt-run (all logits or the --top K best) or golden files. Prints "
        "KL divergence, differences and agreement over all positions; --json also lists every "
        "position. Different tokens, positions or shapes are an error. A NaN never counts as "
        "equal.",
    .exit_notes = "0  within all limits, or bit-identical if there are none\n1  different\n"
                  "2  error; one line on stderr says what failed",
    .examples = "ckpt-verify logits flash.safetensors flash-bf16.safetensors\n"
                "ckpt-verify logits --max-kl 1e-9 --tensor-b logits_exact out.safetensors "
                "golden.safetensors",
    .options = logits_options_table,
    .rules = logits_rules,
    .arg_min = 2,
    .arg_max = 2,
};

static const cli_command *const subcommands[] = {
    &digest_command, &check_command, &compare_command, &logits_command, &certify_command,
    &certificate_command, &mutate_command, NULL
};

static const cli_hint hints[] = {
    { "diff", "it is called compare" }, { "cmp", "it is called compare" },
    { "hash", "it is called digest" }, { "sum", "it is called digest" },
    { "root", "it is called digest" }, { "sha256", "it is called digest" },
    { "checksum", "it is called digest" }, { "verify", "it is called check" },
    { "validate", "it is called check" }, { "sign", "it is called certify" },
    { "fuzz", "it is called mutate" }, { NULL, NULL }
};

static const cli_topic environment[] = {
    { "SOURCE_DATE_EPOCH", "The date that certify writes into a certificate, in seconds since "
      "1970-01-01; for results that can be reproduced byte by byte." },
    { NULL, NULL }
};

static const cli_topic known_files[] = {
    { "PATH/ckpt-manifest.json", "What check compares with; see ckpt-manifest(5). "
      "ckpt-manifest.json.zst is read, too." },
    { "PATH/.cache/huggingface", "The hub's listing, as ckpt-download left it; check and certify "
      "hash the files against it." },
    { "FILE.tensors.json.zst", "Digests of tensors that certify leaves beside a certificate." },
    { NULL, NULL }
};

static const cli_command command = {
    .name = "ckpt-verify",
    .summary = "prove that checkpoints hold the same values",
    .usage = "digest|check|compare|logits|certify|certificate|mutate [OPTIONS] ...",
    .subcommands = subcommands,
    .hints = hints,
    .environment = environment,
    .files = known_files,
    .see_also = "sha256sum(1) ckpt-certificate(5) ckpt-manifest(5) ckpt-json(5) ckpt-digest(7)",
};

/* ---- common to the subcommands ---- */

static ckpt_run_options copy_with(cli_meter *meter, uint64_t fixed_bytes)
{
    ckpt_run_options copy = cli_run_options(&opt.common, meter);

    copy.fixed_bytes = fixed_bytes;
    return copy;
}

/* Print how many lines of a list are omitted; 1 if line `i` exceeds the limit. */
static int is_cut(size_t i, size_t count, const char *what)
{
    if (i < LINES_MAX)
        return 0;
    printf("... and %zu more %s; --json lists them all\n", count - i, what);
    return 1;
}

static void print_names(const char *what, const char *const *names, size_t count)
{
    for (size_t i = 0; i < count && !is_cut(i, count, what); i++)
        printf("%s  %s\n", what, cli_name(names[i]));
}

/* ---- check ---- */

static void print_sums(const char *path, const sums_result *r)
{
    char size[CLI_SIZE_TEXT_BYTES];

    cli_size_text(r->checked_bytes, size);
    if (r->checked_count > 0)
        printf("%s: %zu of %s of stored tensors match, %s\n", path,
               r->checked_count - r->wrong_count,
               text_count(r->checked_count, "checksum", "checksums").text, size);
    if (r->absent_count > 0)
        printf("%s: %s no checksum: their writer omitted it\n", path,
               text_count(r->absent_count, "stored tensor has", "stored tensors have").text);
}

static void print_config_differences(const config_verdict *v, const char *a, const char *b)
{
    for (size_t i = 0; i < v->comparison.count; i++) {
        const config_difference *d = &v->comparison.differing[i];

        printf("config    %s: %s %s, %s %s\n", cli_name(d->name), a,
               d->a == NULL ? "absent" : cli_name(d->a), b,
               d->b == NULL ? "absent" : cli_name(d->b));
    }
}

/* `a` and `b`: names of the two sides. */
static void print_companions(const companion_comparison *c, const char *a, const char *b)
{
    for (size_t i = 0; i < c->count; i++) {
        const companion_difference *d = &c->differing[i];
        const int is_note = d->kind != COMPANION_CHANGED || d->role == CERTIFICATE_GENERATION;

        if (d->kind == COMPANION_REWRITTEN)
            continue;
        printf("%s  %s", is_note ? "note" : "differ", cli_name(d->file));
        if (d->kind == COMPANION_CHANGED)
            printf(": %s%s\n", d->member == NULL ? "another content" : "member ",
                   d->member == NULL ? "" : cli_name(d->member));
        else
            printf(" is only in %s\n", d->kind == COMPANION_MISSING ? a : b);
    }
    if (c->note != NULL)
        printf("note  %s\n", cli_name(c->note));
}

static void print_findings(const char *path, const value_findings *f)
{
    printf("%s: %s and %s on the values of %s\n", path,
           text_count(f->fault_count, "fault", "faults").text,
           text_count(f->count - f->fault_count, "remark", "remarks").text,
           text_count(f->tensor_count, "tensor", "tensors").text);
    for (size_t i = 0; i < f->count && !is_cut(i, f->count, "findings"); i++) {
        char text[VALUE_TEXT_BYTES] = "";

        value_finding_text(&f->items[i], text);
        printf("%-7s  %s  %s: %s\n", value_kind_is_fault(f->items[i].kind) ? "fault" : "remark",
               cli_name(f->items[i].name), value_kind_name(f->items[i].kind), cli_name(text));
    }
}

static void print_check(const char *path, const check_result *r, const file_list *notes)
{
    const size_t other_count = r->unlisted_count + r->sums.wrong_count + r->copy_count +
                               (size_t)r->config_is_gone + (size_t)r->root_is_other;
    char size[CLI_SIZE_TEXT_BYTES];

    cli_size_text(r->stored_bytes, size);
    printf("%s: structure is %s: %s, stored as %zu in %s, %s, layout %s, family %s\n", path,
           r->unlisted_count == 0 ? "right" : "NOT right",
           text_count(r->tensor_count, "tensor", "tensors").text, r->stored_count,
           text_count(r->file_count, "file", "files").text, size, r->layout, r->family);
    print_sums(path, &r->sums);
    if (r->stored_root != NULL)
        printf("%s: values are %s the key %s says, root %s\n", path,
               r->root_is_other ? "NOT as" : "as", r->root_key, r->root);
    else if (r->manifest_path == NULL && !r->files_are_right && !r->has_values)
        printf("%s: values were not checked\n", path);
    if (r->manifest_path != NULL)
        printf("%s: values are %s '%s', root %s\n", path,
               r->differing_count == other_count ? "as in" : "NOT as in", r->manifest_path,
               r->root);
    if (r->has_values)
        print_findings(path, &r->values);
    print_config_differences(&r->config, "expected", "got");
    print_companions(&r->companions, "the manifest", "the checkpoint");
    print_names("note", (const char *const *)notes->names, notes->count);
    for (size_t i = 0; i < r->differing_count && !is_cut(i, r->differing_count, "differ"); i++) {
        const check_difference *d = &r->differing[i];

        printf("%-8s  %s", check_kind_name(d->kind), cli_name(d->name));
        if (d->file != NULL)
            printf("  in '%s'", cli_name(d->file));
        if (d->expected[0] != '\0')
            printf("  expected %s, got %s", d->expected, d->got);
        if (d->kind == CHECK_ROOT)
            printf("  expected %s, got %s", r->stored_root, r->root);
        putchar('\n');
    }
}

static ckpt_code check(const char *path, int *status, ckpt_error *err)
{
    check_options options = { .path = path, .manifest = opt.manifest };
    listing_outcome listed = { 0, 0 };
    ckpt_checkpoint *c = NULL;
    check_result result;
    static cli_meter meter;      /* static, because cli_fail erases its line */
    json_writer w;
    ckpt_code code;

    if (opt.manifest != NULL &&
        (code = cli_refuse_folder(opt.manifest, "a manifest, such as ckpt-manifest.json in it; "
                                  "ckpt-verify compare compares two checkpoints", err)) != CKPT_OK)
        return code;
    if (!opt.structure_only && (code = listing_command(path, opt.manifest, &opt.common, &listed,
                                                       err)) != CKPT_OK)
        return code;
    if (listed.is_final) {
        *status = listed.is_right ? CLI_DONE : CLI_DIFFERENT;
        return CKPT_OK;
    }
    if ((code = ckpt_open(path, &opt.open, &c, err)) != CKPT_OK)
        return code;
    if (!opt.structure_only && (code = checkpoint_note_ids(c, err)) != CKPT_OK)
        goto out;
    options.main_only = opt.main_only;
    options.structure_only = opt.structure_only;
    options.files_are_right = listed.is_right;
    options.weights_only = opt.weights_only;
    options.values = opt.values;
    options.official = c->official;
    options.config = c->config == NULL ? NULL : json_root(c->config);
    options.has_place_for_config = c->format == &format_hf || c->format == &format_mp;
    options.store = c->store;
    options.unread = opt.open.lenient ? NULL : &c->unread;
    options.copy = copy_with(&meter, ckpt_checkpoint_bytes(c));
    if ((code = check_checkpoint(c, &options, &result, err)) != CKPT_OK)
        goto out;
    cli_meter_end(&meter);
    if (result.config.note != NULL)
        code = note_add(&c->notes, err, "%s", result.config.note);
    if (code == CKPT_OK && result.companion_note != NULL)
        code = note_add(&c->notes, err, "%s", result.companion_note);
    if (opt.common.json) {
        cli_json_begin(&w, "ckpt-check/1");
        check_put(&w, &result, &c->notes);
        cli_json_end(&w);
    } else {
        print_check(path, &result, &c->notes);
    }
    *status = check_is_same(&result) ? CLI_DONE : CLI_DIFFERENT;
    check_release(&result);
out:
    ckpt_close(c);
    return code;
}

/* ---- compare ---- */

static void print_values(const ckpt_difference *d, const char *a, const char *b)
{
    printf("  row %" PRIu64 " column %" PRIu64 ": ", d->row, d->col);
    if (opt.rules.count > 0 && strcmp(a, b) == 0)
        printf("%s in both, by another code or scale than the rule's", a);
    else
        printf("%s in A, %s in B", a, b);
    printf("; %" PRIu64 " of %s\n", d->count,
           text_count(ckpt_tensor_rows(d->a) * ckpt_tensor_cols(d->a), "element differs",
                      "elements differ").text);
}

static void print_difference(const ckpt_difference *d)
{
    char a[CKPT_DIFFERENCE_BYTES];
    char b[CKPT_DIFFERENCE_BYTES];

    ckpt_difference_text(d, 0, a);
    ckpt_difference_text(d, 1, b);
    printf("differ  %s", cli_name(d->a->name));
    if (d->kind == CKPT_DIFFERENT_BITS)
        printf("  equal values, %" PRIu64 " bytes of codes and scales differ, first at row %" PRIu64
               " column %" PRIu64 "\n", d->count, d->row, d->col);
    else if (d->kind == CKPT_DIFFERENT_VALUES)
        print_values(d, a, b);
    else if (d->kind == CKPT_DIFFERENT_COPY)
        printf("  %c stores it twice, and '%s' has different bytes, first at row %" PRIu64 " "
            "column %"
               PRIu64 "\n", d->side == 0 ? 'A' : 'B', cli_name(d->file), d->row, d->col);
    else
        printf("  %s: %s in A, %s in B\n", ckpt_difference_name(d->kind), a, b);
}

/* 1 when one side lacks tensors mtp.*, as most GGUF files do, and that is all. */
static int lacks_mtp_alone(const ckpt_comparison *c)
{
    const char **const missing[] = { c->missing_in_a, c->missing_in_b };
    const size_t counts[] = { c->missing_in_a_count, c->missing_in_b_count };

    for (int side = 0; side < 2; side++)
        for (size_t i = 0; i < counts[side]; i++)
            if (!digest_is_mtp(missing[side][i]))
                return 0;
    return c->differing_count == 0 && counts[0] + counts[1] > 0;
}

static void print_comparison(const ckpt_comparison *c)
{
    printf("%s: %s, %s", ckpt_comparison_is_same(c) ? "same" : "different",
           text_count(c->compared, "tensor", "tensors").text,
           text_count(c->element_count, "element compared", "elements compared").text);
    if (c->other_encoding_count > 0)
        printf(", %s in different encodings",
               text_count(c->other_encoding_count, "tensor", "tensors").text);
    if (c->differing_count > 0)
        printf(", %s", text_count(c->differing_count, "tensor differs", "tensors differ").text);
    putchar('\n');
    for (size_t i = 0; i < c->differing_count && !is_cut(i, c->differing_count, "differ"); i++)
        if (!opt.stat || c->differing[i].kind != CKPT_DIFFERENT_VALUES)
            print_difference(&c->differing[i]);
    print_config_differences(&c->config, "in A", "in B");
    print_companions(&c->companions, "A", "B");
    print_names("missing in A", c->missing_in_a, c->missing_in_a_count);
    print_names("missing in B", c->missing_in_b, c->missing_in_b_count);
    if (c->by_rule_count > 0)
        printf("by rule: %s, %s, %" PRIu64 " with A's values in other bytes, %" PRIu64 " wrong\n",
               text_count(c->by_rule_count, "tensor", "tensors").text,
               text_count(c->blocks.made, "block as the rule makes it",
                          "blocks as the rule makes them")
                   .text,
               c->blocks.kept, c->blocks.wrong);
    if (!opt.bits && c->re_encoded_count > 0)
        printf("%s equal values but different codes or scales (--bits lists them)\n",
               text_count(c->re_encoded_count, "tensor has", "tensors have").text);
    for (int i = 0; i < 2; i++)
        print_names(i == 0 ? "note  A:" : "note  B:",
                    (const char *const *)c->inputs[i].notes->names, c->inputs[i].notes->count);
    if (c->config.note != NULL)
        printf("note  %s\n", c->config.note);
    if (lacks_mtp_alone(c))
        printf("note  only tensors mtp.* are missing: --main compares without them\n");
}

static compare_options make_compare_options(cli_meter *meter)
{
    compare_options options = {
        .asked = { .main_only = opt.main_only, .bits = opt.bits,
                   .weights_only = opt.weights_only },
        .globs = opt.globs.items, .glob_count = opt.globs.count,
        .measure = opt.stat || opt.tolerance >= 0,
    };

    options.asked.run = copy_with(meter, 0);
    if (opt.as != NULL)
        options.form = strcmp(opt.as, "bf16") == 0 ? COMPARE_AS_BF16 : COMPARE_AS_BF16_SLIME;
    return options;
}

/* Look up the rules of --up-to-rule. */
static ckpt_code find_rules(const quantise_rule *out[CLI_LIST_MAX], ckpt_error *err)
{
    for (size_t i = 0; i < opt.rules.count; i++) {
        const char *name = opt.rules.items[i];

        if (class_rules_is_preset(name))
            return ckpt_fail(err, CKPT_E_USAGE, "--up-to-rule '%s': expected a rule, not those of "
                             "a release: give each of them by its name, such as fp8-ue8m0 and fp4",
                             name);
        if ((out[i] = quantise_rule_find(name)) == NULL)
            return ckpt_fail(err, CKPT_E_USAGE, "--up-to-rule '%s': no such rule; the nearest is "
                             "'%s', and ckpt(7) lists all", name, quantise_rule_nearest(name));
        if (out[i]->from_fp4)
            return ckpt_fail(err, CKPT_E_USAGE, "--up-to-rule '%s': this rule changes no value; "
                             "compare without it", name);
    }
    return CKPT_OK;
}

static difference_order chosen_order(void)
{
    static const char *const words[] = { "error", "max", "cosine", "changed", "name" };
    int i = opt.sort == NULL ? 0 : (int)(sizeof words / sizeof *words) - 1;

    while (i > 0 && strcmp(words[i], opt.sort) != 0)
        i--;
    return (difference_order)i;
}

/* Put the output of --stat into the text or the document. */
static ckpt_code put_statistics(json_writer *w, const ckpt_comparison *result, ckpt_error *err)
{
    const difference_group group = opt.group == NULL                  ? DIFFERENCE_TENSORS
                                   : strcmp(opt.group, "layer") == 0 ? DIFFERENCE_LAYERS
                                                                      : DIFFERENCE_KINDS;
    difference_table list;
    ckpt_code code;

    if (!opt.stat)
        return CKPT_OK;
    if ((code = difference_table_make(result, group, chosen_order(), &list, err)) != CKPT_OK)
        return code;
    if (opt.common.json) {
        json_put_key(w, "total");
        difference_put_total(w, &list);
        json_put_key(w, opt.group == NULL ? "tensors" : "groups");
        difference_put_entries(w, &list);
    } else {
        difference_print(&list, group);
    }
    difference_table_release(&list);
    return CKPT_OK;
}

static void print_tolerance(const ckpt_comparison *result, int is_within)
{
    const compare_measured *farthest;
    const size_t count = compare_count_beyond(result, opt.tolerance, &farthest);

    printf("%s the tolerance of %g", is_within ? "within" : "NOT within", opt.tolerance);
    if (count > 0)
        printf(": %s beyond it, the farthest is '%s'",
               text_count(count, "tensor is", "tensors are").text, cli_name(farthest->a->name));
    if (count > 0 && difference_relative(&farthest->statistics) > opt.tolerance)
        printf(" (relative error %.4g)", difference_relative(&farthest->statistics));
    putchar('\n');
}

static ckpt_code put_comparison(const ckpt_comparison *result, int is_within, ckpt_error *err)
{
    json_writer w;
    ckpt_code code;

    if (!opt.common.json) {
        print_comparison(result);
        if (opt.tolerance >= 0)
            print_tolerance(result, is_within);
        return put_statistics(NULL, result, err);
    }
    cli_json_begin(&w, "ckpt-compare/1");
    json_put_object(&w);
    compare_put_members(&w, result);
    json_member_string(&w, "as", opt.as);
    if (opt.tolerance >= 0) {
        json_member_double(&w, "tolerance", opt.tolerance);
        json_member_bool(&w, "within_tolerance", is_within);
    }
    code = put_statistics(&w, result, err);
    json_put_object_end(&w);
    cli_json_end(&w);
    return code;
}

/* Open a side with --config if it has no config of its own; most often the other side has one. */
static ckpt_code open_side(const char *path, ckpt_checkpoint **out, int *takes_config,
                           ckpt_error *err)
{
    ckpt_open_options own = opt.open;
    ckpt_error first;
    ckpt_code first_code;
    ckpt_code code;

    own.config = NULL;
    first_code = ckpt_open(path, &own, out, &first);
    *takes_config = opt.open.config != NULL && (first_code != CKPT_OK || (*out)->config == NULL);
    if (*takes_config) {
        ckpt_close(*out);
        *out = NULL;
        code = ckpt_open(path, &opt.open, out, err);
        if (first_code == CKPT_OK || code != CKPT_E_USAGE)
            return code;
    }
    if (first_code != CKPT_OK)          /* the path may have a config and be wrong otherwise */
        *err = first;
    return first_code;
}

static ckpt_code open_sides(const char *a_path, const char *b_path, ckpt_checkpoint **a,
                            ckpt_checkpoint **b, ckpt_error *err)
{
    int takes_a;
    int takes_b;
    ckpt_code code;

    if ((code = open_side(a_path, a, &takes_a, err)) != CKPT_OK ||
        (code = open_side(b_path, b, &takes_b, err)) != CKPT_OK)
        return code;
    if (opt.open.config != NULL && !takes_a && !takes_b)
        return ckpt_fail(err, CKPT_E_USAGE, "A and B each have a config.json: leave out --config");
    return CKPT_OK;
}

static ckpt_code compare(const char *a_path, const char *b_path, int *status, ckpt_error *err)
{
    ckpt_checkpoint *a = NULL;
    ckpt_checkpoint *b = NULL;
    ckpt_comparison *result = NULL;
    const quantise_rule *rules[CLI_LIST_MAX];
    compare_options options;
    static cli_meter meter;      /* static, because cli_fail erases its line */
    ckpt_code code;
    int is_within;

    if ((code = find_rules(rules, err)) != CKPT_OK ||
        (code = open_sides(a_path, b_path, &a, &b, err)) != CKPT_OK ||
        (code = checkpoint_note_root(a, CHECKPOINT_ROOT_CHECK, &a->notes, err)) != CKPT_OK ||
        (code = checkpoint_note_root(b, CHECKPOINT_ROOT_CHECK, &b->notes, err)) != CKPT_OK)
        goto out;
    options = make_compare_options(&meter);
    options.rules = rules;
    options.rule_count = opt.rules.count;
    if ((code = compare_checkpoints(a, b, &options, &result, err)) != CKPT_OK)
        goto out;
    cli_meter_end(&meter);
    is_within = opt.tolerance >= 0 ? compare_is_within(result, opt.tolerance)
                                   : ckpt_comparison_is_same(result);
    if ((code = put_comparison(result, is_within, err)) == CKPT_OK)
        *status = is_within ? CLI_DONE : CLI_DIFFERENT;
out:
    ckpt_comparison_free(result);
    ckpt_close(a);
    ckpt_close(b);
    return code;
}

/* ---- logits ---- */

static ckpt_code logits(const char *a_path, const char *b_path, int *status, ckpt_error *err)
{
    const logits_input a = { a_path, opt.tensor_a };
    const logits_input b = { b_path, opt.tensor_b };
    const int with_traces = opt.trace_a != NULL;
    logits_comparison result;
    logits_limits limits;
    logits_trace trace;
    json_writer w;
    ckpt_code code;

    if ((code = logits_parse_limits(&opt.limits, limits, err)) != CKPT_OK ||
        (with_traces &&
         (code = logits_compare_traces(opt.trace_a, opt.trace_b, &trace, err)) != CKPT_OK) ||
        (code = logits_compare(&a, &b, &result, err)) != CKPT_OK)
        return code;
    if (opt.common.json) {
        cli_json_begin(&w, "ckpt-logits/1");
        logits_put(&w, &result, limits, with_traces ? &trace : NULL);
        cli_json_end(&w);
    } else {
        logits_print(&result, limits, with_traces ? &trace : NULL);
    }
    *status = logits_is_same(&result, limits) ? CLI_DONE : CLI_DIFFERENT;
    logits_release(&result);
    return CKPT_OK;
}

int main(int argc, char **argv)
{
    cli_args args;
    ckpt_error err;
    ckpt_code code;
    int status = cli_parse(&command, argc, argv, &args);

    if (status != CLI_GO)
        return cli_finish(status);
    status = CLI_DONE;
    opt.open.places = remote_places(&opt.common);
    if (args.command == &digest_command)
        code = digest_run(&args, &status, &err);
    else if (args.command == &check_command)
        code = check(args.items[0], &status, &err);
    else if (args.command == &compare_command)
        code = compare(args.items[0], args.items[1], &status, &err);
    else if (args.command == &certify_command)
        code = certify_run(&args, &status, &err);
    else if (args.command == &certificate_command)
        code = certificate_run(&args, &status, &err);
    else if (args.command == &mutate_command)
        code = mutate_run(&args, &status, &err);
    else
        code = logits(args.items[0], args.items[1], &status, &err);
    return cli_finish(code == CKPT_OK ? status : cli_fail(&err));
}
