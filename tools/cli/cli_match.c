/* cli_match.c: options and words as they are typed: abbreviated, mistyped, by one letter. */
#include <ctype.h>
#include <string.h>

#include "cli_private.h"

enum { WORD_MAX = 40 };

/* ---- options ---- */

/* A letter means the same in every command that has the option. */
static const struct {
    char letter;
    const char *name;
} LETTERS[] = { { 'q', "quiet" }, { 'v', "verbose" }, { 'j', "threads" }, { 'o', "out" },
                { 'c', "check" }, { '0', "null" }, { 'h', "help" }, { 'V', "version" } };

char cli_letter_of(const char *name)
{
    for (size_t i = 0; i < sizeof LETTERS / sizeof *LETTERS; i++)
        if (strcmp(LETTERS[i].name, name) == 0)
            return LETTERS[i].letter;
    return '\0';
}

const cli_option *cli_find_option(const cli_option *options, const char *name, size_t size)
{
    for (; options != NULL && options->kind != CLI_END; options++)
        if (options->kind != CLI_HEADING && strlen(options->name) == size &&
            memcmp(options->name, name, size) == 0)
            return options;
    return NULL;
}

const cli_option *cli_find_letter(const cli_option *options, char letter)
{
    for (size_t i = 0; i < sizeof LETTERS / sizeof *LETTERS; i++)
        if (LETTERS[i].letter == letter)
            return cli_find_option(options, LETTERS[i].name, strlen(LETTERS[i].name));
    return NULL;
}

const cli_option *cli_find_abbreviated(const cli_option *options, const char *name, size_t size,
                                       const cli_option **other)
{
    const cli_option *found = cli_find_option(options, name, size);

    *other = NULL;
    if (found != NULL || size == 0)
        return found;
    for (; options != NULL && options->kind != CLI_END; options++) {
        if (options->kind == CLI_HEADING || strncmp(options->name, name, size) != 0)
            continue;
        if (found != NULL && found->target == options->target && found->kind == options->kind &&
            found->kind != CLI_FLAG)
            continue;                      /* another spelling of the same option */
        *other = found;
        found = options;
        if (*other != NULL)
            break;
    }
    return found;
}

/* ---- mistakes ---- */

static int is_alike(char a, char b)
{
    return tolower((unsigned char)(a == '_' ? '-' : a)) == tolower((unsigned char)b);
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Edit distance: letters omitted, inserted, replaced, or swapped with the next one. */
static size_t find_distance(const char *a, size_t a_size, const char *b, size_t b_size)
{
    size_t rows[3][WORD_MAX + 1];

    for (size_t j = 0; j <= b_size; j++)
        rows[1][j] = j;
    for (size_t i = 1; i <= a_size; i++) {
        size_t *now = rows[(i + 1) % 3];
        const size_t *before = rows[i % 3];
        const size_t *earlier = rows[(i + 2) % 3];

        now[0] = i;
        for (size_t j = 1; j <= b_size; j++) {
            now[j] = least(least(before[j], now[j - 1]) + 1,
                           before[j - 1] + !is_alike(a[i - 1], b[j - 1]));
            if (i > 1 && j > 1 && is_alike(a[i - 1], b[j - 2]) && is_alike(a[i - 2], b[j - 1]))
                now[j] = least(now[j], earlier[j - 2] + 1);
        }
    }
    return rows[(a_size + 1) % 3][b_size];
}

void cli_near_begin(cli_near *near, const char *text, size_t size)
{
    near->text = text;
    near->size = size;
    near->distance = size / 3 + (size < 3 ? 2 : 1);      /* nothing so far is offered */
    near->word[0] = '\0';
}

void cli_near_offer(cli_near *near, const char *word, size_t size)
{
    size_t distance;

    if (near->size == 0 || near->size > WORD_MAX || size == 0 || size > WORD_MAX ||
        size >= sizeof near->word)
        return;
    distance = find_distance(near->text, near->size, word, size);
    if (distance >= near->distance || distance >= size)
        return;
    near->distance = distance;
    memcpy(near->word, word, size);
    near->word[size] = '\0';
}

int cli_find_near_word(const char *words, const char *text, char out[CLI_NEAR_BYTES])
{
    cli_near near;

    cli_near_begin(&near, text, strlen(text));
    while (strchr(words, ' ') == NULL && *words != '\0') {
        const size_t size = strcspn(words, "|");

        cli_near_offer(&near, words, size);
        words += size + (words[size] == '|');
    }
    memcpy(out, near.word, sizeof near.word);
    return out[0] != '\0';
}
