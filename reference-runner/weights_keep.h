/*
 * weights_keep.h: host memory for copies of weights. A device that had to give up a weight gets it
 * from there at the speed of the bus; reading it again takes two to three times as long.
 *
 * Such memory is pinned, and to make it takes longer than to read what goes into it. So a thread
 * makes it ahead, in lots, and whoever finds none left goes on without.
 */
#ifndef RUN_WEIGHTS_KEEP_H
#define RUN_WEIGHTS_KEEP_H

#include "backend.h"

enum { KEEP_LOT_BYTES = 1 << 26 };

typedef struct keep_pool keep_pool;

/* At most limit_bytes, in whole lots; the first one is made at once. NULL: there is no memory. The
 * backend is borrowed and must have the operations on host memory. */
keep_pool *keep_open(run_backend *backend, uint64_t limit_bytes);
void keep_close(keep_pool *pool);              /* frees all memory; NULL is fine */

/* Memory that is valid until keep_close, aligned to KEEP_ALIGNMENT. NULL: none is left, or not yet.
 * Call it from one thread. */
enum { KEEP_ALIGNMENT = 256 };
void *keep_take(keep_pool *pool, uint64_t bytes);

#endif
