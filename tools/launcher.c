/* Finds the share of a job that this process does. */
#include "launcher.h"

#include <stdlib.h>
#include <string.h>

#include "libckpt/error.h"

enum { SHARES_MAX = 65536 };

typedef struct {
    uint64_t index;
    uint64_t count;
} share;

static int is_set(const char *name)
{
    const char *text = getenv(name);

    return text != NULL && *text != '\0';
}

/* Refused if it is not a number: a process that does not know its share would do the whole job, as
 * all the others. */
static ckpt_code env_number(const char *name, uint64_t *out, ckpt_error *err)
{
    if (!cli_parse_u64(getenv(name), out) || *out == UINT64_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "%s of the launcher: expected a whole number of 0 "
                         "or more, got '%s'; correct or unset it, or give --part I/N", name,
                         getenv(name));
    return CKPT_OK;
}

const cli_topic launcher_variables[] = {
    { "SLURM_PROCID, SLURM_STEP_NUM_TASKS", "Rank and size of the job inside a step of srun: each "
      "process does its share." },
    { "OMPI_COMM_WORLD_RANK, OMPI_COMM_WORLD_SIZE, PMI_RANK, PMI_SIZE", "The same inside mpirun." },
    { "RANK, WORLD_SIZE", "The same, only with --part auto." },
    { NULL, NULL }
};

/* Rank and size set by a launcher. *found: 0, there is none. */
static ckpt_code find_launcher(int with_common_names, share *out, int *found, ckpt_error *err)
{
    static const struct {
        const char *rank;
        const char *size;
        int is_common;
    } launchers[] = {
        { "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", 0 },
        { "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", 0 },
        { "PMI_RANK", "PMI_SIZE", 0 },
        { "RANK", "WORLD_SIZE", 1 },
    };
    ckpt_code code;

    *found = 0;
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        uint64_t rank;
        uint64_t size;

        if ((launchers[i].is_common && !with_common_names) || !is_set(launchers[i].rank) ||
            !is_set(launchers[i].size))
            continue;
        if ((code = env_number(launchers[i].rank, &rank, err)) != CKPT_OK ||
            (code = env_number(launchers[i].size, &size, err)) != CKPT_OK)
            return code;
        *found = 1;
        *out = (share){ rank + 1, size };
        if (size > 1)                  /* a single-task step may be nested in a larger launch */
            break;
    }
    return CKPT_OK;
}

/* "I/N" */
static ckpt_code parse_share(const char *text, share *out, ckpt_error *err)
{
    char *copy = strdup(text);
    char *slash = copy == NULL ? NULL : strchr(copy, '/');
    int is_right = 0;

    if (copy == NULL)
        return ckpt_fail_memory(err, "an option", strlen(text));
    if (slash != NULL) {
        *slash++ = '\0';
        is_right = cli_parse_u64(copy, &out->index) && cli_parse_u64(slash, &out->count);
    }
    free(copy);
    return is_right ? CKPT_OK : ckpt_fail(err, CKPT_E_USAGE, "--part '%s': expected I/N or auto",
                                          text);
}

ckpt_code launcher_share(const char *text, unsigned *index, unsigned *share_count, ckpt_error *err)
{
    const int is_auto = text != NULL && strcmp(text, "auto") == 0;
    share s = { 1, 1 };
    int found = 1;
    ckpt_code code = text != NULL && !is_auto ? parse_share(text, &s, err)
                                              : find_launcher(is_auto, &s, &found, err);

    if (code != CKPT_OK)
        return code;
    if (!found && is_auto)
        return ckpt_fail(err, CKPT_E_USAGE, "--part auto: no rank and size in the environment "
                         "(expected RANK and WORLD_SIZE, or the variables of srun, mpirun or PMI)");
    if (s.index < 1 || s.index > s.count || s.count > SHARES_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "%s%s %llu/%llu: I must be 1 to N, N at most %d",
                         text == NULL || is_auto ? "rank and size of the launcher, as " : "",
                         "--part", (unsigned long long)s.index, (unsigned long long)s.count,
                         SHARES_MAX);
    *index = (unsigned)s.index;
    *share_count = (unsigned)s.count;
    return CKPT_OK;
}
