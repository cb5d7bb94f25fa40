/*
 * gguf_keys.h: the meaning of the keys in a family's GGUF files: formats/maps/FAMILY.gguf.keys.
 *
 * Text lines of words separated by blanks; # begins a comment. KEYs are written without the prefix
 * "ARCH."; a MEMBER is a path in config.json (libckpt/config_number.h), whose first spelling is the
 * one that is written.
 *
 *   arch     NAME                    general.architecture, and the prefix of its keys
 *   member   MEMBER JSON             constant member of a config derived from keys
 *   text     KEY TEXT                constant string key; KEY includes its prefix
 *   u32, f32, bool, string  KEY[?] MEMBER [= TENSOR:D]
 *                                    one value. The key may be missing if it has a ?, or if
 *                                    ne[D] of TENSOR has the value
 *   layers   KEY MEMBER              number of blocks with MTP blocks; MEMBER is without these
 *   drafters KEY MEMBER              number of MTP blocks in the file; 0 without the key
 *   ratios   KEY MEMBER              an array with at least one integer per block; 0 for blocks
 *                                    beyond the end of the member
 *   blocks   KEY MEMBER              one F32 per block, all equal to the member
 *   word     KEY MEMBER TEXT=N...    a U32 that encodes a string
 *   experts  TYPE MEMBER TEXT        MEMBER is TEXT if tensors of experts have this type
 */
#ifndef CKPT_GGUF_KEYS_H
#define CKPT_GGUF_KEYS_H

#include "libckpt/error.h"

typedef enum {
    GGUF_LINE_MEMBER, GGUF_LINE_TEXT, GGUF_LINE_U32, GGUF_LINE_F32, GGUF_LINE_BOOL,
    GGUF_LINE_STRING, GGUF_LINE_LAYERS, GGUF_LINE_DRAFTERS, GGUF_LINE_RATIOS, GGUF_LINE_BLOCKS,
    GGUF_LINE_WORD, GGUF_LINE_EXPERTS, GGUF_LINE_KIND_COUNT
} gguf_line_kind;

enum { GGUF_WORD_BYTES = 256, GGUF_LINES_MAX = 128 };

typedef struct {
    gguf_line_kind kind;
    int may_lack;                       /* ? */
    char key[GGUF_WORD_BYTES];          /* "deepseek4.block_count"; of experts: the type */
    char member[GGUF_WORD_BYTES];
    char rest[GGUF_WORD_BYTES];         /* of the line */
} gguf_line;

typedef struct {
    char arch[GGUF_WORD_BYTES];
    gguf_line lines[GGUF_LINES_MAX];
    size_t count;
} gguf_keys;

/* Parse the text of a family, or of the family with this arch. *out is NULL if there is none, else
 * yours to free. */
ckpt_code gguf_keys_of_family(const char *family, gguf_keys **out, ckpt_error *err);
ckpt_code gguf_keys_of_arch(const char *arch, gguf_keys **out, ckpt_error *err);

/* The first line of this kind, or NULL. */
const gguf_line *gguf_keys_find(const gguf_keys *keys, gguf_line_kind kind);

/* The first spelling of a line's member. */
void gguf_line_member(const gguf_line *line, char out[GGUF_WORD_BYTES]);

/* Of a word line: the number for `text`, and the text for `number`. 0: not listed. */
int gguf_line_number(const gguf_line *line, const char *text, uint32_t *number);
int gguf_line_text(const gguf_line *line, uint64_t number, char out[GGUF_WORD_BYTES]);

#endif
