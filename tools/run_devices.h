/* run_devices.h: which devices ckpt-run computes on, what memory it takes there, and how long each
 * layer took. */
#ifndef TOOL_RUN_DEVICES_H
#define TOOL_RUN_DEVICES_H

#include "libckpt/json.h"
#include "reference-runner/runner.h"

typedef struct {
    const char *devices;       /* as in 0,1; NULL: the first one */
    uint64_t device_bytes;     /* on each; 0: most of what is free */
    uint64_t host_bytes;       /* where there is no device */
} run_device_options;

/* Fill in devices and memory_bytes; backend is set. The caller frees *list. */
ckpt_code run_devices_choose(const run_device_options *options, run_options *model,
                             unsigned **list, ckpt_error *err);

/* "layers": where the time went. Weights copied while another layer was running are counted in
 * that layer's copies. */
void run_put_times(json_writer *w, const run_model *model, const run_config *config);

#endif
