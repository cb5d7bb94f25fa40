/* ckpt-verify certificate: checks a certificate's signature, and a checkpoint against it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certify_command.h"
#include "certify_deltas.h"
#include "formats/format.h"
#include "open_options.h"
#include "verify/certificate_check.h"
#include "verify/certificate_put.h"
#include "verify/certificate_read.h"
#include "verify/certificate_write.h"

static struct {
    cli_common common;
    ckpt_open_options open;
    const char *key;
    int files;
} opt = { .common = CLI_COMMON_DEFAULTS };

static const cli_option options[] = {
    { CLI_STRING, "key", "PUB", &opt.key,
      "the signature must be of this public key: PEM, Ed25519 or EC on P-256" },
    { CLI_FLAG, "files", NULL, &opt.files,
      "PATH must be the very files that were certified, not another copy of their values" },
    CLI_READ_OPTIONS(opt.open, opt.common)
};

const cli_command certificate_command = {
    .name = "certificate",
    .summary = "check a certificate, and a checkpoint against it",
    .usage = "[OPTIONS] FILE [PATH]",
    .description =
        "With --key the signature of FILE is checked. PATH, in any layout and encoding, must hold "
        "the values that were certified, a config.json that means the same for the forward pass, "
        "and the same tokenizer, chat template and prompt encoding where it has them; a layout "
        "that carries no MTP may lack mtp.*. The tensors that differ are named. No network is "
        "used. A certificate whose verdict is fail is refused.\n"
        "\n"
        "PATH may also be a delta that the certificate covers, whose files must be those that were "
        "certified, or the result of one.\n"
        "\n"
        "Without --key whoever wrote FILE is believed. Without --key and PATH there is nothing to "
        "check.",
    .exit_notes = "0  it is as the certificate says\n"
                  "1  it is not: another key, other values or files, or the verdict is fail\n"
                  "2  error; one line on stderr says what failed",
    .examples = "ckpt-verify certificate cert.json --key release.pub Flash-FP8\n"
                "ckpt-verify certificate --files --key release.pub cert.json DeepSeek-V4-Flash",
    .options = options,
    .arg_min = 1,
    .arg_max = 2,
    .surplus = "one copy at a time",
};

/* State of one run. */
typedef struct {
    const char *file;
    const char *path;              /* or NULL */
    signature_key *key;
    certificate_document document;
    ckpt_checkpoint *checkpoint;
    certificate c;                 /* checkpoints: the record, and what was read */
} checking;

static ckpt_code check_delta(checking *job, const certificate_read_options *read, ckpt_error *err)
{
    certificate_delta_roots roots;
    const ckpt_code code =
        certify_read_delta(job->path, read, &job->c.checkpoints[1], &roots, err);

    return code == CKPT_OK ? certificate_check_delta(&job->document, &job->c, &roots, err) : code;
}

static ckpt_code check_checkpoint(checking *job, const certificate_read_options *read,
                                  ckpt_error *err)
{
    certificate_checkpoint *m = &job->c.checkpoints[1];
    ckpt_code code;

    if ((code = ckpt_open(job->path, &opt.open, &job->checkpoint, err)) != CKPT_OK ||
        (code = certificate_read(job->checkpoint, read, m, err)) != CKPT_OK)
        return code;
    m->has_place_for_config = layout_has_config(m->layout);
    m->unlisted = opt.open.lenient ? NULL : &job->checkpoint->unread;
    return certificate_check_record(&job->document, &job->c, opt.files, err);
}

static ckpt_code check_path(checking *job, ckpt_error *err)
{
    static cli_meter meter;      /* outlives this function: cli_fail erases its line */
    char *tensors = certificate_tensor_path(job->file);
    const char *const left_out[] = { job->file, tensors == NULL ? job->file : tensors };
    const certificate_read_options read = { .run = cli_run_options(&opt.common, &meter),
                                            .values_only = !opt.files, .left_out = left_out,
                                            .left_out_count = 2 };
    ckpt_code code = CKPT_E_MEMORY;

    if (certificate_add_checkpoint(&job->c, err) != NULL &&
        certificate_add_checkpoint(&job->c, err) != NULL)
        code = certify_is_delta(job->path) ? check_delta(job, &read, err)
                                           : check_checkpoint(job, &read, err);
    cli_meter_end(&meter);
    free(tensors);
    return code;
}

static void print_text(const checking *job)
{
    const certificate_document *d = &job->document;

    printf("%s: verdict %s, made at %s, %s\n", job->file, cli_name(d->verdict),
           cli_name(d->made_at),
           job->key != NULL ? "signed by this key"
           : d->is_signed   ? "signed, but the signature was not checked: --key PUB does it"
                            : "not signed");
    if (d->note != NULL)
        printf("note     %s\n", d->note);
    certificate_print(&job->c);
}

static void print_json(const checking *job, int is_same)
{
    json_writer w;

    cli_json_begin(&w, "ckpt-certificate-check/1");
    json_put_object(&w);
    json_member_bool(&w, "same", is_same);
    json_member_string(&w, "verdict", job->document.verdict);
    json_member_string(&w, "made_at", job->document.made_at);
    json_member_bool(&w, "is_signed", job->document.is_signed);
    json_member_string(&w, "key", job->key == NULL ? NULL : signature_key_id(job->key));
    json_member_string(&w, "note", job->document.note);
    certificate_put_results(&w, &job->c);
    json_put_object_end(&w);
    cli_json_end(&w);
}

static ckpt_code run(checking *job, int *status, ckpt_error *err)
{
    ckpt_code code;
    int is_same;

    if (opt.files && job->path == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "--files needs the PATH whose files are checked");
    if ((code = cli_refuse_folder(job->file, "the certificate first, then PATH", err)) != CKPT_OK)
        return code;
    if (opt.key == NULL && job->path == NULL)
        return ckpt_fail(err, CKPT_E_USAGE, "nothing to check '%s' with: give --key PUB, PATH or "
                         "both", job->file);
    if ((opt.key != NULL &&
         (code = signature_read_public(opt.key, &job->key, err)) != CKPT_OK) ||
        (code = certificate_open(job->file, job->key, &job->document, err)) != CKPT_OK ||
        (job->path != NULL && (code = check_path(job, err)) != CKPT_OK))
        return code;
    is_same = strcmp(job->document.verdict, "pass") == 0 &&
              (job->path == NULL || certificate_passes(&job->c));
    if (opt.common.json)
        print_json(job, is_same);
    else
        print_text(job);
    *status = is_same ? CLI_DONE : CLI_DIFFERENT;
    return CKPT_OK;
}

ckpt_code certificate_run(const cli_args *args, int *status, ckpt_error *err)
{
    checking job = { .file = args->items[0], .path = args->count > 1 ? args->items[1] : NULL };
    const ckpt_code code = run(&job, status, err);

    certificate_release(&job.c);
    certificate_close(&job.document);
    ckpt_close(job.checkpoint);
    signature_key_free(job.key);
    return code;
}
