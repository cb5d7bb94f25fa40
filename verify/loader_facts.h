/*
 * loader_facts.h: facts for the rules about loaders: what config.json declares about the weights,
 * and what the files contain.
 */
#ifndef CKPT_LOADER_FACTS_H
#define CKPT_LOADER_FACTS_H

#include "libckpt/json.h"
#include "libckpt/map.h"
#include "libckpt/source.h"

/* Forms of weights that loaders distinguish. */
typedef enum {
    FORM_PLAIN,                    /* a weight in BF16, F32 ... that could be quantised */
    FORM_FP4,                      /* E2M1 in groups of 32 with E8M0 scales */
    FORM_FP8,                      /* E4M3 in blocks of 128 x 128 */
    FORM_MXFP8,                    /* E4M3 in groups of 32 with E8M0 scales */
    FORM_NVFP4,                    /* E2M1 in groups of 16 with two levels of scales */
    FORM_OTHER,                    /* quantised in another way */
    FORM_COUNT
} weight_form;

/* A number of weights, and the first of them in the logical catalog (NULL: none). */
typedef struct {
    size_t count;
    const ckpt_tensor *first;
} weight_group;

typedef struct {
    const json_value *config;      /* config.json; NULL: there is none */
    const json_value *modelopt;    /* hf_quant_config.json; NULL: there is none */
    const ckpt_catalog *stored;
    const ckpt_catalog *logical;
    ckpt_source *source;           /* of the logical tensors, for rules that read scales */
    const ckpt_catalog *official;  /* what the family expects; NULL: no family */
    const ckpt_map *modules;       /* gives the modules of weights; or NULL */
    const char *layout;
    const char *family;
    const char *names;
    int is_partial;                /* one file of several */
} loader_input;

typedef struct {
    loader_input in;
    int is_v4;                     /* model_type is deepseek_v4, also if read as another family */
    const json_value *quantization;   /* quantization_config; NULL: there is none */
    const char *method;            /* its quant_method; NULL: none */
    const char *modelopt_algorithm;   /* quant_algo of hf_quant_config.json; NULL: none */
    const char *expert_dtype;      /* "fp4", "fp8"; NULL: the key is missing */
    const char *inner_expert_dtype;   /* the same key inside quantization_config */
    const char *scale_fmt;         /* "ue8m0"; NULL: missing */
    weight_group experts[FORM_COUNT];     /* routed experts */
    weight_group dense[FORM_COUNT];       /* other weights */
    weight_group expert_scales[CKPT_DTYPE_COUNT];  /* FP8 and FP4, by dtype of the scales */
    weight_group dense_scales[CKPT_DTYPE_COUNT];
    size_t quantised;              /* weights of all forms except FORM_PLAIN */
    weight_group unlisted;         /* plain among quantised ones, but in no list of the config */
    weight_group listed;           /* quantised, but listed as unquantised */
    size_t input_scales;           /* stored tensors X.input_scale */
    size_t tensor_scales;          /* stored tensors X.weight_scale_2 */
} loader_facts;

/* Find the facts. *out borrows everything in `in`. */
ckpt_code loader_facts_find(const loader_input *in, loader_facts *out, ckpt_error *err);

/* The form of a weight. */
weight_form loader_form(const ckpt_tensor *tensor);

/* Weights whose scale of the whole tensor, or of their activations, is not a finite number above 0;
 * and pairs that servers join, but whose scales of the whole tensor differ. */
typedef struct {
    weight_group unfit;
    weight_group unequal;
} loader_whole_scales;

ckpt_code loader_look_at_whole_scales(const loader_facts *facts, loader_whole_scales *out,
                                      ckpt_error *err);

/* Count scales that are not powers of two, of experts or of the other weights, and find a weight
 * with one. Only weights with F32 scales are read. */
ckpt_code loader_count_uneven(const loader_facts *facts, int experts, weight_group *out,
                              ckpt_error *err);

#endif
