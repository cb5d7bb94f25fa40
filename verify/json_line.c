/* Writes each entry on a separate line. */
#include "json_line.h"

void json_line_begin(json_writer *line, json_writer *w)
{
    json_put_raw(w, "");           /* comma and line break; the value itself comes from `line` */
    json_writer_begin(line, w->write, w->context, 0);
}

void json_line_end(json_writer *line, json_writer *w)
{
    if (!json_writer_end(line))
        w->failed = 1;
}
