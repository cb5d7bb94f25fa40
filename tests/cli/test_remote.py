"""Checkpoints by URL: right, or refused; what is asked for; what is left behind."""
import itertools
import json
import os
import re
import signal
import struct

import pytest

from cli.measure import measure
from cli.trees import INSTRUMENTED, start_tool, tree
from client import environment, wait_for
from conftest import DATA
from mock_hub import Entry, Hub, Repo

ID = "o/m"
MIB = 1 << 20
GOLDEN = DATA / "golden-a"
SHARD = "model-00003-of-00005.safetensors"
LAST = "model-00005-of-00005.safetensors"
BLOCK = 256 << 10


def entries(folder, prefix="", shape=None):
    return [Entry(prefix + str(p.relative_to(folder)), data=p.read_bytes(), shape=shape,
                  kind="lfs" if p.suffix == ".safetensors" else "git")
            for p in sorted(folder.rglob("*")) if p.is_file()]


@pytest.fixture
def hub():
    with Hub([Repo(ID, entries(GOLDEN))]) as h:
        yield h


@pytest.fixture
def env(hub, tmp_path):
    """The environment of a tool; its working directory, home and cache stay empty."""
    (tmp_path / "tmp").mkdir()
    return environment(hub, tmp_path / "home", TMPDIR=str(tmp_path / "tmp"))


@pytest.fixture
def expected(digest):
    return digest(GOLDEN)


def urls(hub):
    return [f"hf://{ID}", f"ms://{ID}", f"{hub.url}/web/{ID}"]


WAYS = pytest.mark.parametrize("way", range(3), ids=["hf", "ms", "web"])


def address(hub, way):
    return urls(hub)[way]


# ---- right ----

@WAYS
def test_a_checkpoint_is_inspected_by_url(ckpt, hub, env, tmp_path, way):
    url = address(hub, way)
    here = ckpt("ckpt-inspect", "--json", GOLDEN).out
    (tmp_path / "cwd").mkdir()
    there = ckpt("ckpt-inspect", "--json", url, env=env, cwd=tmp_path / "cwd").out
    assert there.replace(url, str(GOLDEN)) == here
    assert not (tmp_path / "home").exists() and not os.listdir(tmp_path / "tmp")
    assert not os.listdir(tmp_path / "cwd") and hub.leaks == []


@pytest.mark.parametrize("name", [
    f"hf://{ID}", f"hf://{ID}@main", f"hf://models/{ID}/", f"https://huggingface.co/{ID}/tree/main",
    f"ms://{ID}@master", f"https://modelscope.cn/models/{ID}/files", f"hf://{ID}@COMMIT",
    f"https://huggingface.co/{ID}/commit/COMMIT", f"https://hf.co/{ID}/raw/COMMIT/?x=y",
    f"https://modelscope.cn/models/{ID}/file/view/master"])
def test_every_name_of_a_repository_is_understood(digest, hub, env, expected, name):
    name = name.replace("COMMIT", hub.repos[ID].commit)
    assert digest(name, env=env) == expected


@WAYS
def test_a_checkpoint_by_url_equals_its_copy_on_disk(ckpt, hub, env, way):
    done = ckpt("ckpt-verify", "compare", "--bits", address(hub, way), GOLDEN, env=env)
    assert done.out.startswith("same: ") and hub.leaks == []


def test_a_checkpoint_by_url_is_checked_against_a_manifest(ckpt, env, tmp_path, hub):
    manifest = tmp_path / "manifest.json"
    manifest.write_text(ckpt("ckpt-verify", "digest", "--json", GOLDEN).out)
    ckpt("ckpt-verify", "check", "--manifest", manifest, f"hf://{ID}", env=env)
    ckpt("ckpt-verify", "check", "--structure-only", f"hf://{ID}", env=env)


@WAYS
def test_one_file_and_a_sub_folder_are_read(ckpt, digest, env, hub, expected, way):
    hub.repos[ID] = Repo(ID, entries(GOLDEN) + entries(GOLDEN, "a/b c/", shape="direct"))
    url = address(hub, way)
    there = ckpt("ckpt-inspect", "--json", f"{url}/{SHARD}", env=env).out
    assert there.replace(url, str(GOLDEN)) == ckpt("ckpt-inspect", "--json", GOLDEN / SHARD).out
    assert digest(f"{url}/a/b c".replace(" ", "%20" if "/web/" in url else " "),
                  env=env) == expected


@pytest.mark.parametrize("memory", ["24MiB", "1GiB"])
def test_the_digest_does_not_depend_on_threads_and_memory(digest, ckpt, env, expected, memory):
    for threads in (1, 3):
        done = ckpt("ckpt-verify", "digest", "--threads", threads, "--memory", memory,
                    f"hf://{ID}", env=env)
        assert done.out.startswith(expected)


@WAYS
def test_a_conversion_by_url_writes_the_same_bytes(ckpt, hub, env, tmp_path, way):
    for source, out in ((GOLDEN, "here"), (address(hub, way), "there")):
        ckpt("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", "--no-manifest", source,
             tmp_path / out, env=env)
    assert tree(tmp_path / "there") == tree(tmp_path / "here")


def test_every_other_input_of_a_conversion_may_be_a_url(ckpt, env, tmp_path):
    ckpt("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", GOLDEN, tmp_path / "bf16")
    ckpt("ckpt-convert", "--no-manifest", "--like", f"hf://{ID}", tmp_path / "bf16",
         tmp_path / "back", env=env)
    assert tree(tmp_path / "back") == tree(GOLDEN)
    ckpt("ckpt-shard", "--layout", "torch_dist", f"hf://{ID}", tmp_path / "dist", env=env)
    ckpt("ckpt-verify", "compare", f"hf://{ID}", tmp_path / "dist", env=env, check=1)


def test_files_beside_the_tensors_are_copied(ckpt, hub, env, tmp_path):
    more = [Entry("tokenizer.json", data=b'{"version": "1.0"}', kind="git"),
            Entry("tokenizer.model", 700 * 1024, 5), Entry("docs/read me.md", 10, 6, "git"),
            Entry(".gitattributes", 20, 7, "git"), Entry("empty.txt", 0, 8, "git")]
    hub.repos[ID] = Repo(ID, entries(GOLDEN) + more)
    ckpt("ckpt-convert", "--dtype", "keep", f"hf://{ID}", tmp_path / "out", env=env)
    for entry in (more[0], more[1], more[2], more[4]):
        assert (tmp_path / "out" / entry.path).read_bytes() == entry.content.bytes()
    assert not (tmp_path / "out" / ".gitattributes").exists()


# ---- headers ----

def tensor_file(header_bytes, data_bytes=64):
    """One tensor, and a header of exactly so many bytes."""
    def text(filler):
        return json.dumps({"__metadata__": {"x": "y" * filler}, "t": {
            "dtype": "U8", "shape": [data_bytes // 64, 64], "data_offsets": [0, data_bytes]}})
    header = text(header_bytes - len(text(0)))
    assert len(header) == header_bytes
    return struct.pack("<Q", header_bytes) + header.encode() + bytes(range(256)) * (
        data_bytes // 256) + bytes(data_bytes % 256)


@pytest.mark.parametrize("size", [*range(99_993, 100_002), 2 * BLOCK - 9, 2 * BLOCK - 8,
                                  2 * BLOCK - 7, 3 * MIB + 5])
def test_a_header_of_any_length_is_whole(ckpt, hub, env, tmp_path, size):
    (tmp_path / "model.safetensors").write_bytes(tensor_file(size))
    hub.repos[ID] = Repo(ID, [Entry("model.safetensors", data=tensor_file(size))])
    here = ckpt("ckpt-inspect", "--json", tmp_path / "model.safetensors").json
    for url in urls(hub):
        there = ckpt("ckpt-inspect", "--json", f"{url}/model.safetensors", env=env).json
        assert there["tensors"] == here["tensors"]


def many(count):
    """A checkpoint of so many shards."""
    names = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    files = [Entry(n, data=tensor_file(120_000, 3 * MIB).replace(b'"t"', b'"%03d"' % i).replace(
        struct.pack("<Q", 120_000), struct.pack("<Q", 120_002), 1)) for i, n in enumerate(names)]
    index = json.dumps({"metadata": {}, "weight_map": {
        f"{i:03}": n for i, n in enumerate(names)}}).encode()
    return Repo(ID, [*files, Entry("model.safetensors.index.json", data=index, kind="git")])


def test_the_headers_of_64_shards_cost_two_requests_each(ckpt, hub, env):
    hub.repos[ID] = many(64)
    for url in urls(hub):
        hub.reset()
        assert len(ckpt("ckpt-inspect", "--json", url, env=env).json["tensors"]) == 64
        for path in (f.path for f in hub.repos[ID].files if f.path.endswith("s")):
            asked = [e for e in hub.log if path in e["target"]]
            assert 1 <= len(asked) <= 2, asked
        assert hub.payload <= 64 * 2 * BLOCK + MIB


def test_headers_are_fetched_at_the_same_time(ckpt, hub, env):
    hub.repos[ID] = many(32)
    hub.latency = 0.1
    ckpt("ckpt-inspect", f"hf://{ID}", env=env)
    assert hub.cdn.most > 8


# ---- what goes wrong on the way ----

BODY = "<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>"
LOGIN = "<html>please log in</html>"
FAULTS = [
    {"kind": "status", "status": 403, "body": BODY, "port": "cdn", "count": 2},
    {"kind": "status", "status": 403, "body": BODY, "port": "cdn", "min_first": MIB},
    {"kind": "status", "status": 500, "port": "cdn"},
    {"kind": "status", "status": 503, "port": "hub", "path": SHARD},
    {"kind": "status", "status": 429, "headers": [["Retry-After", "1"]], "port": "cdn"},
    {"kind": "drop", "port": "cdn"},
    {"kind": "drop", "port": "cdn", "after": 1000, "count": 2, "orderly": True},
    {"kind": "short", "port": "cdn", "count": 9},
    {"kind": "surplus", "port": "cdn", "count": 3},
    {"kind": "norange", "port": "cdn"},
    {"kind": "shift", "port": "cdn"},
    {"kind": "other_total", "port": "cdn"},
    {"kind": "gzip", "port": "cdn"},
    {"kind": "multipart", "port": "cdn"},
    {"kind": "200range", "port": "cdn", "count": 5},
    {"kind": "close", "port": "cdn", "count": 2},
    {"kind": "status", "status": 200, "body": LOGIN, "port": "cdn"},
    {"kind": "status", "status": 200, "body": LOGIN, "port": "cdn", "min_first": 1},
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: "-".join(
    str(v) for k, v in f.items() if k in ("kind", "status", "min_first", "after")))
def test_what_passes_is_survived(digest, hub, env, expected, fault):
    fault = {"path": SHARD, **fault}
    hub.fault(**fault)
    assert digest(f"hf://{ID}", env=env) == expected
    assert hub.leaks == []


def test_addresses_that_expire_are_asked_for_again(digest, hub, env, expected):
    for k in range(1, 6):            # once for each file
        hub.fault("status", path=f"model-0000{k}-of-00005.safetensors", status=403, body=BODY,
                  port="cdn", count=1)
    assert digest(f"hf://{ID}", env=env) == expected
    assert hub.requests(port="cdn", status=403)


@pytest.mark.parametrize("fault, says", [
    ({"kind": "status", "status": 403, "body": BODY, "port": "cdn"}, "refuses a fresh URL"),
    ({"kind": "norange", "port": "cdn", "min_first": 1}, "ignores ranges"),
    ({"kind": "etag", "port": "cdn", "min_first": 1}, "was changed while it was being read"),
    ({"kind": "other_commit", "commit": "0" * 40}, "a different commit"),
    ({"kind": "other_hash", "hash": "0" * 64}, "disagree about the hash"),
    ({"kind": "shift", "port": "cdn"}, "is not the requested one"),
    ({"kind": "gzip", "port": "cdn"}, "it is compressed"),
    ({"kind": "416", "port": "cdn", "total": 5}, "was changed while it was being read"),
    ({"kind": "status", "status": 500, "body": "down", "port": "cdn"}, "answers 500: down"),
    ({"kind": "status", "status": 200, "body": LOGIN, "port": "cdn"}, "not as long as the file"),
], ids=lambda f: f["kind"] if isinstance(f, dict) else "")
def test_what_does_not_pass_is_refused(ckpt, hub, env, fault, says):
    hub.fault(**{"path": SHARD, "count": 999, **fault})
    done = ckpt("ckpt-verify", "digest", f"hf://{ID}", check=2, env=env)
    assert says in done.err and SHARD in done.err and done.out == ""
    assert "Signature" not in done.err


@pytest.mark.parametrize("min_first", [0, 1])
def test_a_change_at_a_web_server_is_refused(ckpt, hub, env, min_first):
    hub.fault("etag", path=SHARD, min_first=min_first, count=1 if min_first == 0 else 999)
    done = ckpt("ckpt-verify", "digest", urls(hub)[2], check=2, env=env)
    assert f"{SHARD}' was changed while it was being read: expected ETag" in done.err


def test_a_page_in_place_of_a_file_is_no_part_of_it(ckpt, hub, env, tmp_path):
    entry = Entry("tokenizer.json", 5011, 5)
    hub.repos[ID] = Repo(ID, entries(GOLDEN) + [entry])
    hub.fault("status", status=200, body=LOGIN, path=entry.path, port="cdn")
    ckpt("ckpt-convert", "--dtype", "keep", f"hf://{ID}", tmp_path / "out", env=env)
    assert (tmp_path / "out" / entry.path).read_bytes() == entry.content.bytes()


def test_a_server_that_always_closes_after_a_byte_is_given_up(ckpt, hub, env):
    hub.fault("drop", path=SHARD, port="cdn", after=1, count=60, orderly=True)
    done = ckpt("ckpt-verify", "digest", f"hf://{ID}", check=2, env=env)
    assert f"cannot read 'hf://{ID}/{SHARD}'" in done.err
    assert hub.faults[0]["taken"] < 60


@pytest.mark.parametrize("second", ["a", "b"])
def test_a_web_server_has_one_version_at_all_hosts(ckpt, digest, hub, env, tmp_path, second):
    """It redirects to one host, and in the middle of the file to another one."""
    name = "model.safetensors"
    content = tensor_file(1000, 8 * MIB)
    versions = {"a": Entry(name, data=content), "b": Entry(name, data=content[::-1])}

    def data(request):
        if request.port == "cdn" and (request.range() or (0, 0))[0] >= 2 * MIB:
            hub.faults[0]["to"] = "{cdn2}/f"
            hub.reply(request, 403, "expired")
        else:
            version = "a" if request.port == "cdn" else second
            hub.send(request, versions[version], [("ETag", f'"{version}"')])

    hub.data = data
    hub.repos[ID] = Repo(ID, [versions["a"]])
    hub.fault("redirect", path=name, to="{cdn}/f", count=999)
    url = f"{urls(hub)[2]}/{name}"
    if second == "a":
        (tmp_path / name).write_bytes(versions["a"].content.bytes())
        assert digest(url, env=env) == digest(tmp_path / name)
    else:
        done = ckpt("ckpt-verify", "digest", url, check=2, env=env)
        assert f"{name}' comes from servers with different versions of it: expected ETag '\"a\"' " \
               "as from '127.0.0.2', got '\"b\"' from '127.0.0.1'" in done.err
    assert hub.faults[0]["to"] == "{cdn2}/f"


HIDES = {"commit": ["X-Repo-Commit"], "hash": ["X-Linked-Etag", "ETag"],
         "both": ["X-Repo-Commit", "X-Linked-Etag", "ETag"]}


@pytest.mark.parametrize("shape", ["cdn", "hop", "direct"])
@pytest.mark.parametrize("hides", HIDES)
def test_a_hub_must_say_of_which_commit_or_content_its_bytes_are(ckpt, digest, hub, env, expected,
                                                                shape, hides):
    """A proxy in front of it drops some headers."""
    for entry in hub.repos[ID].files:
        entry.shape = shape if entry.kind == "lfs" or shape != "cdn" else "hop"
    hub.hub.hidden = HIDES[hides]
    if hides != "both":
        assert digest(f"hf://{ID}", env=env) == expected
        return
    done = ckpt("ckpt-verify", "digest", f"hf://{ID}", check=2, env=env)
    assert "names neither the commit nor the file's hash" in done.err and done.out == ""


@pytest.mark.parametrize("port, path", [("hub", "*/revision/main"), ("hub", SHARD), ("cdn", SHARD)])
@pytest.mark.parametrize("seconds", [3600, 100000])
def test_a_long_wait_is_refused(ckpt, hub, env, port, path, seconds):
    hub.fault("status", status=429, headers=[["Retry-After", str(seconds)]], port=port, path=path)
    done = ckpt("ckpt-inspect", f"hf://{ID}", check=2, env=env)
    assert done.err.endswith(f"'{ID}' requests a longer wait than this command allows: expected at "
                             f"most 1800 s, got {seconds} s\n")


@pytest.mark.parametrize("more", [(), ("--quiet",)], ids=["", "quiet"])
def test_a_wait_of_minutes_is_told(hub, env, more):
    hub.fault("status", status=429, headers=[["Retry-After", "600"]], port="cdn", path=SHARD)
    process = start_tool("ckpt-inspect", *more, f"hf://{ID}", env=env)
    assert process.stderr.readline() == \
        f"'{ID}' is rate limited, waiting 601 s (a token raises the limit)\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == -signal.SIGINT


def test_a_version_too_long_to_keep_is_refused(ckpt, hub, env):
    hub.web_headers = [("ETag", '"' + "x" * 140 + '"')]
    done = ckpt("ckpt-verify", "digest", urls(hub)[2], check=2, env=env)
    assert "its ETag is too long" in done.err


@pytest.mark.parametrize("name", ["tokenizer.json", "../evil.json", "a\x01b.json"])
@pytest.mark.parametrize("way", range(2), ids=["hf", "ms"])
def test_a_listing_with_unsafe_names_is_refused(ckpt, hub, env, tmp_path, way, name):
    more = [Entry("tokenizer.json", 20, 5, "git"), Entry(name, 10, 6, "git")]
    hub.repos[ID] = Repo(ID, entries(GOLDEN) + more)
    done = ckpt("ckpt-convert", "--dtype", "keep", address(hub, way), tmp_path / "out", check=2,
                env=env)
    assert "the listing of" in done.err and "unsafe name" in done.err
    assert not (tmp_path / "out").exists()


def test_a_change_at_modelscope_is_noticed_at_the_end(ckpt, hub, env, tmp_path):
    count = itertools.count()
    entry = hub.repos[ID].find(SHARD)
    entry.listed = lambda: {"Sha256": "0" * 64} if next(count) else {}
    target = tmp_path / "out"
    done = ckpt("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", f"ms://{ID}", target,
                check=2, env=env)
    assert f"'ms://{ID}/{SHARD}' was changed while it was being read" in done.err
    assert not target.exists()


READERS = {
    "digest": ("ckpt-verify", "digest", "URL"),
    "manifest": ("ckpt-verify", "digest", "--json", "URL"),
    "list": ("ckpt-verify", "digest", "-c", "LIST"),
    "compare": ("ckpt-verify", "compare", GOLDEN, "URL"),
    "bits": ("ckpt-verify", "compare", "--bits", "URL", GOLDEN),
    "check": ("ckpt-verify", "check", "--manifest", "MANIFEST", "URL"),
    "inspect": ("ckpt-inspect", "URL"),
    "stat": ("ckpt-inspect", "--stat", "URL"),
    "values": ("ckpt-inspect", "--tensors", "embed.weight", "--values", "0", "URL"),
    "for": ("ckpt-inspect", "--for", "vllm", "URL"),
    "convert": ("ckpt-convert", "--dtype", "keep", "URL", "OUT"),
}


@pytest.fixture(params=READERS)
def read_changed(ckpt, expected, env, tmp_path, request):
    """Run a command whose source changes when all of it was read; it must be refused."""
    def read(url, name):
        (tmp_path / "list").write_text(f"{expected.split()[0]}  {url}\n")
        manifest = tmp_path / "manifest.json"
        manifest.write_text(ckpt("ckpt-verify", "digest", "--json", GOLDEN).out)
        words = {"URL": url, "OUT": tmp_path / "out", "LIST": tmp_path / "list",
                 "MANIFEST": manifest}
        done = ckpt(*(words.get(w, w) for w in READERS[request.param]), env=env, check=2)
        assert f"{name}' was changed while it was being read" in done.err
        assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
        if request.param in ("digest", "compare", "bits", "check", "inspect", "stat", "for"):
            assert done.out == ""
    return read


@pytest.mark.parametrize("name", [SHARD, "config.json"])
def test_a_later_listing_that_differs_is_refused(read_changed, hub, name):
    count = itertools.count()
    hub.repos[ID].find(name).listed = lambda: {"Sha256": "0" * 64} if next(count) else {}
    read_changed(f"ms://{ID}", name)


@pytest.mark.parametrize("later", [{"Path": "gone"}, {"Size": 5}, {"Path": LAST}],
                         ids=["vanished", "size", "twice"])
def test_a_file_that_a_branch_lists_no_more_is_refused(ckpt, hub, env, later):
    count = itertools.count()
    hub.repos[ID].find(SHARD).listed = lambda: later if next(count) else {}
    done = ckpt("ckpt-verify", "digest", f"ms://{ID}@v1", check=2, env=env)
    name = LAST if later.get("Path") == LAST else SHARD
    assert re.search(f"({SHARD}|{name})' was changed while it was being read", done.err)
    asked = [e["target"] for e in hub.log if "/repo/files" in e["target"] or "/repo/tree" in
             e["target"]]
    assert len(asked) == 2 and asked[0] == asked[1] and "Revision=v1" in asked[0]


def test_a_file_that_only_the_later_listing_has_is_no_change(digest, hub, env, expected):
    count = itertools.count()
    hub.repos[ID].files.append(Entry("a.txt", 20, 6, "git", listed=lambda: {
        "Path": "../a.txt"} if next(count) else {}))
    assert digest(f"ms://{ID}", env=env) == expected
    assert next(count) == 2


@pytest.mark.parametrize("name", [SHARD])
def test_another_version_at_the_end_is_refused(read_changed, hub, name):
    send = hub.send
    hub.send = lambda request, entry, headers, fault=None: send(
        request, entry, [("ETag", '"new"')] if entry.path == name and request.range() == (0, 0)
        else headers, fault)
    read_changed(urls(hub)[2], name)


def test_a_carried_file_that_changes_is_refused(ckpt, hub, env, tmp_path):
    count = itertools.count()
    hub.repos[ID].files.append(Entry("tokenizer.json", data=b'{"version": "1.0"}', kind="git",
                               listed=lambda: {"Sha256": "0" * 64} if next(count) else {}))
    done = ckpt("ckpt-convert", "--dtype", "keep", f"ms://{ID}", tmp_path / "out", check=2, env=env)
    assert "tokenizer.json' was changed while it was being read" in done.err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("name", ["tokenizer.json", "config.json"])
@pytest.mark.parametrize("way", range(2), ids=["hf", "ms"])
def test_a_whole_file_must_have_its_listed_hash(ckpt, hub, env, tmp_path, way, name):
    """Its server has another file of this size and tells no version; a copy is read by pieces, of
    which only the later ones differ."""
    filler = b'{"a": "' + bytes(b"x" * (2 * MIB)) + b'"}'
    hub.repos[ID] = Repo(ID, [e for e in entries(GOLDEN) if e.path != name] + [
        Entry(name, data=filler, kind="lfs", shape="cdn")])
    other = Entry(name, data=filler.replace(b"x", b"y"))
    send = hub.send

    def send_another(request, entry, headers, fault=None):
        begin = MIB if name == "tokenizer.json" else 0
        is_late = entry.path == name and (request.range() or (0, 0))[0] >= begin
        send(request, other if is_late else entry, [h for h in headers if h[0] != "ETag"], fault)
    hub.send = send_another
    done = ckpt("ckpt-convert", "--dtype", "keep", urls(hub)[way], tmp_path / "out", check=2,
                env=env)
    assert f"{name}' is not the file that its hub lists: expected sha256" in done.err
    assert not (tmp_path / "out").exists()


def test_a_web_server_without_versions_is_refused(ckpt, hub, env):
    hub.web_headers = []
    assert "neither ETag nor Last-Modified" in ckpt("ckpt-inspect", urls(hub)[2], check=2,
                                                    env=env).err
    hub.web_headers = [("Last-Modified", "Sat, 01 Aug 2026 10:00:00 GMT")]
    ckpt("ckpt-inspect", urls(hub)[2], env=env)


# ---- conversions that are interrupted ----

def test_a_conversion_by_url_resumes(ckpt, hub, env, tmp_path):
    command = ("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", "--threads", 1,
               "--no-manifest")
    ckpt(*command, GOLDEN, tmp_path / "here")
    target = tmp_path / "out"
    hub.fault("status", status=404, path=LAST, port="cdn", min_first=1, count=999)
    ckpt(*command, f"hf://{ID}", target, env=env, check=2)
    assert (tmp_path / "out.partial").exists()
    hub.reset()
    done = ckpt(*command, "--json", f"hf://{ID}", target, env=env).json
    assert done["kept"] > 0
    assert tree(target) == tree(tmp_path / "here")


def test_a_conversion_does_not_resume_from_another_version(ckpt, hub, env, tmp_path):
    command = ("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", "--threads", 1)
    hub.fault("status", status=404, path=LAST, min_first=1, count=999)
    ckpt(*command, urls(hub)[2], tmp_path / "out", env=env, check=2)
    assert (tmp_path / "out.partial").exists()
    hub.reset()
    hub.web_headers = [("ETag", '"new-{etag}"')]
    done = ckpt(*command, urls(hub)[2], tmp_path / "out", env=env, check=2)
    assert "--restart" in done.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_reader_that_waits(hub, env, number):
    hub.fault("silent", path=SHARD, port="cdn", count=99)
    process = start_tool("ckpt-inspect", f"hf://{ID}", env=env)
    wait_for(lambda: "taken" in hub.faults[0])
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == -number and "interrupted" in err and out == ""


# ---- who may read, and what ----

def test_a_token_goes_to_the_hub_alone(ckpt, digest, hub, env, expected):
    hub.repos[ID].private = True
    assert "HF_TOKEN" in ckpt("ckpt-inspect", f"hf://{ID}", check=2, env=env).err
    assert digest(f"hf://{ID}", env={**env, "HF_TOKEN": hub.token}) == expected
    assert digest(f"ms://{ID}", env={**env, "MODELSCOPE_API_TOKEN": hub.token}) == expected
    assert hub.leaks == []
    hub.reset()
    ckpt("ckpt-inspect", urls(hub)[2], env={**env, "HF_TOKEN": hub.token})
    assert hub.log and not any(e["has_authorization"] for e in hub.log)


@pytest.mark.parametrize("path, says", [
    (f"hf://{ID}/nowhere", "has no file or folder 'nowhere'"),
    ("hf://o/other", "'o/other'"),
    (f"https://huggingface.co/{ID}/commit/{'1' * 40}", "1" * 40),
    (f"https://huggingface.co/{ID}/raw/{'1' * 40}/config.json", "1" * 40),
    (f"https://huggingface.co/{ID}/discussions/3", "expected the page of a repository"),
    (f"https://huggingface.co/{ID}/nowhere/sub", "expected the page of a repository"),
    (f"https://huggingface.co/{ID}/tree/{'x' * 300}", "the revision is too long"),
    (f"https://modelscope.cn/models/{ID}/files?revision=v2", "expected the revision in the path"),
    (f"hf://{ID}@", "the revision is empty"), (f"ms://{ID}@/config.json", "revision is empty"),
    ("hf://o", "'o' not found"), ("hf://", "cannot read 'hf://'"),
    ("http://192.0.2.1/x", "expected https"),
    ("https://u:p@host/x", "without a user name"),
    ("https://host/x?token=1", "without '?' and '#'"),
    ("s3://bucket/x", "is a URL that this command does not read"),
])
def test_what_cannot_be_read_is_told(ckpt, hub, env, path, says):
    done = ckpt("ckpt-inspect", path, check=2, env=env)
    assert re.search(re.escape(says), done.err), done.err


def test_a_web_folder_without_checkpoint_is_told(ckpt, hub, env):
    done = ckpt("ckpt-inspect", f"{hub.url}/web/o/none", check=2, env=env)
    assert "is not a checkpoint" in done.err


STORE = "answers 403 for files that do not exist"


def test_a_store_that_answers_403_for_missing_files_is_read(ckpt, hub, env, tmp_path):
    hub.web_missing = 403
    for more in ((), ("--quiet",)):
        done = ckpt("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", "--no-manifest", *more,
                    urls(hub)[2], tmp_path / f"there{len(more)}", env=env)
        assert done.err.count(STORE) == (not more)
    ckpt("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", "--no-manifest", GOLDEN,
         tmp_path / "here")
    assert tree(tmp_path / "there0") == tree(tmp_path / "here") == tree(tmp_path / "there1")


@pytest.mark.parametrize("name", ["config.json", SHARD])
def test_a_file_that_may_not_be_read_is_not_taken_as_missing(ckpt, hub, env, name):
    hub.fault("status", status=403, body="not for you", path=name, count=99)
    done = ckpt("ckpt-verify", "digest", urls(hub)[2], check=2, env=env)
    assert done.err.endswith(f"/{name}': the server answers 403: not for you\n")
    assert done.out == ""


def test_a_missing_shard_of_such_a_store_is_told(ckpt, hub, env):
    hub.web_missing = 403
    hub.repos[ID] = Repo(ID, [e for e in entries(GOLDEN) if e.path != SHARD])
    says = "does not exist, or may not be read: its server answers 403 in both cases"
    done = ckpt("ckpt-verify", "digest", urls(hub)[2], check=2, env=env)
    assert f"of which 1 does not exist; the first is '{SHARD}'" in done.err
    done = ckpt("ckpt-verify", "digest", f"{urls(hub)[2]}/{SHARD}", check=2, env=env)
    assert f"/{SHARD}' {says}" in done.err


def test_a_store_that_refuses_everything_is_told(ckpt, hub, env):
    hub.web_missing = 403
    done = ckpt("ckpt-inspect", f"{hub.url}/web/o/none", check=2, env=env)
    assert "/web/o/none' cannot be read: its server answers 403 for all files" in done.err


def test_a_store_that_refuses_the_index_is_told(ckpt, hub, env):
    hub.web_missing = 403
    hub.fault("status", status=403, body="no", path="model.safetensors.index.json", count=99)
    done = ckpt("ckpt-inspect", urls(hub)[2], check=2, env=env)
    assert ("has no weights that can be read: its server answers 403 for "
            "'model.safetensors.index.json' and 'model.safetensors'") in done.err


@pytest.mark.parametrize("folder", ["a%20b/%C3%BC", "a%20b/ü", "a%20b/%c3%bc/"])
@pytest.mark.parametrize("name", ["my%20model%2B%25.safetensors", ""])
def test_web_addresses_are_percent_encoded(ckpt, hub, env, tmp_path, folder, name):
    there = "my model+%.safetensors" if name else "model.safetensors"
    hub.repos[ID] = Repo(ID, [Entry(f"a b/ü/{there}", data=tensor_file(1000))])
    (tmp_path / there).write_bytes(tensor_file(1000))
    url = f"{urls(hub)[2]}/{folder}/{name}"
    for command in (["ckpt-inspect", "--json"], ["ckpt-verify", "digest", "--json"]):
        done = ckpt(*command, url, env=env).json
        here = ckpt(*command, tmp_path / there).json
        assert done.get("root") == here.get("root")
        assert done.get("tensors") == here.get("tensors") and not hub.leaks


def test_pages_of_hubs_are_percent_encoded(digest, hub, env, expected):
    hub.repos[ID] = Repo(ID, entries(GOLDEN, "a b/ü/"), revisions={"refs/pr/1": "1" * 40})
    for name in ("tree/main/a%20b/%C3%BC", "tree/refs%2Fpr%2F1/a%20b/%C3%BC/?x=y"):
        assert digest(f"https://huggingface.co/{ID}/{name}", env=env) == expected
    assert any("1" * 40 in e["target"] for e in hub.log)


@pytest.mark.parametrize("path, says", [
    ("x/a%2Fb.safetensors", "contains '%2F'"), ("x/a%zz.safetensors", "two hex digits"),
    ("x%2/b", "two hex digits"), ("x/a%00b.safetensors", "control character"),
    ("100%", "two hex digits")])
def test_web_addresses_that_are_no_paths_are_refused(ckpt, hub, env, path, says):
    done = ckpt("ckpt-inspect", f"{hub.url}/web/{path}", check=2, env=env)
    assert says in done.err and hub.log == []


def test_a_missing_web_file_is_told(ckpt, hub, env):
    done = ckpt("ckpt-inspect", f"{urls(hub)[2]}/nope.safetensors", check=2, env=env)
    assert "/nope.safetensors' does not exist" in done.err and "local" not in done.err


def test_nothing_is_asked_for_offline(ckpt, hub, env):
    done = ckpt("ckpt-inspect", f"hf://{ID}", check=2, env={**env, "HF_HUB_OFFLINE": "1"})
    assert "HF_HUB_OFFLINE is set" in done.err and hub.log == []


def test_other_commands_name_those_that_read_urls(ckpt, env):
    assert "ckpt-download" in ckpt("ckpt-run", f"hf://{ID}", "--prompt", "x", check=2, env=env).err


# ---- memory ----

@pytest.mark.skipif(INSTRUMENTED, reason="a sanitizer's memory is not the tool's")
@pytest.mark.parametrize("memory", [32, 64])
def test_reading_by_url_stays_within_its_limit(hub, env, tmp_path, memory):
    hub.repos[ID] = Repo(ID, [Entry("model.safetensors", data=tensor_file(1000, 160 * MIB))])
    done = measure(tmp_path, "ckpt-verify", "digest", "--memory", f"{memory}MiB", f"hf://{ID}",
                   env=env)
    assert done.status == 0, done.err
    assert done.peak_bytes <= (memory + 64) * MIB


@pytest.mark.skipif(INSTRUMENTED, reason="a sanitizer's memory is not the tool's")
def test_an_index_by_url_is_within_the_limit(hub, env, tmp_path):
    name = "model.safetensors.index.json"
    index = (GOLDEN / name).read_bytes() + bytes(b" " * (120 * MIB))
    hub.repos[ID] = Repo(ID, [Entry(name, data=index) if e.path == name else e
                              for e in entries(GOLDEN)])
    done = measure(tmp_path, "ckpt-inspect", "--memory", "32MiB", urls(hub)[2], env=env)
    assert done.status == 2 and "memory limit" in done.err, done.err
    assert done.peak_bytes <= 64 * MIB
