/* Which class of tensors changed, and how much. */
#include <string.h>

#include "delta_make.h"
#include "libckpt/text.h"

enum { OTHER, EXPERTS, ATTENTION, DENSE, NORMS, EMBEDDINGS, ROUTERS, SCALES };

static const char *const class_names[DELTA_CLASSES] = {
    [EXPERTS] = "experts", [ATTENTION] = "attention", [DENSE] = "dense mlp", [NORMS] = "norms",
    [EMBEDDINGS] = "embedding and head", [ROUTERS] = "routers", [SCALES] = "scales",
    [OTHER] = "other",
};

/* The first part of a name that is found decides. */
static const struct {
    const char *part;
    unsigned kind;
} parts[] = {
    { "experts", EXPERTS },     { "norm", NORMS },          { "gate_proj", DENSE },
    { "gate", ROUTERS },        { "router", ROUTERS },      { "tid2eid", ROUTERS },
    { "attn", ATTENTION },      { "attention", ATTENTION }, { "embed", EMBEDDINGS },
    { "lm_head", EMBEDDINGS },  { "head.", EMBEDDINGS },    { "mlp", DENSE },
    { "ffn", DENSE },           { "proj", DENSE },
};

unsigned delta_class_of(const char *name, ckpt_dtype dtype)
{
    if (dtype == CKPT_F8_E8M0 || text_ends_with(name, ".scale") ||
        text_ends_with(name, "scale_inv") || text_ends_with(name, "weight_scale") ||
        text_ends_with(name, "scale_2"))
        return SCALES;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(name, parts[i].part) != NULL)
            return parts[i].kind;
    return OTHER;
}

static void add(delta_class *to, const delta_class *tensor)
{
    to->tensor_count += tensor->tensor_count;
    to->changed_count += tensor->changed_count;
    to->bytes += tensor->bytes;
    to->elements += tensor->elements;
    to->changed_bytes += tensor->changed_bytes;
    to->changed_elements += tensor->changed_elements;
    to->packed_bytes += tensor->packed_bytes;
}

void delta_summary_add(delta_summary *summary, unsigned kind, const delta_class *tensor)
{
    summary->classes[kind].name = class_names[kind];
    summary->total.name = "all";
    add(&summary->classes[kind], tensor);
    add(&summary->total, tensor);
}
