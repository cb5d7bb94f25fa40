/* ids.h: checks tables of expert ids, whose values cannot be checked by shape or dtype. */
#ifndef CKPT_IDS_H
#define CKPT_IDS_H

#include "format.h"

/* Read the tables of expert ids (tid2eid) and add a note for each one with ids of nonexistent
 * experts. Does nothing without a family and a config. */
ckpt_code checkpoint_note_ids(ckpt_checkpoint *c, ckpt_error *err);

/* The same, but such a table is an error: for layouts whose readers would go beyond their
 * experts. */
ckpt_code checkpoint_check_ids(const ckpt_checkpoint *c, ckpt_error *err);

#endif
