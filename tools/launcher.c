/* One process of several. */
#include "launcher.h"

#include <stdlib.h>
#include <string.h>

#include "tools/cli/cli.h"
#include "libckpt/error.h"

enum { PARTS_MAX = 65536 };

typedef struct {
    uint64_t part;
    uint64_t count;
} share;

static int env_number(const char *name, uint64_t *out)
{
    const char *text = getenv(name);

    return text != NULL && cli_parse_u64(text, out);
}

/* Rank and size of the launcher, if one started us; 0: none did. */
static int find_launcher(int with_common_names, share *out)
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
    int found = 0;

    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        uint64_t rank;
        uint64_t size;

        if ((launchers[i].is_common && !with_common_names) ||
            !env_number(launchers[i].rank, &rank) || !env_number(launchers[i].size, &size) ||
            rank == UINT64_MAX)
            continue;
        found = 1;
        *out = (share){ rank + 1, size };
        if (size > 1)                  /* a step of one task may be inside a larger launch */
            return 1;
    }
    return found;
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
        is_right = cli_parse_u64(copy, &out->part) && cli_parse_u64(slash, &out->count);
    }
    free(copy);
    return is_right ? CKPT_OK : ckpt_fail(err, CKPT_E_USAGE, "--part '%s': expected I/N or auto",
                                          text);
}

ckpt_code launcher_part(const char *text, unsigned *part, unsigned *part_count, ckpt_error *err)
{
    const int is_auto = text != NULL && strcmp(text, "auto") == 0;
    share s = { 1, 1 };
    ckpt_code code;

    if (text != NULL && !is_auto) {
        if ((code = parse_share(text, &s, err)) != CKPT_OK)
            return code;
    } else if (!find_launcher(is_auto, &s) && is_auto) {
        return ckpt_fail(err, CKPT_E_USAGE, "--part auto: no launcher has set a rank and a size "
                         "(RANK and WORLD_SIZE, or those of srun, mpirun or PMI)");
    }
    if (s.part < 1 || s.part > s.count || s.count > PARTS_MAX)
        return ckpt_fail(err, CKPT_E_USAGE, "%s%s %llu/%llu: I must be 1 to N, N at most %d",
                         text == NULL || is_auto ? "the launcher's rank and size, as " : "",
                         "--part", (unsigned long long)s.part, (unsigned long long)s.count,
                         PARTS_MAX);
    *part = (unsigned)s.part;
    *part_count = (unsigned)s.count;
    return CKPT_OK;
}
