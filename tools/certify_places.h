/* certify_places.h: where ckpt-verify certify may write. */
#ifndef TOOL_CERTIFY_PLACES_H
#define TOOL_CERTIFY_PLACES_H

#include "tools/cli/cli.h"

typedef enum {
    PLACE_CERTIFICATE, PLACE_HTML, PLACE_JUNIT, PLACE_SUMMARY, PLACE_SUMS, PLACE_INTEGRITY,
    PLACE_CYCLONEDX, PLACE_COUNT
} certify_output;

/* Paths of the command line; NULL: not given. */
typedef struct {
    const char *outputs[PLACE_COUNT];
    char *const *models;
    size_t model_count;
    const char *policy;
    const char *key;
    const char *map;
    const cli_list *logits;
} certify_places;

/*
 * Called before hours of work: refuse outputs that cannot be written, that are named twice, or that
 * would replace an input or any other file than an earlier output of the same kind, which is
 * recognised by its first bytes.
 */
ckpt_code certify_places_check(const certify_places *places, ckpt_error *err);

/* "a certificate" */
const char *certify_place_name(certify_output output);

#endif
