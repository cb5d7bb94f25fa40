"""Everything that goes wrong between a hub and ckpt-download: survived, or refused as it should."""
import signal
import time

import pytest

from client import ID, MIB, Client, one, wait_for
from mock_hub import Entry, Hub, Repo

SIZE = 20 * MIB


@pytest.fixture
def hub():
    with Hub([one(SIZE)]) as h:
        yield h


# ---- survived: right bytes, exit 0 ----

def test_dropped_connections_go_on_at_the_exact_byte(download, hub):
    # In good order: a reset takes away what was sent and not read, more of it on a busy machine.
    hub.fault("drop", port="cdn", count=6, after=1500000, orderly=True)
    download()
    download.assert_right()
    assert hub.faults[0]["taken"] == 6
    assert hub.payload == SIZE
    firsts = [int(e["range"][6:].split("-")[0]) for e in hub.requests(port="cdn")]
    assert len(firsts) == len(set(firsts)) and sum(f % (8 * MIB) != 0 for f in firsts) >= 4


def test_connections_that_are_reset_are_survived(download, hub):
    hub.fault("drop", port="cdn", count=6, after=1500000)
    download()
    download.assert_right()
    assert hub.faults[0]["taken"] == 6


@pytest.mark.parametrize("kind", ["silent", "trickle"])
def test_a_stalled_connection_is_replaced(download, hub, kind):
    hub.fault(kind, port="cdn")         # for as long as the hub is there
    download()
    assert hub.faults[0]["taken"] == 1
    download.assert_right()


@pytest.mark.parametrize("where", [
    {"port": "cdn"}, {"port": "hub", "method": "HEAD"},
    {"port": "hub", "path": "/api/models/o/m/tree/*"},
    {"port": "hub", "path": "/api/models/o/m/revision/*"}])
@pytest.mark.parametrize("headers", [
    [("Retry-After", "1")], [("Retry-After", "{soon}")],
    [("RateLimit", '"resolvers";r=0;t=1')]])
def test_a_429_is_waited_for(download, hub, where, headers):
    if where["port"] == "cdn":
        hub.repos[ID] = one(3 * MIB)        # one request at a time, so that the next one waits
    hub.fault("status", status=429, headers=headers, **where)
    download()
    assert hub.faults[0]["taken"] == 1
    refused = next(e for e in hub.log if e["status"] == 429)
    later = [e["t0"] for e in hub.requests(port=refused["port"]) if e["t0"] > refused["t0"]]
    assert later and min(later) - refused["t0"] > 0.9
    download.assert_right()


def test_a_hub_with_few_requests_a_window_is_paced_not_failed(ckpt, tmp_path):
    files = [Entry(f"f{i}", 100 + i, i, "git", "direct") for i in range(30)]
    with Hub([Repo(ID, files)], limits={"resolvers": (20, 3)}) as hub:
        download = Client(ckpt, hub, tmp_path)
        download()
        download.assert_right()


@pytest.mark.parametrize("status", [500, 503, 408])
def test_server_errors_are_tried_again(download, hub, status):
    hub.fault("status", port="cdn", status=status, count=3)
    hub.fault("status", port="hub", method="HEAD", status=status, count=2)
    hub.fault("status", port="hub", path="/api/*", status=status, count=2)
    download()
    assert [f["taken"] for f in hub.faults] == [3, 2, 2]
    download.assert_right()


def test_wrong_bytes_are_found_and_fetched_again(download, hub):
    hub.fault("wrong", port="cdn")
    download()
    assert hub.faults[0]["taken"] == 1
    download.assert_right()


@pytest.mark.parametrize("kind", ["short", "surplus", "norange", "shift", "other_total", "gzip",
                                  "multipart", "200range", "416"])
@pytest.mark.parametrize("count", [1, 4])
def test_a_reply_that_is_not_what_was_asked_for_does_no_harm(download, hub, kind, count):
    hub.fault(kind, port="cdn", count=count)
    download()
    assert hub.faults[0].get("taken", 0) >= 1
    download.assert_right()


def test_a_reply_that_ends_when_the_file_has_its_name_does_no_harm(download, hub, fault):
    """All bytes are there, hashed and committed, while the last reply is still open."""
    hub.repos[ID] = one(SIZE + 1000)
    hub.fault("late", port="cdn", seconds=4, min_first=16 * MIB)
    hub.fault("late", port="cdn", seconds=1.5, count=1000)
    download.env.update(fault.env("write:stop:5", "new."))    # what follows the file's new name
    process = download.start("--fixed-connections", "--connections", 4)
    wait_for(lambda: fault.injected)
    named = [p.name for p in download.folder.iterdir() if p.is_file()]
    wait_for(lambda: hub.open_late == 0)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0 and err == "", (named, out, err)
    assert named and all("taken" in f for f in hub.faults)
    download.assert_right()


def test_a_server_without_ranges_costs_one_stream(download, hub):
    hub.fault("norange", port="cdn", count=1000)
    download()
    download.assert_right()
    assert hub.payload < 2.5 * SIZE


def test_no_range_is_asked_with_an_encoding_and_all_are_bounded(download, hub):
    hub.rangeless_max = MIB
    download()
    download.assert_right()
    for entry in hub.requests(port="cdn"):
        assert entry["accept_encoding"] is None
        first, last = entry["range"][6:].split("-")
        assert 0 < int(last) - int(first) < 32 * MIB


def test_an_expired_address_is_renewed_once_for_all(download, hub):
    hub.connection_rate = 2 * MIB
    hub.fault("drop", port="cdn", count=4)      # so that somebody must ask again
    process = download.start("--fixed-connections", "--connections", 4)
    wait_for(lambda: hub.requests_so_far(port="cdn", status=206))
    hub.revoke_addresses()
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    download.assert_right()
    assert hub.requests(port="cdn", status=403)
    assert len(hub.requests(port="hub", method="HEAD")) == 2


def test_a_data_host_that_refuses_every_address_ends_in_an_error(download, hub):
    hub.clock_offset = 100000
    failed = download(check=2)
    assert failed.json["files"][0]["reason"] == "network" and "Request has expired" in failed.err
    assert len(hub.requests(port="hub", method="HEAD")) <= 5
    assert "Signature" not in failed.err + failed.out
    assert download.visible == []


def test_a_second_hop_of_the_data_host_is_followed(download, hub):
    hub.second_hop = True
    download()
    assert hub.requests(port="cdn2", status=206)
    download.assert_right()


def test_an_object_that_changes_its_name_is_asked_for_anew(download, hub):
    hub.fault("etag", port="cdn", count=1, min_first=MIB)
    download("--connections", 1)        # the second piece has the other name, not the first
    assert len(hub.requests(port="hub", method="HEAD")) == 2
    download.assert_right()


def test_an_object_that_changes_all_the_time_is_judged_by_its_hash(download, hub):
    hub.fault("etag", port="cdn", count=1000)
    download()
    download.assert_right()


@pytest.mark.parametrize("listener", ["hub", "cdn"])
def test_a_host_that_is_away_for_five_seconds_is_waited_for(download, hub, listener):
    hub.connection_rate = MIB // 4      # a minute and more
    if listener == "hub":
        hub.refuse(hub.hub, 5)
    begin = time.time()
    process = download.start("--fixed-connections", "--connections", 4)
    if listener == "cdn":
        wait_for(lambda: hub.payload > 0)
        begin = time.time()
        hub.refuse(hub.cdn, 5)
    hub.connection_rate = None
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert [e for e in hub.requests(port=listener) if e["t0"] > begin + 4]
    download.assert_right()


def test_more_connections_than_allowed_are_given_up(ckpt, tmp_path):
    with Hub([one(100 * MIB)], connections_max=3) as hub:
        download = Client(ckpt, hub, tmp_path)
        download()
        assert hub.requests(port="cdn", status=503)
        download.assert_right()


def test_a_redirect_that_is_relative_keeps_its_query(ckpt, tmp_path):
    with Hub([Repo(ID, [Entry("c.json", 999, 1, "git", "hop")])]) as hub:
        download = Client(ckpt, hub, tmp_path)
        download()
        download.assert_right()


# ---- refused: an error, and no file ----

def refused(download, reason, *words, check=2, **env):
    failed = download(*words, check=check, **env)
    files = failed.json["files"]
    found = files[0]["reason"] if files and "reason" in files[0] else failed.json["reason"]
    assert found == reason, failed.out
    assert download.visible == []
    assert download.hub.leaks == []
    return failed


def test_bytes_that_stay_wrong_end_with_status_1_and_no_file(download, hub):
    hub.fault("wrong", port="cdn", count=1000, at=5)
    refused(download, "integrity", check=1)
    assert hub.payload <= 3.2 * SIZE and download.parts == []


def test_an_empty_body_is_called_that(ckpt, tmp_path):
    with Hub([Repo(ID, [Entry("c.json", 0, 1, "git", "direct",
                              listed={"oid": "1" * 40})])]) as hub:
        refused(Client(ckpt, hub, tmp_path), "integrity", check=1)


@pytest.mark.parametrize("kind", ["shift", "other_total", "gzip", "multipart"])
def test_replies_that_never_fit_are_never_written(download, hub, kind):
    hub.fault(kind, port="cdn", count=1000)
    failed = download(check=(0, 1))
    if failed.status == 0:      # without ranges there is nothing to shift
        assert kind in ("shift", "other_total")
        download.assert_right()
    else:
        assert download.visible == []


@pytest.mark.parametrize("torn", [False, True])
def test_a_body_that_always_ends_at_the_same_byte_is_given_up(download, hub, torn):
    """Bytes that are there already are no progress."""
    hub.fault("stub", port="cdn", count=10**6, after=2 * MIB, torn=torn)
    assert "after 4 tries without progress" in refused(download, "network", "--tries", 4).err
    assert 4 <= hub.faults[0]["taken"] <= 20


def test_another_commit_than_listed_is_refused(download, hub):
    hub.fault("other_commit", port="hub", path="f.bin", method="HEAD", count=99, commit="a" * 40)
    failed = refused(download, "integrity", check=1)
    assert "a different commit" in failed.err and hub.payload == 0


def test_another_hash_than_listed_is_refused(download, hub):
    hub.fault("other_hash", port="hub", path="f.bin", method="HEAD", count=99, hash="b" * 64)
    assert "disagree" in refused(download, "integrity", check=1).err
    assert hub.payload == 0


@pytest.mark.parametrize("to,says", [("{target}", "too many redirects"), ("", "invalid redirect"),
                                     ("ftp://127.0.0.1/x", "invalid redirect"),
                                     ("http://u@127.0.0.1/x", "invalid redirect")])
def test_redirects_that_lead_nowhere_are_refused(download, hub, to, says):
    hub.fault("redirect", port="hub", path="f.bin", method="HEAD", count=99, to=to)
    assert says in refused(download, "network").err
    assert len(hub.requests(method="HEAD")) <= 11


def test_a_redirect_elsewhere_gets_no_token(download, hub):
    hub.fault("redirect", port="hub", path="f.bin", method="HEAD", count=1,
              to="{cdn2}/somewhere")
    download(check=(0, 2), HF_TOKEN="hf_test")
    assert hub.requests(port="cdn2") and hub.leaks == []


@pytest.mark.parametrize("kind,says", [("link_foreign", "another host"),
                                       ("link_repeat", "is repeated"),
                                       ("empty_page", "empty page")])
def test_a_listing_that_goes_astray_is_refused(ckpt, tmp_path, kind, says):
    files = [Entry(f"f{i}", 5, i, "git", "direct") for i in range(25)]
    with Hub([Repo(ID, files)], page_size=10) as hub:
        download = Client(ckpt, hub, tmp_path)
        hub.fault(kind, port="hub", path="/api/models/o/m/tree/*", count=2)
        assert says in refused(download, "other", HF_TOKEN="hf_test").err
        assert hub.requests(port="cdn") == [] and not download.folder.exists()


def test_a_listing_of_folders_without_end_is_refused_with_what_was_counted(download, hub):
    hub.fault("folders", port="hub", path="/api/models/o/m/tree/*", count=10**6)
    failed = refused(download, "other")
    assert "is too long" in failed.err and "1001000 entries" in failed.err
    assert len([e for e in hub.log if "/tree/" in e["target"]]) == 1001
    assert not download.folder.exists()


NAMES = ["../out", "/abs", "a/../../b", "a//b", "./a", "a\\b", "a\x1b[2J", "", "a/.git/config",
         ".GIT/x", ".cache/huggingface/download/f.metadata", ".Cache/HuggingFace/x", "C:/x",
         "x" * 247, "n\nm", "a/", "nul\0", "del\x7f", "y/" * 2048 + "z", "d:", "ab/../../c"]


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_stops_the_run_before_the_first_write(ckpt, tmp_path, name):
    files = [Entry("good.txt", 5, 1, "git", "direct"),
             Entry("x", 5, 2, "git", "direct", listed={"path": name})]
    with Hub([Repo(ID, files)]) as hub:
        before = sorted(tmp_path.rglob("*"))
        failed = refused(Client(ckpt, hub, tmp_path), "other")
        # NUL does not get as far as a name: such JSON is refused.
        assert ("nothing was written" in failed.err or "\0" in name) and hub.payload == 0
        assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("listed", [{"size": 6}, {"oid": "0" * 40}, {"oid": "XYZ"}, {"size": -1},
                                    {"size": 1.5}, {"path": 7}, {"oid": None}])
def test_a_listing_that_lies_is_found(ckpt, tmp_path, listed):
    with Hub([Repo(ID, [Entry("x", 5, 2, "git", "direct", listed=listed)])]) as hub:
        download = Client(ckpt, hub, tmp_path)
        download(check=(1, 2))
        assert download.visible == []


@pytest.mark.parametrize("paths", [("a", "a"), ("a", "a/b")])
def test_names_that_exclude_each_other_are_refused(ckpt, tmp_path, paths):
    files = [Entry(p, 5, i, "git", "direct") for i, p in enumerate(paths)]
    with Hub([Repo(ID, files)]) as hub:
        refused(Client(ckpt, hub, tmp_path), "other")


def test_no_link_below_the_folder_is_followed(download, hub, tmp_path):
    hub.repos[ID] = Repo(ID, [Entry("sub/f.bin", 5, 1, "git", "direct")])
    (tmp_path / "elsewhere").mkdir()
    download.folder.mkdir()
    (download.folder / "sub").symlink_to(tmp_path / "elsewhere")
    failed = download(check=2)
    assert failed.json["reason"] == "other" and "is in place of a folder" in failed.err
    assert list((tmp_path / "elsewhere").iterdir()) == [] and hub.payload == 0


@pytest.mark.parametrize("options,env,reason,says", [
    ({"private": True}, {}, "auth", "private or gated"),
    ({"gated": True}, {}, "auth", "accept its terms"),
    ({"gated": "closed"}, {"HF_TOKEN": "hf_test"}, "auth", "awaiting review"),
    ({"private": "disabled"}, {"HF_TOKEN": "hf_test"}, "not-found", "disabled"),
    ({}, {"HF_TOKEN": "hf_wrong"}, "auth", "token rejected")])
def test_refusals_are_told_apart(ckpt, tmp_path, options, env, reason, says):
    with Hub([Repo(ID, [Entry("x", 5)], **options)]) as hub:
        failed = refused(Client(ckpt, hub, tmp_path), reason, **env)
        assert says in failed.err
        assert "hf_wrong" not in failed.err and "hf_test" not in failed.err


@pytest.mark.parametrize("words,says", [
    (("--revision", "v9"), "'o/m' has no revision 'v9': expected a branch"), ((), "o/m"),
    (("V4",), "'o/m' has no file 'V4'; the folder to write to is --local-dir"),
    (("config.jsn",), "'o/m' has no file 'config.jsn'"),
    (("--include", "*.pt"), "no file of 'o/m' matches '*.pt'")])
def test_what_is_missing_is_named(ckpt, tmp_path, words, says):
    with Hub([one()] if words else []) as hub:
        failed = Client(ckpt, hub, tmp_path)(*words, check=2, HF_TOKEN="hf_test")
        assert failed.json["reason"] == "not-found" and says in failed.err


def test_one_bad_file_does_not_stop_the_others_but_the_status_tells(ckpt, tmp_path):
    files = [Entry("bad.bin", 3 * MIB, 1), Entry("good.bin", 3 * MIB, 2)]
    with Hub([Repo(ID, files)]) as hub:
        download = Client(ckpt, hub, tmp_path)
        hub.fault("wrong", path="bad.bin", port="cdn", count=99, at=7)
        failed = download(check=1)
        assert download.visible == ["good.bin"]
        assert {f["name"]: f["status"] for f in failed.json["files"]} == \
            {"bad.bin": "failed", "good.bin": "downloaded"}
        hub.reset()
        download()
        download.assert_right()


def test_a_token_does_not_travel_in_the_clear(ckpt, tmp_path):
    failed = ckpt("ckpt-download", ID, "--local-dir", tmp_path / "D", "--json", "--token", "t",
                  "--endpoint", "http://hub.invalid", check=2,
                  env={"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"})
    assert failed.json["reason"] == "usage" and "plain http" in failed.err


# ---- TLS ----

def test_tls_needs_the_authority_and_no_way_leads_down_to_http(ckpt, tmp_path, authority):
    with Hub([one()], tls=authority.context) as hub:
        download = Client(ckpt, hub, tmp_path)
        refused(download, "network", HF_TOKEN="hf_test")
        assert hub.log == []
        download(HF_TOKEN="hf_test", SSL_CERT_FILE=str(authority.certificate))
        download.assert_right()
        hub.fault("redirect", port="hub", path="f.bin", count=9,
                  to=hub.cdn2.origin.replace("https", "http") + "/x")
        failed = download("--force-download", check=2, SSL_CERT_FILE=str(authority.certificate))
        assert "from https to http" in failed.err
