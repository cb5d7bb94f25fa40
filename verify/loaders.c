/* Checks all rules of one loader. */
#include "loaders.h"

#include <string.h>

#include "loader_rules.h"

static const struct {
    const char *name;
    const char *version;
} loaders[LOADER_COUNT] = {
    [LOADER_VLLM] = { "vllm", "vLLM 0.33" },
    [LOADER_SGLANG] = { "sglang", "SGLang of 2026-08" },
    [LOADER_TRANSFORMERS] = { "transformers", "transformers 5.23.0" },
    [LOADER_MEGATRON] = { "megatron", "megatron-core 0.16.1" },
    [LOADER_NONE] = { "", "" },
};

loader_id loader_find(const char *name)
{
    int i = 0;

    while (i < LOADER_NONE && strcmp(loaders[i].name, name) != 0)
        i++;
    return i < LOADER_NONE ? (loader_id)i : LOADER_COUNT;
}

const char *loader_name(loader_id loader)
{
    return loaders[loader].name;
}

const char *loader_version(loader_id loader)
{
    return loaders[loader].version;
}

ckpt_code loader_judge(loader_id loader, const loader_input *in, loader_verdict *out,
                       ckpt_error *err)
{
    loader_facts facts;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    out->loader = loader;
    out->loads = 1;
    if ((code = loader_facts_find(in, &facts, err)) != CKPT_OK)
        return code;
    for (const loader_rule *rule = loader_rules; rule->name != NULL; rule++) {
        loader_finding *finding = &out->findings[out->count];
        rule_call call = { &facts, loader, finding->text, err, CKPT_OK };

        if ((rule->loaders >> loader & 1) == 0 || out->count == LOADER_FINDINGS_MAX)
            continue;
        out->rule_count++;
        if (rule->holds(&call)) {
            finding->rule = rule->name;
            finding->source = rule->source;
            finding->is_note = rule->is_note;
            out->loads &= rule->is_note;
            out->count++;
        }
        if (call.code != CKPT_OK)
            return call.code;
    }
    return CKPT_OK;
}

/* ---- the document ---- */

static void put_findings(json_writer *w, const loader_verdict *verdict, const char *key, int notes)
{
    json_member_array(w, key);
    for (size_t i = 0; i < verdict->count; i++) {
        const loader_finding *f = &verdict->findings[i];

        if (f->is_note != notes)
            continue;
        json_put_object(w);
        json_member_string(w, "rule", f->rule);
        json_member_string(w, "text", f->text);
        json_member_string(w, "source", f->source);
        json_put_object_end(w);
    }
    json_put_array_end(w);
}

void loader_put(json_writer *w, const loader_verdict *verdict)
{
    json_put_object(w);
    json_member_string(w, "for", loader_name(verdict->loader));
    json_member_string(w, "version", loader_version(verdict->loader));
    json_member_bool(w, "loads", verdict->loads);
    json_member_u64(w, "rules", verdict->rule_count);
    put_findings(w, verdict, "reasons", 0);
    put_findings(w, verdict, "notes", 1);
    json_put_object_end(w);
}
