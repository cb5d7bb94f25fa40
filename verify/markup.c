/* Escaping. */
#include "markup.h"

#include <string.h>

#include "libckpt/text.h"

/* Length of the UTF-8 sequence that begins here; 0: invalid. */
static size_t sequence_bytes(const unsigned char *at)
{
    const size_t bytes = *at < 0x80 ? 1 : *at < 0xC2 ? 0 : *at < 0xE0 ? 2 : *at < 0xF0 ? 3
                         : *at < 0xF5 ? 4 : 0;

    for (size_t i = 1; i < bytes; i++)
        if ((at[i] & 0xC0) != 0x80)
            return 0;
    if ((*at == 0xE0 && at[1] < 0xA0) || (*at == 0xED && at[1] > 0x9F) ||
        (*at == 0xF0 && at[1] < 0x90) || (*at == 0xF4 && at[1] > 0x8F))
        return 0;
    return bytes;
}

void markup_put(FILE *out, const char *text)
{
    for (const char *at = text == NULL ? "" : text; *at != '\0';) {
        const size_t hidden = text_hidden_bytes(at, strlen(at));
        const size_t bytes = sequence_bytes((const unsigned char *)at);

        if (hidden > 0 || bytes == 0)
            fputs("&#xFFFD;", out);
        else if (*at == '<')
            fputs("&lt;", out);
        else if (*at == '>')
            fputs("&gt;", out);
        else if (*at == '&')
            fputs("&amp;", out);
        else if (*at == '"')
            fputs("&quot;", out);
        else if (*at == '\'')
            fputs("&#39;", out);
        else
            fwrite(at, 1, bytes, out);
        at += hidden > 0 ? hidden : bytes > 0 ? bytes : 1;
    }
}
