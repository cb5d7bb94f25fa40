#include "run_devices.h"

#include <stdlib.h>

#include "libckpt/size.h"

enum { DEVICES_MAX = 64 };

/* Parse device numbers separated by commas; no number may be repeated. */
static ckpt_code parse_devices(const char *text, unsigned **list, unsigned *count,
                               ckpt_error *err)
{
    unsigned *devices = malloc(DEVICES_MAX * sizeof *devices);
    const char *at = text;
    int is_good = devices != NULL;

    *count = 0;
    *list = devices;
    if (devices == NULL)
        return ckpt_fail_memory(err, "devices", DEVICES_MAX);
    do {
        unsigned device = 0;
        size_t digits = 0;

        for (; *at >= '0' && *at <= '9'; at++, digits++)
            device = 10 * device + (unsigned)(*at - '0');
        is_good = digits > 0 && digits < 5 && *count < DEVICES_MAX;
        for (unsigned i = 0; i < *count && is_good; i++)
            is_good = devices[i] != device;
        if (is_good)
            devices[(*count)++] = device;
    } while (is_good && *at++ == ',');
    if (!is_good || at[-1] != '\0')
        return ckpt_fail(err, CKPT_E_USAGE, "--devices '%s': expected a list of distinct device "
                                            "numbers, as in 0,1", text);
    return CKPT_OK;
}

ckpt_code run_devices_choose(const run_device_options *options, run_options *model,
                             unsigned **list, ckpt_error *err)
{
    const run_backend_ops *backend = model->backend;
    uint64_t least = UINT64_MAX;
    ckpt_code code;

    model->memory_bytes = options->host_bytes;
    if (backend->free_bytes == NULL && (options->device_bytes > 0 || options->devices != NULL))
        return ckpt_fail(err, CKPT_E_USAGE, "%s needs a backend with devices, as --backend cuda: "
                         "this one is '%s'",
                         options->devices != NULL ? "--devices" : "--device-memory",
                         backend->name);
    if (backend->free_bytes == NULL)
        return CKPT_OK;
    model->device_count = 1;
    if (options->devices != NULL &&
        (code = parse_devices(options->devices, list, &model->device_count, err)) != CKPT_OK)
        return code;
    model->devices = *list;
    for (unsigned i = 0; i < model->device_count; i++) {
        uint64_t free_bytes;

        code = backend->free_bytes(*list == NULL ? 0 : (*list)[i], &free_bytes, err);
        if (code != CKPT_OK)
            return code;
        least = size_min(least, free_bytes);
    }
    model->memory_bytes = options->device_bytes > 0 ? options->device_bytes : least / 5 * 4;
    model->host_bytes = options->host_bytes / model->device_count;
    return CKPT_OK;
}

void run_put_times(json_writer *w, const run_model *model, const run_config *config)
{
    uint32_t count;
    const run_layer_time *times = run_layer_times(model, &count);

    json_member_array(w, "layers");
    for (uint32_t i = 0; times != NULL && i < count; i++) {
        const run_layer_time *t = &times[i];

        json_put_object(w);
        json_member_u64(w, "layer", i);
        json_member_u64(w, "ratio", config->ratios[i]);
        json_member_double(w, "seconds", t->lap.seconds);
        json_member_double(w, "wait_seconds", t->lap.wait_seconds);
        json_member_double(w, "copy_seconds", t->lap.copy_seconds);
        json_member_u64(w, "copy_bytes", t->lap.copy_bytes);
        json_member_u64(w, "weight_bytes", t->weight_bytes);
        json_put_object_end(w);
    }
    json_put_array_end(w);
}
