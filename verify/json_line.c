/* Entries on lines of their own. */
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

void json_member_string(json_writer *w, const char *key, const char *text)
{
    json_put_key(w, key);
    json_put_string(w, text);
}

void json_member_u64(json_writer *w, const char *key, uint64_t number)
{
    json_put_key(w, key);
    json_put_u64(w, number);
}

void json_member_bool(json_writer *w, const char *key, int flag)
{
    json_put_key(w, key);
    json_put_bool(w, flag);
}

void json_member_names(json_writer *w, const char *key, const char *const *names, size_t count)
{
    json_put_key(w, key);
    json_put_array(w);
    for (size_t i = 0; i < count; i++)
        json_put_string(w, names[i]);
    json_put_array_end(w);
}
