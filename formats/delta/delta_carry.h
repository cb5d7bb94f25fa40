/* delta_carry.h: config.json, tokenizer and other files that changed, whole beside a delta. */
#ifndef CKPT_DELTA_CARRY_H
#define CKPT_DELTA_CARRY_H

#include "delta_target.h"

/* Of the delta, where carried files lie. */
#define DELTA_CARRIED_FOLDER "carried/"

typedef struct {
    delta_file *files;
    size_t count;
    arena memory;
} delta_carried;

/* What differs goes below `directory`. Where both are folders as they are, a file that only the
 * first has is removed by the delta. Release *out, also after a failure. */
ckpt_code delta_carry(const delta_target *before, const delta_target *after,
                      const char *directory, delta_carried *out, ckpt_error *err);
void delta_carried_release(delta_carried *carried);

/* Append all names that delta_carry may make in the directory. */
ckpt_code delta_carry_names(const delta_target *after, file_list *out, ckpt_error *err);

#endif
