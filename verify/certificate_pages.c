/* Writes a certificate for CI systems: JUnit, and Markdown for the page of a job. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certificate_write.h"
#include "libckpt/text.h"
#include "markup.h"
#include "text_file.h"

enum { FINDINGS_SHOWN = 20 };

/* Bytes of a hidden or direction-changing character, which text from files must not contain. */
static size_t hidden_bytes(const char *at)
{
    return text_hidden_bytes(at, strlen(at));
}

/* ---- JUnit ---- */

static void print_case(FILE *out, const certificate *c, const certificate_check *check)
{
    const char *label = c->checkpoints[check->checkpoint].label;

    fputs("    <testcase classname=\"ckpt.", out);
    markup_put(out, label);
    fprintf(out, "\" name=\"%s\">", check->name);
    if (check->verdict == CERTIFICATE_SKIPPED) {
        fputs("<skipped message=\"", out);
        markup_put(out, check->text);
        fputs("\"/>", out);
    } else if (check->verdict == CERTIFICATE_FAIL) {
        size_t shown = 0;

        fputs("<failure message=\"", out);
        markup_put(out, check->text);
        fputs("\">", out);
        for (size_t i = 0; i < c->finding_count && shown < FINDINGS_SHOWN; i++) {
            const certificate_finding *f = &c->findings[i];

            if (f->checkpoint != check->checkpoint || strcmp(f->check, check->name) != 0)
                continue;
            shown++;
            fprintf(out, "%s ", f->kind);
            markup_put(out, f->subject);
            fputc(' ', out);
            markup_put(out, f->text);
            fputc('\n', out);
        }
        fputs("</failure>", out);
    } else {
        fputs("<system-out>", out);
        markup_put(out, check->text);
        fputs("</system-out>", out);
    }
    fputs("</testcase>\n", out);
}

static void print_suite(FILE *out, const certificate *c, size_t i)
{
    size_t counts[CERTIFICATE_SKIPPED + 1] = { 0 };
    size_t total = 0;

    for (size_t k = 0; k < c->check_count; k++)
        if (c->checks[k].checkpoint == i) {
            counts[c->checks[k].verdict]++;
            total++;
        }
    fputs("  <testsuite name=\"", out);
    markup_put(out, c->checkpoints[i].label);
    fprintf(out, "\" tests=\"%zu\" failures=\"%zu\" errors=\"0\" skipped=\"%zu\">\n", total,
            counts[CERTIFICATE_FAIL], counts[CERTIFICATE_SKIPPED]);
    for (size_t k = 0; k < c->check_count; k++)
        if (c->checks[k].checkpoint == i)
            print_case(out, c, &c->checks[k]);
    fputs("  </testsuite>\n", out);
}

static ckpt_code print_junit(FILE *out, const void *what, ckpt_error *err)
{
    const certificate *c = what;

    (void)err;
    fputs("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"ckpt-verify certify\">\n",
          out);
    for (size_t i = 0; i < c->checkpoint_count; i++)
        print_suite(out, c, i);
    fputs("</testsuites>\n", out);
    return CKPT_OK;
}

ckpt_code certificate_write_junit(const char *path, const certificate *c, ckpt_error *err)
{
    return text_file_write(path, print_junit, c, err);
}

/* ---- Markdown ---- */

/* Print text in a table cell, with all of Markdown and HTML escaped. */
static void print_markdown(FILE *out, const char *text)
{
    for (const char *at = text; *at != '\0';) {
        const size_t hidden = hidden_bytes(at);

        if (hidden > 0)
            fputc('?', out);
        else if (*at == '<')
            fputs("&lt;", out);
        else if (*at == '&')
            fputs("&amp;", out);
        else if (strchr("\\`*_{}[]()#+!|~>@", *at) != NULL)
            fprintf(out, "\\%c", *at);
        else
            fputc(*at, out);
        at += hidden > 0 ? hidden : 1;
    }
}

static void print_finding(FILE *out, const certificate *c, const certificate_finding *f)
{
    fprintf(out, "| %s | ", f->check);
    print_markdown(out, c->checkpoints[f->checkpoint].label);
    fprintf(out, " | %s | ", f->kind);
    print_markdown(out, f->subject);
    fputs(" | ", out);
    print_markdown(out, f->place == NULL ? "" : f->place);
    fputs(" | ", out);
    print_markdown(out, f->text == NULL ? "" : f->text);
    fputs(" |\n", out);
}

static void print_findings(FILE *out, const certificate *c)
{
    if (c->finding_count == 0)
        return;
    fputs("\n| check | checkpoint | finding | of | place | figures |\n|---|---|---|---|---|---|\n",
          out);
    for (size_t i = 0; i < c->finding_count && i < FINDINGS_SHOWN; i++)
        print_finding(out, c, &c->findings[i]);
    if (c->finding_count > FINDINGS_SHOWN)
        fprintf(out, "\n%s in the certificate.\n",
                text_count(c->finding_count - FINDINGS_SHOWN, "more finding is",
                           "more findings are").text);
}

static ckpt_code print_summary(FILE *out, const void *what, ckpt_error *err)
{
    const certificate *c = what;

    (void)err;
    fprintf(out, "### ckpt-verify certify: %s\n\n", certificate_passes(c) ? "pass" : "FAIL");
    fputs("| checkpoint | layout | tensors | root |\n|---|---|---|---|\n", out);
    for (size_t i = 0; i < c->checkpoint_count; i++) {
        const certificate_checkpoint *m = &c->checkpoints[i];

        fputs("| ", out);
        print_markdown(out, m->label);
        fprintf(out, " | %s | %zu | %s |\n", m->layout, ckpt_catalog_count(m->tensors),
                m->root[0] == '\0' ? "not read" : m->root);
    }
    fputs("\n| check | checkpoint | verdict | |\n|---|---|---|---|\n", out);
    for (size_t i = 0; i < c->check_count; i++) {
        const certificate_check *check = &c->checks[i];

        fprintf(out, "| %s | ", check->name);
        print_markdown(out, c->checkpoints[check->checkpoint].label);
        fprintf(out, " | %s | ", check->verdict == CERTIFICATE_FAIL
                                     ? "**FAIL**" : certificate_verdict_name(check->verdict));
        print_markdown(out, check->text);
        fputs(" |\n", out);
    }
    print_findings(out, c);
    return CKPT_OK;
}

ckpt_code certificate_write_summary(const char *path, const certificate *c, ckpt_error *err)
{
    return text_file_write(path, print_summary, c, err);
}
