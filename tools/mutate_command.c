/* ckpt-verify mutate. */
#include "mutate_command.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certify_command.h"
#include "formats/format.h"
#include "open_options.h"
#include "verify/certificate_read.h"
#include "verify/json_line.h"
#include "verify/self_test.h"

static struct {
    cli_common common;
    ckpt_open_options open;
    cli_list kinds;
    const char *policy;
    int list;
} opt = { .common = CLI_COMMON_DEFAULTS };

static const cli_option options[] = {
    { CLI_LIST, "kind", "NAME", &opt.kinds, "only this mutation; may be repeated" },
    { CLI_STRING, "policy", "FILE", &opt.policy, "what must hold (default: as certify)" },
    { CLI_FLAG, "list", NULL, &opt.list, "print the mutations and exit" },
    CLI_READ_OPTIONS(opt.open, opt.common)
};

static const cli_rule rules[] = {
    { "list", NULL, "kind|policy|json" },
    { NULL, NULL, NULL }
};

static const char *word_of_mutation(size_t i)
{
    return i < mutation_count() ? mutation_name(i) : NULL;
}

static const cli_words words[] = { { "kind", word_of_mutation }, { NULL, NULL } };

const cli_command mutate_command = {
    .name = "mutate",
    .summary = "test that the checks find faults",
    .usage = "[OPTIONS] PATH",
    .description =
        "Makes one fault after another in PATH, as its bytes are read, and checks the result as "
        "`certify PATH MUTATED` would: experts exchanged, a scale shifted, a matrix transposed, "
        "one bit flipped, another rope_theta and so on. Nothing is written. A fault that no check "
        "finds is reported as MISSED. Faults that PATH has no place for are not applicable, and "
        "are never counted as found.",
    .exit_notes = "0  every applicable fault was found\n1  a fault was missed\n"
                  "2  could not; one line on stderr says what failed",
    .examples = "ckpt-verify mutate DeepSeek-V4-Flash\n"
                "ckpt-verify mutate --kind swap_experts --kind flip_bit_fp4 DeepSeek-V4-Flash",
    .options = options,
    .rules = rules,
    .words = words,
    .arg_min = 0,
    .arg_max = 1,
    .surplus = "faults are made in what is read, nothing is written",
};

/* Find the requested kinds. *out: by kind, 1 if requested; NULL: all are. */
static ckpt_code choose(uint8_t **out, ckpt_error *err)
{
    *out = NULL;
    if (opt.kinds.count == 0)
        return CKPT_OK;
    if ((*out = calloc(mutation_count(), 1)) == NULL)
        return ckpt_fail_memory(err, "a list", mutation_count());
    for (size_t i = 0; i < opt.kinds.count; i++) {
        const size_t kind = mutation_find(opt.kinds.items[i]);

        if (kind == mutation_count())
            return ckpt_fail(err, CKPT_E_USAGE, "--kind '%s' is not known: --list prints all",
                             opt.kinds.items[i]);
        (*out)[kind] = 1;
    }
    return CKPT_OK;
}

static void print_list(void)
{
    for (size_t i = 0; i < mutation_count(); i++)
        printf("%-22s %s\n", mutation_name(i), mutation_describe(i));
}

static void print_result(void *context, const mutation *made, const certificate_mutation *r)
{
    json_writer *w = context;
    json_writer line;

    if (w == NULL) {
        const char *what = made->reason != NULL ? made->reason : made->text;

        printf("%-6s  %-20s  %-16s  %s\n",
               !r->is_applicable ? "n/a" : r->is_caught ? "found" : "MISSED", r->name,
               r->is_caught ? r->by : "",
               made->reason == NULL && !r->is_applicable ? "it changes no value" : cli_name(what));
        return;
    }
    json_line_begin(&line, w);
    json_put_object(&line);
    json_member_string(&line, "name", r->name);
    json_member_bool(&line, "applicable", r->is_applicable);
    json_member_bool(&line, "caught", r->is_caught);
    json_member_string(&line, "by", r->by);
    json_member_string(&line, "what", made->reason == NULL ? made->text : NULL);
    json_member_string(&line, "reason", made->reason);
    json_put_object_end(&line);
    json_line_end(&line, w);
}

static ckpt_code test(ckpt_checkpoint *c, certificate *record, self_test_options *how,
                      ckpt_error *err)
{
    json_writer w;
    ckpt_code code;

    if (opt.common.json) {
        cli_json_begin(&w, "ckpt-mutate/1");
        json_put_object(&w);
        json_member_string(&w, "root", record->checkpoints[0].root);
        json_member_array(&w, "mutations");
        how->context = &w;
    }
    how->report = print_result;
    how->source = c->logical;
    how->config = c->config_text;
    how->config_root = checkpoint_config(c);
    how->official = c->official;
    code = self_test(record, how, err);
    if (code == CKPT_OK && self_test_applicable(record) == 0)
        code = ckpt_fail(err, CKPT_E_USAGE, "'%s' has no place for any of the mutations",
                         record->checkpoints[0].path);
    if (!opt.common.json) {
        if (code == CKPT_OK)
            printf("%zu of %zu applicable faults were found\n",
                   self_test_applicable(record) - self_test_missed(record),
                   self_test_applicable(record));
        return code;
    }
    json_put_array_end(&w);
    json_member_u64(&w, "applicable", self_test_applicable(record));
    json_member_u64(&w, "missed", self_test_missed(record));
    json_put_object_end(&w);
    cli_json_end(&w);
    return code;
}

static ckpt_code read_record(ckpt_checkpoint *c, certificate *record, cli_meter *meter,
                             ckpt_error *err)
{
    const certificate_read_options how = { .run = cli_run_options(&opt.common, meter) };
    certificate_checkpoint *m = certificate_add_checkpoint(record, err);
    ckpt_code code;

    if (m == NULL)
        return CKPT_E_MEMORY;
    m->has_place_for_config = layout_has_config(ckpt_layout_name(c));
    if ((code = certificate_read(c, &how, m, err)) != CKPT_OK || m->root[0] == '\0')
        return code;
    return checkpoint_check_root(c, m->root, "mutations of damaged values prove nothing", err);
}

ckpt_code mutate_run(const cli_args *args, int *status, ckpt_error *err)
{
    static cli_meter meter;      /* outlives this function: cli_fail erases its line */
    certificate_policy policy;
    certificate record = { .checkpoints = NULL };
    self_test_options how = { .policy = &policy };
    ckpt_checkpoint *c = NULL;
    uint8_t *wanted = NULL;
    ckpt_code code;

    if (opt.list && args->count > 0)
        return ckpt_fail(err, CKPT_E_USAGE, "--list prints what there is, and takes no PATH: got "
                         "'%s'", args->items[0]);
    if (opt.list) {
        print_list();
        return CKPT_OK;
    }
    if (args->count == 0)
        return ckpt_fail(err, CKPT_E_USAGE, "PATH is missing: what shall be mutated?");
    policy_init(&policy);
    if ((opt.policy != NULL && (code = policy_read(opt.policy, &policy, err)) != CKPT_OK) ||
        (code = choose(&wanted, err)) != CKPT_OK ||
        (code = ckpt_open(args->items[0], &opt.open, &c, err)) != CKPT_OK ||
        (code = read_record(c, &record, &meter, err)) != CKPT_OK)
        goto out;
    cli_meter_end(&meter);
    how.wanted = wanted;
    how.run = cli_run_options(&opt.common, NULL);
    how.run.fixed_bytes = ckpt_checkpoint_bytes(c);
    if ((code = test(c, &record, &how, err)) == CKPT_OK)
        *status = self_test_missed(&record) == 0 ? CLI_DONE : CLI_DIFFERENT;
out:
    certificate_release(&record);
    ckpt_close(c);
    free(wanted);
    policy_release(&policy);
    return code;
}
