/* The formats, in order of detection. */
#include "format.h"

#include "hf.h"
#include "mp.h"
#include "formats/gguf/gguf.h"
#include "formats/torch_dist/torch_dist.h"

const ckpt_format *const ckpt_formats[] = {
    &format_torch_dist,
    &format_mp,
    &format_hf,
    &format_safetensors_file,
    &format_gguf,
    NULL,
};
