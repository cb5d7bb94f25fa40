/* Which class of tensors changed, and how much. */
#include "delta_make.h"
#include "libckpt/tensor_class.h"

enum { OTHER, EXPERTS, ATTENTION, DENSE, NORMS, EMBEDDINGS, ROUTERS, SCALES };

static const char *const class_names[DELTA_CLASSES] = {
    [EXPERTS] = "experts", [ATTENTION] = "attention", [DENSE] = "dense mlp", [NORMS] = "norms",
    [EMBEDDINGS] = "embedding and head", [ROUTERS] = "routers", [SCALES] = "scales",
    [OTHER] = "other",
};

unsigned delta_class_of(const char *name, ckpt_dtype dtype)
{
    static const unsigned kinds[TENSOR_CLASS_COUNT] = {
        [TENSOR_EXPERT] = EXPERTS,   [TENSOR_SHARED_EXPERT] = EXPERTS,
        [TENSOR_EXPERT_STACK] = EXPERTS, [TENSOR_NORM] = NORMS,
        [TENSOR_ATTENTION] = ATTENTION, [TENSOR_DENSE] = DENSE, [TENSOR_ROUTER] = ROUTERS,
        [TENSOR_EMBEDDING] = EMBEDDINGS, [TENSOR_SCALE] = SCALES, [TENSOR_OTHER] = OTHER,
    };

    return dtype == CKPT_F8_E8M0 ? SCALES : kinds[tensor_class_of(name)];
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
