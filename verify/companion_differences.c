/* Lists, counts and writes differences of files. */
#include "companion_differences.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_line.h"
#include "libckpt/array.h"

const char *companion_kind_name(companion_kind kind)
{
    static const char *const names[] = { "changed", "rewritten", "missing", "extra" };

    return names[kind];
}

ckpt_code companions_add(companion_comparison *out, const companion_difference *d,
                         const char *member, ckpt_error *err)
{
    companion_difference *all = array_room(out->differing, out->count, sizeof *all, "differences",
                                           err);

    if (all == NULL)
        return CKPT_E_MEMORY;
    out->differing = all;
    all[out->count] = *d;
    if (member != NULL && (all[out->count].member = strdup(member)) == NULL)
        return ckpt_fail_memory(err, "a name", strlen(member));
    out->count++;
    return CKPT_OK;
}

ckpt_code companions_note(companion_comparison *out, ckpt_error *err, const char *format, ...)
{
    va_list args;
    int length;

    free(out->note);
    va_start(args, format);
    length = vasprintf(&out->note, format, args);
    va_end(args);
    if (length >= 0)
        return CKPT_OK;
    out->note = NULL;
    return ckpt_fail_memory(err, "a note", strlen(format));
}

void companions_release(companion_comparison *comparison)
{
    for (size_t i = 0; i < comparison->count; i++)
        free(comparison->differing[i].member);
    free(comparison->differing);
    free(comparison->note);
    memset(comparison, 0, sizeof *comparison);
}

size_t companions_changed(const companion_comparison *comparison)
{
    size_t changed = 0;

    for (size_t i = 0; i < comparison->count; i++)
        changed += comparison->differing[i].kind == COMPANION_CHANGED &&
                   comparison->differing[i].role != CERTIFICATE_GENERATION;
    return changed;
}

void companions_put(json_writer *w, const companion_comparison *comparison)
{
    uint64_t compared = 0;

    for (int role = 0; role <= CERTIFICATE_OTHER; role++)
        compared += comparison->compared[role];
    json_put_object(w);
    json_member_u64(w, "compared", compared);
    json_member_array(w, "differing");
    for (size_t i = 0; i < comparison->count; i++) {
        const companion_difference *d = &comparison->differing[i];
        json_writer line;

        json_line_begin(&line, w);
        json_put_object(&line);
        json_member_string(&line, "file", d->file);
        json_member_string(&line, "kind", companion_kind_name(d->kind));
        json_member_string(&line, "member", d->member);
        json_put_object_end(&line);
        json_line_end(&line, w);
    }
    json_put_array_end(w);
    json_member_string(w, "note", comparison->note);
    json_put_object_end(w);
}
