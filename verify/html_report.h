/*
 * html_report.h: a certificate as a page for a person: one file, no script, nothing from a network.
 * Verdict, checks, findings, files and encodings, layers and kinds, codes and scales, logits, the
 * self-test, and how to verify it. Whatever came from a checkpoint is escaped.
 */
#ifndef CKPT_HTML_REPORT_H
#define CKPT_HTML_REPORT_H

#include "certificate.h"
#include "logits.h"
#include "value_check.h"

typedef struct {
    const certificate *certificate;
    const value_check *const *values;  /* by checkpoint, with totals; NULL, or an entry NULL: the
                                          values were not looked at */
    const logits_comparison *const *logits;    /* by checkpoint; NULL, or an entry NULL: none */
    const char *certificate_path;      /* as its reader is told to name it; NULL: "cert.json" */
    int is_signed;
} html_report;

/* Whole or not at all. */
ckpt_code html_report_write(const char *path, const html_report *report, ckpt_error *err);

#endif
