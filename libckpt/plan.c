/* Chooses target encodings by policy. */
#include "plan.h"

#include "encoding.h"
#include "tensor_class.h"

int plan_is_expert(const char *name)
{
    size_t digits;

    return tensor_expert_number(name, &digits) != NULL;
}

int plan_is_plain(plan_encoding encoding)
{
    return encoding == PLAN_BF16 || encoding == PLAN_F32;
}

/* The scale dtype for FP8: of the policy, else of the source, else of the family, else E8M0. */
static ckpt_dtype fp8_scale(const ckpt_tensor *t, const ckpt_tensor *official,
                            const plan_policy *policy)
{
    if (policy->scale_dtype != CKPT_NONE)
        return policy->scale_dtype;
    if (t->dtype == CKPT_F8_E4M3 && t->scale_dtype != CKPT_NONE)
        return t->scale_dtype;
    if (official != NULL && official->dtype == CKPT_F8_E4M3)
        return official->scale_dtype;
    return CKPT_F8_E8M0;
}

/* Make a tensor FP8. One that is FP8 already keeps its blocks. */
static void set_fp8(ckpt_tensor *t, ckpt_dtype scale)
{
    const int is_fp8 = t->dtype == CKPT_F8_E4M3 && t->scale_dtype != CKPT_NONE;

    encoding_set(t, is_fp8 ? encoding_id_of(t) : ENCODING_FP8_128, scale);
    t->stored_dtype = CKPT_F8_E4M3;
}

static void set_fp4(ckpt_tensor *t, const ckpt_tensor *official)
{
    ckpt_dtype stored = CKPT_I8;

    if (t->dtype == CKPT_F4)
        stored = t->stored_dtype;
    else if (official != NULL && official->dtype == CKPT_F4)
        stored = official->stored_dtype;

    encoding_set(t, ENCODING_FP4_32, CKPT_F8_E8M0);
    t->stored_dtype = stored;
}

const ckpt_tensor *plan_find_official(const ckpt_catalog *official, const ckpt_tensor *t)
{
    const int64_t o = official == NULL ? CKPT_NOT_FOUND : ckpt_catalog_find(official, t->name);

    return o < 0 ? NULL : ckpt_catalog_at(official, (size_t)o);
}

int plan_is_quantised(const ckpt_tensor *t, const ckpt_tensor *official)
{
    return t->scale_dtype != CKPT_NONE ||
           (official != NULL && official->scale_dtype != CKPT_NONE);
}

/* The scale dtype required by experts whose encoding changes; CKPT_NONE when none changes. */
static ckpt_dtype scale_of_experts(const ckpt_catalog *from, const ckpt_catalog *official,
                                   const plan_policy *policy)
{
    const ckpt_dtype codes = policy->experts == PLAN_FP8   ? CKPT_F8_E4M3
                             : policy->experts == PLAN_FP4 ? CKPT_F4
                                                           : CKPT_NONE;

    if (codes == CKPT_NONE || !policy->scales_follow_experts)
        return CKPT_NONE;
    for (size_t i = 0; i < ckpt_catalog_count(from); i++) {
        const ckpt_tensor *t = ckpt_catalog_at(from, i);

        if (plan_is_expert(t->name) && plan_is_quantised(t, plan_find_official(official, t)) &&
            (t->dtype != codes || t->scale_dtype == CKPT_NONE))
            return codes == CKPT_F4 ? CKPT_F8_E8M0 : CKPT_F32;
    }
    return CKPT_NONE;
}

/* Apply the policy to one tensor; 1 when the policy applies to it. */
static int plan_tensor(ckpt_tensor *t, const ckpt_tensor *official, const plan_policy *policy)
{
    const plan_encoding wanted = plan_is_expert(t->name) ? policy->experts : policy->dtype;
    const int is_fp8 = t->dtype == CKPT_F8_E4M3 && t->scale_dtype != CKPT_NONE;

    if (!plan_is_quantised(t, official))
        return 0;
    if (plan_is_plain(wanted) && t->scale_dtype != CKPT_NONE)
        catalog_set_plain(t, wanted == PLAN_F32 ? CKPT_F32 : CKPT_BF16);
    else if (wanted == PLAN_FP8 || (wanted == PLAN_KEEP && is_fp8))
        set_fp8(t, fp8_scale(t, official, policy));
    else if (wanted == PLAN_FP4)
        set_fp4(t, official);
    return wanted != PLAN_KEEP;
}

ckpt_code plan_targets(const ckpt_catalog *from, const ckpt_catalog *official,
                       const plan_policy *policy, ckpt_catalog **out, ckpt_error *err)
{
    ckpt_catalog *targets = catalog_create_borrowing();
    plan_policy settled = *policy;
    ckpt_code code = CKPT_OK;
    size_t planned = 0;

    if (settled.scale_dtype == CKPT_NONE)
        settled.scale_dtype = scale_of_experts(from, official, policy);
    if (targets == NULL)
        return ckpt_fail_memory(err, "a plan", ckpt_catalog_count(from));
    for (size_t i = 0; i < ckpt_catalog_count(from) && code == CKPT_OK; i++) {
        ckpt_tensor t = *ckpt_catalog_at(from, i);

        planned += (size_t)plan_tensor(&t, plan_find_official(official, &t), &settled);
        code = catalog_add(targets, &t, err);
    }
    if (code == CKPT_OK && planned == 0 &&
        (policy->dtype == PLAN_FP8 || policy->experts == PLAN_FP8 ||
         policy->experts == PLAN_FP4))
        code = ckpt_fail(err, CKPT_E_USAGE,
                         "cannot tell which tensors to quantise: no weight has scales and the "
                         "family is unknown; use --like ORIGINAL");
    if (code != CKPT_OK)
        catalog_free(targets);
    else
        *out = targets;
    return code;
}
