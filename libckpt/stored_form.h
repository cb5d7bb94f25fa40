/*
 * stored_form.h: how the codes and the scales of an encoding are stored in a file. Tiles, values
 * and digests do not depend on the form; only the store, and code that lays out files, uses it.
 *
 * CKPT_FORM_APART: codes and scales are separate tensors. Any other form is one stored tensor of
 * interleaved blocks along the rows: in the store's catalog it has dtype, scale dtype and block of
 * its encoding, a shape that counts elements, and stored_form. Data and scales of a logical tensor
 * have extents in that one tensor; extents of scales count scales. layout_seal checks that they
 * match. Its size is ckpt_tensor_bytes: blocks contain codes and scales and nothing else. A tensor
 * scale is a separate tensor, [1], or [n] beside a stack of n matrices.
 *
 * A reader makes such a tensor with stored_form_set and adds it to the catalog; a writer returns
 * the form in its format's `form`. No other code handles blocks.
 *
 * To add a form, add an id in ckpt.h and a line of the table (stored_form.c). Its encoding must be
 * in the table of encodings and have blocks of one row.
 */
#ifndef CKPT_STORED_FORM_H
#define CKPT_STORED_FORM_H

#include "encoding.h"
#include "kernels/interleave.h"

typedef struct {
    const char *name;          /* "MXFP4" */
    encoding_id encoding;
    encoding_id scaled;        /* with a tensor scale beside the blocks; ENCODING_COUNT: none */
    ckpt_dtype scale_dtype;
    uint32_t elements;         /* per block; a multiple of the elements per scale */
    const block_shape *shape;
} stored_form;

/* NULL for CKPT_FORM_APART. */
const stored_form *stored_form_at(ckpt_stored_form form);
const stored_form *stored_form_of(const ckpt_tensor *tensor);

/* Give a tensor this form and its encoding. */
void stored_form_set(ckpt_tensor *tensor, ckpt_stored_form form);

/* 1 when such a tensor can be stored in this form: it has the form's encoding, perhaps with a
 * tensor scale, and its rows are whole blocks. */
int stored_form_fits(ckpt_stored_form form, const ckpt_tensor *tensor);

/* The type of a stored tensor for lists: "MXFP4", the name of codes that are not decoded, or the
 * name of the dtype. */
const char *stored_form_name(const ckpt_tensor *tensor);

#endif
