/*
 * output.h: a checkpoint being written. Everything goes to PATH.partial; the rename to PATH comes
 * last. A run that ends early leaves PATH.partial; the same command resumes it.
 */
#ifndef CKPT_OUTPUT_H
#define CKPT_OUTPUT_H

#include "journal.h"
#include "sink.h"
#include "store.h"

typedef struct ckpt_output ckpt_output;

/*
 * Refuse early a `path` that cannot become the name of a result: "-", ".", a mount point, in a
 * folder that is not there. What exists is refused, unless it has a journal that a run left in it
 * in its last moment, or `overwrite` is set and it may be replaced by one of `layout`
 * (replaceable_check).
 */
ckpt_code output_check(const char *path, const char *layout, int overwrite, ckpt_error *err);

/* Refuse a `path` that is an input, lies inside it or contains it: what replaces an input, or grows
 * while it is read, cannot be checked against it. The same for the two names beside `path` that
 * writing it takes. An input may be a file yet to be made: it would be lost with what `path`
 * replaces. */
ckpt_code output_check_apart(const char *path, const char *input, ckpt_error *err);

/* Refuse a `path` that is there and is the input or a file of it, by whatever name: a slip of the
 * hand must not cost it. */
ckpt_code output_check_spares(const char *path, const char *input, ckpt_error *err);

typedef struct {
    const char *path;
    const char *layout;        /* of the result: what it may replace (replaceable_check); or NULL */
    int overwrite;
    hash128 fingerprint;       /* of the command, its sources and its targets */
    size_t tensor_count;       /* that the journal keeps track of */
    unsigned share;             /* 1 .. share_count: this process's share */
    unsigned share_count;       /* 0 or 1: one process does it all */
    int restart;               /* discard an unfinished run of another job; overwrite does, too */
    int keep_others;           /* never: what it has may be the only copy */
    const file_list *files;    /* that will be made; or NULL */
    /* Called when PATH has its name, before the journal goes: where it fails or does not come back,
     * a later run has all that it takes. NULL: nothing is to be done then. */
    ckpt_code (*named)(void *context, ckpt_error *err);
    void *named_context;
    uint64_t source_times;     /* hash of the times of the last change of the inputs; or 0 */
    const ckpt_run_options *run;   /* told how far the sync at the end is; copied; or NULL */
    uint64_t sync_bytes;       /* that it will go over, about */
} output_options;

/* Make or enter PATH.partial and its journal. A PATH with a journal of the same command becomes
 * PATH.partial again. *out is yours: output_commit or output_close. */
ckpt_code output_begin(const output_options *options, ckpt_output **out, ckpt_error *err);
/* Whose journals lie in PATH.partial. */
ckpt_code output_look(const char *path, hash128 fingerprint, journal_sight *out, ckpt_error *err);
const char *output_directory(const ckpt_output *output);      /* "PATH.partial" */
ckpt_journal *output_journal(ckpt_output *output);

/*
 * This process has done its share of a job that several do; its files are synced. *committer: 1
 * if all others have done theirs: then this one continues with output_commit, holding the lock for
 * it, and records[tensor_count] and side_bytes[share_count] have what the journals know. 0: another
 * one will.
 */
ckpt_code output_join(ckpt_output *output, journal_record *records, uint64_t *side_bytes,
                      int *committer, ckpt_error *err);

/* Sync everything, drop the journal, rename. Consumes output, also on failure. */
ckpt_code output_commit(ckpt_output *output, ckpt_error *err);
/* Remove the partial state: nothing of it can be used. While other shares of the job run, they are
 * told, and the last one removes it. Consumes output, also on failure. */
ckpt_code output_discard(ckpt_output *output, ckpt_error *err);
/* Remove the partial state of a run that wrote nothing, unless it has work of an earlier run or of
 * another share, or another share is running. Consumes output, also on failure. */
ckpt_code output_withdraw(ckpt_output *output, ckpt_error *err);
/* Leave the partial state as it is; NULL is fine. */
void output_close(ckpt_output *output);

/* Open the store's files for writing, give them their sizes, write their headers. */
ckpt_code output_make_files(ckpt_store *store, ckpt_error *err);

/*
 * A sink that writes tiles through a layout into the store's open files. With a journal it records
 * finished tensors: their value digest (from `digest`, which a tap fills; may be NULL) and the hash
 * of what was written. Borrows everything.
 */
typedef struct {
    ckpt_store *store;
    const ckpt_layout *layout;
    ckpt_journal *journal;        /* or NULL */
    ckpt_digest *digest;          /* or NULL */
    const uint8_t *share;         /* by tensor: 1 for what this process does; NULL: everything */
    /* Called before the journal says that a tensor is done; or NULL. */
    ckpt_code (*before_done)(void *context, ckpt_error *err);
    void *before_done_context;
} file_sink_options;
ckpt_code sink_files_create(const file_sink_options *options, ckpt_sink **out, ckpt_error *err);
void sink_files_free(ckpt_sink *sink);

/* Read back what the journal says is done; what still hashes to the same is skipped from now on,
 * its value digest restored. *kept_count: how many tensors that are. */
ckpt_code sink_files_resume(ckpt_sink *sink, const ckpt_run_options *options, size_t *kept_count,
                            ckpt_error *err);
/* The same for what other records say, those of other processes. Each tensor that hashes to what
 * its record says is kept. */
ckpt_code sink_files_verify(ckpt_sink *sink, journal_record *records,
                            const ckpt_run_options *options, size_t *kept_count, ckpt_error *err);
/* 1 when the tensor was kept. */
int sink_files_kept(const ckpt_sink *sink, size_t tensor);

#endif
