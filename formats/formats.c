/* The formats, in order of detection. */
#include "format.h"

#include "hf.h"

const ckpt_format *const ckpt_formats[] = {
    &format_hf,
    &format_safetensors_file,
    NULL,
};
