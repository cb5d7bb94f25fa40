/* cli_signals.c: catching the signals that stop a command, and ending by one. */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "cli_private.h"

static atomic_int stop_signal;      /* 0: none received; any thread may run the handler */

/*
 * A signal that comes between a look at the flag and a call that waits for somebody else (open of a
 * pipe, read, a write to a full one) would not interrupt that call. So an alarm repeats it every
 * second until the process ends. The kernel prefers the main thread for it, as for the signal; and
 * that is the thread which waits.
 */
enum { REPEAT_SECONDS = 1 };

static void repeat_stop(int signal_number)
{
    (void)signal_number;
    alarm(REPEAT_SECONDS);
}

static void request_stop(int signal_number)
{
    stop_signal = signal_number;
    alarm(REPEAT_SECONDS);
}

void cli_catch(int number, void (*handler)(int), int flags)
{
    struct sigaction action;

    if (sigaction(number, NULL, &action) != 0 || action.sa_handler == SIG_IGN)
        return;
    memset(&action, 0, sizeof action);
    action.sa_handler = handler;
    action.sa_flags = flags;
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

atomic_int *cli_stop_flag(void)
{
    /* Without SA_RESTART, so that an open that waits for a pipe's other end is interrupted. A
     * second signal kills. */
    cli_catch(SIGALRM, repeat_stop, 0);
    cli_catch(SIGINT, request_stop, (int)SA_RESETHAND);
    cli_catch(SIGTERM, request_stop, (int)SA_RESETHAND);
    return &stop_signal;
}

int cli_stop_signal(void)
{
    return stop_signal;
}

/*
 * Terminate as a program that never caught the signal: shells then stop the loop or script we are
 * part of, and see 128 + number. Everything is cleaned up and reported by now.
 */
void cli_end_by_signal(int number)
{
    sigset_t only;

    fflush(NULL);
    signal(number, SIG_DFL);
    sigemptyset(&only);
    sigaddset(&only, number);
    sigprocmask(SIG_UNBLOCK, &only, NULL);
    raise(number);
}
