/* The value digest. ckpt-digest(7) defines it. */
#include "digest.h"

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sha256.h"
#include "size.h"

struct ckpt_digest {
    const ckpt_catalog *catalog;
    hash128 *sums;
    pthread_mutex_t lock;
};

ckpt_digest *digest_create(const ckpt_catalog *catalog)
{
    ckpt_digest *digest = calloc(1, sizeof *digest);

    if (digest == NULL)
        return NULL;
    digest->catalog = catalog;
    digest->sums = calloc(ckpt_catalog_count(catalog) + 1, sizeof *digest->sums);
    if (digest->sums == NULL || pthread_mutex_init(&digest->lock, NULL) != 0) {
        free(digest->sums);
        free(digest);
        return NULL;
    }
    return digest;
}

void ckpt_digest_free(ckpt_digest *digest)
{
    if (digest == NULL)
        return;
    pthread_mutex_destroy(&digest->lock);
    free(digest->sums);
    free(digest);
}

uint64_t digest_need(const ckpt_tensor *tensor)
{
    return values_need(tensor) + arena_cost(ckpt_tensor_cols(tensor) * sizeof(int64_t));
}

ckpt_code digest_add(ckpt_digest *digest, const source_range *range, const ckpt_tile *tile,
                     arena *scratch, ckpt_error *err)
{
    const ckpt_tensor *t = ckpt_catalog_at(digest->catalog, range->tensor);
    const uint64_t cols = ckpt_tensor_cols(t);
    const uint64_t units = size_div_up(cols, HASH_UNIT_COLUMNS);
    const size_t mark = arena_mark(scratch);
    hash128 sum = { 0, 0 };
    values_reader values;
    ckpt_code code;
    void *row_buffer;

    if ((code = values_check(t, range, tile, err)) != CKPT_OK ||
        (code = values_begin(&values, t, tile, scratch, err)) != CKPT_OK)
        return code;
    row_buffer = arena_alloc(scratch, cols * sizeof(int64_t));
    if (row_buffer == NULL)
        return ckpt_fail_memory(err, "a row", cols * sizeof(int64_t));
    for (uint64_t r = 0; r < range->row_count; r++)
        values_digest(&values, r, (range->row + r) * units, row_buffer, &sum);
    arena_rewind(scratch, mark);
    pthread_mutex_lock(&digest->lock);
    hash128_add(&digest->sums[range->tensor], sum);
    pthread_mutex_unlock(&digest->lock);
    return CKPT_OK;
}

hash128 digest_get(const ckpt_digest *digest, size_t tensor)
{
    return digest->sums[tensor];
}

void digest_set(ckpt_digest *digest, size_t tensor, hash128 sum)
{
    digest->sums[tensor] = sum;
}

const char *digest_class(const ckpt_tensor *tensor)
{
    return ckpt_tensor_is_int(tensor) ? "int" : "float";
}

void hash128_hex(hash128 sum, char out[CKPT_DIGEST_HEX])
{
    snprintf(out, CKPT_DIGEST_HEX, "%016" PRIx64 "%016" PRIx64, sum.high64, sum.low64);
}

static int hex_digits(const char *hex, uint64_t *out)
{
    *out = 0;
    for (int i = 0; i < 16; i++) {
        const char *digits = "0123456789abcdef";
        const char *at = hex[i] == '\0' ? NULL : strchr(digits, hex[i]);

        if (at == NULL)
            return 0;
        *out = *out << 4 | (uint64_t)(at - digits);
    }
    return 1;
}

int hash128_from_hex(const char *hex, hash128 *out)
{
    return hex_digits(hex, &out->high64) && hex_digits(hex + 16, &out->low64) && hex[32] == '\0';
}

void ckpt_digest_tensor(const ckpt_digest *digest, size_t tensor, char out[CKPT_DIGEST_HEX])
{
    hash128_hex(digest->sums[tensor], out);
}

/* ---- the root ---- */

static const char mtp_prefix[] = "mtp.";

int digest_is_root(const char *text)
{
    return strspn(text, "0123456789abcdef") == CKPT_ROOT_HEX - 1 &&
           text[CKPT_ROOT_HEX - 1] == '\0';
}

int digest_is_mtp(const char *name)
{
    return strncmp(name, mtp_prefix, sizeof mtp_prefix - 1) == 0;
}

int digest_mtp_block(const char *name, uint64_t *block)
{
    const char *digits = name + sizeof mtp_prefix - 1;
    size_t length;

    if (!digest_is_mtp(name))
        return 0;
    length = strspn(digits, "0123456789");
    if (length == 0 || length > 18 || digits[length] != '.')
        return 0;
    *block = strtoull(digits, NULL, 10);
    return 1;
}

static int compare_names(const void *left, const void *right)
{
    const ckpt_tensor *const *a = left;
    const ckpt_tensor *const *b = right;

    return strcmp((*a)->name, (*b)->name);
}

static ckpt_code add_line(const ckpt_digest *digest, const ckpt_tensor *t, sha256 *hash,
                          ckpt_error *err)
{
    const int64_t i = ckpt_catalog_find(digest->catalog, t->name);
    char shape[256];
    char hex[CKPT_DIGEST_HEX];
    size_t used = 0;
    ckpt_code code;

    shape[0] = '\0';
    for (uint32_t d = 0; d < t->rank; d++)
        used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%" PRIu64,
                                 d == 0 ? "" : ",", t->shape[d]);
    hash128_hex(digest->sums[i], hex);
    if ((code = sha256_add(hash, t->name, strlen(t->name), err)) != CKPT_OK ||
        (code = sha256_add(hash, "\t", 1, err)) != CKPT_OK ||
        (code = sha256_add(hash, digest_class(t), strlen(digest_class(t)), err)) != CKPT_OK ||
        (code = sha256_add(hash, "\t", 1, err)) != CKPT_OK ||
        (code = sha256_add(hash, shape, strlen(shape), err)) != CKPT_OK ||
        (code = sha256_add(hash, "\t", 1, err)) != CKPT_OK ||
        (code = sha256_add(hash, hex, strlen(hex), err)) != CKPT_OK)
        return code;
    return sha256_add(hash, "\n", 1, err);
}

/* The root of `count` tensors, which are brought into the order of their names. */
static ckpt_code root_of(const ckpt_digest *digest, const ckpt_tensor **tensors, size_t count,
                         char out[CKPT_ROOT_HEX], ckpt_error *err)
{
    sha256 *hash = NULL;
    ckpt_code code;

    qsort(tensors, count, sizeof *tensors, compare_names);
    code = sha256_begin(&hash, err);
    for (size_t i = 0; i < count && code == CKPT_OK; i++)
        code = add_line(digest, tensors[i], hash, err);
    if (code == CKPT_OK)
        code = sha256_end(hash, out, err);
    else
        sha256_abort(hash);
    return code;
}

ckpt_code digest_root_of(const ckpt_digest *digest, const uint8_t *included,
                         char out[CKPT_ROOT_HEX], ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(digest->catalog);
    const ckpt_tensor **tensors = calloc(count + 1, sizeof *tensors);
    size_t used = 0;
    ckpt_code code;

    if (tensors == NULL)
        return ckpt_fail_memory(err, "the root digest", count);
    for (size_t i = 0; i < count; i++)
        if (included[i])
            tensors[used++] = ckpt_catalog_at(digest->catalog, i);
    code = root_of(digest, tensors, used, out, err);
    free(tensors);
    return code;
}

ckpt_code ckpt_digest_root(const ckpt_digest *digest, int main_only, char out[CKPT_ROOT_HEX],
                           ckpt_error *err)
{
    const size_t count = ckpt_catalog_count(digest->catalog);
    uint8_t *included = calloc(count + 1, 1);
    ckpt_code code;

    if (included == NULL)
        return ckpt_fail_memory(err, "the root digest", count);
    for (size_t i = 0; i < count; i++)
        included[i] = !main_only || !digest_is_mtp(ckpt_catalog_at(digest->catalog, i)->name);
    code = digest_root_of(digest, included, out, err);
    free(included);
    return code;
}

/* ---- the tap ---- */

typedef struct {
    ckpt_source base;
    ckpt_source *from;
    ckpt_digest *digest;
} digest_tap;

static ckpt_code tap_read(ckpt_source *self, const source_range *range, arena *scratch,
                          ckpt_tile *tile, ckpt_error *err)
{
    digest_tap *tap = (digest_tap *)self;
    const ckpt_code code = source_read_tile(tap->from, range, scratch, tile, err);

    return code == CKPT_OK ? digest_add(tap->digest, range, tile, scratch, err) : code;
}

static uint64_t tap_need(const ckpt_source *self, size_t tensor, uint64_t row_count)
{
    const digest_tap *tap = (const digest_tap *)self;

    return source_need(tap->from, tensor, row_count) +
           digest_need(ckpt_catalog_at(self->catalog, tensor));
}

static void tap_free(ckpt_source *self)
{
    free(self);
}

ckpt_code source_digest_tap(ckpt_source *from, ckpt_digest *digest, ckpt_source **out,
                            ckpt_error *err)
{
    static const source_ops ops = { tap_read, tap_need, tap_free };
    digest_tap *tap = calloc(1, sizeof *tap);

    if (tap == NULL)
        return ckpt_fail_memory(err, "a view", sizeof *tap);
    tap->base.ops = &ops;
    tap->base.catalog = from->catalog;
    tap->from = from;
    tap->digest = digest;
    *out = &tap->base;
    return CKPT_OK;
}
