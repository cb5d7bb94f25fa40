/* run_devices.h: devices and memory that ckpt-run uses, and the time that each layer took. */
#ifndef TOOL_RUN_DEVICES_H
#define TOOL_RUN_DEVICES_H

#include "libckpt/json.h"
#include "reference-runner/runner.h"

typedef struct {
    const char *devices;       /* "0,1"; NULL: the first one */
    uint64_t device_bytes;     /* on each; 0: most of the free memory */
    uint64_t host_bytes;       /* without a device the limit; with devices, for copies of weights */
} run_device_options;

/* Fill in devices and memory_bytes; backend is set. The caller frees *list. */
ckpt_code run_devices_choose(const run_device_options *options, run_options *model,
                             unsigned **list, ckpt_error *err);

/* Put the member "layers": times of each layer. Weights that are copied while another layer runs
 * are counted in the copies of the running layer. */
void run_put_times(json_writer *w, const run_model *model, const run_config *config);

#endif
