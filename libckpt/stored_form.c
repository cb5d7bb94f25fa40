/* The table of stored forms. */
#include "stored_form.h"

static const stored_form forms[CKPT_FORM_COUNT] = {
    [CKPT_FORM_MXFP4] = { "MXFP4", ENCODING_FP4_32, ENCODING_COUNT, CKPT_F8_E8M0, 32,
                          &interleave_mxfp4 },
    [CKPT_FORM_Q8_0] = { "Q8_0", ENCODING_INT8_32, ENCODING_COUNT, CKPT_F16, 32,
                         &interleave_q8_0 },
    [CKPT_FORM_NVFP4] = { "NVFP4", ENCODING_FP4_16, ENCODING_NVFP4, CKPT_F8_E4M3, 64,
                          &interleave_nvfp4 },
};

const stored_form *stored_form_at(ckpt_stored_form form)
{
    return form == CKPT_FORM_APART ? NULL : &forms[form];
}

const stored_form *stored_form_of(const ckpt_tensor *tensor)
{
    return stored_form_at((ckpt_stored_form)tensor->stored_form);
}

void stored_form_set(ckpt_tensor *tensor, ckpt_stored_form form)
{
    encoding_set(tensor, forms[form].encoding, forms[form].scale_dtype);
    tensor->stored_form = (uint16_t)form;
}

int stored_form_fits(ckpt_stored_form form, const ckpt_tensor *tensor)
{
    return (encoding_is(tensor, forms[form].encoding) ||
            (forms[form].scaled != ENCODING_COUNT && encoding_is(tensor, forms[form].scaled))) &&
           tensor->scale_dtype == forms[form].scale_dtype &&
           ckpt_tensor_cols(tensor) % forms[form].elements == 0;
}

const char *stored_form_name(const ckpt_tensor *tensor)
{
    if (tensor->codes_name != NULL)
        return tensor->codes_name;
    return tensor->stored_form == CKPT_FORM_APART ? ckpt_dtype_name(tensor->dtype)
                                                  : forms[tensor->stored_form].name;
}
