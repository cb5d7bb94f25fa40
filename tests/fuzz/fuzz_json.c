/*
 * fuzz_json.c: what is accepted as JSON can be written, read back and edited, and stays the same.
 */
#include "libckpt/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(condition) do { if (!(condition)) abort(); } while (0)

typedef struct {
    char *bytes;
    size_t size;
} text;

static int text_write(void *context, const char *bytes, size_t size)
{
    text *t = context;

    t->bytes = realloc(t->bytes, t->size + size + 1);
    CHECK(t->bytes != NULL);
    memcpy(t->bytes + t->size, bytes, size);
    t->size += size;
    t->bytes[t->size] = '\0';
    return 0;
}

static json_document *parsed(const char *bytes)
{
    json_document *document;
    ckpt_error err;

    CHECK(json_parse(bytes, strlen(bytes), "written", &document, &err) == CKPT_OK);
    return document;
}

static void put_scalar(json_writer *w, const json_value *v)
{
    uint64_t integer;
    double number;
    int flag;

    if (json_string(v) != NULL)
        json_put_string(w, json_string(v));
    else if (json_u64(v, &integer))
        json_put_u64(w, integer);
    else if (json_number(v, &number))
        json_put_double(w, number);
    else if (json_bool(v, &flag))
        json_put_bool(w, flag);
    else {
        CHECK(json_is_null(v));
        json_put_null(w);
    }
}

/* The whole tree, without recursion. */
static void put_tree(json_writer *w, const json_value *root)
{
    const json_value *open[JSON_DEPTH_MAX + 1];
    const json_value *v = root;
    size_t depth = 0;

    while (v != NULL || depth > 0) {
        if (v == NULL) {                /* behind the last child */
            v = open[--depth];
            if (json_is_object(v))
                json_put_object_end(w);
            else
                json_put_array_end(w);
            v = depth > 0 ? json_next(v) : NULL;
            continue;
        }
        if (depth > 0 && json_is_object(open[depth - 1]))
            json_put_key(w, json_key(v));
        if (json_is_object(v) || json_is_array(v)) {
            CHECK(depth < JSON_DEPTH_MAX);
            if (json_is_object(v))
                json_put_object(w);
            else
                json_put_array(w);
            open[depth++] = v;
            v = json_first(v);
        } else {
            put_scalar(w, v);
            v = depth > 0 ? json_next(v) : NULL;
        }
    }
}

static void check_round_trip(const json_document *document, unsigned indent)
{
    text written = { NULL, 0 };
    json_document *again;
    json_writer w;

    json_writer_begin(&w, text_write, &written, indent);
    put_tree(&w, json_root(document));
    CHECK(json_writer_end(&w));
    again = parsed(written.bytes);
    CHECK(json_equal(json_root(document), json_root(again)));
    CHECK(json_equal(json_root(again), json_root(document)));
    json_free(again);
    free(written.bytes);
}

/* Give one member a new value, look at all of them, take it away again. */
static void check_edit(const json_document *document, const char *original, const char *key)
{
    const json_value *before = json_member(json_root(document), key);
    const size_t count = json_count(json_root(document));
    json_document *edited;
    ckpt_error err;
    char *changed;
    char *removed;
    char *value;

    CHECK(json_member_text(original, key, &value, &err) == CKPT_OK);
    CHECK((value != NULL) == (before != NULL));
    CHECK(json_edit(original, key, "[1, {}]", &changed, &err) == CKPT_OK);
    edited = parsed(changed);
    CHECK(json_count(json_root(edited)) == count + (before == NULL));
    CHECK(json_count(json_member(json_root(edited), key)) == 2);
    json_free(edited);
    CHECK(json_edit(changed, key, NULL, &removed, &err) == CKPT_OK);
    edited = parsed(removed);
    CHECK(json_count(json_root(edited)) == count - (before != NULL));
    CHECK(json_member(json_root(edited), key) == NULL);
    if (before == NULL)
        CHECK(json_equal(json_root(edited), json_root(document)));
    json_free(edited);
    free(removed);
    free(changed);
    if (value == NULL)
        return;
    CHECK(json_edit(original, key, value, &changed, &err) == CKPT_OK);
    CHECK(strcmp(changed, original) == 0);
    free(changed);
    free(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_document *document;
    ckpt_error err;
    char *original;

    if (json_parse((const char *)data, size, "fuzz", &document, &err) != CKPT_OK) {
        CHECK(document == NULL && err.code == CKPT_E_FORMAT);
        return 0;
    }
    original = malloc(size + 1);
    CHECK(original != NULL && memchr(data, '\0', size) == NULL);
    memcpy(original, data, size);
    original[size] = '\0';
    check_round_trip(document, (unsigned)(size % 5));
    if (json_is_object(json_root(document))) {
        size_t checked = 0;

        check_edit(document, original, "\xc3\xa9\"\n");
        for (const json_value *v = json_first(json_root(document)); v != NULL && checked < 8;
             v = json_next(v), checked++)
            check_edit(document, original, json_key(v));
    }
    free(original);
    json_free(document);
    return 0;
}
