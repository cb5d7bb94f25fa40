/* remote_check.c: whether remote files are still as they were when they were opened. */
#include "remote_check.h"

#include <stdio.h>
#include <string.h>

#include "remote_network.h"

static ckpt_code fail_changed(const remote_entry *entry, ckpt_error *err)
{
    return ckpt_fail(err, CKPT_E_FORMAT, "'%s' was changed while it was being read", entry->path);
}

/* ---- hubs without commits ---- */

/* List the repository again, by a session of its own: the other one belongs to its thread. */
static ckpt_code list_again(const remote_session *s, hub_listing *out, ckpt_error *err)
{
    hub *h = NULL;
    ckpt_code code;

    memset(out, 0, sizeof *out);
    arena_init(&out->memory);
    if ((code = hub_open(s->h->kind, &s->h->options, &h, err)) == CKPT_OK &&
        (code = h->kind->list(h, out, err)) == CKPT_OK)
        code = hub_listing_check(s->h->options.repo, out, 1, err);
    hub_close(h);
    return code;
}

/* 1 when the file is listed as it was. */
static int is_listed_alike(const remote_entry *entry, const hub_listing *now)
{
    const hub_file *listed = hub_listing_find(now, entry->file.path);

    return listed != NULL && listed->size_bytes == entry->file.size_bytes &&
           strcmp(listed->hash, entry->file.hash) == 0;
}

static ckpt_code compare_listings(remote_session *s, ckpt_error *err)
{
    hub_listing now;
    ckpt_code code = list_again(s, &now, err);

    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->entry_count && code == CKPT_OK; i++)
        if (s->entries[i]->is_opened && !is_listed_alike(s->entries[i], &now))
            code = fail_changed(s->entries[i], err);
    pthread_mutex_unlock(&s->lock);
    hub_listing_release(&now);
    return code;
}

/* ---- servers without listings ---- */

/* A request for one byte: its headers are compared with those before. Called with the lock held. */
static void want_probe(remote_session *s, remote_entry *entry)
{
    /* No byte of an empty file can be asked for. */
    if (entry->file.size_bytes == 0)
        return;
    entry->probe = PROBE_WANTED;
    remote_network_wake(s);
}

/* Called with the lock held. */
static ckpt_code await_probe(remote_session *s, const remote_entry *entry, ckpt_error *err)
{
    const ckpt_error *failure;

    while (entry->probe != PROBE_NONE && entry->failure == NULL && s->failure.code == CKPT_OK)
        pthread_cond_wait(&s->changed, &s->lock);
    failure = entry->failure != NULL ? entry->failure : &s->failure;
    if (err != NULL && failure->code != CKPT_OK)
        *err = *failure;
    if (failure->code == CKPT_OK && entry->is_absent)
        return fail_changed(entry, err);
    return failure->code;
}

/* All files are asked for at the same time, before the first answer is awaited. */
static ckpt_code probe_all(remote_session *s, ckpt_error *err)
{
    ckpt_code code = CKPT_OK;

    pthread_mutex_lock(&s->lock);
    for (size_t i = 0; i < s->entry_count; i++)
        if (s->entries[i]->is_opened)
            want_probe(s, s->entries[i]);
    for (size_t i = 0; i < s->entry_count && code == CKPT_OK; i++)
        if (s->entries[i]->is_opened)
            code = await_probe(s, s->entries[i], err);
    pthread_mutex_unlock(&s->lock);
    return code;
}

/* Tell that files are taken as missing which may only not be readable for us. */
static void tell_hidden(remote_session *s)
{
    const remote_entry *first = NULL;
    unsigned count = 0;

    pthread_mutex_lock(&s->lock);
    for (size_t i = s->entry_count; i-- > 0;)
        if (s->entries[i]->refusal != NULL) {
            first = s->entries[i];
            count++;
        }
    if (first != NULL && !s->is_told && !s->options.is_quiet)
        fprintf(stderr, "note: the server of '%s' answers 403 for files that do not exist: %u that "
                "were tried are taken as missing, the first is '%s'\n", s->root, count,
                first->file.path);
    s->is_told = 1;
    pthread_mutex_unlock(&s->lock);
}

ckpt_code remote_check_all(remote_session *s, ckpt_error *err)
{
    if (s->listing.commit[0] != '\0')
        return CKPT_OK;
    if (s->hides_absent)
        tell_hidden(s);
    return s->is_plain ? probe_all(s, err) : compare_listings(s, err);
}
