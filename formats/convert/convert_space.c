/* Checks the disk space for the result and that all inputs can be read. */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "convert_plan.h"
#include "libckpt/size.h"
#include "libckpt/text.h"

/* Disk space allocated to a file of the result: it has its final size from the start, but is
 * sparse. */
static ckpt_code add_need(const char *directory, const char *name, uint64_t size_bytes,
                          uint64_t *need_bytes, ckpt_error *err)
{
    char *path = file_join(directory, name);
    uint64_t there = 0;
    struct stat status;

    if (path == NULL)
        return ckpt_fail_memory(err, "a path", strlen(name));
    if (stat(path, &status) == 0)
        there = (uint64_t)status.st_blocks * 512;
    *need_bytes += size_bytes - size_min(there, size_bytes);
    free(path);
    return CKPT_OK;
}

ckpt_code convert_store_room(const ckpt_store *store, uint64_t extra_bytes, const char *directory,
                             convert_room *out, ckpt_error *err)
{
    struct statvfs disk;
    struct stat status;
    ckpt_code code = CKPT_OK;

    *out = (convert_room){ extra_bytes, UINT64_MAX, 0 };
    for (size_t i = 0; i < store->file_count && code == CKPT_OK; i++)
        code = add_need(directory, store->files[i].name, store->files[i].size_bytes,
                        &out->need_bytes, err);
    if (code == CKPT_OK && stat(directory, &status) == 0)
        out->device = (uint64_t)status.st_dev;
    if (code == CKPT_OK && statvfs(directory, &disk) == 0 && disk.f_blocks > 0)
        out->free_bytes = (uint64_t)disk.f_bavail * disk.f_frsize;
    return code;
}

ckpt_code convert_find_room(const job_plan *plan, const char *directory, convert_room *out,
                            ckpt_error *err)
{
    return convert_store_room(plan->store, plan->extra_bytes, directory, out, err);
}

/* The folder in which `target` will be; malloc'd. NULL when it is not found. */
static char *find_folder(const char *target)
{
    char *folder = file_rename_target(target);
    char *slash = folder == NULL ? NULL : strrchr(folder, '/');

    if (slash != NULL)
        slash[slash == folder] = '\0';
    return folder;
}

ckpt_code convert_target_room(const ckpt_store *store, uint64_t extra_bytes, const char *target,
                              convert_room *out, ckpt_error *err)
{
    char *partial = output_partial(target);
    char *folder = find_folder(target);
    ckpt_code code;

    if (partial == NULL)
        code = ckpt_fail_memory(err, "a path", strlen(target));
    else
        code = convert_store_room(store, extra_bytes,
                                  file_is_directory(partial) ? partial
                                  : folder == NULL           ? "."
                                                             : folder,
                                  out, err);
    free(partial);
    free(folder);
    return code;
}

ckpt_code convert_find_planned_room(const job_plan *plan, convert_room *out, ckpt_error *err)
{
    return convert_target_room(plan->store, plan->extra_bytes, plan->options.target, out, err);
}

ckpt_code convert_require_room(const convert_room *room, const char *target, const char *advice,
                               ckpt_error *err)
{
    if (room->free_bytes >= room->need_bytes)
        return CKPT_OK;
    return ckpt_fail(err, CKPT_E_IO, "not enough disk space for '%s': needs %llu more bytes, the "
                     "file system has %llu free; --no-space-check starts anyway%s", target,
                     (unsigned long long)room->need_bytes, (unsigned long long)room->free_bytes,
                     advice);
}

ckpt_code convert_check_room(const job_plan *plan, const char *directory, ckpt_error *err)
{
    convert_room room;
    const ckpt_code code = convert_find_room(plan, directory, &room, err);

    return code == CKPT_OK ? convert_require_room(&room, plan->options.target, "", err) : code;
}

static ckpt_code check_name(const char *name, ckpt_error *err)
{
    return text_is_plain(name) ? CKPT_OK
                               : ckpt_fail(err, CKPT_E_USAGE, "file name '%s' has control or "
                                           "bidirectional characters: rename the file", name);
}

/* Report a file that cannot be copied now, not when all else is written. */
static ckpt_code check_extra(const ckpt_folder *folder, const char *name, uint64_t *bytes,
                             ckpt_error *err)
{
    ckpt_file *file = NULL;
    const ckpt_code code = folder_open_file(folder, name, &file, err);

    if (code == CKPT_OK)
        *bytes += file_size(file);
    file_close(file, NULL);
    return code;
}

int convert_carries_side_data(const job_plan *plan)
{
    int carries = plan->like == NULL && !plan->source->is_partial && !plan->writes_side_data &&
                  folder_has(plan->source->place.folder, SIDE_DATA_FILE);

    for (size_t i = 0; carries && i < ckpt_catalog_count(plan->targets); i++)
        carries = ckpt_catalog_at(plan->targets, i)->dtype != CKPT_F4;
    return carries;
}

int convert_carries(const job_plan *plan, const char *name)
{
    return strcmp(name, CONFIG_MODELOPT_FILE) != 0 || !plan->is_recoded;
}

ckpt_code convert_check_files(job_plan *plan, ckpt_error *err)
{
    const ckpt_folder *folder = plan->source->place.folder;
    const file_list *extras = &plan->source->extras;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < plan->store->file_count && code == CKPT_OK; i++)
        code = check_name(plan->store->files[i].name, err);
    for (size_t i = 0; i < extras->count && code == CKPT_OK; i++)
        if ((code = check_name(extras->names[i], err)) == CKPT_OK &&
            convert_carries(plan, extras->names[i]))
            code = check_extra(folder, extras->names[i], &plan->extra_bytes, err);
    if (code == CKPT_OK && convert_carries_side_data(plan))
        code = check_extra(folder, SIDE_DATA_FILE, &plan->extra_bytes, err);
    return code;
}

/* The formats' own files have fixed names. */
ckpt_code convert_name_files(const job_plan *plan, file_list *out, ckpt_error *err)
{
    const file_list *extras = &plan->source->extras;
    ckpt_code code = CKPT_OK;

    for (size_t i = 0; i < plan->store->file_count && code == CKPT_OK; i++)
        code = file_list_add(out, plan->store->files[i].name, err);
    for (size_t i = 0; i < extras->count && code == CKPT_OK; i++)
        if (convert_carries(plan, extras->names[i]))
            code = file_list_add(out, extras->names[i], err);
    return code;
}
