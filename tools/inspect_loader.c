/* Verdicts on loading, in words or as a document. */
#include "inspect_loader.h"

#include <stdio.h>

#include "formats/notes.h"
#include "tools/cli/cli.h"
#include "verify/loaders.h"
#include "libckpt/text.h"

/* The map that gives the modules of weights; NULL for a family without one. */
static ckpt_code find_modules(const ckpt_checkpoint *c, ckpt_map **out, ckpt_error *err)
{
    const json_value *config = checkpoint_config(c);

    *out = NULL;
    if (c->official == NULL)
        return CKPT_OK;
    return checkpoint_find_map(ckpt_family_name(c), family_names(c->family, config), config, out,
                               err);
}

static ckpt_code judge(const ckpt_checkpoint *c, loader_id loader, loader_verdict *out,
                       ckpt_error *err)
{
    loader_input in = { .config = c->config == NULL ? NULL : json_root(c->config),
                        .modelopt = c->modelopt == NULL ? NULL : json_root(c->modelopt),
                        .stored = ckpt_source_catalog(ckpt_stored(c)),
                        .logical = ckpt_source_catalog(ckpt_logical(c)),
                        .source = ckpt_logical(c), .official = c->official,
                        .layout = ckpt_layout_name(c), .family = ckpt_family_name(c),
                        .names = ckpt_names_style(c), .is_partial = c->is_partial };
    ckpt_map *modules;
    ckpt_code code;

    if ((code = find_modules(c, &modules, err)) != CKPT_OK)
        return code;
    in.modules = modules;
    code = loader_judge(loader, &in, out, err);
    map_free(modules);
    return code;
}

static void print_verdict(const char *path, const loader_verdict *v)
{
    printf("%s: %s %s it (%s, read from %s)\n", path, loader_name(v->loader),
           v->loads ? "will load" : "will NOT load",
           text_count(v->rule_count, "rule", "rules").text, loader_version(v->loader));
    for (size_t i = 0; i < v->count; i++) {
        const loader_finding *f = &v->findings[i];

        printf("%-8s  %s: %s\n", f->is_note ? "note" : "reason", f->rule, cli_name(f->text));
        if (f->source != NULL)
            printf("%-8s  %s\n", "", f->source);
    }
}

/* Print the verdict as text or JSON. */
ckpt_code inspect_for(const ckpt_checkpoint *c, const char *loader, int as_json, int *status,
                      ckpt_error *err)
{
    loader_verdict verdict;
    json_writer w;
    ckpt_code code;

    if ((code = judge(c, loader_find(loader), &verdict, err)) != CKPT_OK ||
        (code = checkpoint_check_unchanged(c, err)) != CKPT_OK)
        return code;
    *status = verdict.loads ? CLI_DONE : CLI_DIFFERENT;
    if (as_json) {
        cli_json_begin(&w, "ckpt-loader/1");
        loader_put(&w, &verdict);
        cli_json_end(&w);
    } else {
        print_verdict(checkpoint_path(c), &verdict);
        for (size_t i = 0; i < c->notes.count; i++)
            printf("note      %s\n", c->notes.names[i]);
    }
    return CKPT_OK;
}

ckpt_code inspect_judge_config(const ckpt_checkpoint *c, loader_verdict *out, ckpt_error *err)
{
    return judge(c, LOADER_NONE, out, err);
}

/* Add notes where the encodings in config.json differ from those of the files. */
ckpt_code inspect_note_config(ckpt_checkpoint *c, ckpt_error *err)
{
    loader_verdict verdict;
    ckpt_code code = inspect_judge_config(c, &verdict, err);

    for (size_t i = 0; i < verdict.count && code == CKPT_OK; i++)
        code = note_add(&c->notes, err, "%s", verdict.findings[i].text);
    return code;
}
