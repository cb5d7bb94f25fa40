/* family_text.h: what tests of family texts share. */
#ifndef TEST_FAMILY_TEXT_H
#define TEST_FAMILY_TEXT_H

#include "libckpt/family.h"

/* Parse a text, or fail the test. Free it with family_free. */
ckpt_family *family_of_text(const char *text, size_t size);

/* Fail the test unless expanding the text with this config is refused with `message`. */
void assert_expand_fails(const char *text, const char *config, const char *message);

#endif
