/*
 * banned.h: functions that no file may call. The Makefile includes it before every C file.
 *
 * The standard headers must be included first, because they declare the poisoned names. Each name
 * writes without a bound, hides a parse error, has hidden state, takes a `long`, or runs a shell.
 */
#ifndef CKPT_BANNED_H
#define CKPT_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi atol atoll gets fseek ftell system

#endif
