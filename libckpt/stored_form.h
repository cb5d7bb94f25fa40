/*
 * stored_form.h: how the codes and the scales of one encoding lie in a file. The form is not the
 * encoding: tiles, values and digests are the same for all forms, and only the store (and who lays
 * files out) asks for it.
 *
 * CKPT_FORM_APART: codes and scales are tensors of their own. Any other form is one stored tensor
 * of interleaved blocks along the rows: in the store's catalog it has dtype, scale dtype and block
 * of its encoding, its shape in elements, and stored_form. The parts of a logical tensor have their
 * extents in that one tensor, those of the scales counted in scales; layout_seal proves that they
 * go together. Its bytes are ckpt_tensor_bytes: blocks hold codes and scales and nothing else.
 *
 * A reader makes such a tensor with stored_form_set and adds it to the catalog; a writer returns
 * the form in its format's `form`. Nothing else knows of blocks.
 *
 * A new form is an id in ckpt.h and a line of the table (stored_form.c). Its encoding is one of the
 * table of encodings with blocks of one row.
 */
#ifndef CKPT_STORED_FORM_H
#define CKPT_STORED_FORM_H

#include "encoding.h"
#include "kernels/interleave.h"

typedef struct {
    const char *name;          /* "MXFP4" */
    encoding_id encoding;
    ckpt_dtype scale_dtype;
    uint32_t elements;         /* of a block: whole groups */
    const block_shape *shape;
} stored_form;

/* NULL for CKPT_FORM_APART. */
const stored_form *stored_form_at(ckpt_stored_form form);
const stored_form *stored_form_of(const ckpt_tensor *tensor);

/* Make a tensor one that is stored in this form, with its encoding. */
void stored_form_set(ckpt_tensor *tensor, ckpt_stored_form form);

/* 1 when codes and scales of such a tensor can be stored in this form: it has the encoding, and
 * rows of whole blocks. */
int stored_form_fits(ckpt_stored_form form, const ckpt_tensor *tensor);

/* What a stored tensor is called in lists: "MXFP4", the name of codes that are not decoded, or that
 * of the dtype. */
const char *stored_form_name(const ckpt_tensor *tensor);

#endif
