/*
 * zip_item.h: torch.save archives: one tensor, or a small object, in a stored (uncompressed) zip.
 *
 * As we write them (all integers little endian; no data descriptors, no compression):
 *
 *   archive/version      "3\n"         every record: local header of 30 bytes, name, then an extra
 *   archive/byteorder    "little"      field "FB" n "ZZ.." that makes the payload begin at a
 *   archive/data.pkl     protocol 2    multiple of 64 from the item's start
 *   archive/data/0       the elements  head = everything up to here, then the payload
 *   central directory, end record      tail; zip64 fields only where 32 bits do not suffice
 *
 * Head and tail do not depend on the elements, except for the CRC-32 of the payload, which is once
 * in each. Either call zip_item_set_crc before writing them, or patch 4 bytes at the two positions.
 *
 * Reading accepts what torch writes since 1.6: descriptors, zip64, any record order and root
 * folder, typed and untyped storages, views. The payload is not read.
 *
 * Shapes are those of torch: one element of F4 (float4_e2m1fn_x2) is a byte with two codes.
 */
#ifndef CKPT_ZIP_ITEM_H
#define CKPT_ZIP_ITEM_H

#include "libckpt/file.h"

enum { ZIP_ITEM_ALIGN = 64, ZIP_ITEM_HEAD_MAX = 1024, ZIP_ITEM_TAIL_MAX = 640 };

typedef struct {
    uint64_t payload_bytes;      /* elements, between head and tail */
    uint64_t size_bytes;         /* head, payload and tail */
    uint32_t head_bytes;         /* the payload begins here */
    uint32_t tail_bytes;
    uint32_t head_crc_offset;    /* of the payload's CRC in head and tail; 0: there is none */
    uint32_t tail_crc_offset;
    unsigned char head[ZIP_ITEM_HEAD_MAX];
    unsigned char tail[ZIP_ITEM_TAIL_MAX];
} zip_item_plan;

/* A tensor as a shape: what is written and what is read. */
typedef struct {
    ckpt_dtype dtype;
    uint32_t rank;
    uint64_t shape[CKPT_RANK_MAX];
} zip_item_tensor;

/* Lay out an item with one row-major tensor. Its CRC is set to 0, which is right for an empty
 * one. */
ckpt_code zip_item_plan_tensor(const zip_item_tensor *tensor, zip_item_plan *out,
                               ckpt_error *err);
/* The two byte entries of Megatron's _extra_state: [None] and [an empty uint8 tensor]. */
ckpt_code zip_item_plan_none(zip_item_plan *out, ckpt_error *err);
ckpt_code zip_item_plan_empty(zip_item_plan *out, ckpt_error *err);

/* Put the payload's CRC-32 into head and tail. */
void zip_item_set_crc(zip_item_plan *plan, uint32_t crc);

/* torch's name of a dtype ("bfloat16"), or NULL; and the dtype of a name, or CKPT_NONE. */
const char *zip_item_dtype_name(ckpt_dtype dtype);
ckpt_dtype zip_item_dtype_find(const char *name);
/* Bytes of one torch element; 0 for a dtype that torch does not have. */
uint32_t zip_item_element_bytes(ckpt_dtype dtype);

/* ---- reading ---- */

enum { ZIP_ITEM_DTYPE_NAME = 32 };

typedef struct {
    ckpt_dtype dtype;            /* CKPT_NONE: not supported */
    char dtype_name[ZIP_ITEM_DTYPE_NAME];    /* torch's: "bfloat16" */
    uint32_t rank;
    uint64_t shape[CKPT_RANK_MAX];
    uint64_t strides[CKPT_RANK_MAX];         /* elements */
    uint64_t storage_offset;     /* elements, of the first one in the storage */
    uint64_t storage_elements;
    uint32_t element_bytes;
    int is_row_major;            /* strides are those of a packed row-major tensor */
    uint64_t data_offset;        /* position of the first element in the file */
    uint64_t payload_offset;     /* position of the storage in the file */
    uint64_t payload_bytes;      /* of the storage, which may be larger than the tensor */
    uint32_t payload_crc;        /* in the archive; 0: not computed */
} zip_item;

/*
 * Read the item of one tensor at [offset, offset + length) of a file. Checked: every element lies
 * in the storage, and the storage in the item. A Parameter counts as its tensor.
 */
ckpt_code zip_item_read(const ckpt_file *file, uint64_t offset, uint64_t length, zip_item *out,
                        ckpt_error *err);

#endif
