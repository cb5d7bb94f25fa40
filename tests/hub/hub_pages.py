"""What the hub's own port answers: Hugging Face's API and files, ModelScope's."""
import json
import re
import time
import urllib.parse

import faults

JSON = ("Content-Type", "application/json")
TYPES = {"models": "model", "datasets": "dataset", "spaces": "space"}


def answer(hub, request):
    path = urllib.parse.unquote(request.path)
    fault = faults.take(hub, request, path)
    if fault and faults.before(hub, request, None, fault):
        return
    request.fault = fault
    if (bucket := bucket_of(path)) and not within_limit(hub, request, bucket):
        return
    for pattern, page in PAGES:
        if match := re.fullmatch(pattern, path):
            page(hub, request, **match.groupdict())
            return
    fail(hub, request, 404, "", "no such page")


def bucket_of(path):
    return "resolvers" if "/resolve" in path else "api" if path.startswith("/api/") else None


def rate_headers(hub, bucket):
    if bucket not in hub.limits:
        return []
    quota, window = hub.limits[bucket]
    begin, used = hub.used.get(bucket, (time.time(), 0))
    left = max(0, int(begin + window - time.time()))
    return [("RateLimit", f'"{bucket}";r={max(0, quota - used)};t={left}'),
            ("RateLimit-Policy", f'"fixed window";"{bucket}";q={quota};w={window}')]


def within_limit(hub, request, bucket):
    if bucket not in hub.limits:
        return True
    with hub.lock:
        quota, window = hub.limits[bucket]
        begin, used = hub.used.get(bucket, (0, 0))
        if time.time() >= begin + window:
            begin, used = time.time(), 0
        hub.used[bucket] = begin, used + 1
    if used + 1 <= quota:
        return True
    hub.reply(request, 429, "slow down", rate_headers(hub, bucket))
    return False


def fail(hub, request, status, code, message):
    hub.reply(request, status, json.dumps({"error": message}),
              [JSON, ("X-Error-Code", code), ("X-Error-Message", message),
               ("X-Request-Id", "mock-request-1")])


def find_repo(hub, request, id, type="model"):
    """The repo, or None when the request was refused."""
    repo = hub.repos.get(id)
    token = request.headers.get("authorization", "").removeprefix("Bearer ")
    if token and token != hub.token:
        fail(hub, request, 401, "", "Invalid credentials in Authorization header")
    elif repo is None or repo.type != type:
        fail(hub, request, 401 if not token else 404, "RepoNotFound", "Repository not found")
    elif repo.gated and not token:
        fail(hub, request, 401, "GatedRepo", "Access to this model is restricted")
    elif repo.gated == "closed":
        fail(hub, request, 403, "GatedRepo", "Your request is awaiting review")
    elif repo.private and not token:
        fail(hub, request, 401, "RepoNotFound", "Invalid username or password.")
    elif repo.private == "disabled":
        fail(hub, request, 403, "", "Access to this resource is disabled.")
    else:
        return repo
    return None


def find_commit(hub, request, repo, revision):
    commit = repo.revisions.get(revision, revision)
    if commit not in repo.revisions.values():
        fail(hub, request, 404, "RevisionNotFound", "Invalid rev id: " + revision)
        return None
    return commit


def info(hub, request, kind, id, revision="main"):
    repo = find_repo(hub, request, id, TYPES[kind])
    if repo and repo.renamed_to:
        to = request.target.replace(id, repo.renamed_to)
        hub.reply(request, 307, "", [("Location", to)])
    elif repo and (commit := find_commit(hub, request, repo, revision)):
        hub.reply(request, 200, json.dumps(
            {"id": repo.id, "sha": commit, "siblings": [], "private": bool(repo.private),
             "gated": False}), [JSON, *rate_headers(hub, "api")])


def tree(hub, request, kind, id, revision):
    repo = find_repo(hub, request, id, TYPES[kind])
    if repo and repo.renamed_to:
        hub.reply(request, 307, "", [("Location", request.target.replace(id, repo.renamed_to))])
        return
    if not repo or not find_commit(hub, request, repo, revision):
        return
    start = int(request.query.get("cursor", 0))
    page = [f.tree() for f in repo.files[start:start + hub.page_size]]
    if start == 0:
        page += [{"type": "directory", "path": d, "oid": "0" * 40, "size": 0} for d in
                 sorted({f.path.rpartition("/")[0] for f in repo.files if "/" in f.path})]
    headers = [JSON, *rate_headers(hub, "api")]
    fault = request.fault["kind"] if request.fault else ""
    if start + hub.page_size < len(repo.files):
        cursor = 0 if fault == "link_repeat" else start + hub.page_size
        headers += [("Link", hub.link_first)] if hub.link_first else []
        origin = hub.cdn.origin if fault == "link_foreign" else hub.url
        headers.append(("Link", f'<{origin}{urllib.parse.quote(request.path, "/%")}?recursive=true'
                                f'&expand=false&cursor={cursor}>; rel="next"'))
    if fault == "empty_page":
        page = []
    if fault == "folders":                   # and more of them, without end
        page = [{"type": "directory", "path": f"d{start}", "oid": "0" * 40, "size": 0}] * 1000
        headers.append(("Link", f'<{hub.url}{urllib.parse.quote(request.path, "/%")}?recursive=true'
                                f'&expand=false&cursor={start + 1}>; rel="next"'))
    text = request.fault["text"] if fault == "text" else json.dumps(page)
    hub.reply(request, 200, text, headers)


def paths_info(hub, request, kind, id, revision):
    repo = find_repo(hub, request, id, TYPES[kind])
    if repo:
        wanted = urllib.parse.parse_qs(request.body.decode()).get("paths", [])
        hub.reply(request, 200, json.dumps([f.tree() for f in repo.files if f.path in wanted]),
                  [JSON])


def refs(hub, request, kind, id):
    repo = find_repo(hub, request, id, TYPES[kind])
    if repo:
        branches = [{"name": n, "ref": f"refs/heads/{n}", "targetCommit": c}
                    for n, c in repo.revisions.items()]
        hub.reply(request, 200, json.dumps({"branches": branches, "tags": [], "converts": []}),
                  [JSON])


def resolve(hub, request, id, revision, path, kind="models"):
    repo = find_repo(hub, request, id, TYPES[kind or "models"])
    if repo and repo.renamed_to:
        hub.reply(request, 307, "", [("Location", request.target.replace(id, repo.renamed_to))])
        return
    commit = repo and find_commit(hub, request, repo, revision)
    if not commit:
        return
    entry = repo.find(path)
    if entry is None:
        fail(hub, request, 404, "EntryNotFound", "Entry not found: " + path)
        return
    fault = faults.take(hub, request, path)
    if fault and faults.before(hub, request, entry, fault):
        return
    shown = fault["commit"] if fault and fault["kind"] == "other_commit" else commit
    headers = [("X-Repo-Commit", shown), *rate_headers(hub, "resolvers")]
    if fault and fault["kind"] == "other_commit":
        fault = None
    if entry.shape == "cdn":
        linked = fault["hash"] if fault and fault["kind"] == "other_hash" else entry.content.sha256
        hub.reply(request, 302, "", [
            *headers, ("Location", hub.signed(entry)), ("X-Linked-Etag", f'"{linked}"'),
            ("X-Linked-Size", entry.size)])
    elif entry.shape == "hop":
        to = f"/api/resolve-cache/{kind or 'models'}/{id}/{commit}/{urllib.parse.quote(path)}" \
             f"?download=true&etag=%22{entry.etag}%22"
        hub.reply(request, 307, "", [*headers, ("Location", to), ("ETag", f'"{entry.etag}"')])
    else:
        hub.send(request, entry, [*headers, ("ETag", f'"{entry.etag}"')], fault)


def resolve_cache(hub, request, kind, id, revision, path):
    repo = find_repo(hub, request, id, TYPES[kind])
    if repo and "etag" not in request.query:
        fail(hub, request, 400, "", "the query was lost")
    elif repo:
        entry = repo.find(path)
        fault = faults.take(hub, request, path + "#cache")
        hub.send(request, entry, [("X-Repo-Commit", revision), ("ETag", f'W/"{entry.etag}"')],
                 fault)


# ---- a web server ----

def web(hub, request, id, path):
    """A file of the repo, as a server without any API gives it."""
    repo = hub.repos.get(id)
    entry = repo and repo.find(path)
    if entry is None:
        hub.reply(request, hub.web_missing, "no such file")
        return
    fault = faults.take(hub, request, path)
    if not fault or not faults.before(hub, request, entry, fault):
        hub.send(request, entry, [(k, v.format(etag=entry.etag)) for k, v in hub.web_headers],
                 fault)


# ---- ModelScope ----

def envelope(hub, request, data, code=200, status=200):
    hub.reply(request, status, json.dumps(
        {"Code": code, "Data": data, "Message": "success" if code == 200 else "no such repo",
         "RequestId": "r-1", "Success": code == 200}), [JSON])


def ms_entry(entry):
    return {"Type": "blob", "Path": entry.path, "Name": entry.path.rpartition("/")[2],
            "Size": entry.size, "Sha256": entry.content.sha256, "IsLFS": entry.kind == "lfs",
            "Mode": "33188", "Revision": "0" * 40, "CommittedDate": 1700000000,
            "CommitMessage": "x", "InCheck": True, **entry.overrides()}


def ms_files(hub, request, kind, id, what):
    repo = hub.repos.get(id)
    if repo is None or (repo.private and "authorization" not in request.headers):
        envelope(hub, request, None, 10010205001)
        return
    files = [ms_entry(f) for f in repo.files]
    if what == "tree":
        number, size = int(request.query["PageNumber"]), int(request.query["PageSize"])
        files = files[(number - 1) * size:number * size]
    else:
        files.append({"Type": "tree", "Path": "folder", "Name": "folder", "Size": 0})
    envelope(hub, request, {"Files": files})


def ms_revisions(hub, request, id):
    envelope(hub, request, {"RevisionMap": {"Branches": [{"Revision": "master",
                                                          "CreatedAt": 1700000000}], "Tags": []}})


def ms_file(hub, request, kind, id):
    repo = hub.repos.get(id)
    entry = repo and repo.find(request.query.get("FilePath", ""))
    if entry is None:
        envelope(hub, request, None, 10010205001, 404)
        return
    fault = faults.take(hub, request, entry.path)
    if fault and faults.before(hub, request, entry, fault):
        return
    if entry.shape == "cdn":
        hub.reply(request, 302, "", [("Location", hub.signed(entry))])
    else:
        hub.send(request, entry, [], fault)


KIND = r"(?P<kind>models|datasets|spaces)"
ID = r"(?P<id>[^/]+/[^/]+)"
PAGES = [
    (rf"/api/{KIND}/{ID}", info),
    (rf"/api/{KIND}/{ID}/revision/(?P<revision>.+)", info),
    (rf"/api/{KIND}/{ID}/tree/(?P<revision>[^/]+|refs/pr/\d+)", tree),
    (rf"/api/{KIND}/{ID}/paths-info/(?P<revision>.+)", paths_info),
    (rf"/api/{KIND}/{ID}/refs", refs),
    (rf"/api/resolve-cache/{KIND}/{ID}/(?P<revision>[0-9a-f]+)/(?P<path>.+)", resolve_cache),
    (rf"/(?:(?P<kind>datasets|spaces)/)?{ID}/resolve/(?P<revision>refs/pr/\d+|[^/]+)/(?P<path>.+)",
     resolve),
    (rf"/web/{ID}/(?P<path>.+)", web),
    (rf"/api/v1/{KIND}/{ID}/repo/(?P<what>files|tree)", ms_files),
    (rf"/api/v1/models/{ID}/revisions", ms_revisions),
    (rf"/api/v1/{KIND}/{ID}/repo", ms_file),
]
