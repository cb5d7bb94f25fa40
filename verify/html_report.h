/*
 * html_report.h: writes a certificate as an HTML page: one file without scripts and without network
 * access. It has verdict, checks, findings, files and encodings, layers and kinds, codes and
 * scales, logits, the self-test, and how to verify it. All text from a checkpoint is escaped.
 */
#ifndef CKPT_HTML_REPORT_H
#define CKPT_HTML_REPORT_H

#include "certificate.h"
#include "logits.h"
#include "value_check.h"

typedef struct {
    const certificate *certificate;
    const value_check *const *values;  /* by checkpoint, with totals; NULL, or an entry NULL: values
                                          were not checked */
    const logits_comparison *const *logits;    /* by checkpoint; NULL, or an entry NULL: none */
    const char *certificate_path;      /* shown in the instructions; NULL: "cert.json" */
    int is_signed;
} html_report;

/* The file is written completely or not at all. */
ckpt_code html_report_write(const char *path, const html_report *report, ckpt_error *err);

#endif
