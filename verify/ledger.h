/* ledger.h: writes the number of stored tensors by fate, as text and JSON. */
#ifndef CKPT_LEDGER_H
#define CKPT_LEDGER_H

#include "libckpt/json.h"
#include "libckpt/map.h"

enum { LEDGER_LINES = 4 };

/* Line i: its JSON key, its text, and the number of tensors. */
typedef struct {
    const char *key;               /* "scales" */
    const char *text;              /* "scales of a weight" */
    size_t count;
} ledger_line;
ledger_line ledger_line_of(const map_ledger *ledger, size_t i);

/* Put the lines as members of an object. */
void ledger_put(json_writer *w, const map_ledger *ledger);

#endif
