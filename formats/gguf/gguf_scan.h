/*
 * gguf_scan.h: reads the head of a GGUF file value by value.
 *
 * The head is read in order through a window of fixed size, so that memory does not depend on its
 * length. Every length and count is compared with the remaining bytes before it is used.
 */
#ifndef CKPT_GGUF_SCAN_H
#define CKPT_GGUF_SCAN_H

#include "libckpt/error.h"
#include "libckpt/file.h"

enum {
    GGUF_WINDOW_BYTES = 1 << 16,
    GGUF_STRING_BYTES = 1 << 12,   /* the longest string that is kept */
    GGUF_HEAD_BYTES_MAX = 1 << 29  /* of all keys and tensor infos of a file */
};

typedef enum {
    GGUF_U8, GGUF_I8, GGUF_U16, GGUF_I16, GGUF_U32, GGUF_I32, GGUF_F32, GGUF_BOOL, GGUF_STRING,
    GGUF_ARRAY, GGUF_U64, GGUF_I64, GGUF_F64, GGUF_KIND_COUNT
} gguf_kind;

/* Bytes of a value of this kind; 0: strings and arrays, which store their length. */
uint32_t gguf_kind_bytes(gguf_kind kind);
const char *gguf_kind_name(gguf_kind kind);

typedef struct {
    const ckpt_file *file;
    uint64_t offset;               /* of the next byte */
    uint64_t end;                  /* the head must end before this offset */
    uint64_t window;               /* where the window begins */
    size_t window_bytes;
    uint64_t hash;                 /* of the windows before this one */
    unsigned char bytes[GGUF_WINDOW_BYTES];
    ckpt_error *err;
} gguf_scan;

void gguf_scan_begin(gguf_scan *s, const ckpt_file *file, uint64_t offset, ckpt_error *err);

ckpt_code gguf_scan_u32(gguf_scan *s, uint32_t *out, const char *what);
ckpt_code gguf_scan_u64(gguf_scan *s, uint64_t *out, const char *what);
/* A number of this kind: integers sign-extended, BOOL, the bits of F32 and F64. */
ckpt_code gguf_scan_number(gguf_scan *s, gguf_kind kind, uint64_t *out, const char *what);
/* Skip bytes; CKPT_E_FORMAT if the file has fewer. */
ckpt_code gguf_scan_skip(gguf_scan *s, uint64_t size, const char *what);
/* Read a string of at most max_bytes - 1 bytes and append a NUL. It must be UTF-8 without NUL. */
ckpt_code gguf_scan_name(gguf_scan *s, char *out, size_t max_bytes, const char *what);
/* The same for a string whose length was read; `out` has room for size + 1 bytes. */
ckpt_code gguf_scan_text(gguf_scan *s, char *out, size_t size, const char *what);
/* Read the length of a string; fails if the file ends before its last byte. */
ckpt_code gguf_scan_length(gguf_scan *s, uint64_t *size, const char *what);
/* Read a count of items of at least item_bytes each; fails if they do not fit the file. */
ckpt_code gguf_scan_count(gguf_scan *s, uint64_t item_bytes, uint64_t *out, const char *what);
/* Skip a string. */
ckpt_code gguf_scan_skip_string(gguf_scan *s, const char *what);

/* The hash of the bytes read. */
uint64_t gguf_scan_hash(const gguf_scan *s);

#endif
