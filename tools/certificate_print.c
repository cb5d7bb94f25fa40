/* Prints the checks of a certificate. */
#include <stdio.h>
#include <string.h>

#include "certify_command.h"
#include "libckpt/text.h"

enum { FINDINGS_SHOWN = 20 };

static void print_check(const certificate *c, const certificate_check *check)
{
    const certificate_checkpoint *m = &c->checkpoints[check->checkpoint];

    printf("%-7s  %s  %s: %s\n",
           check->verdict == CERTIFICATE_FAIL ? "FAIL" : certificate_verdict_name(check->verdict),
           check->name, cli_name(m->label), cli_name(check->text));
}

static void print_finding(const certificate *c, const certificate_finding *f)
{
    printf("%s  %s: ", f->check, cli_name(c->checkpoints[f->checkpoint].label));
    printf("%s  %s", f->kind, cli_name(f->subject));
    if (f->place != NULL)
        printf("  %s", cli_name(f->place));
    if (f->text != NULL)
        printf("  %s", cli_name(f->text));
    putchar('\n');
}

void certificate_print(const certificate *c)
{
    for (size_t i = 0; i < c->check_count; i++)
        if (c->checks[i].verdict != CERTIFICATE_SKIPPED)
            print_check(c, &c->checks[i]);
    for (size_t i = 0; i < c->finding_count && i < FINDINGS_SHOWN; i++)
        print_finding(c, &c->findings[i]);
    if (c->finding_count > FINDINGS_SHOWN)
        printf("... and %s; --json lists them all\n",
               text_count(c->finding_count - FINDINGS_SHOWN, "more finding", "more findings").text);
    for (size_t i = 0; i < c->checkpoint_count; i++) {
        const file_list *notes = c->checkpoints[i].notes;

        for (size_t n = 0; notes != NULL && n < notes->count && n < FINDINGS_SHOWN; n++)
            printf("note     %s: %s\n", cli_name(c->checkpoints[i].label),
                   cli_name(notes->names[n]));
    }
}

int layout_has_config(const char *layout)
{
    return strcmp(layout, "hf") == 0 || strcmp(layout, "mp") == 0;
}
