/* ids.h: tables of ids that a model looks up by, which no shape or dtype can vouch for. */
#ifndef CKPT_IDS_H
#define CKPT_IDS_H

#include "format.h"

/* Read the tables of expert ids (tid2eid) and note every one with ids of no expert. Nothing to do
 * without a family and a config. */
ckpt_code checkpoint_note_ids(ckpt_checkpoint *c, ckpt_error *err);

#endif
