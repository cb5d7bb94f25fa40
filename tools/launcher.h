/*
 * launcher.h: which share of a job this process does: --part, or the variables of a launcher.
 */
#ifndef CKPT_LAUNCHER_H
#define CKPT_LAUNCHER_H

#include "libckpt/ckpt.h"
#include "tools/cli/cli.h"

/* These variables, for man pages. */
extern const cli_topic launcher_variables[];

/*
 * `text` is the argument of --part: "I/N", "auto", or NULL. Without it, only variables are used
 * that a launcher sets separately in each process it starts: SLURM_PROCID and
 * SLURM_STEP_NUM_TASKS, OMPI_COMM_WORLD_RANK and _SIZE, PMI_RANK and PMI_SIZE. RANK and WORLD_SIZE
 * are set in whole pods and shells, where a plain command must do the whole job: they are used
 * only with "auto", which fails if there is no launcher.
 */
ckpt_code launcher_share(const char *text, unsigned *index, unsigned *share_count, ckpt_error *err);

#endif
