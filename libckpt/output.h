/*
 * output.h: a checkpoint being written. Everything is written to PATH.partial, which is renamed to
 * PATH as the last step. A run that ends early leaves PATH.partial; the same command resumes it.
 */
#ifndef CKPT_OUTPUT_H
#define CKPT_OUTPUT_H

#include "journal.h"
#include "sink.h"
#include "store.h"

typedef struct ckpt_output ckpt_output;

/* As `overwrite`: the command has no such option, so none is advised. */
enum { OUTPUT_NEVER_REPLACES = -1 };

/*
 * Check before any work that `path` can name the result. Refused: "-", ".", a mount point, a path
 * in a folder that does not exist. An existing path is refused unless `overwrite` is 1 and it may
 * be replaced by a checkpoint of `layout` (replaceable_check), or it still has the journal of a run
 * that was killed between its rename and its end.
 */
ckpt_code output_check(const char *path, const char *layout, int overwrite, ckpt_error *err);

/* Refuse a `path` that is the input, lies inside it or contains it: writing would change or replace
 * the input while it is read. The same for the two temporary names beside `path`. `input` may also
 * be a file that is not written yet: replacing `path` would remove it. */
ckpt_code output_check_apart(const char *path, const char *input, ckpt_error *err);

/* Refuse a new `path` with the ending of a file of weights, which it would not be but `what`:
 * programs that write one are told its name. */
ckpt_code output_check_ending(const char *path, const char *what, ckpt_error *err);

/* Refuse a `path` that exists and is the input or a file of it, also through links. */
ckpt_code output_check_spares(const char *path, const char *input, ckpt_error *err);

typedef struct {
    const char *path;
    const char *layout;        /* of the result: what it may replace (replaceable_check); or NULL */
    int overwrite;
    hash128 fingerprint;       /* of the command, its sources and its targets */
    size_t tensor_count;       /* in the journal */
    unsigned share;             /* 1 .. share_count: this process's share */
    unsigned share_count;       /* 0 or 1: one process does it all */
    int restart;               /* discard the unfinished run of another job; so does overwrite */
    int keep_others;           /* never discard it: it may have the only copy of the data */
    const file_list *files;    /* names of the files that will be made; or NULL */
    /* Called after the rename to PATH and before the journal is removed; or NULL. If it fails, or
     * the process dies in it, a later run finds the journal and calls it again. */
    ckpt_code (*named)(void *context, ckpt_error *err);
    void *named_context;
    uint64_t source_times;     /* hash of the times of the last change of the inputs; or 0 */
    const ckpt_run_options *run;   /* told how far the sync at the end is; copied; or NULL */
    uint64_t sync_bytes;       /* that it will go over, about */
} output_options;

/* Create PATH.partial and its journal, or open them to resume. A PATH that still has the journal of
 * the same command is renamed back to PATH.partial. *out is yours: output_commit, output_discard,
 * output_withdraw or output_close. */
ckpt_code output_begin(const output_options *options, ckpt_output **out, ckpt_error *err);
/* Refuse what output_begin would refuse, and change nothing: for dry runs. */
ckpt_code output_check_begin(const output_options *options, ckpt_error *err);
/* Which jobs have journals in PATH.partial. */
ckpt_code output_look(const char *path, hash128 fingerprint, journal_sight *out, ckpt_error *err);
const char *output_directory(const ckpt_output *output);      /* "PATH.partial" */
char *output_partial(const char *path); /* the same; malloc'd, NULL when memory is exhausted */
ckpt_journal *output_journal(ckpt_output *output);

/*
 * Report that this process has finished its share and synced its files. *committer: 1 when all
 * shares are finished. This process then holds the lock for the commit, has the journals' content
 * in records[tensor_count] and side_bytes[share_count], and must call output_commit. 0: another
 * process will commit.
 */
ckpt_code output_join(ckpt_output *output, journal_record *records, uint64_t *side_bytes,
                      int *committer, ckpt_error *err);

/* Sync everything, rename, remove the journal. Consumes output, also on failure. */
ckpt_code output_commit(ckpt_output *output, ckpt_error *err);
/* Remove PATH.partial, because nothing in it can be used. If other shares of the job are running,
 * their journals are marked refused and the last of them removes it. Consumes output, also on
 * failure. */
ckpt_code output_discard(ckpt_output *output, ckpt_error *err);
/* Remove PATH.partial of a run that wrote nothing, unless an earlier run or another share has
 * finished tensors in it, or another share is running. Consumes output, also on failure. */
ckpt_code output_withdraw(ckpt_output *output, ckpt_error *err);
/* Keep PATH.partial for a later run; NULL is fine. */
void output_close(ckpt_output *output);

/* Create the store's files, set their sizes and write their headers. */
ckpt_code output_make_files(ckpt_store *store, ckpt_error *err);

/*
 * A sink that writes tiles through a layout into the store's open files. With a journal it records
 * each finished tensor: its value digest (from `digest`, which a tap fills; may be NULL) and the
 * hash of the bytes written. Borrows everything.
 */
typedef struct {
    ckpt_store *store;
    const ckpt_layout *layout;
    ckpt_journal *journal;        /* or NULL */
    ckpt_digest *digest;          /* or NULL */
    const uint8_t *share;         /* by tensor: 1 if this process copies it; NULL: all of them */
    const uint8_t *there;         /* by tensor: 1 if the files have its bytes: it is read and
                                     recorded, but not written; NULL: none */
    /* Called before a tensor is recorded as done; or NULL. */
    ckpt_code (*before_done)(void *context, ckpt_error *err);
    void *before_done_context;
} file_sink_options;
ckpt_code sink_files_create(const file_sink_options *options, ckpt_sink **out, ckpt_error *err);
void sink_files_free(ckpt_sink *sink);

/* Read the tensors that the journal records as done. Those whose bytes still have the recorded hash
 * are skipped by the copy, and their value digest is restored. *kept_count: their number. */
ckpt_code sink_files_resume(ckpt_sink *sink, const ckpt_run_options *options, size_t *kept_count,
                            ckpt_error *err);
/* The same for the records of other processes' journals (output_join). */
ckpt_code sink_files_verify(ckpt_sink *sink, journal_record *records,
                            const ckpt_run_options *options, size_t *kept_count, ckpt_error *err);
/* 1 when the tensor was kept. */
int sink_files_kept(const ckpt_sink *sink, size_t tensor);

#endif
