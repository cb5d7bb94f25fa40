/*
 * markup.h: escapes text from a checkpoint for HTML and XML, as content or attribute value.
 */
#ifndef CKPT_MARKUP_H
#define CKPT_MARKUP_H

#include <stdio.h>

/* Escapes <, >, & and quotes. Hidden characters (text.h), which XML 1.0 forbids in part, and bytes
 * that are not UTF-8 become U+FFFD. NULL is the empty text. */
void markup_put(FILE *out, const char *text);

#endif
