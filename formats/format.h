/*
 * format.h: on-disk formats, and a checkpoint opened from one.
 *
 * A format turns headers into a catalog of stored tensors (reading) and a catalog of stored tensors
 * into headers (writing). It does not depend on a model: names and packing are maps, values are
 * views. To add one: a file with a ckpt_format, an entry in formats.c, its byte layout in a
 * comment.
 */
#ifndef CKPT_FORMAT_H
#define CKPT_FORMAT_H

#include "config_scheme.h"
#include "libckpt/checkpoint.h"
#include "libckpt/family.h"
#include "libckpt/map.h"
#include "libckpt/store.h"
#include "libckpt/stored_form.h"
#include "libckpt/vocabulary.h"

typedef struct ckpt_format ckpt_format;

enum { FORMAT_NAME_BYTES = 64 };

/* The family for checkpoints of unknown models: names are unchanged. */
#define GENERIC_FAMILY "generic"
/* The note for a checkpoint without MTP block although its config has one. */
#define CHECKPOINT_NO_MTP "no MTP block (mtp.*)"

enum { CONFIG_BYTES_MAX = 1 << 24 };       /* config.json is small */

/* The side file of FP4 -> FP8 for the inverse conversion; not part of the weights. */
#define SIDE_DATA_FILE "fp4_scales.zst"

/* An open checkpoint. `open` of a format fills the first group, ckpt_open the rest. */
struct ckpt_checkpoint {
    const ckpt_format *format;
    folder_place place;             /* the named path: a folder, or one file in it */
    ckpt_folder *data_folder;       /* the subfolder with the data, or NULL: in `place` */
    ckpt_store *store;              /* files open for reading */
    char *config_text;              /* config.json, or NULL */
    json_document *config;          /* the same, parsed */
    char *config_name;              /* see checkpoint_config_name */
    json_document *modelopt;        /* CONFIG_MODELOPT_FILE, or NULL */
    file_list extras;               /* other files, relative: tokenizer, code, cards */
    file_list unread;               /* weight files not listed in the index, or in a sub-folder */
    file_list notes;                /* deviations that were accepted, one line each */
    int has_made_config;            /* the config was derived from the weight files */
    int has_vocabulary;             /* the weight files hold a tokenizer */
    char stored_root[CKPT_ROOT_HEX];    /* the value root that they hold; "": none */
    const char *root_key;           /* the key that holds it; NULL: CHECKPOINT_ROOT_KEY */
    int has_index;                  /* files are listed by an index */
    int is_partial;                 /* one file of many: may be incomplete */
    int has_no_mtp;                 /* the config has MTP blocks, the files have none */

    ckpt_open_options options;
    ckpt_family *family;            /* NULL: generic */
    ckpt_map *map;
    ckpt_catalog *official;         /* what the family expects of this config, or NULL */
    map_reading reading;            /* logical tensors in the store's names (keys or pieces) */
    ckpt_layout *layout;            /* logical tensors in pieces; owned only with store->pieces */
    ckpt_layout *stored_layout;     /* stored tensors as they are; NULL with store->pieces */
    ckpt_source *stored;            /* NULL: given up */
    ckpt_source *logical;
};

/* How a target is divided over ranks. Zero: not given. */
typedef struct {
    uint32_t mp;                    /* model-parallel files */
    uint32_t tp;
    uint32_t pp;
    uint32_t ep;
    uint32_t etp;                   /* tensor parallelism of experts */
    uint32_t first_stage_layers;
    uint32_t last_stage_layers;
    int per_rank_files;             /* files as ranks would write them, not one per layer */
    int extra_state;                /* byte entries for strict upstream loaders */
    const char *iteration;          /* "release", or a number */
    const json_value *config;       /* of the source, or NULL */
} format_sharding;

/*
 * Everything about a target except its tensors, borrowed for the call. For lay_out all of it but
 * the root is known, so that a header can contain the config and the tokenizer; for finish the root
 * is known, too. Members that a caller does not have are NULL.
 */
typedef struct {
    int with_index;                 /* even if a single file needs none */
    const json_value *config;       /* of the source */
    const char *config_name;        /* see checkpoint_config_name */
    const char *config_text;        /* config.json as it will be written: encodings of the target */
    const ckpt_map *map;            /* of the target's names; NULL: tensors keep their names */
    const ckpt_catalog *targets;    /* logical tensors, in their target encodings */
    const format_sharding *sharding;
    const ckpt_folder *folder;      /* of the source, with the files beside its tensors: */
    const file_list *files;         /* tokenizer.json, generation_config.json ... */
    const char *root;               /* value digest of the written tensors */
    int will_have_root;             /* for lay_out: finish will be given a root */
    int without_tokenizer;          /* the user asked for no tokenizer */
} format_target;

struct ckpt_format {
    const char *name;
    /* Naming style of the maps for this format: "mp"; NULL: any map without shard lines. */
    const char *const *map_names;
    const char *ending; /* of the names of its files of weights; NULL: several */
    /* The dtype of all weights in this layout; CKPT_NONE: any, also quantised. */
    ckpt_dtype weights;
    int no_f32;                     /* 1: its readers accept no weights in F32 */
    /* 1 when `place` looks like this format. Must be cheap and cannot fail: it looks only at names
     * in the folder itself. */
    int (*detect)(const folder_place *place);
    /* Read a numeric argument of the training run that is stored beside the weights; true is 1.
     * *is_there: 0 if it is absent or not a number. NULL: the format stores no arguments. */
    ckpt_code (*read_argument)(const ckpt_checkpoint *c, const char *name, uint64_t *out,
                               int *is_there, ckpt_error *err);
    /* The same for a text, which is yours to free; *out: NULL if it is absent or not a text. */
    ckpt_code (*read_text_argument)(const ckpt_checkpoint *c, const char *name, char **out,
                                    ckpt_error *err);
    /* Fill the first group of *out, whose place and options are set. */
    ckpt_code (*open)(ckpt_checkpoint *out, ckpt_error *err);
    /* Read the tokenizer of a checkpoint with has_vocabulary; *out is yours to release, also on
     * failure. NULL: the format holds none. */
    ckpt_code (*read_vocabulary)(const ckpt_checkpoint *c, ckpt_vocabulary *out, ckpt_error *err);
    /* Name of file i of count, if the files of the source are not kept. NULL with split. */
    void (*file_name)(size_t i, size_t count, char out[FORMAT_NAME_BYTES]);
    /* Default size up to which files are filled with whole blocks of the model; 0: the target has
     * the source's files. */
    uint64_t file_bytes;
    /* Cut `keys` (consumed) into pieces of the store and name its files. NULL: keys are pieces. */
    ckpt_code (*split)(ckpt_store *store, ckpt_catalog *keys, const ckpt_map *map,
                       const format_sharding *sharding, ckpt_error *err);
    int checks_ids;                 /* refuse tables with ids of nonexistent experts: readers of
                                       this layout do not check them */
    /* How a block-scaled tensor of the target is stored (stored_form.h); CKPT_FORM_APART if
     * stored_form_fits allows no other form. NULL: always CKPT_FORM_APART. */
    ckpt_stored_form (*form)(const ckpt_tensor *logical);
    /* Offsets, headers and sizes of a store whose tensors have file numbers. NULL: read only. */
    ckpt_code (*lay_out)(ckpt_store *store, const format_target *target, ckpt_error *err);
    /* Called when the data of the pieces with owned[piece] is in the open files: write the bytes
     * around it. Every process of a job calls it for its share. NULL: not needed. */
    ckpt_code (*seal)(ckpt_store *store, const uint8_t *owned, ckpt_error *err);
    /* Called when all data is in the open files: write the index or metadata. */
    ckpt_code (*finish)(ckpt_store *store, const format_target *target, ckpt_error *err);
};

/* ckpt_open for a place that is open already. Consumes *place, also on failure. */
ckpt_code checkpoint_open_place(folder_place *place, const ckpt_open_options *options,
                                ckpt_checkpoint **out, ckpt_error *err);

/* Free what a conversion does not need: the source of stored tensors, which ckpt_stored returns;
 * once the target is planned, the tensors that the family expects. */
void checkpoint_give_up_stored(ckpt_checkpoint *c);
void checkpoint_give_up_official(ckpt_checkpoint *c);

extern const ckpt_format *const ckpt_formats[];      /* NULL-terminated, in order of detection */

/* Add `count` files to a store, named by its format. */
ckpt_code format_add_files(const ckpt_format *format, ckpt_store *store, uint32_t count,
                           ckpt_error *err);

typedef enum {
    FILE_CARRIED,                   /* copied unchanged */
    FILE_OWN,                       /* belongs to the format: weights, indexes */
    FILE_UNREAD                     /* weights that the format ignores */
} file_role;

/* Add the files below the folder to out->extras or out->unread, according to `role_of`. Files that
 * a conversion generates are in neither list. */
ckpt_code checkpoint_take_extras(ckpt_checkpoint *out,
                                 file_role (*role_of)(void *context, const char *name),
                                 void *context, ckpt_error *err);

/* 1 when tensors are opened under the names and with the values that their files tell. */
int checkpoint_is_plain(const ckpt_open_options *options);

/* 1 for a file that a conversion copies unchanged: not one that it generates or that belongs to
 * ckpt. Weights are handled by the format. */
int checkpoint_is_carried(const char *name);

/* Add config.json, and name, size and version of every file in `extras`, to the fingerprint of a
 * run that carries them: a resumed run must not keep what the source no longer has. */
void checkpoint_mix_beside(const ckpt_checkpoint *c, hash128 *sum);
/* The same for one file of a folder; one that cannot be opened differs from all that can. */
void checkpoint_mix_file(const ckpt_folder *folder, const char *name, hash128 *sum);

/* Parse config.json and CONFIG_MODELOPT_FILE of the folder into *out, if they are there. */
ckpt_code checkpoint_read_config(ckpt_checkpoint *out, ckpt_error *err);

/* The config that was given with --config, if any, for a format that reads a file alone. */
ckpt_code checkpoint_take_config(ckpt_checkpoint *out, ckpt_error *err);
/* In errors: config.json, or what was given with --config, in quotes. Borrowed. */
const char *checkpoint_config_name(const ckpt_checkpoint *c);
/* The config is wrong, as err says: name the file that was given, or the checkpoint that has it. */
ckpt_code checkpoint_fail_config(const ckpt_checkpoint *c, ckpt_code code, ckpt_error *err);
/* In errors: the file that contains a tensor, or its start. Borrowed. */
const char *checkpoint_path_of(const ckpt_checkpoint *c, const ckpt_tensor *t);

/* Compare the tensors that were read with those of c->family: what is missing, of another form, or
 * does not belong is an error, or a note where that may be. (open_family.c) */
ckpt_code checkpoint_check_family(ckpt_checkpoint *c, ckpt_error *err);

/* The quantisation scheme that config.json and CONFIG_MODELOPT_FILE describe. */
config_scheme checkpoint_scheme(const ckpt_checkpoint *c);
/* 1 when c->family says that the experts of this config are INT4, and the config that they are of a
 * form that is decoded. */
int checkpoint_has_int4(const ckpt_checkpoint *c);

/* Find the preset of this name in all families; the error lists the known ones. out->name is not
 * set. */
ckpt_code checkpoint_find_preset(const char *name, map_preset *out, ckpt_error *err);

/* The layout that uses this naming style; NULL: a style of Hugging Face folders. */
const char *checkpoint_layout_of_names(const char *names);

/* The map of `family` for the naming style `names` ("native"), with the numbers of `config` (NULL:
 * without), or an error that lists the known styles. */
ckpt_code checkpoint_find_map(const char *family, const char *names, const json_value *config,
                              ckpt_map **out, ckpt_error *err);

/* Set family and map of a checkpoint whose config has been read, for a format that cannot
 * interpret its files without a map. */
ckpt_code checkpoint_need_map(ckpt_checkpoint *c, ckpt_error *err);

/* Set family and map of a checkpoint whose tensors are listed, unless the format did: --map, or
 * the map that matches most of them. */
ckpt_code checkpoint_find_own_map(ckpt_checkpoint *c, ckpt_error *err);

/* The built-in family of the config; *out is NULL if there is none. */
ckpt_code checkpoint_find_family(const json_value *config, ckpt_family **out, ckpt_error *err);

#endif
