/* nearest.h: which known name a misspelt one is closest to. */
#ifndef CKPT_NEAREST_H
#define CKPT_NEAREST_H

/* Insertions, deletions and replacements of bytes that make `a` of `b` (Levenshtein's distance).
 * Only the first 63 bytes of each count. */
unsigned name_distance(const char *a, const char *b);

#endif
