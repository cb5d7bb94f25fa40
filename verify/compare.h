/*
 * compare.h: two checkpoints, value by value, whatever their layouts and encodings.
 *
 * Tensors are matched by name. Values are what the digest takes them for: -0 is +0, all NaN are
 * alike, a block-scaled element is the F32 product of code and scale. The result is the same for
 * every number of threads.
 */
#ifndef CKPT_COMPARE_H
#define CKPT_COMPARE_H

#include "config_verdict.h"
#include "libckpt/file.h"
#include "libckpt/json.h"
#include "libckpt/sink.h"
#include "libckpt/store.h"

typedef struct {
    ckpt_run_options copy;
    int main_only;                 /* leave out mtp.* */
    int bits;                      /* encodings and stored bytes must be the same, too */
    const ckpt_store *stores[2];   /* of a and b, with store_keep_copies; NULL: a copy that differs
                                      is an error, not a difference */
} compare_options;

typedef enum {
    COMPARE_VALUES,                /* elements differ */
    COMPARE_SHAPE,
    COMPARE_CLASS,                 /* float here, int there */
    COMPARE_COPY,                  /* the same values, but one side stores it twice, as its ranks
                                      do, and not the same */
    COMPARE_ENCODING,              /* with bits: equal values in different encodings */
    COMPARE_BITS                   /* with bits: equal values, other codes or scales */
} compare_kind;

/* One tensor that is not the same. */
typedef struct {
    const ckpt_tensor *a;          /* borrowed from the sources' catalogs */
    const ckpt_tensor *b;
    compare_kind kind;
    uint64_t row;                  /* of the first difference, in rows; VALUES, BITS, COPY */
    uint64_t col;
    uint64_t count;                /* VALUES: elements; BITS: bytes */
    int64_t a_value;               /* VALUES: integer, or bits of the F32 */
    int64_t b_value;
    const char *file;              /* COPY: of the copy; row and col are of its part */
    int side;                      /* COPY: of a (0) or b (1) */
} compare_difference;

/* What was compared, for the document. */
typedef struct {
    const char *path;              /* NULL: nothing is said */
    const char *layout;
    const char *family;
    const file_list *notes;        /* what opening let pass */
} compare_input;

/* Lists are sorted by name. Names are borrowed from the sources' catalogs. */
typedef struct {
    size_t compared;               /* tensors of the same name */
    uint64_t element_count;        /* whose values were compared */
    compare_difference *differing;
    size_t differing_count;
    const char **missing_in_a;
    size_t missing_in_a_count;
    const char **missing_in_b;
    size_t missing_in_b_count;
    const char **re_encoded;       /* equal values, same encoding, other codes or scales */
    size_t re_encoded_count;
    size_t other_encoding_count;   /* compared tensors whose encodings are not the same */
    config_verdict config;         /* empty until config_verdict_make */
    compare_input inputs[2];
} ckpt_comparison;

/* Compare all tensors. No tensor of the same name: an error, not a result. *out is yours to
 * release. */
ckpt_code compare_sources(ckpt_source *a, ckpt_source *b, const compare_options *options,
                          ckpt_comparison *out, ckpt_error *err);
void compare_release(ckpt_comparison *comparison);
int compare_is_same(const ckpt_comparison *comparison);

/* What stands on side a (0) or b (1) at the first difference, as JSON: the shortest number that
 * reads back, "NaN", "Infinity"; a shape; a class or an encoding; null for BITS. */
enum { COMPARE_TEXT_BYTES = 256 };
void compare_text(const compare_difference *difference, int side, char out[COMPARE_TEXT_BYTES]);
const char *compare_kind_name(compare_kind kind);        /* "values", "shape" ... */

/* The document, as one value of `w`. */
void compare_put(json_writer *w, const ckpt_comparison *comparison);

#endif
