/* cli_text.c: names, sizes and times as a person reads them. */
#include <inttypes.h>
#include <stdio.h>

#include "cli.h"
#include "libckpt/error.h"

const char *cli_program_name = "ckpt";

const char *cli_name(const char *name)
{
    static char lines[CLI_NAMES_AT_ONCE][CKPT_ERROR_BYTES];
    static unsigned next;

    next = (next + 1) % CLI_NAMES_AT_ONCE;
    error_line(lines[next], name);
    return lines[next];
}

void cli_size_text(uint64_t bytes, char out[CLI_SIZE_TEXT_BYTES])
{
    static const char *const units[] = { "kB", "MB", "GB", "TB", "PB", "EB" };
    size_t unit = 0;
    double size;

    if (bytes < 1000) {
        snprintf(out, CLI_SIZE_TEXT_BYTES, "%" PRIu64 " B", bytes);
        return;
    }
    for (size = (double)bytes / 1000; size >= 999.95 && unit + 1 < sizeof units / sizeof *units;
         unit++)
        size /= 1000;
    snprintf(out, CLI_SIZE_TEXT_BYTES, size < 9.995 ? "%.2f %s" : "%.1f %s", size, units[unit]);
}

void cli_time_text(uint64_t seconds, char out[CLI_TIME_TEXT_BYTES])
{
    if (seconds < 3600)
        snprintf(out, CLI_TIME_TEXT_BYTES, "%u:%02u", (unsigned)(seconds / 60),
                 (unsigned)(seconds % 60));
    else if (seconds < 360000)
        snprintf(out, CLI_TIME_TEXT_BYTES, "%u:%02u:%02u", (unsigned)(seconds / 3600),
                 (unsigned)(seconds / 60 % 60), (unsigned)(seconds % 60));
    else
        snprintf(out, CLI_TIME_TEXT_BYTES, "%" PRIu64 " days", seconds / 86400);
}
