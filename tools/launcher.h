/*
 * launcher.h: which share of a job this process does: --part, or the variables of a launcher.
 */
#ifndef CKPT_LAUNCHER_H
#define CKPT_LAUNCHER_H

#include "libckpt/ckpt.h"

/*
 * `text` is the argument of --part: "I/N", "auto", or NULL. Without it the variables count that
 * only a launcher's own step sets, in each of its processes: SLURM_PROCID and SLURM_STEP_NUM_TASKS,
 * OMPI_COMM_WORLD_RANK and _SIZE, PMI_RANK and PMI_SIZE. RANK and WORLD_SIZE stand in the
 * environment of whole pods and shells, where a plain command must do everything: they count with
 * "auto" only, which wants some launcher to be there.
 */
ckpt_code launcher_part(const char *text, unsigned *part, unsigned *part_count, ckpt_error *err);

#endif
