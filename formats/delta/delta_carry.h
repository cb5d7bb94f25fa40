/* delta_carry.h: config.json, tokenizer and other changed files, stored complete in a delta. */
#ifndef CKPT_DELTA_CARRY_H
#define CKPT_DELTA_CARRY_H

#include "delta_target.h"

/* Folder of the carried files in the delta. */
#define DELTA_CARRIED_FOLDER "carried/"

typedef struct delta_carried {
    delta_file *files;
    size_t count;
    arena memory;
} delta_carried;

/* Prepare *out for at most `most` files. */
ckpt_code delta_carried_begin(delta_carried *out, size_t most, ckpt_error *err);
/* Content of a carried file: a text, or that of a file in a folder. */
typedef struct {
    const char *text;               /* NULL: the file */
    const ckpt_folder *folder;
    const char *name;
} delta_content_of;
ckpt_code delta_carried_put(delta_carried *out, const char *directory, const char *name,
                            const delta_content_of *content, ckpt_error *err);
/* Append the path that this file has in the delta. */
ckpt_code delta_carried_name(const char *name, file_list *out, ckpt_error *err);
ckpt_code delta_carried_remove(delta_carried *out, const char *name, ckpt_error *err);

/* Copy files that differ to `directory`. If both inputs are read without a plan, the delta removes
 * files that only the first one has. Release *out, also after a failure. */
ckpt_code delta_carry(const delta_target *before, const delta_target *after,
                      const char *directory, delta_carried *out, ckpt_error *err);
void delta_carried_release(delta_carried *carried);

/* Append all names that delta_carry may create in the directory. */
ckpt_code delta_carry_names(const delta_target *after, file_list *out, ckpt_error *err);

#endif
