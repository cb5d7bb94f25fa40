/*
 * ckpt.h: open, read, digest, compare and convert model checkpoints. The public interface of
 * libckpt.
 *
 * A source is a catalog of tensors and a way to read their rows. Checkpoints are read through
 * sources; a view is a source that computes its rows from other sources.
 *
 * Functions return ckpt_code and fill *err (one line: what failed, 'subject', expected, got).
 * `const T *` results are borrowed from the argument. Sizes in bytes end in _bytes.
 * Sources may be read from many threads at once. The library never prints and never exits.
 */
#ifndef CKPT_H
#define CKPT_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CKPT_VERSION "0.1.0"
/* The version of the linked library; CKPT_VERSION is the version of this header. */
const char *ckpt_version(void);

/* ---- errors ---- */

typedef enum {
    CKPT_OK = 0,
    CKPT_E_FORMAT,       /* the data is wrong */
    CKPT_E_IO,           /* a system call failed */
    CKPT_E_USAGE,        /* the caller's options are wrong */
    CKPT_E_MEMORY,       /* out of memory, or over the limit that was set */
    CKPT_E_INEXACT,      /* the values do not fit the encoding asked for */
    CKPT_E_INTERRUPTED,  /* stopped by request; the output can be resumed */
    CKPT_E_DIFFERENT     /* checked and different */
} ckpt_code;

enum { CKPT_ERROR_BYTES = 1024 };

typedef struct {
    ckpt_code code;
    char text[CKPT_ERROR_BYTES];   /* one line, no newline, control characters escaped */
    int detail;                    /* a more precise reason, set by some functions; 0: none */
} ckpt_error;

/*
 * Fill *err (which may be NULL) and return `code`: `return ckpt_fail(err, CKPT_E_IO, "...")`.
 * Use it in callbacks. Control characters are escaped and a text that is too long is shortened.
 */
#ifdef __GNUC__
__attribute__((format(printf, 3, 4)))
#endif
ckpt_code ckpt_fail(ckpt_error *err, ckpt_code code, const char *format, ...);

/* ---- memory ---- */

/*
 * Limit of the memory in which this process holds headers, indexes, catalogs and layouts. Input
 * that needs more is refused (CKPT_E_MEMORY; the text says how much it needs). 0, the default: no
 * limit. Set it before anything is opened. Buffers for tensor data have separate limits, such as
 * memory_bytes below.
 */
void ckpt_set_memory_limit(uint64_t bytes);

/* ---- options ---- */

/*
 * Members of an options struct that you do not set must be zero: `= { .thread_count = 4 }`. The
 * size of these structs never changes: later versions put new members where `reserved` is, and an
 * older library refuses a non-zero `reserved` (CKPT_E_USAGE). NULL in place of a pointer to options
 * means all zero. Strings in options are borrowed for the call.
 */
enum { CKPT_RESERVED = 8 };

/* For all functions that read tensor data. Results never depend on these options. */
typedef struct {
    unsigned thread_count;   /* 0: one per core. Fewer run if memory_bytes is too small for all */
    uint64_t memory_bytes;   /* for everything; 0: 1 GiB. Refused if it cannot hold one tile */
    uint64_t fixed_bytes;    /* part of it that the caller already uses: ckpt_checkpoint_bytes */
    /* Called after every tile. Calls never overlap, but may come from different threads. Or NULL.*/
    void (*progress)(void *context, uint64_t done_bytes, uint64_t total_bytes);
    /* Called before every tile, in the same way. A result other than 0 ends the run with
     * CKPT_E_INTERRUPTED. Or NULL. None of these functions may call the library. */
    int (*cancel)(void *context);
    void *context;           /* passed to all three functions */
    /* Called when a phase of the work begins ("reading", "converting", "verifying", "syncing"). The
     * counts of progress then restart at 0. later_bytes: how many bytes the phases after this one
     * will process, as far as is known. Or NULL. */
    void (*phase)(void *context, const char *name, uint64_t later_bytes);
    uint64_t reserved[CKPT_RESERVED - 1];
} ckpt_run_options;

/* ---- tensors and catalogs ---- */

/* Element types, in the order of the safetensors library (its dtype rank). */
typedef enum {
    CKPT_NONE = 0,
    CKPT_BOOL,
    CKPT_F4,             /* E2M1, packed two a byte, low nibble first */
    CKPT_F6_E2M3,
    CKPT_F6_E3M2,
    CKPT_U8,
    CKPT_I8,
    CKPT_F8_E5M2,
    CKPT_F8_E4M3,
    CKPT_F8_E8M0,
    CKPT_F8_E4M3FNUZ,
    CKPT_F8_E5M2FNUZ,
    CKPT_I16,
    CKPT_U16,
    CKPT_F16,
    CKPT_BF16,
    CKPT_I32,
    CKPT_U32,
    CKPT_F32,
    CKPT_C64,
    CKPT_F64,
    CKPT_I64,
    CKPT_U64,
    CKPT_I4,             /* -8 .. 7, stored plus 8, packed two a byte, low nibble first; of codes
                            only, which files hold eight in an I32 */
    CKPT_DTYPE_COUNT
} ckpt_dtype;

const char *ckpt_dtype_name(ckpt_dtype dtype);          /* "BF16"; "NONE" for CKPT_NONE */
ckpt_dtype ckpt_dtype_find(const char *name);           /* CKPT_NONE when unknown */
uint32_t ckpt_dtype_bits(ckpt_dtype dtype);

enum { CKPT_RANK_MAX = 8 };

/* The byte arrays of a tensor. A plain tensor has only data. A block-scaled tensor also has the
 * scales of its blocks and, if its member tensor_scale says so, one F32 scale for the whole tensor.
 * Two more do not affect the weight's values: an input scale, one F32 that inference servers apply
 * to the activations that are multiplied by this weight, and its shape, where files store it as
 * numbers beside packed codes; it must be that of the tensor. */
typedef enum {
    CKPT_DATA = 0,
    CKPT_SCALE = 1,
    CKPT_TENSOR_SCALE = 2,
    CKPT_INPUT_SCALE = 3,
    CKPT_SHAPE = 4,
    CKPT_PART_COUNT = 5
} ckpt_part;

/* How the scale of the whole tensor is applied to the products of codes and block scales. */
typedef enum {
    CKPT_TENSOR_SCALE_NONE = 0,
    CKPT_TENSOR_SCALE_FACTOR,    /* multiplies them */
    CKPT_TENSOR_SCALE_DIVISOR    /* divides them */
} ckpt_tensor_scale;

/* How the parts of a weight are named in files. */
typedef enum {
    CKPT_NAMES_OF_MAP = 0,       /* X.weight, and the suffix of the scale that the map defines */
    CKPT_NAMES_MODELOPT,         /* X.weight, X.weight_scale, X.weight_scale_2, X.input_scale */
    CKPT_NAMES_PACKED,           /* X.weight_packed, X.weight_scale, X.weight_global_scale,
                                    X.weight_shape, X.input_global_scale */
    CKPT_NAMES_BLOCKS            /* X.weight of interleaved blocks, X.scale, X.input_scale */
} ckpt_part_names;

/* How the codes and the scales of a tensor are stored in files. */
typedef enum {
    CKPT_FORM_APART = 0,         /* as separate tensors; a plain tensor has no scales */
    CKPT_FORM_MXFP4,             /* one tensor of blocks: 32 elements of F4 in 17 bytes, as GGUF */
    CKPT_FORM_Q8_0,              /* one tensor of blocks: 32 elements of I8 in 34 bytes */
    CKPT_FORM_NVFP4,             /* one tensor of blocks: 64 elements of F4 in 36 bytes */
    CKPT_FORM_COUNT
} ckpt_stored_form;

/*
 * One tensor. Its row view is rows x cols: cols = last dimension, rows = product of the others
 * (rank 1: one row; rank 0: 1 x 1). A block-scaled tensor has scale_dtype != CKPT_NONE:
 * value = code * scale[row / block_rows][col / block_cols]; the scale grid has
 * ceil(rows / block_rows) x ceil(cols / block_cols) scales. With a tensor_scale that product,
 * rounded to F32, is then multiplied or divided by it.
 */
typedef struct {
    const char *name;
    ckpt_dtype dtype : 8;        /* elements; the codes of a block-scaled tensor */
    ckpt_dtype stored_dtype : 8; /* logical tensors: the dtype in the file, such as I8 for F4;
                                    stored tensors: the same as dtype */
    ckpt_dtype scale_dtype : 8;  /* CKPT_NONE: plain */
    ckpt_dtype stored_scale_dtype : 8;   /* in the file, such as U8 for E8M0; NONE: scale_dtype */
    uint8_t has_scale_vector;    /* scales of rows are stored as [rows], not [rows, 1] */
    uint8_t tensor_scale;        /* ckpt_tensor_scale */
    uint8_t has_tensor_scale_vector;   /* the tensor scale is stored as [1], not [] */
    uint8_t part_names;          /* ckpt_part_names; logical tensors only */
    uint8_t is_numbers;          /* the file format distinguishes codes from numbers, and says that
                                    these are numbers: names are not used to guess */
    uint8_t is_linear;           /* in the catalog of a family: a weight that quantised checkpoints
                                    of the family store as codes; no other is ever quantised */
    uint8_t has_input_scale;     /* only with a tensor_scale */
    uint8_t has_input_scale_vector;    /* the input scale is stored as [1], not [] */
    uint8_t shape_dtype;         /* ckpt_dtype of the shape's numbers: I32, I64; NONE: not stored */
    uint16_t stored_form;        /* ckpt_stored_form; a stored tensor of interleaved blocks has the
                                    encoding of their content, and its shape counts elements */
    uint32_t block_rows;         /* 0 when plain */
    uint32_t block_cols;         /* UINT32_MAX: all of a row */
    uint32_t rank;
    uint32_t file;               /* number of the file that contains it, or its first piece */
    uint64_t shape[CKPT_RANK_MAX];   /* elements; F4 counts codes, not bytes */
    uint64_t offset;             /* of its data in that file, in bytes; stored tensors only */
    const char *codes_name;      /* "Q4_K": blocks of codes that are not decoded. The tensor is then
                                    U8 and its last dimension the bytes of a row. Static; or NULL */
} ckpt_tensor;

uint64_t ckpt_tensor_rows(const ckpt_tensor *tensor);
uint64_t ckpt_tensor_cols(const ckpt_tensor *tensor);
/* Rows, columns and bytes of the row view of one part (for CKPT_SCALE, of the scale grid). */
uint64_t ckpt_part_rows(const ckpt_tensor *tensor, ckpt_part part);
uint64_t ckpt_part_cols(const ckpt_tensor *tensor, ckpt_part part);
uint64_t ckpt_part_row_bytes(const ckpt_tensor *tensor, ckpt_part part);
uint64_t ckpt_part_bytes(const ckpt_tensor *tensor, ckpt_part part);
uint64_t ckpt_tensor_bytes(const ckpt_tensor *tensor);      /* data and scales */
/* 1 when its values are integers (I8..U64, BOOL without scales), 0 when they are floating point. */
int ckpt_tensor_is_int(const ckpt_tensor *tensor);
/* Write "BF16", "F8_E4M3 128x128 F8_E8M0", "F8_E4M3 1xrow F32" or "F4 1x16 F8_E4M3 * F32" (with a
 * tensor scale; "/" if it is a divisor) into out, NUL-terminated. */
void ckpt_tensor_encoding(const ckpt_tensor *tensor, char *out, size_t out_bytes);

typedef struct ckpt_catalog ckpt_catalog;
enum { CKPT_NOT_FOUND = -1 };

size_t ckpt_catalog_count(const ckpt_catalog *catalog);
const ckpt_tensor *ckpt_catalog_at(const ckpt_catalog *catalog, size_t i);
/* Index of the tensor called `name`, or CKPT_NOT_FOUND. Constant time. */
int64_t ckpt_catalog_find(const ckpt_catalog *catalog, const char *name);

/* ---- sources ---- */

typedef struct ckpt_source ckpt_source;

const ckpt_catalog *ckpt_source_catalog(const ckpt_source *source);

/*
 * Read rows [row, row + row_count) of one part of a tensor into out, packed: exactly
 * row_count * ckpt_part_row_bytes bytes. For CKPT_SCALE, rows are rows of the scale grid. Views
 * compute data and scale together, in whole blocks of rows, so that few large reads are cheaper
 * than many small ones. Every call allocates scratch for one tile (about 1 MiB, or 128 rows). Rows
 * that do not exist are CKPT_E_USAGE.
 */
ckpt_code ckpt_source_read(ckpt_source *source, size_t tensor, ckpt_part part, uint64_t row,
                           uint64_t row_count, void *out, ckpt_error *err);

/*
 * Read the values of rows [row, row + row_count): row_count * ckpt_tensor_cols floats. A value is
 * the F32 product of code and scale; -0 and NaN are kept. Integer tensors are CKPT_E_USAGE. F64,
 * C64 and dtypes that are not decoded are CKPT_E_FORMAT. So is a product that overflows in any row
 * of the tiles that are read, also outside the rows asked for.
 */
ckpt_code ckpt_source_read_f32(ckpt_source *source, size_t tensor, uint64_t row,
                               uint64_t row_count, float *out, ckpt_error *err);

/* The functions of a custom source. */
typedef struct {
    /* As ckpt_source_read. Called from many threads at once, with rows that exist, and never for
     * rows of no bytes. */
    ckpt_code (*read)(void *context, size_t tensor, ckpt_part part, uint64_t row,
                      uint64_t row_count, void *out, ckpt_error *err);
    void (*free)(void *context);     /* called by ckpt_source_free; or NULL */
    void *context;
    uint64_t reserved[CKPT_RESERVED];
} ckpt_source_functions;

/* Make a source of `count` tensors whose rows come from functions. The members name, dtype, rank
 * and shape of a tensor are used, and for block-scaled ones scale_dtype, block_rows, block_cols and
 * tensor_scale. All are copied. *out is yours to free; on failure functions->free is not called. */
ckpt_code ckpt_source_create(const ckpt_tensor *tensors, size_t count,
                             const ckpt_source_functions *functions, ckpt_source **out,
                             ckpt_error *err);
/* Only for sources that you created, not for those borrowed from a checkpoint. NULL is fine. */
void ckpt_source_free(ckpt_source *source);

/* ---- checkpoints ---- */

typedef struct ckpt_checkpoint ckpt_checkpoint;

typedef struct {
    int lenient;             /* report stale index entries, orphan scales and unknown tensors
                                instead of refusing them */
    int u8_scales;           /* interpret U8 scales as E8M0 codes */
    int keep_copies;         /* list copies that differ from their originals as tensors */
    const char *map_file;    /* a map to use instead of the built-in ones, or NULL */
    int incomplete;          /* tensors that the config requires may be missing */
    int interrupted;         /* accept a directory in which ckpt-delta was interrupted */
    const char *config;      /* config.json of a checkpoint that has none: a path, or the name of a
                                built-in model ("flash"); or NULL */
    const char *dialect;     /* the software that wrote a torch_dist checkpoint ("miles", "slime",
                                "bridge"), if values depend on it and it cannot be detected; or
                                NULL */
    const struct ckpt_places *places;    /* not part of this interface: NULL */
    uint64_t reserved[CKPT_RESERVED - 1];
} ckpt_open_options;

/*
 * Open a checkpoint: an HF directory, one .safetensors file, or any other layout in
 * formats/README.md; the layout is detected from content. Reads headers, no tensor data.
 * options may be NULL. On success *out is yours to close.
 */
ckpt_code ckpt_open(const char *path, const ckpt_open_options *options, ckpt_checkpoint **out,
                    ckpt_error *err);
void ckpt_close(ckpt_checkpoint *checkpoint);   /* NULL is fine */

/* The tensors as stored, with the names and shapes that the files have. Borrowed. */
ckpt_source *ckpt_stored(const ckpt_checkpoint *checkpoint);
/* The logical checkpoint: canonical names, full shapes, weights paired with their scales. */
ckpt_source *ckpt_logical(const ckpt_checkpoint *checkpoint);
const char *ckpt_layout_name(const ckpt_checkpoint *checkpoint);   /* "hf", "safetensors" ... */
const char *ckpt_family_name(const ckpt_checkpoint *checkpoint);   /* "deepseek_v4", "generic" */
const char *ckpt_names_style(const ckpt_checkpoint *checkpoint);   /* "native", "sglang", ... */
/* The name of file `i` (ckpt_tensor.file), relative to the opened path. NULL past the last. */
const char *ckpt_file_name(const ckpt_checkpoint *checkpoint, uint32_t i);
/* Note `i`, a sentence on a deviation that was accepted when opening. NULL past the last. */
const char *ckpt_note(const ckpt_checkpoint *checkpoint, size_t i);
/* Bytes of memory that an open checkpoint uses, for fixed_bytes. */
uint64_t ckpt_checkpoint_bytes(const ckpt_checkpoint *checkpoint);

/* ---- digests ---- */

enum { CKPT_DIGEST_HEX = 33, CKPT_ROOT_HEX = 65 };   /* with the NUL */

typedef struct ckpt_digest ckpt_digest;

/* Value digest of every tensor of `source` (ckpt-digest(7)). *out is yours to free;
 * it borrows the source's catalog. */
ckpt_code ckpt_digest_source(ckpt_source *source, const ckpt_run_options *options,
                             ckpt_digest **out, ckpt_error *err);
void ckpt_digest_free(ckpt_digest *digest);             /* NULL is fine */
/* Of tensor `tensor` of the source's catalog. */
void ckpt_digest_tensor(const ckpt_digest *digest, size_t tensor, char out[CKPT_DIGEST_HEX]);
/* SHA-256 over all tensors; `main_only` leaves out mtp.*. */
ckpt_code ckpt_digest_root(const ckpt_digest *digest, int main_only, char out[CKPT_ROOT_HEX],
                           ckpt_error *err);

/* ---- comparison ---- */

typedef struct {
    ckpt_run_options run;    /* fixed_bytes: without the two checkpoints, which are added */
    int main_only;           /* leave out mtp.* */
    int bits;                /* encodings and stored bytes must be the same, too */
    int weights_only;        /* do not compare config.json and the tokenizer */
    uint64_t reserved[CKPT_RESERVED];
} ckpt_compare_options;

typedef enum {
    CKPT_DIFFERENT_VALUES,   /* elements differ */
    CKPT_DIFFERENT_SHAPE,
    CKPT_DIFFERENT_CLASS,    /* floating point on one side, integer on the other */
    CKPT_DIFFERENT_COPY,     /* equal values, but on one side a copy (of another rank, say) differs
                                from its original */
    CKPT_DIFFERENT_ENCODING, /* with bits: equal values in different encodings */
    CKPT_DIFFERENT_BITS      /* with bits: equal values, other codes or scales */
} ckpt_difference_kind;

/* One tensor that differs. */
typedef struct {
    const ckpt_tensor *a;    /* borrowed from the catalogs that were compared */
    const ckpt_tensor *b;
    ckpt_difference_kind kind;
    uint64_t row;            /* position of the first difference; VALUES, BITS, COPY */
    uint64_t col;
    uint64_t count;          /* VALUES: elements that differ; BITS: bytes */
    int64_t a_value;         /* VALUES: integer, or bits of the F32 */
    int64_t b_value;
    const char *file;        /* COPY: the file with the copy; row and col are within its part */
    int side;                /* COPY: the side that has it, a (0) or b (1) */
} ckpt_difference;

const char *ckpt_difference_name(ckpt_difference_kind kind);        /* "values", "shape" ... */

/* The value on side a (0) or b (1) at the first difference, as JSON: the shortest number that
 * reads back, "NaN", "Infinity"; a shape; a class or an encoding; null for BITS and COPY. */
enum { CKPT_DIFFERENCE_BYTES = 256 };
void ckpt_difference_text(const ckpt_difference *difference, int side,
                          char out[CKPT_DIFFERENCE_BYTES]);

typedef struct ckpt_comparison ckpt_comparison;

/*
 * Compare the logical tensors of two checkpoints by name and value, whatever their layouts and
 * encodings: -0 equals +0, and all NaN are equal. CKPT_OK means that they were compared, not that
 * they are equal. Checkpoints without a common tensor name are CKPT_E_USAGE. *out is yours to free,
 * and borrows both checkpoints.
 */
ckpt_code ckpt_compare(const ckpt_checkpoint *a, const ckpt_checkpoint *b,
                       const ckpt_compare_options *options, ckpt_comparison **out,
                       ckpt_error *err);
void ckpt_comparison_free(ckpt_comparison *comparison);     /* NULL is fine */
/* 1: nothing differs, nothing is missing, and configs, tokenizers and chat templates, if compared,
 * agree. */
int ckpt_comparison_is_same(const ckpt_comparison *comparison);
/* How many tensors have the same name on both sides. */
size_t ckpt_comparison_compared(const ckpt_comparison *comparison);
/* Tensor `i` that differs; the name of tensor `i` that is missing in a (0) or b (1); the name of
 * member `i` of config.json that differs. Each list is sorted by name; NULL past the last.
 * Borrowed. */
const ckpt_difference *ckpt_comparison_difference(const ckpt_comparison *comparison, size_t i);
const char *ckpt_comparison_missing(const ckpt_comparison *comparison, int side, size_t i);
const char *ckpt_comparison_config(const ckpt_comparison *comparison, size_t i);

/* ---- conversion ---- */

/* The options of ckpt-convert and ckpt-shard; the help of these programs explains them. Errors name
 * them as the programs do (--mp). NULL or 0: not given. */
typedef struct {
    ckpt_run_options run;
    ckpt_open_options open;      /* for the source, `like` and `fill_from` */
    const char *layout;          /* "hf" (the default), "mp", "torch_dist" */
    const char *dtype;           /* for quantised weights: "bf16", "f32", "fp8", "keep" (default) */
    const char *experts;         /* for routed experts, also "fp4"; default: the value of dtype */
    const char *scale_dtype;     /* for FP8: "e8m0", "f32" */
    const char *names;           /* "native", "sglang", "transformers"; default: those of source */
    const char *like;            /* a checkpoint whose encodings, names and files are used */
    const char *fill_from;       /* a checkpoint that supplies tensors missing in the source */
    const char *key_style;       /* torch_dist: "v1", "v2", "stacked", "layers" */
    const char *layer_keys;      /* torch_dist: "per-layer", "stacked"; NULL: as the dialect has */
    uint64_t file_bytes_max;     /* most bytes of a new file; 0: the grouping of the source */
    uint32_t mp;                 /* layout mp: number of ranks */
    uint32_t tp;                 /* from here to mtp: layout torch_dist */
    uint32_t pp;
    uint32_t ep;
    uint32_t etp;
    uint32_t first_stage_layers;
    uint32_t last_stage_layers;
    int per_rank_files;
    int extra_state;
    int mtp;                     /* also next-token blocks, if the layout has keys for them */
    int force_names;
    int many_files;
    int match_reference;
    int allow_lossy;             /* round values that are not exact, instead of CKPT_E_INEXACT */
    const char *quantise;        /* quantising rules: "fp8-ue8m0,experts=fp4" */
    const char *max_relf;        /* limits of a tensor's relative error: "0.03,experts=0.15" */
    int no_digest;
    int verify;                  /* read the result back and verify it before it appears */
    int overwrite;               /* replace `target` if it contains nothing but a checkpoint */
    int restart;                 /* discard an unfinished run with other options */
    int no_space_check;
    uint64_t reserved[CKPT_RESERVED];
} ckpt_convert_options;

typedef struct ckpt_conversion ckpt_conversion;

/*
 * Convert the checkpoint `source` into `target`, which appears whole or not at all. A run that is
 * cancelled or killed leaves TARGET.partial; the same call resumes it. The files are those that
 * ckpt-convert and ckpt-shard write, without ckpt-manifest.json. *out is yours to free; `out` may
 * be NULL.
 */
ckpt_code ckpt_convert(const char *source, const char *target, const ckpt_convert_options *options,
                       ckpt_conversion **out, ckpt_error *err);
void ckpt_conversion_free(ckpt_conversion *conversion);     /* NULL is fine */
/* Root of the value digests of the result, and that of the source, which differs if values were
 * rounded. NULL with no_digest. Borrowed. */
const char *ckpt_conversion_root(const ckpt_conversion *conversion);
const char *ckpt_conversion_source_root(const ckpt_conversion *conversion);
size_t ckpt_conversion_tensors(const ckpt_conversion *conversion);  /* number of logical tensors */
/* How many values this run rounded; only with allow_lossy. */
uint64_t ckpt_conversion_rounded(const ckpt_conversion *conversion);
/* Note `i`, a sentence on what was unusual about the conversion. NULL past the last. */
const char *ckpt_conversion_note(const ckpt_conversion *conversion, size_t i);

#ifdef __cplusplus
}
#endif

#endif
