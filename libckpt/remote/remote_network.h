/*
 * remote_network.h: the thread of a session, which talks to the network. Readers ask it for blocks
 * by their state in the cache.
 */
#ifndef CKPT_REMOTE_NETWORK_H
#define CKPT_REMOTE_NETWORK_H

#include "remote_state.h"

/* Start the thread; it ends in remote_network_close. */
ckpt_code remote_network_open(remote_session *s, ckpt_error *err);
void remote_network_wake(remote_session *s);
void remote_network_close(remote_session *s);

#endif
