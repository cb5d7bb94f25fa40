/* option_words.h: the words that options take, for completion (cli_words): word `i`, or NULL. */
#ifndef CKPT_OPTION_WORDS_H
#define CKPT_OPTION_WORDS_H

#include <stddef.h>

/* Layouts that can be written. */
const char *word_of_layout(size_t i);
/* Naming styles of any family. */
const char *word_of_names(size_t i);
/* Parallel layouts of torch_dist. */
const char *word_of_preset(size_t i);
/* Rounding rules by their short names or names, and the rules of releases. */
const char *word_of_rule(size_t i);
/* Built-in configs. */
const char *word_of_config(size_t i);

#endif
