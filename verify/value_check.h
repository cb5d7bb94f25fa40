/*
 * value_check.h: finds wrong or unusual values in a checkpoint, without a reference.
 *
 * One pass over the tiles collects statistics, hashes and positions; value_check_end judges them.
 * No release should have faults; remarks are only reported. The result does not depend on the order
 * of tiles or on threads.
 */
#ifndef CKPT_VALUE_CHECK_H
#define CKPT_VALUE_CHECK_H

#include "libckpt/json.h"
#include "statistics.h"

typedef enum {
    VALUE_NAN,                     /* the kinds up to VALUE_NARROW are faults */
    VALUE_INFINITY,                /* includes products of code and scale beyond F32 */
    VALUE_SCALE_NAN,               /* E8M0 byte 0xFF; F32 scales that are not finite */
    VALUE_WHOLE_SCALE,             /* the scale of a whole tensor, or that of its activations, is
                                      not a finite number above 0 */
    VALUE_ID_RANGE,                /* a table of expert ids has one of a nonexistent expert. With
                                      the kinds up to here no reader can compute */
    VALUE_ID_REPEATED,             /* a token is routed to one expert twice */
    VALUE_ZERO_TENSOR,             /* a matrix is all 0 */
    VALUE_SAME_EXPERTS,            /* codes and scales equal those of another expert's weight */
    VALUE_NARROW,                  /* fewer bits of precision than the family's official dtype */
    VALUE_SCALE_ZERO,              /* from here remarks: E8M0 byte 0x00 (2^-127), F32 scale 0 */
    VALUE_SCALE_SPREAD,            /* FP4 scales of a 128 x 128 block differ so much that FP8 may
                                      not hold all of its values exactly */
    VALUE_UNEQUAL_PAIR,            /* the weights of a gate, which servers join, have different
                                      scales of the whole tensor */
    VALUE_SATURATED,               /* a large share of codes has the largest magnitude */
    VALUE_ZERO_ROWS,               /* rows that are all 0; a vector that is all 0 */
    VALUE_OUTLIER,                 /* rms far from that of the same tensor in other layers */
    VALUE_KIND_COUNT
} value_kind;

typedef struct {
    value_kind kind;
    const char *name;              /* borrowed from the catalog */
    const char *other;             /* SAME_EXPERTS: that it equals; UNEQUAL_PAIR: the other of the
                                      pair; WHOLE_SCALE: what the scale is of; else NULL */
    uint64_t row;                  /* of the first; scales: in their grid; UINT64_MAX: unknown */
    uint64_t col;
    uint64_t count;                /* how many; NARROW: bits of precision */
    double number;                 /* SATURATED: share; SCALE_SPREAD: largest distance in powers of
                                      two; ID_RANGE, ID_REPEATED: the first; WHOLE_SCALE: the scale;
                                      UNEQUAL_PAIR: that of this one; OUTLIER: robust z-score
                                      of log2(rms); else 0 */
} value_finding;

typedef struct {
    value_finding *items;          /* by kind, then by name */
    size_t count;
    size_t fault_count;
    size_t tensor_count;           /* number of tensors checked */
} value_findings;

typedef struct {
    const ckpt_catalog *official;  /* what the family expects, or NULL; borrowed */
    const json_value *config;      /* or NULL; borrowed */
    const uint8_t *wanted;         /* by tensor; NULL: all; borrowed */
    int totals;                    /* count codes, scales and exponents of all tensors */
    ckpt_run_options run;          /* of value_check_source */
} value_check_options;

typedef struct value_mark value_mark;

/* State of a pass; initialised by value_check_begin. */
typedef struct {
    ckpt_sink base;                /* receives the tiles of wanted tensors */
    const ckpt_catalog *catalog;
    value_check_options options;
    source_statistics statistics;
    value_mark *marks;             /* by tensor */
    uint64_t expert_count;         /* 0: unknown */
    uint64_t bytes;                /* memory used by all of this */
    statistics_totals totals;      /* with options.totals */
    uint64_t scales[STATISTICS_EXPONENTS];     /* with totals: scales by their 8 exponent bits, for
                                                  E8M0 by byte */
    pthread_mutex_t lock;
} value_check;

/* Release *out also on failure; it must not be moved. */
ckpt_code value_check_begin(const ckpt_catalog *catalog, const value_check_options *options,
                            value_check *out, ckpt_error *err);
void value_check_release(value_check *check);
/* Judge, after check->base received all tiles. *out is yours to release; names are the
 * catalog's. */
ckpt_code value_check_end(const value_check *check, value_findings *out, ckpt_error *err);
void value_findings_release(value_findings *findings);

/* Check a source in one pass; initialises *check. Release both. */
ckpt_code value_check_source(ckpt_source *source, const value_check_options *options,
                             value_check *check, value_findings *out, ckpt_error *err);

/* "nan", "same_experts" ... */
const char *value_kind_name(value_kind kind);
int value_kind_is_fault(value_kind kind);

/* Describe the finding in text, without the tensor's name. */
enum { VALUE_TEXT_BYTES = 512 };
void value_finding_text(const value_finding *finding, char out[VALUE_TEXT_BYTES]);

/* Members of an object: values_checked (tensors), faults, findings [{kind, fault, name, row, col,
 * count, number, other, text}], one a line. */
void value_findings_put(json_writer *w, const value_findings *findings);

#endif
