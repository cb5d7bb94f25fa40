/* The formats, and the files that they name. */
#include "format.h"

#include "hf.h"
#include "mp.h"
#include "formats/gguf/gguf.h"
#include "formats/torch_dist/torch_dist.h"

/* In order of detection. */
const ckpt_format *const ckpt_formats[] = {
    &format_torch_dist,
    &format_mp,
    &format_hf,
    &format_safetensors_file,
    &format_gguf,
    NULL,
};

ckpt_code format_add_files(const ckpt_format *format, ckpt_store *store, uint32_t count,
                           ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (uint32_t i = 0; i < count && code == CKPT_OK; i++) {
        char name[FORMAT_NAME_BYTES];
        uint32_t number;

        format->file_name(i, count, name);
        code = store_add_file(store, name, &number, err);
    }
    return code;
}
