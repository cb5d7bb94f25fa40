/*
 * foreign_codes.h: packages that quantise weights in a form of their own, known by the tensors that
 * they put beside the codes. ckpt does not decode these forms (codes.h).
 */
#ifndef CKPT_FOREIGN_CODES_H
#define CKPT_FOREIGN_CODES_H

#include "checkpoint.h"

/* What quantised the weights of a catalog, such as "GPTQ"; NULL: none of those that are known. */
const char *foreign_codes_name(const ckpt_catalog *catalog);

#endif
