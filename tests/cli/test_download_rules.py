"""Rules of the two hubs and of disks: what is waited for, asked again, or told."""
import email.utils
import json
import os
import shutil
import socket
import subprocess
import threading
import time

import pytest

from client import ID, MIB, SIDE, Client, mixed, one, wait_for
from conftest import BUILD
from mock_hub import Entry, Hub, Repo


def talkative(download, *args):
    return [str(w) for w in download.words(*args) if w != "--quiet"]


def test_each_warning_of_the_hub_is_told_once(ckpt, tmp_path):
    with Hub([mixed()], hub_headers=[("X-HF-Warning", "quota; nearly \x1b[31mfull")]) as hub:
        download = Client(ckpt, hub, tmp_path)
        done = ckpt("ckpt-download", *talkative(download), env=download.env)
        told, wrote = done.err.splitlines()
        assert told == "the hub warns: quota; nearly ?[31mfull"
        assert wrote.startswith("ckpt-download: wrote ")
        assert download("--force-download").err == ""         # --quiet


# ---- a data host that refuses large ranges ----

def test_pieces_shrink_where_a_data_host_refuses_large_ones(ckpt, tmp_path):
    with Hub([one(100 * MIB)]) as hub:
        download = Client(ckpt, hub, tmp_path)
        hub.fault("status", port="cdn", status=400, count=10**6, over_bytes=12 * MIB)
        download("--connections", 1)            # four pieces of 25 MiB
        assert hub.faults[0]["taken"] >= 4
        assert len(hub.requests(port="hub", method="HEAD")) <= 12
        download.assert_right()


def test_a_data_host_that_refuses_everything_is_given_up(ckpt, tmp_path):
    with Hub([one(100 * MIB)]) as hub:
        download = Client(ckpt, hub, tmp_path)
        hub.fault("status", port="cdn", status=400, count=10**6, body="InvalidRange")
        failed = download("--connections", 1, check=2)
        assert failed.json["reason"] == "network" and "400 InvalidRange" in failed.err
        assert len(hub.requests(port="hub", method="HEAD")) <= 16


# ---- ModelScope: no commit pins the listing ----

def test_a_file_that_changed_after_the_listing_is_listed_again(ckpt, tmp_path):
    answers = iter([{"Sha256": "0" * 64}])
    entry = Entry("f.bin", 20 * MIB, 3, listed=lambda: next(answers, {}))
    with Hub([Repo(ID, [entry, Entry("g.bin", 2 * MIB, 4)])]) as hub:
        download = Client(ckpt, hub, tmp_path)
        download("--hub", "modelscope")
        assert len([e for e in hub.log if "repo/files" in e["target"]]) == 2
        download.assert_right()
        kept = json.loads((download.folder / SIDE / "listing.json").read_text())["files"]
        assert kept[0]["hash"] == entry.etag


def test_a_listing_that_stays_wrong_is_an_integrity_error(ckpt, tmp_path):
    entry = Entry("f.bin", 2 * MIB, 3, listed={"Sha256": "0" * 64})
    with Hub([Repo(ID, [entry])]) as hub:
        download = Client(ckpt, hub, tmp_path)
        assert download("--hub", "modelscope", check=1).json["reason"] == "integrity"
        assert len([e for e in hub.log if "repo/files" in e["target"]]) == 2
        assert download.visible == [] and download.parts == []


# ---- ModelScope: two sites ----

class Proxy:
    """An HTTP proxy that knows some names: CONNECT modelscope.cn leads to the first hub."""

    def __init__(self, names, refusal=b"502 no"):
        self.names = names
        self.refusal = refusal
        self.asked = []
        self.sock = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.sock.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        text = b""
        while b"\r\n\r\n" not in text:
            text += client.recv(4096)
        name = text.split()[1].decode().rpartition(":")[0]
        self.asked.append(name)
        if name not in self.names:
            client.sendall(b"HTTP/1.1 " + self.refusal + b"\r\n\r\n")
            client.close()
            return
        server = socket.create_connection(self.names[name])
        client.sendall(b"HTTP/1.1 200 yes\r\nETag: proxy\r\n\r\n")
        for a, b in ((client, server), (server, client)):
            threading.Thread(target=self.move, args=(a, b), daemon=True).start()

    @staticmethod
    def move(a, b):
        try:
            while data := a.recv(65536):
                b.sendall(data)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@pytest.mark.parametrize("prefer,order", [("", ["modelscope.cn", "www.modelscope.ai"]),
                                          ("true", ["www.modelscope.ai", "modelscope.cn"])])
def test_both_sites_are_asked_and_only_the_first_gets_the_token(ckpt, tmp_path, authority, prefer,
                                                                order):
    tls = authority.context
    with Hub([], tls=tls) as empty, Hub([mixed()], tls=tls) as full:
        proxy = Proxy({order[0]: ("127.0.0.1", empty.hub.port),
                       order[1]: ("127.0.0.1", full.hub.port)})
        download = Client(ckpt, full, tmp_path)
        download("--hub", "modelscope", MODELSCOPE_ENDPOINT="", MODELSCOPE_API_TOKEN="ms-token",
                 MODELSCOPE_PREFER_AI_SITE=prefer, SSL_CERT_FILE=str(authority.certificate),
                 https_proxy=f"http://127.0.0.1:{proxy.sock.getsockname()[1]}",
                 no_proxy="127.0.0.2")
        proxy.sock.close()
        assert list(dict.fromkeys(proxy.asked)) == order
        assert [e["has_authorization"] for e in empty.log] == [True]
        assert full.log and not any(e["has_authorization"] or e["cookie"] for e in full.log)
        download.assert_right()


# ---- proxies ----

def through(proxy, authority):
    return {"SSL_CERT_FILE": str(authority.certificate),
            "https_proxy": f"http://127.0.0.1:{proxy.sock.getsockname()[1]}"}


def test_what_a_proxy_says_of_its_tunnel_is_no_reply_of_the_hub(ckpt, tmp_path, authority):
    """Its 200 is without a range: taken for the server's, it would cost the ranges."""
    with Hub([mixed()], tls=authority.context) as hub:
        proxy = Proxy({"127.0.0.1": ("127.0.0.1", hub.hub.port),
                       "127.0.0.2": ("127.0.0.2", hub.cdn.port)})
        download = Client(ckpt, hub, tmp_path)
        download(HF_TOKEN="hf_test", **through(proxy, authority))
        proxy.sock.close()
        assert set(proxy.asked) == {"127.0.0.1", "127.0.0.2"}
        ranges = [e["range"] for e in hub.requests(port="cdn")]
        assert len(ranges) >= 4 and all(ranges)
        download.assert_right()


def test_a_proxy_that_forbids_is_asked_once(ckpt, tmp_path, authority):
    with Hub([mixed()], tls=authority.context) as hub:
        proxy = Proxy({}, b"407 who are you")
        failed = Client(ckpt, hub, tmp_path)(check=2, **through(proxy, authority))
        proxy.sock.close()
        assert failed.json["reason"] == "network" and "407" in failed.err
        assert len(proxy.asked) == 1 and hub.log == []


# ---- limits that would last for ever ----

def test_a_hub_that_names_a_far_day_does_not_stop_the_clock(ckpt, tmp_path):
    far = [("RateLimit", '"api";r=1;t=999999999'),
           ("RateLimit-Policy", '"fixed window";"api";q=3000;w=300')]
    with Hub([mixed()], hub_headers=far, page_size=2) as hub:
        download = Client(ckpt, hub, tmp_path)
        process = download.start("--dry-run")
        wait_for(lambda: len(hub.logged) >= 4, 60)      # two at once, then one every ten seconds
        download.stop(process)


def test_a_date_to_wait_for_is_read_by_the_clock_that_wrote_it(ckpt, tmp_path):
    """A hub whose clock is hours ahead asks for two seconds."""
    ahead = time.time() + 5 * 3600
    with Hub([mixed()]) as hub:
        hub.fault("status", port="hub", status=429, path="/api/*",
                  headers=[("Date", email.utils.formatdate(ahead, usegmt=True)),
                           ("Retry-After", email.utils.formatdate(ahead + 2, usegmt=True))])
        begin = time.monotonic()
        Client(ckpt, hub, tmp_path)()
        assert hub.faults[0]["taken"] == 1 and 2 <= time.monotonic() - begin < 30


def test_a_next_page_is_found_whatever_links_stand_before_it(ckpt, tmp_path):
    """A listing that is cut short would be a download that is."""
    files = [Entry(f"f{i}", 5, i, "git", "direct") for i in range(25)]
    other = '<https://x.invalid/>; rel="other"'
    with Hub([Repo(ID, files)], page_size=10, link_first=other) as hub:
        download = Client(ckpt, hub, tmp_path)
        assert len(download().json["files"]) == 25
        download.assert_right()


# ---- what a crash may leave ----

def side_files(download):
    """Everything in D that has no lasting meaning."""
    lasting = (".metadata", ".lock", "/lock", "/verified", "/listing.json", "/.gitignore",
               "/CACHEDIR.TAG", f"/trees/{download.hub.repos[ID].commit}.json")
    return [str(p) for p in (download.folder / ".cache").rglob("*")
            if p.is_file() and not str(p).endswith(lasting)]


@pytest.mark.parametrize("number", range(1, 9))
def test_a_kill_before_any_rename_leaves_nothing_in_the_end(ckpt, tmp_path, fault, number):
    with Hub([Repo(ID, [Entry("a.bin", 2 * MIB, 1), Entry("b", 30, 2, "git")])]) as hub:
        download = Client(ckpt, hub, tmp_path)
        words = [str(w) for w in download.words()]
        subprocess.run([BUILD / "bin" / "ckpt-download", *words], capture_output=True, timeout=90,
                       env={**download.env, **fault.env(f"rename:kill:{number}")}, check=False)
        assert fault.injected == [f"rename kill at {number}"]
        # What was to be written once more may be there by then: another name must not matter.
        hub.repos[ID].files[1] = Entry("b", 31, 3, "git")
        hub.repos[ID].revisions["main"] = hub.repos[ID].commit = "b" * 40
        for tree in (download.folder / ".cache").rglob("trees/*.json"):
            tree.unlink()
        download("--clean")
        download.assert_right()
        assert side_files(download) == []


def test_a_journal_without_its_part_does_not_stay(ckpt, tmp_path):
    """Killed between the rename and the removal of the journal."""
    with Hub([one(64 * MIB)], connection_rate=4 * MIB) as hub:
        download = Client(ckpt, hub, tmp_path)
        process = download.start()
        wait_for(lambda: list((download.folder / SIDE).glob("*.state")))
        state = next((download.folder / SIDE).glob("*.state"))
        download.stop(process)
        journal = state.read_bytes()
        hub.connection_rate = None
        download()
        state.write_bytes(journal)
        download()
        download.assert_right()


# ---- disks ----

def test_two_files_that_would_be_one_are_refused_before_the_first_byte(ckpt, tmp_path):
    """On a disk that does not tell "A" from "a". Its mark: the lock has both names."""
    files = [Entry("dir/Config.json", 30, 1, "git"), Entry("dir/config.json", 31, 2, "git")]
    with Hub([Repo(ID, files)]) as hub:
        download = Client(ckpt, hub, tmp_path)
        download()
        download.assert_right()                        # no matter where it does
        shutil.rmtree(download.folder / "dir")
        os.link(download.folder / SIDE / "lock", download.folder / SIDE / "LOCK")
        hub.reset()
        failed = download(check=2)
        assert failed.json["reason"] == "disk" and "dir/Config.json" in failed.err
        assert hub.payload == 0 and download.visible == []
        download("dir/config.json")
        assert download.visible == ["dir/config.json"]


def test_a_disk_that_others_fill_is_waited_for(ckpt, tmp_path, small_disk):
    disk = small_disk(240)
    files = [Entry("a.bin", 20 * MIB, 1), Entry("b.bin", 30 * MIB, 2)]
    with Hub([Repo(ID, files)], connection_rate=MIB // 8) as hub:
        download = Client(ckpt, hub, disk)
        words = talkative(download, "--max-workers", 1)
        process = subprocess.Popen([BUILD / "bin" / "ckpt-download", *words], env=download.env,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        wait_for(lambda: hub.payload > 0)       # b.bin has its space
        free = os.statvfs(disk)
        with open(disk / "filler", "wb") as filler:
            os.posix_fallocate(filler.fileno(), 0, free.f_bavail * free.f_frsize - 12 * MIB)
        hub.connection_rate = None
        assert any("disk nearly full, waiting for space for 'a.bin'" in line
                   for line in process.stderr)
        assert process.poll() is None and download.visible == ["b.bin"]
        (disk / "filler").unlink()
        process.communicate(timeout=180)
        assert process.returncode == 0
        download.assert_right()


def test_a_file_system_that_cannot_take_space_beforehand(ckpt, tmp_path, fault):
    with Hub([one(12 * MIB)]) as hub:
        download = Client(ckpt, hub, tmp_path)
        download(**fault.env("ftruncate:EOPNOTSUPP:1", path=".part"))
        assert fault.injected == ["ftruncate EOPNOTSUPP at 1"]
        download.assert_right()


def test_space_that_cannot_be_had_is_told_before_a_byte_comes(ckpt, tmp_path, fault):
    with Hub([one(12 * MIB)]) as hub:
        download = Client(ckpt, hub, tmp_path)
        done = download(check=2, **fault.env("ftruncate:EDQUOT:1", path=".part"))
        assert f"not enough disk space for {12 * MIB} bytes" in done.err and fault.injected
        assert hub.requests(port="cdn") == []


def test_space_that_a_part_has_already_is_not_asked_for_again(ckpt, tmp_path, small_disk):
    disk = small_disk(240)
    with Hub([one(150 * MIB)], connection_rate=2 * MIB) as hub:
        download = Client(ckpt, hub, disk)
        process = download.start()
        wait_for(lambda: hub.requests_so_far(port="hub", method="HEAD") and
                 any((download.folder / SIDE).glob("*.state")))
        download.stop(process)
        hub.connection_rate = None
        download()
        download.assert_right()
