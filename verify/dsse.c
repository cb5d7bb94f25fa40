/* Signed envelopes. */
#include "dsse.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- base64 (RFC 4648, section 4) ---- */

static const char base64_digits[] =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static void add_base64(byte_buffer *out, const unsigned char *bytes, size_t size)
{
    for (size_t i = 0; i < size; i += 3) {
        const size_t left = size - i < 3 ? size - i : 3;
        const uint32_t group = (uint32_t)bytes[i] << 16 |
                               (left > 1 ? (uint32_t)bytes[i + 1] << 8 : 0) |
                               (left > 2 ? (uint32_t)bytes[i + 2] : 0);
        char text[4];

        text[0] = base64_digits[group >> 18];
        text[1] = base64_digits[group >> 12 & 63];
        text[2] = base64_digits[group >> 6 & 63];
        text[3] = base64_digits[group & 63];
        memset(text + 1 + left, '=', 3 - left);
        byte_buffer_add(out, text, sizeof text);
    }
}

/* Value of a digit, or -1. */
static int digit_of(char c)
{
    const char *at = c == '\0' ? NULL : strchr(base64_digits, c);

    return at == NULL ? -1 : (int)(at - base64_digits);
}

/* Decode a group of four digits. Returns the number of bytes, or 0 if it is invalid. Unused bits
 * must be 0, so that a payload has only one encoding. */
static size_t decode_group(const char *text, int is_last, unsigned char out[3])
{
    size_t padding = 0;
    uint32_t group = 0;

    while (is_last && padding < 2 && text[3 - padding] == '=')
        padding++;
    for (size_t i = 0; i < 4; i++) {
        const int digit = i >= 4 - padding ? 0 : digit_of(text[i]);

        if (digit < 0)
            return 0;
        group = group << 6 | (uint32_t)digit;
    }
    out[0] = (unsigned char)(group >> 16);
    out[1] = (unsigned char)(group >> 8);
    out[2] = (unsigned char)group;
    if ((padding >= 1 && out[2] != 0) || (padding == 2 && out[1] != 0))
        return 0;
    return 3 - padding;
}

/* malloc'd, NUL-terminated; NULL: it is not canonical base64, or there is no memory. */
static char *decode_base64(const char *text, size_t *size)
{
    const size_t length = strlen(text);
    char *out = length % 4 != 0 ? NULL : malloc(length / 4 * 3 + 1);

    *size = 0;
    for (size_t i = 0; i < length && out != NULL; i += 4) {
        unsigned char group[3];
        const size_t count = decode_group(text + i, i + 4 == length, group);

        if (count == 0) {
            free(out);
            return NULL;
        }
        memcpy(out + *size, group, count);
        *size += count;
    }
    if (out != NULL)
        out[*size] = '\0';
    return out;
}

/* ---- signing ---- */

static ckpt_code pre_authentication(const char *type, const char *payload, size_t size,
                                    byte_buffer *out, ckpt_error *err)
{
    char head[256];
    const int length = snprintf(head, sizeof head, "DSSEv1 %zu %s %zu ", strlen(type), type, size);

    if (length < 0 || (size_t)length >= sizeof head)
        return ckpt_fail(err, CKPT_E_FORMAT, "a payload type of an envelope is too long");
    byte_buffer_add(out, head, (size_t)length);
    byte_buffer_add(out, payload, size);
    return out->failed ? ckpt_fail_memory(err, "an envelope", size) : CKPT_OK;
}

static void add_text(byte_buffer *out, const char *text)
{
    byte_buffer_add(out, text, strlen(text));
}

ckpt_code dsse_sign(const char *payload, size_t size, const signature_key *key, byte_buffer *out,
                    ckpt_error *err)
{
    signature_value signature;
    byte_buffer text = { 0 };
    ckpt_code code;

    if ((code = pre_authentication(DSSE_INTOTO_TYPE, payload, size, &text, err)) == CKPT_OK)
        code = signature_make(key, text.bytes, text.used, &signature, err);
    free(text.bytes);
    if (code != CKPT_OK)
        return code;
    add_text(out, "{\"payloadType\": \"" DSSE_INTOTO_TYPE "\", \"payload\": \"");
    add_base64(out, (const unsigned char *)payload, size);
    add_text(out, "\", \"signatures\": [{\"keyid\": \"");
    add_text(out, signature_key_id(key));
    add_text(out, "\", \"sig\": \"");
    add_base64(out, signature.bytes, signature.size);
    add_text(out, "\"}]}\n");
    return out->failed ? ckpt_fail_memory(err, "an envelope", size) : CKPT_OK;
}

/* ---- opening ---- */

int dsse_is_envelope(const json_value *document)
{
    return json_member(document, "payloadType") != NULL;
}

/* 1 when one of the signatures is valid. */
static int has_right(const json_value *signatures, const byte_buffer *text,
                     const signature_key *key)
{
    for (const json_value *v = json_first(signatures); v != NULL; v = json_next(v)) {
        const char *base64 = json_string(json_member(v, "sig"));
        size_t size = 0;
        char *bytes = base64 == NULL ? NULL : decode_base64(base64, &size);
        const int right = bytes != NULL && signature_is_right(key, text->bytes, text->used,
                                                              (unsigned char *)bytes, size);

        free(bytes);
        if (right)
            return 1;
    }
    return 0;
}

ckpt_code dsse_open(const json_value *envelope, const char *path, const signature_key *key,
                    dsse_content *out, ckpt_error *err)
{
    const char *type = json_string(json_member(envelope, "payloadType"));
    const char *base64 = json_string(json_member(envelope, "payload"));
    const json_value *signatures = json_member(envelope, "signatures");
    const char *id = json_string(json_member(json_first(signatures), "keyid"));
    byte_buffer text = { 0 };
    ckpt_code code;

    memset(out, 0, sizeof *out);
    if (type == NULL || base64 == NULL || !json_is_array(signatures) ||
        json_count(signatures) == 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is not a DSSE envelope: expected payloadType, "
                         "payload and signatures", path);
    if (strcmp(type, DSSE_INTOTO_TYPE) != 0)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s' is an envelope of another kind: expected "
                         "payloadType " DSSE_INTOTO_TYPE ", got %.100s", path, type);
    if ((out->payload = decode_base64(base64, &out->payload_bytes)) == NULL)
        return ckpt_fail(err, CKPT_E_FORMAT, "'%s': its payload is not base64", path);
    out->signature_count = json_count(signatures);
    snprintf(out->key_id, sizeof out->key_id, "%s", id == NULL ? "" : id);
    if (key == NULL)
        return CKPT_OK;
    if ((code = pre_authentication(type, out->payload, out->payload_bytes, &text, err)) == CKPT_OK
        && !has_right(signatures, &text, key))
        code = ckpt_fail(err, CKPT_E_DIFFERENT, "'%s' is not signed with this key: expected a "
                         "signature by %s", path, signature_key_id(key));
    free(text.bytes);
    return code;
}

void dsse_release(dsse_content *content)
{
    free(content->payload);
    memset(content, 0, sizeof *content);
}
