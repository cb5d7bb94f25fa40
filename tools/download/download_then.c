/* download_then.c: asks our own tools whether they accept their options. */
#include "download_then.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "libckpt/file.h"
#include "tools/cli/cli.h"

enum { CANNOT_RUN = 127, LOOK_MS = 100 };

static int is_program(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

/* Search PATH as execvp does. */
static ckpt_code find_program(const char *name, ckpt_error *err)
{
    const char *folders = getenv("PATH");
    const int is_line = strchr(name, ' ') != NULL;

    if (strchr(name, '/') != NULL) {
        if (is_program(name))
            return CKPT_OK;
        return hub_fail(HUB_USAGE, err, "--then: cannot run '%s': expected a program", name);
    }
    for (const char *at = folders == NULL ? "/bin:/usr/bin" : folders; *name != '\0';) {
        const size_t size = strcspn(at, ":");
        char *path = NULL;
        int found;

        if (asprintf(&path, "%.*s/%s", size == 0 ? 1 : (int)size, size == 0 ? "." : at, name) < 0)
            return ckpt_fail_memory(err, "a path", size);
        found = is_program(path);
        free(path);
        if (found)
            return CKPT_OK;
        if (at[size] == '\0')
            break;
        at += size + 1;
    }
    return hub_fail(HUB_USAGE, err, "--then: '%s' was not found: expected a program in one of the "
                    "folders of PATH%s", name,
                    is_line ? ", and its arguments behind it as words of their own" : "");
}

static int is_ours(const char *command_path)
{
    static const char *const names[] = { "ckpt-convert", "ckpt-shard", "ckpt-verify",
                                         "ckpt-inspect", "ckpt-run",   "ckpt-synth",
                                         "ckpt-download" };
    const char *slash = strrchr(command_path, '/');
    const char *name = slash == NULL ? command_path : slash + 1;

    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (strcmp(name, names[i]) == 0)
            return 1;
    return 0;
}

/* Discard its output, e.g. of --help. */
static void become(char **words, int errors)
{
    const int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (nowhere >= 0 && dup2(nowhere, STDIN_FILENO) == STDIN_FILENO &&
        dup2(nowhere, STDOUT_FILENO) == STDOUT_FILENO &&
        dup2(errors, STDERR_FILENO) == STDERR_FILENO)
        execvp(words[0], words);
    _exit(CANNOT_RUN);
}

/* Read all of its error output, unless a signal stops us; `line` receives the beginning. */
static void read_line(int fd, char line[CKPT_ERROR_BYTES])
{
    const atomic_int *stop = cli_stop_flag();
    struct pollfd ready = { fd, POLLIN, 0 };
    char rest[256];
    size_t used = 0;
    ssize_t got = 1;

    /* A signal that comes just before a wait begins does not end it: no wait is long. */
    while (got != 0 && *stop == 0) {
        if (poll(&ready, 1, LOOK_MS) <= 0)
            continue;
        got = used + 1 < CKPT_ERROR_BYTES ? read(fd, line + used, CKPT_ERROR_BYTES - 1 - used)
                                          : read(fd, rest, sizeof rest);
        if (got < 0 && errno != EINTR)
            got = 0;
        if (got > 0 && used + 1 < CKPT_ERROR_BYTES)
            used += (size_t)got;
    }
    line[used] = '\0';
    line[strcspn(line, "\n")] = '\0';
}

/* The status of a child that has closed its error output; a signal that stops us ends it. */
static int end_of(pid_t pid)
{
    int status = 0;

    while (waitpid(pid, &status, WNOHANG) == 0) {
        if (*cli_stop_flag() != 0)
            kill(pid, SIGKILL);
        poll(NULL, 0, 1);
    }
    return status;
}

static ckpt_code ask(char **words, ckpt_error *err)
{
    char line[CKPT_ERROR_BYTES] = "";
    int ends[2];
    int status = 0;
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return hub_fail(HUB_OTHER, err, "cannot make a pipe: %s", strerror(errno));
    pid = fork();
    if (pid == 0)
        become(words, ends[1]);
    close(ends[1]);
    if (pid > 0) {
        read_line(ends[0], line);
        status = end_of(pid);
    }
    close(ends[0]);
    if (pid < 0)
        return hub_fail(HUB_OTHER, err, "cannot start '%s': %s", words[0], strerror(errno));
    if (*cli_stop_flag() != 0)
        return hub_fail_interrupted(err);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0)
        return CKPT_OK;
    return hub_fail(HUB_USAGE, err, "--then '%s' would fail: %s", words[0],
                    *line != '\0' ? line : "it does not accept its options");
}

ckpt_code then_check(char **words, int with_places, ckpt_error *err)
{
    static char options[] = CLI_CHECK_OPTIONS;
    static char places[] = CLI_CHECK_PLACES;
    char **asked;
    size_t count = 0;
    ckpt_code code = find_program(words[0], err);

    if (code != CKPT_OK || !is_ours(words[0]))
        return code;
    while (words[count] != NULL)
        count++;
    if ((asked = calloc(count + 2, sizeof *asked)) == NULL)
        return ckpt_fail_memory(err, "a command line", count);
    asked[0] = words[0];
    asked[1] = with_places ? places : options;
    memcpy(asked + 2, words + 1, (count - 1) * sizeof *words);
    code = ask(asked, err);
    free(asked);
    return code;
}

/* The folder need not exist yet. malloc'd; NULL: nothing is where it would be. */
static char *real_place(const char *path)
{
    char *real = realpath(path, NULL);

    return real != NULL ? real : file_rename_target(path);
}

int then_names(char **words, const char *folder)
{
    char *place = real_place(folder);
    int found = place == NULL;

    for (size_t i = 1; words[i] != NULL && !found; i++) {
        char *other = real_place(words[i]);

        found = other != NULL && strcmp(other, place) == 0;
        free(other);
    }
    free(place);
    return found;
}
