/* cli_output.c: errors of a command, and the check that its output was written. */
#include "cli.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli_private.h"
#include "libckpt/error.h"
#include "libckpt/file.h"

int cli_wants_json;
int cli_wants_lines;
int cli_pipe_is_ignored;
static int has_document;            /* one was begun on standard output */

void cli_json_begin(json_writer *w, const char *schema)
{
    has_document = 1;
    json_writer_begin(w, json_write_stdio, stdout, 1);
    w->schema = schema;
}

void cli_json_line(json_writer *w, const char *schema)
{
    has_document = 1;
    json_writer_begin(w, json_write_stdio, stdout, 0);
    w->schema = schema;
}

void cli_json_end(json_writer *w)
{
    json_writer_end(w);
    putchar('\n');
}

/* A program that reads JSON need not read stderr as well. */
static void put_error(const ckpt_error *err)
{
    static const char *const reasons[] = { "fine", "format", "io", "usage", "memory", "inexact",
                                           "interrupted", "different" };
    json_writer w;

    /* Of lines an error is one more; a document that was begun is the command's to end. */
    if (cli_wants_lines)
        cli_json_line(&w, "ckpt-error/1");
    else if (cli_wants_json && !has_document)
        cli_json_begin(&w, "ckpt-error/1");
    else
        return;
    json_put_object(&w);
    json_member_string(&w, "error", err->text);
    json_member_string(&w, "reason", reasons[err->code]);
    json_put_object_end(&w);
    cli_json_end(&w);
}

int cli_fail(const ckpt_error *err)
{
    cli_erase_progress();
    put_error(err);
    fprintf(stderr, "%s: %s\n", cli_program_name, err->text);
    return err->code == CKPT_E_DIFFERENT ? CLI_DIFFERENT : CLI_FAILED;
}

ckpt_code cli_refuse_folder(const char *path, const char *expected, ckpt_error *err)
{
    return !file_is_directory(path)
               ? CKPT_OK
               : ckpt_fail(err, CKPT_E_USAGE, "'%s' is a folder: expected %s", path, expected);
}

/* The errno of an earlier failed write is lost, but poll still reports a closed pipe. */
static int reader_is_gone(void)
{
    struct pollfd output = { STDOUT_FILENO, POLLOUT, 0 };

    return poll(&output, 1, 0) == 1 && (output.revents & POLLERR) != 0;
}

int cli_finish(int status)
{
    int why;

    cli_answer_report();
    cli_erase_progress();
    errno = 0;
    /* The errno of an earlier write is lost; another write most likely fails for the same
     * reason. */
    if ((fflush(stdout) != 0 || ferror(stdout)) && errno == 0 && putchar('\n') != EOF)
        fflush(stdout);
    why = errno;
    if (status == CLI_FAILED && cli_stop_signal() != 0)
        cli_end_by_signal(cli_stop_signal());
    if (status == CLI_FAILED || !ferror(stdout))     /* the reason was already printed */
        return status;
    if (why == 0 && reader_is_gone())
        why = EPIPE;
    if (why == EPIPE && !cli_pipe_is_ignored)        /* the parent ignores SIGPIPE, so a message is
                                                      * needed */
        cli_end_by_signal(SIGPIPE);
    fprintf(stderr, "%s: cannot write to standard output: %s\n", cli_program_name,
            why != 0 ? strerror(why) : "an earlier write failed");
    return CLI_FAILED;
}

static int is_stopped(void *context)
{
    (void)context;
    return cli_stop_signal() != 0;
}

ckpt_run_options cli_run_options(const cli_common *common, cli_meter *meter)
{
    ckpt_run_options run = {
        .thread_count = (unsigned)common->thread_count,
        .memory_bytes = common->memory_bytes,
        .cancel = is_stopped,
        .context = meter,
    };

    cli_stop_flag();
    if (meter != NULL) {
        cli_meter_begin(meter, common, "reading");
        run.progress = cli_progress;
        run.phase = cli_progress_phase;
    }
    return run;
}
