/* Fates of stored tensors, counted. */
#include "ledger.h"

ledger_line ledger_line_of(const map_ledger *ledger, size_t i)
{
    static const struct {
        map_fate_kind fate;
        const char *key;
        const char *text;
    } lines[LEDGER_LINES] = {
        { FATE_USED, "used", "used as tensors, alone or packed" },
        { FATE_SCALE, "scales", "scales of a weight" },
        { FATE_COPY, "copies", "equal copies of another tensor" },
        { FATE_DROPPED, "dropped", "left out by a named rule" },
    };

    return (ledger_line){ lines[i].key, lines[i].text, ledger->counts[lines[i].fate] };
}

void ledger_put(json_writer *w, const map_ledger *ledger)
{
    for (size_t i = 0; i < LEDGER_LINES; i++) {
        const ledger_line line = ledger_line_of(ledger, i);

        json_member_u64(w, line.key, line.count);
    }
}
