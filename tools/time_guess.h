/*
 * time_guess.h: how long a command will take, as --dry-run tells it.
 *
 * It is a guess, and says of what: the rate at which a sample of the inputs can be read now, and
 * the CPU time that such work takes for each byte. Writing is taken to be as fast as reading,
 * because a dry run writes nothing.
 */
#ifndef CKPT_TIME_GUESS_H
#define CKPT_TIME_GUESS_H

#include "libckpt/folder.h"
#include "libckpt/json.h"
#include "tools/cli/cli.h"

typedef enum {
    TIME_COPY,                       /* with digests, also where encodings change */
    TIME_PACK,
    TIME_WORK_COUNT
} time_work;

/* What is going to be done. */
typedef struct {
    const char *const *paths;        /* the inputs: local folders and files, URLs; "-" is skipped */
    size_t path_count;
    time_work work;
    uint64_t read_bytes;
    uint64_t write_bytes;            /* 0: not known */
} time_plan;

typedef struct {
    double seconds;                  /* the larger of the next two */
    double disk_seconds;             /* 0: not known */
    double cpu_seconds;              /* of one thread */
    unsigned thread_count;
    double sample_rate;              /* bytes a second; 0: nothing could be read, or it is remote */
    uint64_t sample_bytes;
} time_guess;

enum { TIME_SAMPLE_BYTES_MAX = 32 << 20 };

/* Reads at most TIME_SAMPLE_BYTES_MAX of the inputs, for a third of a second. It cannot fail: what
 * cannot be read is not known. */
time_guess time_guess_make(const time_plan *plan, const cli_common *common);

/* One line on standard output. */
void time_guess_print(const time_guess *guess);
/* The member "time_guess". */
void time_guess_put(json_writer *w, const time_guess *guess);

#endif
