/* nearest.h: which known name a misspelt one is closest to. */
#ifndef CKPT_NEAREST_H
#define CKPT_NEAREST_H

/* Levenshtein's distance: the number of insertions, deletions and replacements of bytes that turn
 * one text into the other. Only the first 63 bytes of each are compared. */
unsigned name_distance(const char *a, const char *b);

#endif
