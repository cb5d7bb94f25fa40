/* Compares the tensors that were read with those that the family has with this config. */
#include <string.h>

#include "format.h"
#include "notes.h"
#include "libckpt/text.h"

/* Sets has_no_mtp if all tensors of the optional blocks (MTP) are missing. */
static ckpt_code look_for_blocks(ckpt_checkpoint *c, ckpt_error *err)
{
    int expected = 0;
    int found = 0;

    for (size_t i = 0; i < ckpt_catalog_count(c->official); i++)
        expected |= family_may_lack(c->family, ckpt_catalog_at(c->official, i)->name);
    for (size_t i = 0; i < ckpt_catalog_count(c->reading.logical); i++)
        found |= family_may_lack(c->family, ckpt_catalog_at(c->reading.logical, i)->name);
    c->has_no_mtp = expected && !found;
    return c->has_no_mtp ? note_add(&c->notes, err, CHECKPOINT_NO_MTP) : CKPT_OK;
}

static ckpt_code check_against(ckpt_checkpoint *c, const ckpt_tensor *expected, ckpt_error *err)
{
    const int64_t i = ckpt_catalog_find(c->reading.logical, expected->name);
    const ckpt_tensor *got;
    ckpt_code code;

    if (i < 0 && (c->options.incomplete || !map_carries(c->map, expected->name) ||
                  (c->has_no_mtp && family_may_lack(c->family, expected->name))))
        return CKPT_OK;
    if (i < 0 && !c->options.lenient)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' lacks tensor '%s', which %s requires%s",
                         c->place.path, expected->name, checkpoint_config_name(c),
                         c->has_index ? ", and its index does not name it" : "");
    if (i < 0)
        return note_add(&c->notes, err, "missing tensor '%s'", expected->name);
    got = ckpt_catalog_at(c->reading.logical, (size_t)i);
    if ((code = catalog_check_same(got, expected, "", err)) != CKPT_OK && err != NULL)
        return c->config_name == NULL
                   ? ckpt_fail(err, code, "'%s': %s", checkpoint_path_of(c, got), err->text)
                   : ckpt_fail(err, code, "'%s': %s, by %s", checkpoint_path_of(c, got), err->text,
                               c->config_name);
    return code;
}

/* Is one dtype narrower than another? FP8 and FP4 weights are not considered. */
static int is_narrower(const ckpt_tensor *got, const ckpt_tensor *expected)
{
    if (got->scale_dtype != CKPT_NONE || expected->scale_dtype != CKPT_NONE ||
        ckpt_tensor_is_int(got))
        return 0;
    return ckpt_dtype_bits(got->dtype) < ckpt_dtype_bits(expected->dtype) ||
           (got->dtype == CKPT_F16 && expected->dtype == CKPT_BF16);
}

/* Narrowed tensors have different values, and those that need the wider dtype (routing,
 * hyper-connections) change the computation. One note for each pair of dtypes. */
static ckpt_code note_narrow(ckpt_checkpoint *c, ckpt_error *err)
{
    size_t counts[CKPT_DTYPE_COUNT][CKPT_DTYPE_COUNT];
    const char *first[CKPT_DTYPE_COUNT][CKPT_DTYPE_COUNT];
    ckpt_code code = CKPT_OK;

    memset(counts, 0, sizeof counts);
    for (size_t i = 0; i < ckpt_catalog_count(c->official); i++) {
        const ckpt_tensor *expected = ckpt_catalog_at(c->official, i);
        const int64_t found = ckpt_catalog_find(c->reading.logical, expected->name);
        const ckpt_tensor *got =
            found < 0 ? expected : ckpt_catalog_at(c->reading.logical, (size_t)found);

        if (is_narrower(got, expected) && counts[got->dtype][expected->dtype]++ == 0)
            first[got->dtype][expected->dtype] = got->name;
    }
    for (int got = 0; got < CKPT_DTYPE_COUNT; got++)
        for (int expected = 0; expected < CKPT_DTYPE_COUNT && code == CKPT_OK; expected++)
            if (counts[got][expected] > 0)
                code = note_add(
                    &c->notes, err, "%s %s, narrower than the %s of family %s; the first is '%s'",
                    text_count(counts[got][expected], "tensor is", "tensors are").text,
                    ckpt_dtype_name((ckpt_dtype)got), ckpt_dtype_name((ckpt_dtype)expected),
                    family_name(c->family), first[got][expected]);
    return code;
}

/* Every tensor must belong to the family; some families allow others, with a note. */
static ckpt_code check_members(ckpt_checkpoint *c, const ckpt_catalog *optional, ckpt_error *err)
{
    const char *first = NULL;
    size_t count = 0;

    for (size_t i = 0; i < ckpt_catalog_count(c->reading.logical); i++) {
        const char *name = ckpt_catalog_at(c->reading.logical, i)->name;

        if (ckpt_catalog_find(c->official, name) >= 0 || ckpt_catalog_find(optional, name) >= 0)
            continue;
        if (!c->options.lenient && !c->options.keep_copies && !family_keeps_others(c->family))
            return ckpt_fail(err, CKPT_E_FORMAT,
                             "unexpected tensor '%s': family '%s' with %s%s does not have it", name,
                             family_name(c->family), c->config_name == NULL ? "this " : "",
                             checkpoint_config_name(c));
        if (count++ == 0)
            first = name;
    }
    if (count > 1)
        return note_add(&c->notes, err, "%zu tensors do not belong to the family: they are kept; "
                        "the first is '%s'", count, first);
    return count == 0 ? CKPT_OK
                      : note_add(&c->notes, err, "tensor '%s' does not belong to the family",
                                 first);
}

ckpt_code checkpoint_check_family(ckpt_checkpoint *c, ckpt_error *err)
{
    const json_value *config = json_root(c->config);
    ckpt_catalog *optional = NULL;
    ckpt_code code;

    if ((code = family_expand(c->family, config, &c->official, err)) == CKPT_E_FORMAT)
        return checkpoint_fail_config(c, code, err);
    if (code != CKPT_OK || (code = look_for_blocks(c, err)) != CKPT_OK)
        return code;
    for (size_t i = 0; i < ckpt_catalog_count(c->official); i++)
        if ((code = check_against(c, ckpt_catalog_at(c->official, i), err)) != CKPT_OK)
            return code;
    if ((code = family_expand_optional(c->family, config, &optional, err)) == CKPT_OK)
        code = check_members(c, optional, err);
    catalog_free(optional);
    return code == CKPT_OK ? note_narrow(c, err) : code;
}
