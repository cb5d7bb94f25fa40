/* Writes the page. */
#include "html_report.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "certificate_put.h"
#include "html_private.h"
#include "ledger.h"
#include "markup.h"
#include "text_file.h"
#include "libckpt/text.h"

enum { FINDINGS_SHOWN = 200, NOTES_OPEN = 20, FILES_SHOWN = 1000 };

static void put_cell(FILE *out, const char *css, const char *text)
{
    fprintf(out, css[0] == '\0' ? "<td>" : "<td class=\"%s\">", css);
    markup_put(out, text);
    fputs("</td>", out);
}

static void put_number(FILE *out, uint64_t number)
{
    fprintf(out, "<td class=\"r\">%" PRIu64 "</td>", number);
}

static const char *label_of(const html_report *r, size_t i)
{
    return r->certificate->checkpoints[i].label;
}

/* ---- parts of the page ---- */

static void put_head(FILE *out, const html_report *r)
{
    const certificate *c = r->certificate;
    const certificate_checkpoint *m = &c->checkpoints[0];
    const int passes = certificate_passes(c);
    char when[CERTIFICATE_TIME_BYTES];

    certificate_time_text(c->made_at, when);
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
          "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>", out);
    fputs(passes ? "pass: " : "FAIL: ", out);
    markup_put(out, m->label);
    fprintf(out, "</title><style>%s</style></head>\n<body><main>\n", html_style);
    fprintf(out, "<header class=\"%s\"><p class=\"verdict\">%s%s</p><h1>",
            passes ? "pass" : "fail", passes ? "Pass" : "FAIL",
            c->options.structure_only ? ", structure only" : "");
    for (size_t i = 0; i < c->checkpoint_count; i++) {
        fputs(i == 0 ? "" : i == 1 ? " and " : ", ", out);
        markup_put(out, label_of(r, i));
    }
    if (m->root[0] == '\0')
        fputs("</h1><p>The values were not read.</p>", out);
    else
        fprintf(out, "</h1><p>Root <span class=\"m\">%s</span></p>", m->root);
    fprintf(out, "<p class=\"dim\">%s, ckpt %s</p></header>\n", when, CKPT_VERSION);
}

static void put_checks(FILE *out, const html_report *r)
{
    const certificate *c = r->certificate;

    fputs("<h2>Checks</h2>\n<table class=\"w\"><thead><tr><th>Verdict</th><th>Check</th>"
          "<th>Checkpoint</th><th>Result</th></tr></thead><tbody>\n", out);
    for (size_t i = 0; i < c->check_count; i++) {
        const certificate_check *k = &c->checks[i];
        const char *verdict = certificate_verdict_name(k->verdict);

        fputs("<tr>", out);
        put_cell(out, verdict, verdict);
        put_cell(out, "", k->name);
        put_cell(out, "m", label_of(r, k->checkpoint));
        fputs("<td>", out);
        markup_put(out, k->text);
        for (size_t f = 0; f < k->figure_count; f++) {
            fprintf(out, f == 0 ? "<br><span class=\"dim\">" : ", ");
            markup_put(out, k->figures[f].name);
            fprintf(out, " %.6g", k->figures[f].number);
        }
        fputs(k->figure_count > 0 ? "</span></td></tr>\n" : "</td></tr>\n", out);
    }
    fputs("</tbody></table>\n", out);
}

static void put_finding(FILE *out, const html_report *r, const certificate_finding *f)
{
    fputs("<tr>", out);
    put_cell(out, f->fails ? "fail" : "note", f->fails ? "fails" : "note");
    fputs("<td>", out);
    markup_put(out, f->check);
    fputs(": ", out);
    markup_put(out, f->kind);
    fputs("<br><span class=\"dim m\">", out);
    markup_put(out, label_of(r, f->checkpoint));
    fputs("</span></td>", out);
    put_cell(out, "m", f->subject);
    put_cell(out, "", f->place);
    put_cell(out, "m", f->text);
    fputs("</tr>\n", out);
}

/* Write the findings that are folded, or those that are not: what fails, and the first notes. */
static size_t put_finding_table(FILE *out, const html_report *r, size_t shown, int folded)
{
    size_t note_count = 0, count = 0;

    fputs("<table class=\"w\"><thead><tr><th>Weight</th><th>Kind</th><th>Of</th><th>Place</th>"
          "<th>Text</th></tr></thead><tbody>\n", out);
    for (size_t i = 0; i < shown; i++) {
        const certificate_finding *f = &r->certificate->findings[i];
        int is_folded = !f->fails && note_count++ >= NOTES_OPEN;

        if (is_folded == folded) {
            put_finding(out, r, f);
            count++;
        }
    }
    fputs("</tbody></table>\n", out);
    return count;
}

static void put_findings(FILE *out, const html_report *r)
{
    const size_t count = r->certificate->finding_count;
    const size_t shown = count < FINDINGS_SHOWN ? count : FINDINGS_SHOWN;
    size_t open;

    if (count == 0)
        return;
    fputs("<h2>Findings</h2>\n", out);
    open = put_finding_table(out, r, shown, 0);
    if (shown > open) {
        fprintf(out, "<details><summary>%s</summary>",
                text_count(shown - open, "more note", "more notes").text);
        put_finding_table(out, r, shown, 1);
        fputs("</details>\n", out);
    }
    if (count > shown)
        fprintf(out, "<p>%s in the certificate.</p>\n",
                text_count(count - shown, "more finding is", "more findings are").text);
}

static void put_encodings(FILE *out, const certificate_checkpoint *m)
{
    fputs("<table><thead><tr><th>Encoding</th><th class=\"r\">Tensors</th><th class=\"r\">Bytes"
          "</th></tr></thead><tbody>\n", out);
    for (size_t i = 0; i < m->encoding_count; i++) {
        fputs("<tr>", out);
        put_cell(out, "m", m->encodings[i].name);
        put_number(out, m->encodings[i].tensor_count);
        put_number(out, m->encodings[i].bytes);
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table>\n", out);
}

/* List the fates of all stored tensors. */
static void put_ledger(FILE *out, const map_ledger *ledger)
{
    fputs("<table><thead><tr><th>Stored tensors</th><th class=\"r\">Number</th></tr></thead><tbody>"
          "\n", out);
    for (size_t i = 0; i < LEDGER_LINES; i++) {
        const ledger_line line = ledger_line_of(ledger, i);

        fputs("<tr>", out);
        put_cell(out, "", line.text);
        put_number(out, line.count);
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table>\n", out);
}

static void put_files(FILE *out, const certificate_checkpoint *m)
{
    fprintf(out,
            "<details><summary>%s</summary><table class=\"w\"><thead><tr><th>File</th>"
            "<th>Role</th><th class=\"r\">Bytes</th><th>SHA-256</th></tr></thead><tbody>\n",
            text_count(m->file_count, "file", "files").text);
    for (size_t i = 0; i < m->file_count && i < FILES_SHOWN; i++) {
        const certificate_file *f = &m->files[i];

        fputs("<tr>", out);
        put_cell(out, "m", f->name);
        put_cell(out, "", certificate_role_name(f->role));
        put_number(out, f->size_bytes);
        put_cell(out, "m", f->sha256[0] == '\0' ? "not read" : f->sha256);
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table>", out);
    if (m->file_count > FILES_SHOWN)
        fprintf(out, "<p>%s in the certificate.</p>",
                text_count(m->file_count - FILES_SHOWN, "more file is", "more files are").text);
    fputs("</details>\n", out);
}

static void put_checkpoint(FILE *out, const certificate_checkpoint *m)
{
    fputs("<h3 class=\"m\">", out);
    markup_put(out, m->label);
    fprintf(out, "</h3><p>Layout %s, family ", m->layout);
    markup_put(out, m->family);
    fputs(", names ", out);
    markup_put(out, m->names);
    fprintf(out, ": %zu tensors, stored as %zu in %" PRIu64 " bytes.",
            ckpt_catalog_count(m->tensors), m->stored_count, m->stored_bytes);
    if (m->root[0] != '\0')
        fprintf(out, "<br>Root <span class=\"m\">%s</span><br>Without MTP <span class=\"m\">%s"
                "</span>", m->root, m->main_root);
    if (m->origin.repo != NULL) {
        fputs("<br>From ", out);
        markup_put(out, m->origin.hub);
        fputs(" <span class=\"m\">", out);
        markup_put(out, m->origin.repo);
        fputs("</span>, commit <span class=\"m\">", out);
        markup_put(out, m->origin.commit == NULL ? "unknown" : m->origin.commit);
        fputs("</span>", out);
    }
    fputs("</p>\n", out);
    put_encodings(out, m);
    put_ledger(out, &m->ledger);
    put_files(out, m);
    for (size_t i = 0; m->notes != NULL && i < m->notes->count; i++) {
        fputs("<p class=\"dim\">Note: ", out);
        markup_put(out, m->notes->names[i]);
        fputs("</p>\n", out);
    }
}

static void put_histograms(FILE *out, const value_check *values)
{
    uint64_t fp8[STATISTICS_CODES / 2];
    const html_histogram histograms[] = {
        { "Codes of FP4", values->totals.fp4, 16, 0, "0x%X" },
        { "Codes of FP8, without their signs", fp8, STATISTICS_CODES / 2, 0, "0x%02X" },
        { "Scales of blocks", values->scales, 256, -127, "2^%d" },
        { "Values", values->totals.exponents, 256, -127, "2^%d" },
    };

    for (int i = 0; i < STATISTICS_CODES / 2; i++)
        fp8[i] = values->totals.fp8[i] + values->totals.fp8[i + STATISTICS_CODES / 2];
    for (size_t i = 0; i < sizeof histograms / sizeof *histograms; i++)
        html_put_histogram(out, &histograms[i]);
}

static int has_values_of_reference(const certificate_checkpoint *all, size_t i)
{
    return i > 0 && all[i].root[0] != '\0' && strcmp(all[i].root, all[0].root) == 0;
}

/* Draw where a candidate differs from the reference. */
static ckpt_code put_differences(FILE *out, const html_report *r, size_t i, ckpt_error *err)
{
    layer_grid grid;
    ckpt_code code;

    fputs("<h2>Differences of <span class=\"m\">", out);
    markup_put(out, label_of(r, i));
    fputs("</span> from <span class=\"m\">", out);
    markup_put(out, label_of(r, 0));
    fputs("</span></h2>\n", out);
    if (r->certificate->options.structure_only)
        fputs("<p>Values were not read: names and shapes are compared.</p>\n", out);
    if ((code = layer_grid_compare(r->certificate, i, &grid, err)) == CKPT_OK)
        html_put_grid(out, &grid, GRID_DIFFERENCES);
    layer_grid_release(&grid);
    return code;
}

static ckpt_code put_grid(FILE *out, const html_report *r, size_t i, const value_check *values,
                          ckpt_error *err)
{
    layer_grid grid;
    ckpt_code code;

    fputs("<h2>Layers and kinds of <span class=\"m\">", out);
    markup_put(out, label_of(r, i));
    fputs("</span></h2>\n", out);
    if (has_values_of_reference(r->certificate->checkpoints, i)) {
        fputs("<p>The values are those of <span class=\"m\">", out);
        markup_put(out, label_of(r, 0));
        fputs("</span>, and so is the picture.</p>\n", out);
        return CKPT_OK;
    }
    if ((code = layer_grid_make(r->certificate, i, values == NULL ? NULL : &values->statistics,
                                &grid, err)) == CKPT_OK)
        html_put_grid(out, &grid, values == NULL ? GRID_TENSORS : GRID_SPREADS);
    layer_grid_release(&grid);
    return code;
}

/* Draw layers, codes and logits of each checkpoint. */
static ckpt_code put_pictures(FILE *out, const html_report *r, ckpt_error *err)
{
    for (size_t i = 0; i < r->certificate->checkpoint_count; i++) {
        const value_check *values = r->values == NULL ? NULL : r->values[i];
        const int differs = i > 0 && !has_values_of_reference(r->certificate->checkpoints, i);
        ckpt_code code;

        if ((differs && (code = put_differences(out, r, i, err)) != CKPT_OK) ||
            (code = put_grid(out, r, i, values, err)) != CKPT_OK)
            return code;
        if (values != NULL)
            put_histograms(out, values);
        if (r->logits != NULL && r->logits[i] != NULL) {
            fputs("<h3>Logits</h3>\n", out);
            html_put_logits(out, r->logits[i]);
        }
    }
    return CKPT_OK;
}

static void put_self_test(FILE *out, const certificate *c)
{
    size_t applicable = 0;
    size_t caught = 0;

    if (c->mutation_count == 0)
        return;
    for (size_t i = 0; i < c->mutation_count; i++) {
        applicable += (size_t)c->mutations[i].is_applicable;
        caught += c->mutations[i].is_applicable && c->mutations[i].is_caught;
    }
    fprintf(out, "<h2>Self-test</h2><p>%zu of %zu faults that were made on purpose were found; %zu "
            "have no place in this checkpoint.</p>\n<details><summary>All faults</summary><table>"
            "<tbody>\n", caught, applicable, c->mutation_count - applicable);
    for (size_t i = 0; i < c->mutation_count; i++) {
        const certificate_mutation *m = &c->mutations[i];

        fputs("<tr>", out);
        put_cell(out, !m->is_applicable ? "skipped" : m->is_caught ? "found" : "missed",
                 !m->is_applicable ? "not applicable" : m->is_caught ? "found" : "MISSED");
        put_cell(out, "m", m->name);
        put_cell(out, "", m->by);
        fputs("</tr>\n", out);
    }
    fputs("</tbody></table></details>\n", out);
}

static void put_commands(FILE *out, const html_report *r)
{
    const char *path = r->certificate_path == NULL ? "cert.json" : r->certificate_path;

    fputs("<h2>Verify this yourself</h2>\n<p>Any copy of the weights, in any layout and any "
          "lossless encoding, has the same root. Without a network:</p>\n<pre>ckpt-verify digest ",
          out);
    markup_put(out, label_of(r, 0));
    fputs("\nckpt-verify certificate ", out);
    markup_put(out, path);
    fputs(" ", out);
    markup_put(out, label_of(r, r->certificate->checkpoint_count - 1));
    fputs(r->is_signed ? " --key KEY.pub" : "", out);
    fputs("\nckpt-verify mutate ", out);
    markup_put(out, label_of(r, 0));
    fputs("</pre>\n", out);
}

static ckpt_code print_page(FILE *out, const void *what, ckpt_error *err)
{
    const html_report *r = what;
    const certificate *c = r->certificate;
    ckpt_code code;

    put_head(out, r);
    put_checks(out, r);
    put_findings(out, r);
    fputs("<h2>Files and encodings</h2>\n", out);
    for (size_t i = 0; i < c->checkpoint_count; i++)
        put_checkpoint(out, &c->checkpoints[i]);
    if ((code = put_pictures(out, r, err)) != CKPT_OK)
        return code;
    put_self_test(out, c);
    put_commands(out, r);
    fputs("</main></body></html>\n", out);
    return CKPT_OK;
}

ckpt_code html_report_write(const char *path, const html_report *report, ckpt_error *err)
{
    return text_file_write(path, print_page, report, err);
}
