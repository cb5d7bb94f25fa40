/* run_settings.h: the config.json that ckpt-run uses. */
#ifndef TOOL_RUN_SETTINGS_H
#define TOOL_RUN_SETTINGS_H

#include "formats/format.h"
#include "reference-runner/model_config.h"

enum { RUN_EOS_MAX = 16 };

typedef struct {
    json_document *file;           /* NULL: the checkpoint's own */
    run_config config;
    uint32_t eos[RUN_EOS_MAX];     /* end-of-sequence tokens */
    size_t eos_count;
    file_list notes;               /* on unknown members, see config_members.h */
} run_settings;

/* From `file`, or if that is NULL from the checkpoint at `path`. Release *out, also on failure. */
ckpt_code run_settings_read(const char *file, const char *path, const ckpt_checkpoint *checkpoint,
                            run_settings *out, ckpt_error *err);
void run_settings_release(run_settings *settings);

/* Is this token the end of a sequence? */
int run_settings_is_eos(const run_settings *settings, uint32_t id);

#endif
