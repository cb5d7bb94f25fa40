/* Distinguishes a checkpoint from other files. */
#include "replaceable.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "journal.h"
#include "json.h"
#include "packed.h"
#include "text.h"

enum { LISTING_BYTES_MAX = 512 << 20 };

typedef struct {
    file_list found;         /* all files in the folder, at any depth */
    file_list listed;        /* files listed by its manifest, index and journals; sorted */
    const char *wanted;      /* the layout of the new checkpoint; NULL: any */
    char layout[16];         /* the layout that its manifest says ckpt wrote; "": no manifest */
} folder;

/* ---- names ---- */

/* Names of files that checkpoints consist of. */
typedef struct {
    const char *pattern;     /* '#' matches a number; a final '/' matches everything below it */
    int is_proof;            /* 1: only checkpoints have such a file */
    int is_iteration;        /* 1: also found in the folder of an iteration */
    const char *layout;      /* the only layout with this file; NULL: any */
} known_name;

static const known_name known_names[] = {
    { "model.safetensors", 1, 0, "hf" },
    { "model-#-of-#.safetensors", 1, 0, "hf" },
    { "model#-mp#.safetensors", 1, 0, "mp" },
    { "model.safetensors.index.json", 1, 0, "hf" },
    { "model.gguf", 1, 0, "gguf" },
    { "model-#-of-#.gguf", 1, 0, "gguf" },
    { MANIFEST_FILE, 1, 0, NULL },
    { "ckpt-delta.json", 1, 0, NULL },
    { "delta-rank#-file#.safetensors", 0, 0, NULL },  /* a delta of SkyRL */
    { "fp4_scales.zst", 1, 0, NULL },
    { "__#_#.distcp", 1, 1, "torch_dist" },
    { ".metadata", 1, 1, "torch_dist" },
    { "latest_checkpointed_iteration.txt", 1, 0, "torch_dist" },
    { "metadata.json", 0, 1, "torch_dist" },
    { "common.pt", 0, 1, "torch_dist" },
    { "config.json", 0, 0, NULL },
    { "generation_config.json", 0, 0, NULL },
    { "hf_quant_config.json", 0, 0, NULL },
    { "tokenizer.json", 0, 0, NULL },
    { "tokenizer_config.json", 0, 0, NULL },
    { "tokenizer.model", 0, 0, NULL },
    { "special_tokens_map.json", 0, 0, NULL },
    { "added_tokens.json", 0, 0, NULL },
    { "vocab.json", 0, 0, NULL },
    { "merges.txt", 0, 0, NULL },
    { "chat_template.jinja", 0, 0, NULL },
    { "chat_template.json", 0, 0, NULL },
    { "preprocessor_config.json", 0, 0, NULL },
    { "processor_config.json", 0, 0, NULL },
    { ".gitattributes", 0, 0, NULL },
    { "README.md", 0, 0, NULL },
    { "LICENSE", 0, 0, NULL },
    { ".cache/huggingface/ckpt/", 0, 0, NULL },       /* records of downloads by ckpt and by */
    { ".cache/huggingface/download/", 0, 0, NULL },   /* huggingface_hub, but no other caches */
    { ".cache/huggingface/trees/", 0, 0, NULL },
    { ".cache/huggingface/.gitignore", 0, 0, NULL },
    { ".cache/huggingface/CACHEDIR.TAG", 0, 0, NULL },
    { ".mdl", 0, 0, NULL },
    { ".msc", 0, 0, NULL },
    { ".mv", 0, 0, NULL },
    { "inference/config.json", 0, 0, NULL },     /* DeepSeek's code in its releases */
    { "inference/convert.py", 0, 0, NULL },
    { "inference/generate.py", 0, 0, NULL },
    { "inference/kernel.py", 0, 0, NULL },
    { "inference/model.py", 0, 0, NULL },
    { "inference/README.md", 0, 0, NULL },
    { "inference/requirements.txt", 0, 0, NULL },
    { "encoding/encoding_dsv4.py", 0, 0, NULL },
    { "encoding/test_encoding_dsv4.py", 0, 0, NULL },
    { "encoding/README.md", 0, 0, NULL },
};

static int matches(const char *pattern, const char *name)
{
    for (; *pattern != '\0'; pattern++) {
        if (*pattern != '#') {
            if (*pattern != *name++)
                return 0;
            continue;
        }
        if (strspn(name, "0123456789") == 0)
            return 0;
        name += strspn(name, "0123456789");
    }
    return *name == '\0' || pattern[-1] == '/';
}

/* Megatron checkpoints have their files in a folder named after the iteration. Returns the length
 * of that folder's name; 0: `name` is not in one. */
static size_t iteration_length(const char *name)
{
    const char *slash = strchr(name, '/');
    char first[32];

    if (slash == NULL || (size_t)(slash - name) >= sizeof first)
        return 0;
    snprintf(first, sizeof first, "%.*s", (int)(slash - name), name);
    return strcmp(first, "release") == 0 || matches("iter_#", first) ? (size_t)(slash - name) : 0;
}

static const known_name *find_known(const char *name)
{
    const size_t length = iteration_length(name);
    const char *rest = length == 0 ? name : name + length + 1;

    for (size_t i = 0; i < sizeof known_names / sizeof *known_names; i++)
        if (matches(known_names[i].pattern, rest) && (length == 0 || known_names[i].is_iteration))
            return &known_names[i];
    return NULL;
}

/* Two iterations are two checkpoints: this is the folder of a training run, never replaced. */
static int is_second_iteration(const char *name, const char **iteration)
{
    const size_t length = iteration_length(name);

    if (length == 0)
        return 0;
    if (*iteration == NULL)
        *iteration = name;
    return strncmp(name, *iteration, length + 1) != 0;
}

/* 1 for a temporary file, which a killed run may leave behind. */
static int is_unfinished(const char *name)
{
    const char *slash = strrchr(name, '/');
    const char *last = slash == NULL ? name : slash + 1;

    return last[0] == '.' && (text_ends_with(last, ".tmp") || text_ends_with(last, ".spill"));
}

/* ---- files that the folder's own lists name ---- */

static ckpt_code read_list(const char *directory, const char *name, json_document **out,
                           ckpt_error *err)
{
    char *path = file_join(directory, name);
    char *text = NULL;
    size_t size = 0;
    struct stat status;
    ckpt_code code = CKPT_OK;

    *out = NULL;
    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(directory));
    if (lstat(path, &status) == 0 && S_ISREG(status.st_mode) &&
        (code = file_read_all(path, LISTING_BYTES_MAX, &text, &size, err)) == CKPT_OK)
        code = json_parse(text, size, path, out, err);
    free(text);
    free(path);
    return code;
}

static ckpt_code add_strings(folder *f, const json_value *list, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    if (list == NULL)
        return CKPT_OK;
    for (const json_value *v = json_first(list); v != NULL && code == CKPT_OK; v = json_next(v)) {
        const char *name = json_string(v);

        /* An index names a file once for each tensor; most duplicates are adjacent. */
        if (name != NULL &&
            (f->listed.count == 0 || strcmp(f->listed.names[f->listed.count - 1], name) != 0))
            code = file_list_add(&f->listed, name, err);
    }
    return code;
}

/* A manifest lists the weight files only; its layout tells which other files ckpt wrote. */
static void take_layout(folder *f, const json_document *manifest)
{
    const json_value *root = manifest == NULL ? NULL : json_root(manifest);
    const char *layout = json_string(json_member(root, "layout"));

    if (layout != NULL && json_is_array(json_member(root, "files")))
        snprintf(f->layout, sizeof f->layout, "%s", layout);
}

/* A list that is not JSON lists nothing; one that cannot be read is an error. */
static ckpt_code take_lists(folder *f, const char *directory, ckpt_error *err)
{
    static const char *const lists[][2] = {
        { MANIFEST_FILE, "files" }, { "model.safetensors.index.json", "weight_map" },
    };
    ckpt_code code = journal_list_files(directory, &f->listed, err);

    for (size_t i = 0; i < sizeof lists / sizeof *lists && code == CKPT_OK; i++) {
        json_document *document;

        code = read_list(directory, lists[i][0], &document, err);
        if (code == CKPT_E_FORMAT)
            code = CKPT_OK;
        if (code == CKPT_OK && document != NULL)
            code = add_strings(f, json_member(json_root(document), lists[i][1]), err);
        if (code == CKPT_OK && i == 0)
            take_layout(f, document);
        json_free(document);
    }
    if (f->listed.count > 1)
        qsort(f->listed.names, f->listed.count, sizeof *f->listed.names, text_order);
    return code;
}

static int is_listed(const folder *f, const char *name)
{
    return f->listed.count > 0 && bsearch(&name, f->listed.names, f->listed.count,
                                          sizeof *f->listed.names, text_order) != NULL;
}

/* ---- deciding ---- */

static ckpt_code fail_other(const char *path, const char *name, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_USAGE,
                     "'%s' is not replaced: '%s' in it does not belong to a checkpoint; move it "
                     "away or choose another name", path, name);
}

/* A file of another layout than the new checkpoint's may be replaced only if ckpt wrote it:
 * otherwise the user has probably given the wrong path. */
static ckpt_code check_layout(const folder *f, const known_name *known, const char *path,
                              const char *name, ckpt_error *err)
{
    if (f->wanted == NULL || known->layout == NULL || strcmp(f->wanted, known->layout) == 0 ||
        strcmp(f->layout, known->layout) == 0)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_USAGE, "'%s' is not replaced: '%s' in it is of the layout %s, not "
                     "%s, and no manifest says that ckpt wrote it; move it away, or choose another "
                     "name", path, name, known->layout, f->wanted);
}

static ckpt_code check_files(const folder *f, const char *path, int is_partial, ckpt_error *err)
{
    int is_proven = f->found.count == 0 || is_partial;
    const char *iteration = NULL;
    ckpt_code code;

    for (size_t i = 0; i < f->found.count; i++) {
        const char *name = f->found.names[i];
        const known_name *known = find_known(name);

        if (is_second_iteration(name, &iteration))
            return ckpt_fail(err, CKPT_E_USAGE, "'%s' is not replaced: it is a training run, with "
                             "'%s' of a second iteration; choose another name", path,
                             name);
        if (is_listed(f, name)) {
            is_proven = 1;
            continue;
        }
        if (journal_is_name(name) || (is_partial && is_unfinished(name)))
            continue;
        if (known == NULL)
            return fail_other(path, name, err);
        if ((code = check_layout(f, known, path, name, err)) != CKPT_OK)
            return code;
        is_proven |= known->is_proof;
    }
    return is_proven ? CKPT_OK : fail_other(path, f->found.names[0], err);
}

static ckpt_code check_folder(const char *path, const char *layout, int is_partial,
                              ckpt_error *err)
{
    folder f = { .found = { NULL, 0 }, .wanted = layout };
    ckpt_code code;

    if ((code = file_list_everything(path, &f.found, err)) == CKPT_OK &&
        (code = take_lists(&f, path, err)) == CKPT_OK)
        code = check_files(&f, path, is_partial, err);
    file_list_free(&f.found);
    file_list_free(&f.listed);
    return code;
}

/* A .safetensors file: it begins with the header's length and a brace. */
static ckpt_code check_file(const char *path, ckpt_error *err)
{
    enum { LENGTH_BYTES = 8 };
    unsigned char begin[LENGTH_BYTES + 1] = { 0 };
    uint64_t header_bytes = 0;
    ckpt_file *file;
    ckpt_code code;

    if (packed_detect(path))
        return ckpt_fail(err, CKPT_E_USAGE, "'%s' is a packed checkpoint, which is not replaced: "
                         "move it away or choose another name", path);
    if ((code = file_open(path, &file, err)) != CKPT_OK)
        return code;
    if (file_size(file) > sizeof begin)
        code = file_read_at(file, 0, begin, sizeof begin, err);
    for (int i = 0; i < LENGTH_BYTES; i++)
        header_bytes |= (uint64_t)begin[i] << 8 * i;
    if (code == CKPT_OK && (begin[LENGTH_BYTES] != '{' ||
                            header_bytes > file_size(file) - LENGTH_BYTES))
        code = ckpt_fail(err, CKPT_E_USAGE, "'%s' is not replaced: it is not a checkpoint; move it "
                         "away or choose another name", path);
    file_close(file, NULL);
    return code;
}

ckpt_code replaceable_check(const char *path, const char *layout, ckpt_error *err)
{
    struct stat status;

    if (lstat(path, &status) != 0)
        return ckpt_fail(err, CKPT_E_IO, "cannot stat '%s': it has disappeared", path);
    if (S_ISLNK(status.st_mode))
        return CKPT_OK;
    if (S_ISDIR(status.st_mode))
        return check_folder(path, layout, 0, err);
    if (S_ISREG(status.st_mode))
        return check_file(path, err);
    return ckpt_fail(err, CKPT_E_USAGE, "'%s' is a device, pipe or socket: choose another name",
                     path);
}

/* ---- discarding an unfinished run ---- */

/* Remove the journals of a folder, or all other files. */
static ckpt_code remove_files(const char *directory, const file_list *found, int journals,
                              ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < found->count && code == CKPT_OK; i++) {
        char *path;

        if (journal_is_name(found->names[i]) != journals)
            continue;
        if ((path = file_join(directory, found->names[i])) == NULL)
            return ckpt_fail_memory(err, "a path", strlen(directory));
        code = file_remove(path, err);
        free(path);
    }
    return code;
}

/* *is_ours: 1 when a journal in it says that ckpt made the folder. */
static ckpt_code check_partial(const char *directory, int *is_ours, ckpt_error *err)
{
    const hash128 any = { 0, 0 };
    journal_sight sight;
    const ckpt_code code = journal_look(directory, any, &sight, err);

    *is_ours = sight.is_other || sight.same_count > 0;
    if (code == CKPT_OK && sight.is_locked)
        return ckpt_fail(err, CKPT_E_IO, "cannot discard '%s': another process is writing here",
                         directory);
    return code != CKPT_OK || !*is_ours ? code : check_folder(directory, NULL, 1, err);
}

ckpt_code replaceable_check_partial(const char *directory, ckpt_error *err)
{
    int is_ours;

    return check_partial(directory, &is_ours, err);
}

ckpt_code replaceable_discard_partial(const char *directory, ckpt_error *err)
{
    file_list found = { NULL, 0 };
    int is_ours;
    ckpt_code code;

    if ((code = check_partial(directory, &is_ours, err)) != CKPT_OK || !is_ours ||
        (code = file_list_everything(directory, &found, err)) != CKPT_OK)
        return code;
    /* The journals go last, so that a discard that is killed can be repeated. */
    if ((code = remove_files(directory, &found, 0, err)) == CKPT_OK &&
        (code = remove_files(directory, &found, 1, err)) == CKPT_OK)
        code = file_remove_empty(directory, err);
    file_list_free(&found);
    return code;
}
