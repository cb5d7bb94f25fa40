/* Writes the certificate and its lists to files. */
#include "certificate_write.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "certificate_put.h"
#include "dsse.h"
#include "json_file.h"
#include "libckpt/text.h"
#include "manifest.h"

/* ---- the certificate ---- */

char *certificate_tensor_path(const char *path)
{
    static const char suffix[] = ".json";
    const size_t length = strlen(path) - (text_ends_with(path, suffix) ? sizeof suffix - 1 : 0);
    char *out = NULL;

    return asprintf(&out, "%.*s.tensors.json.zst", (int)length, path) < 0 ? NULL : out;
}

static ckpt_code write_tensors(const char *path, certificate *c, ckpt_error *err)
{
    const certificate_checkpoint *m = &c->checkpoints[0];
    const manifest_info info = { .catalog = m->tensors, .digest = m->digest, .family = m->family,
                                 .layout = m->layout, .config = m->config_json };
    const char *name = strrchr(path, '/');
    ckpt_code code;

    if ((code = manifest_write(path, &info, err)) != CKPT_OK ||
        (code = sha256_file(path, c->tensor_sha256, err)) != CKPT_OK)
        return code;
    free(c->tensor_file);
    c->tensor_file = strdup(name == NULL ? path : name + 1);
    return c->tensor_file == NULL ? ckpt_fail_memory(err, "a name", strlen(path)) : CKPT_OK;
}

static ckpt_code write_statement(const char *path, const certificate *c, const signature_key *key,
                                 ckpt_error *err)
{
    byte_buffer statement = { 0 };
    byte_buffer envelope = { 0 };
    json_writer w;
    ckpt_code code;

    json_writer_begin(&w, byte_buffer_write, &statement, 1);
    code = certificate_put(&w, c, err);
    byte_buffer_add(&statement, "\n", 1);
    if (code == CKPT_OK && (!json_writer_end(&w) || statement.failed))
        code = ckpt_fail_memory(err, "a certificate", statement.used);
    if (code == CKPT_OK && key != NULL)
        code = dsse_sign(statement.bytes, statement.used, key, &envelope, err);
    if (code == CKPT_OK)
        code = key == NULL ? file_write_all(path, statement.bytes, statement.used, err)
                           : file_write_all(path, envelope.bytes, envelope.used, err);
    free(statement.bytes);
    free(envelope.bytes);
    return code;
}

ckpt_code certificate_write(const char *path, certificate *c, const signature_key *key,
                            ckpt_error *err)
{
    char *beside = certificate_tensor_path(path);
    uint64_t tensor_bytes;
    ckpt_code code;
    int is_beside = 0;

    if (beside == NULL)
        return ckpt_fail_memory(err, "a path", strlen(path));
    if ((code = certificate_tensor_bytes(c, &tensor_bytes, err)) == CKPT_OK &&
        tensor_bytes > CERTIFICATE_TENSORS_INLINE_BYTES) {
        is_beside = 1;
        code = write_tensors(beside, c, err);
    }
    if (code == CKPT_OK)
        code = write_statement(path, c, key, err);
    if (code != CKPT_OK && is_beside)
        file_remove(beside, NULL);
    free(beside);
    return code;
}

/* ---- lists ---- */

/* Names with a backslash or a line break are escaped and the line marked, as sha256sum does. */
static void add_sum_line(byte_buffer *out, const certificate_file *f)
{
    const int is_odd = strpbrk(f->name, "\\\n\r") != NULL;

    if (is_odd)
        byte_buffer_add(out, "\\", 1);
    byte_buffer_add(out, f->sha256, strlen(f->sha256));
    byte_buffer_add(out, "  ", 2);
    for (const char *at = f->name; *at != '\0'; at++) {
        if (*at == '\\' || *at == '\n' || *at == '\r')
            byte_buffer_add(out, *at == '\\' ? "\\\\" : *at == '\n' ? "\\n" : "\\r", 2);
        else
            byte_buffer_add(out, at, 1);
    }
    byte_buffer_add(out, "\n", 1);
}

ckpt_code certificate_write_sums(const char *path, const certificate *c, size_t i,
                                 ckpt_error *err)
{
    const certificate_checkpoint *m = &c->checkpoints[i];
    byte_buffer out = { 0 };
    ckpt_code code;

    for (size_t f = 0; f < m->file_count; f++)
        if (m->files[f].sha256[0] != '\0')
            add_sum_line(&out, &m->files[f]);
    code = out.failed ? ckpt_fail_memory(err, "a list of hashes", out.used)
                      : file_write_all(path, out.used == 0 ? "" : out.bytes, out.used, err);
    free(out.bytes);
    return code;
}

/* Length of the folder with .metadata and its slash; 0: it is at the top; -1: there is none. */
static int64_t find_dcp_folder(const certificate_checkpoint *m, size_t *file)
{
    static const char name[] = ".metadata";

    for (size_t i = 0; i < m->file_count; i++) {
        const size_t length = strlen(m->files[i].name);

        *file = i;
        if (strcmp(m->files[i].name, name) == 0)
            return 0;
        if (text_ends_with(m->files[i].name, "/.metadata"))
            return (int64_t)(length - (sizeof name - 1));
    }
    return -1;
}

typedef struct {
    const certificate_checkpoint *checkpoint;
    const char *folder;
    size_t folder_bytes;
} integrity_job;

static ckpt_code put_integrity(json_writer *w, const void *what, ckpt_error *err)
{
    const integrity_job *job = what;

    (void)err;
    json_put_object(w);
    json_member_string(w, "algorithm", "sha256");
    json_member_object(w, "files");
    for (size_t i = 0; i < job->checkpoint->file_count; i++) {
        const certificate_file *f = &job->checkpoint->files[i];
        const char *name = f->name + job->folder_bytes;

        if (strncmp(f->name, job->folder, job->folder_bytes) == 0 && strchr(name, '/') == NULL &&
            strcmp(name, "integrity.json") != 0)
            json_member_string(w, name, f->sha256);
    }
    json_put_object_end(w);
    json_put_object_end(w);
    return CKPT_OK;
}

ckpt_code certificate_fail_integrity(const char *path, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_USAGE, "--integrity '%s' is for a checkpoint of Megatron "
                     "(torch_dist), not packed: none is certified", path);
}

ckpt_code certificate_write_integrity(const char *path, const certificate *c, ckpt_error *err)
{
    for (size_t i = 0; i < c->checkpoint_count && !c->options.structure_only; i++) {
        size_t file = 0;
        const int64_t bytes = find_dcp_folder(&c->checkpoints[i], &file);
        const integrity_job job = { &c->checkpoints[i],
                                    bytes < 0 ? "" : c->checkpoints[i].files[file].name,
                                    bytes < 0 ? 0 : (size_t)bytes };

        if (bytes >= 0)
            return json_file_write(path, put_integrity, &job, err);
    }
    return certificate_fail_integrity(path, err);
}

/* ---- CycloneDX ---- */

static void put_property(json_writer *w, const char *name, const char *value)
{
    json_put_object(w);
    json_member_string(w, "name", name);
    json_member_string(w, "value", value);
    json_put_object_end(w);
}

static void put_hash(json_writer *w, const char *hex)
{
    json_member_array(w, "hashes");
    json_put_object(w);
    json_member_string(w, "alg", "SHA-256");
    json_member_string(w, "content", hex);
    json_put_object_end(w);
    json_put_array_end(w);
}

static void put_model(json_writer *w, const certificate_checkpoint *m)
{
    json_put_object(w);
    json_member_string(w, "type", "machine-learning-model");
    json_member_string(w, "bom-ref", m->label);
    json_member_string(w, "name", m->origin.repo == NULL ? m->label : m->origin.repo);
    if (m->origin.commit != NULL || m->origin.revision != NULL)
        json_member_string(w, "version",
                           m->origin.commit != NULL ? m->origin.commit : m->origin.revision);
    json_member_array(w, "properties");
    if (m->digest != NULL) {
        put_property(w, "ckpt:root", m->root);
        put_property(w, "ckpt:main", m->main_root);
    }
    put_property(w, "ckpt:layout", m->layout);
    put_property(w, "ckpt:family", m->family);
    json_put_array_end(w);
    json_member_array(w, "components");
    for (size_t i = 0; i < m->file_count; i++) {
        if (m->files[i].sha256[0] == '\0')
            continue;
        json_put_object(w);
        json_member_string(w, "type", "file");
        json_member_string(w, "name", m->files[i].name);
        put_hash(w, m->files[i].sha256);
        json_put_object_end(w);
    }
    json_put_array_end(w);
    json_put_object_end(w);
}

static ckpt_code put_cyclonedx(json_writer *w, const void *what, ckpt_error *err)
{
    const certificate *c = what;
    char when[CERTIFICATE_TIME_BYTES];

    (void)err;
    certificate_time_text(c->made_at, when);
    json_put_object(w);
    json_member_string(w, "bomFormat", "CycloneDX");
    json_member_string(w, "specVersion", "1.6");
    json_member_u64(w, "version", 1);
    json_member_object(w, "metadata");
    json_member_string(w, "timestamp", when);
    json_member_object(w, "tools");
    json_member_array(w, "components");
    json_put_object(w);
    json_member_string(w, "type", "application");
    json_member_string(w, "name", "ckpt");
    json_member_string(w, "version", ckpt_version());
    json_put_object_end(w);
    json_put_array_end(w);
    json_put_object_end(w);
    json_put_object_end(w);
    json_member_array(w, "components");
    for (size_t i = 0; i < c->checkpoint_count; i++)
        put_model(w, &c->checkpoints[i]);
    json_put_array_end(w);
    json_put_object_end(w);
    return CKPT_OK;
}

ckpt_code certificate_write_cyclonedx(const char *path, const certificate *c, ckpt_error *err)
{
    return json_file_write(path, put_cyclonedx, c, err);
}
