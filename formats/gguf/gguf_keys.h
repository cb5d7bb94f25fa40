/*
 * gguf_keys.h: what the keys of a family's GGUF files mean, as text: formats/maps/FAMILY.gguf.keys.
 *
 * Lines, in words separated by blanks, # comments. Keys are without the arch that stands in front;
 * MEMBERs are of config.json (libckpt/config_number.h); the first spelling is the one that is made.
 *
 *   arch     NAME                    general.architecture, and the beginning of its keys
 *   member   MEMBER JSON             in a config made of keys
 *   text     KEY TEXT                a string that files of the family have; the whole key
 *   u32, f32, bool, string  KEY[?] MEMBER [= TENSOR:D]
 *                                    one value; with ? a file may lack it, and so it may with a
 *                                    tensor whose ne[D] it is
 *   layers   KEY MEMBER              blocks, those for next tokens too; the member is without them
 *   drafters KEY MEMBER              blocks for next tokens that are in the file; 0 without the key
 *   ratios   KEY MEMBER              an array with at least one integer for each block; 0 for one
 *                                    that the member does not have
 *   blocks   KEY MEMBER              one F32 for each block, all of them the member
 *   word     KEY MEMBER TEXT=N...    a U32 that stands for a string
 *   experts  TYPE MEMBER TEXT        the member is TEXT when tensors of experts have this type
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

/* The text of a family, or of the one that has this arch. *out is NULL when there is none, else
 * yours to free. */
ckpt_code gguf_keys_of_family(const char *family, gguf_keys **out, ckpt_error *err);
ckpt_code gguf_keys_of_arch(const char *arch, gguf_keys **out, ckpt_error *err);

/* The line of this kind that comes first, or NULL. */
const gguf_line *gguf_keys_find(const gguf_keys *keys, gguf_line_kind kind);

/* The first spelling of a line's member. */
void gguf_line_member(const gguf_line *line, char out[GGUF_WORD_BYTES]);

/* Of a word line: the number of `text`, and the text of `number`. 0: it has none. */
int gguf_line_number(const gguf_line *line, const char *text, uint32_t *number);
int gguf_line_text(const gguf_line *line, uint64_t number, char out[GGUF_WORD_BYTES]);

#endif
