/*
 * delta_skyrl.h: deltas as SkyRL writes them (weight_sync/delta_checkpoint.py of NovaSky-AI/SkyRL):
 * the same frames, but a manifest instead of an index.
 *
 *   delta-00000001/
 *     manifest.json      {"version": 1, "base_version": 0, "tensors": [{"name",
 *                        "dtype": "bfloat16", "shape", "uncompressed_num_bytes",
 *                        "compressed_num_bytes", "payload_file", "payload_key", "checksum",
 *                        "checksum_algorithm": "xxh3-128"}], ...}
 *     delta-rank00000-file000000.safetensors    U8 entries under their payload_key
 *
 * The encoding is xor. Checksums are of the result.
 */
#ifndef CKPT_DELTA_SKYRL_H
#define CKPT_DELTA_SKYRL_H

#include "delta_write.h"

#define DELTA_SKYRL_FILE "manifest.json"

/* 1 when the folder has such a manifest. */
int delta_skyrl_detect(const folder_place *place);

/* Fill a delta whose place and store are set. */
ckpt_code delta_skyrl_read(ckpt_delta *delta, ckpt_error *err);

/* Refuse what the manifest cannot say: dtypes that SkyRL has no name for, versions that are not
 * numbers. */
ckpt_code delta_skyrl_check(const delta_content *content, ckpt_error *err);
/* Write the manifest of the data files in `store`, whose tensors are the sorted entries. */
ckpt_code delta_skyrl_write(const char *directory, const delta_content *content,
                            const ckpt_store *store, ckpt_error *err);

#endif
