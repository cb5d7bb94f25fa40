/* Value findings in a certificate. */
#include "certificate_values.h"

#include <inttypes.h>
#include <stdio.h>

#include "libckpt/text.h"

enum { PLACE_BYTES = 64 };

static ckpt_code add(certificate *c, size_t i, const value_finding *found, int fails,
                     ckpt_error *err)
{
    char place[PLACE_BYTES];
    char text[VALUE_TEXT_BYTES] = "";
    const certificate_finding f = { .check = "findings", .checkpoint = i,
                                    .kind = value_kind_name(found->kind), .subject = found->name,
                                    .place = found->row == UINT64_MAX ? NULL : place,
                                    .text = text, .fails = fails };

    snprintf(place, sizeof place, "row %" PRIu64 ", column %" PRIu64, found->row, found->col);
    value_finding_text(found, text);
    return certificate_add_finding(c, &f, err);
}

ckpt_code certificate_judge_findings(certificate *c, size_t i, const value_findings *findings,
                                     const certificate_policy *policy, ckpt_error *err)
{
    certificate_check check = { .name = "findings", .checkpoint = i };
    size_t failing = 0;
    ckpt_code code = CKPT_OK;

    for (size_t f = 0; f < findings->count && code == CKPT_OK; f++) {
        const value_kind kind = findings->items[f].kind;
        const int fails = policy_finding_fails(policy, value_kind_name(kind),
                                               kind <= VALUE_ID_RANGE);

        failing += (size_t)fails;
        code = add(c, i, &findings->items[f], fails, err);
    }
    if (code != CKPT_OK)
        return code;
    check.verdict = failing > 0            ? CERTIFICATE_FAIL
                    : findings->count > 0 ? CERTIFICATE_NOTE
                                          : CERTIFICATE_PASS;
    if ((code = certificate_add_check(
             c, &check, err, "%s and %s on the values of %s",
             text_count(findings->fault_count, "fault", "faults").text,
             text_count(findings->count - findings->fault_count, "remark", "remarks").text,
             text_count(findings->tensor_count, "tensor", "tensors").text)) != CKPT_OK ||
        (code = certificate_add_figure(c, "faults", (double)findings->fault_count, err)) != CKPT_OK)
        return code;
    return certificate_add_figure(c, "remarks",
                                  (double)(findings->count - findings->fault_count), err);
}
