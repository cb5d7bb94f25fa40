/* Writes and reads lists of files. */
#include "file_record.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "json_line.h"

void file_record_put(json_writer *w, const certificate_checkpoint *c)
{
    json_put_array(w);
    for (size_t i = 0; i < c->file_count; i++) {
        const certificate_file *f = &c->files[i];
        json_writer line;

        json_line_begin(&line, w);
        json_put_object(&line);
        json_member_string(&line, "name", f->name);
        json_member_string(&line, "role", certificate_role_name(f->role));
        json_member_u64(&line, "size", f->size_bytes);
        json_member_string(&line, "sha256", f->sha256[0] == '\0' ? NULL : f->sha256);
        json_put_object_end(&line);
        json_line_end(&line, w);
    }
    json_put_array_end(w);
}

static certificate_role find_role(const char *name)
{
    int role = CERTIFICATE_OTHER;

    while (role > 0 && strcmp(certificate_role_name((certificate_role)role), name) != 0)
        role--;
    return (certificate_role)role;
}

static ckpt_code read_file(const json_value *entry, const char *path, certificate_file *out,
                           ckpt_error *err)
{
    const char *name = json_string(json_member(entry, "name"));
    const char *role = json_string(json_member(entry, "role"));
    const char *hash = json_string(json_member(entry, "sha256"));

    if (name == NULL || role == NULL || !json_u64(json_member(entry, "size"), &out->size_bytes) ||
        (hash != NULL && strlen(hash) != SHA256_HEX - 1))
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': expected name, role, size and sha256 of its "
                         "files", path);
    snprintf(out->sha256, sizeof out->sha256, "%s", hash == NULL ? "" : hash);
    out->role = find_role(role);
    out->name = strdup(name);
    return out->name == NULL ? ckpt_fail_memory(err, "a name", strlen(name)) : CKPT_OK;
}

ckpt_code file_record_read(const json_value *files, const char *path, certificate_checkpoint *out,
                           ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if (!json_is_array(files))
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': expected a list of files", path);
    if ((out->files = calloc(json_count(files) + 1, sizeof *out->files)) == NULL)
        return ckpt_fail_memory(err, "a list of files", json_count(files));
    for (const json_value *v = json_first(files); v != NULL && code == CKPT_OK; v = json_next(v))
        if ((code = read_file(v, path, &out->files[out->file_count], err)) == CKPT_OK)
            out->file_count++;
    return code;
}
