/*
 * banned.h: calls that no file may make. The Makefile includes it in front of every C file.
 *
 * The standard headers come first: they declare what is poisoned after them. Each of these
 * either writes without a bound, hides a parse error, has a hidden state, or takes a `long`.
 */
#ifndef CKPT_BANNED_H
#define CKPT_BANNED_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC poison strcpy strcat sprintf vsprintf strtok atoi atol atoll gets fseek ftell system

#endif
