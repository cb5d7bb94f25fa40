/* remote_check.c: whether a remote file is still as it was when it was opened. */
#include "remote_check.h"

#include <string.h>

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

/* Mark the files that are not listed as they were. */
static void compare_listings(remote_session *s, const hub_listing *now)
{
    for (size_t i = 0; i < s->entry_count; i++) {
        remote_entry *entry = s->entries[i];
        const hub_file *listed = hub_listing_find(now, entry->file.path);

        entry->is_outdated = listed == NULL || listed->size_bytes != entry->file.size_bytes ||
                             strcmp(listed->hash, entry->file.hash) != 0;
        entry->is_compared = 1;
    }
}

/* One listing serves a check of every file: a file that is checked again asks for another. */
static ckpt_code check_by_listing(remote_session *s, remote_entry *entry, ckpt_error *err)
{
    hub_listing now;
    ckpt_code code = CKPT_OK;

    if (!entry->is_compared) {
        if ((code = list_again(s, &now, err)) == CKPT_OK)
            compare_listings(s, &now);
        hub_listing_release(&now);
    }
    entry->is_compared = 0;
    return code == CKPT_OK && entry->is_outdated ? fail_changed(entry, err) : code;
}

/* ---- servers without listings ---- */

/* A request for one byte: its headers are compared with those before. */
static ckpt_code check_by_probe(remote_session *s, remote_entry *entry, ckpt_error *err)
{
    const ckpt_error *failure = NULL;
    uint64_t count;

    pthread_mutex_lock(&s->lock);
    count = entry->probe_count;
    entry->probe = PROBE_WANTED;
    remote_network_wake(s);
    while (entry->probe_count == count && entry->failure == NULL && s->failure.code == CKPT_OK)
        pthread_cond_wait(&s->changed, &s->lock);
    failure = entry->failure != NULL ? entry->failure : &s->failure;
    if (err != NULL && failure->code != CKPT_OK)
        *err = *failure;
    pthread_mutex_unlock(&s->lock);
    return failure->code;
}

ckpt_code remote_check(remote_session *s, remote_entry *entry, ckpt_error *err)
{
    /* Nothing of a commit ever changes; and no byte of an empty file can be asked for. */
    if (s->listing.commit[0] != '\0' || entry->file.size_bytes == 0)
        return CKPT_OK;
    return s->is_plain ? check_by_probe(s, entry, err) : check_by_listing(s, entry, err);
}
