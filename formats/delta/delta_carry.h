/* delta_carry.h: config.json, tokenizer and other files that changed, whole beside a delta. */
#ifndef CKPT_DELTA_CARRY_H
#define CKPT_DELTA_CARRY_H

#include "delta_target.h"

/* Of the delta, where carried files lie. */
#define DELTA_CARRIED_FOLDER "carried/"

typedef struct delta_carried {
    delta_file *files;
    size_t count;
    arena memory;
} delta_carried;

/* Lists are made of at most `most` files. */
ckpt_code delta_carried_begin(delta_carried *out, size_t most, ckpt_error *err);
/* What a carried file has: a text, or a file of a folder. */
typedef struct {
    const char *text;               /* NULL: the file */
    const ckpt_folder *folder;
    const char *name;
} delta_content_of;
ckpt_code delta_carried_put(delta_carried *out, const char *directory, const char *name,
                            const delta_content_of *content, ckpt_error *err);
/* Append the name that a file of this name has in the delta. */
ckpt_code delta_carried_name(const char *name, file_list *out, ckpt_error *err);
ckpt_code delta_carried_remove(delta_carried *out, const char *name, ckpt_error *err);

/* What differs goes below `directory`. Where both are folders as they are, a file that only the
 * first has is removed by the delta. Release *out, also after a failure. */
ckpt_code delta_carry(const delta_target *before, const delta_target *after,
                      const char *directory, delta_carried *out, ckpt_error *err);
void delta_carried_release(delta_carried *carried);

/* Append all names that delta_carry may make in the directory. */
ckpt_code delta_carry_names(const delta_target *after, file_list *out, ckpt_error *err);

#endif
