/*
 * value_check.h: what is wrong or odd with the values of a checkpoint, without another to compare
 * them with.
 *
 * One pass over the tiles gathers statistics, hashes and places; value_check_end judges them.
 * Faults are what no release should have; remarks are told and fail nothing. The result does not
 * depend on the order of tiles or on threads.
 */
#ifndef CKPT_VALUE_CHECK_H
#define CKPT_VALUE_CHECK_H

#include "libckpt/json.h"
#include "statistics.h"

typedef enum {
    VALUE_NAN,                     /* faults up to VALUE_NARROW */
    VALUE_INFINITY,                /* also a product of code and scale beyond F32 */
    VALUE_SCALE_NAN,               /* E8M0 byte 0xFF; F32 scales that are not finite */
    VALUE_ID_RANGE,                /* a table of expert ids has one of no expert */
    VALUE_ID_REPEATED,             /* a token is routed to one expert twice */
    VALUE_ZERO_TENSOR,             /* a matrix is all 0 */
    VALUE_SAME_EXPERTS,            /* codes and scales are those of another expert's weight */
    VALUE_NARROW,                  /* fewer bits of precision than the family's official dtype */
    VALUE_SCALE_ZERO,              /* remarks: E8M0 byte 0x00 (2^-127), F32 scales that are 0 */
    VALUE_SCALE_SPREAD,            /* FP4 scales of a 128 x 128 block so far apart that whether FP8
                                      holds all of its values depends on the codes */
    VALUE_SATURATED,               /* a large share of codes has the largest magnitude */
    VALUE_ZERO_ROWS,               /* rows that are all 0; a vector that is all 0 */
    VALUE_OUTLIER,                 /* far from the same tensor of other layers */
    VALUE_KIND_COUNT
} value_kind;

typedef struct {
    value_kind kind;
    const char *name;              /* borrowed from the catalog */
    const char *other;             /* SAME_EXPERTS: that it equals; else NULL */
    uint64_t row;                  /* of the first; scales: in their grid; UINT64_MAX: no place */
    uint64_t col;
    uint64_t count;                /* how many; NARROW: bits of precision */
    double number;                 /* SATURATED: share; SCALE_SPREAD: largest distance in powers of
                                      two; ID_RANGE, ID_REPEATED: the first; OUTLIER: robust z-score
                                      of log2(rms); else 0 */
} value_finding;

typedef struct {
    value_finding *items;          /* by kind, then by name */
    size_t count;
    size_t fault_count;
    size_t tensor_count;           /* that were looked at */
} value_findings;

typedef struct {
    const ckpt_catalog *official;  /* what the family expects, or NULL; borrowed */
    const json_value *config;      /* or NULL; borrowed */
    const uint8_t *wanted;         /* by tensor; NULL: all; borrowed */
    int totals;                    /* count codes, scales and exponents of all tensors */
    ckpt_run_options run;          /* of value_check_source */
} value_check_options;

typedef struct value_mark value_mark;

/* What a pass gathers; filled by value_check_begin. */
typedef struct {
    ckpt_sink base;                /* takes the tiles of all tensors that are wanted */
    const ckpt_catalog *catalog;
    value_check_options options;
    source_statistics statistics;
    value_mark *marks;             /* by tensor */
    uint64_t expert_count;         /* 0: not known */
    uint64_t bytes;                /* that all of this takes */
    statistics_totals totals;      /* with options.totals */
    uint64_t scales[STATISTICS_EXPONENTS];     /* with it: scales by the 8 bits of their exponent,
                                                  of E8M0 their bytes */
    pthread_mutex_t lock;
} value_check;

/* Release it also on failure; it is not to be moved. */
ckpt_code value_check_begin(const ckpt_catalog *catalog, const value_check_options *options,
                            value_check *out, ckpt_error *err);
void value_check_release(value_check *check);
/* check->base got all tiles: judge. *out is yours to release; its names are the catalog's. */
ckpt_code value_check_end(const value_check *check, value_findings *out, ckpt_error *err);
void value_findings_release(value_findings *findings);

/* All of it for a source, in one pass. `check` is begun here. */
ckpt_code value_check_source(ckpt_source *source, const value_check_options *options,
                             value_check *check, value_findings *out, ckpt_error *err);

/* "nan", "same_experts" ... */
const char *value_kind_name(value_kind kind);
int value_kind_is_fault(value_kind kind);

/* The finding in words, without the tensor's name. */
enum { VALUE_TEXT_BYTES = 512 };
void value_finding_text(const value_finding *finding, char out[VALUE_TEXT_BYTES]);

/* Members of an object: values_checked (tensors), faults, findings [{kind, fault, name, row, col,
 * count, number, other, text}], one a line. */
void value_findings_put(json_writer *w, const value_findings *findings);

#endif
