/*
 * json_line.h: long lists with one entry per line, inside an indented document: readable, and
 * suited for grep and diff.
 *
 *     json_writer line;
 *     json_line_begin(&line, w);       w expects a value here
 *     json_put_object(&line); ...
 *     json_line_end(&line, w);
 */
#ifndef CKPT_JSON_LINE_H
#define CKPT_JSON_LINE_H

#include "libckpt/json.h"

/* A compact writer of one value of `w`. */
void json_line_begin(json_writer *line, json_writer *w);
void json_line_end(json_writer *line, json_writer *w);

#endif
