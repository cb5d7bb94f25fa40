"""Rules of the two hubs and of disks: what is waited for, asked again, or told."""
import json
import os
import socket
import subprocess
import threading

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
        assert done.err == "the hub warns: quota; nearly ?[31mfull\n"
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
    """An HTTP proxy that knows two names: CONNECT modelscope.cn leads to the first hub."""

    def __init__(self, names):
        self.names = names
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
            client.sendall(b"HTTP/1.1 502 no\r\n\r\n")
            client.close()
            return
        server = socket.create_connection(self.names[name])
        client.sendall(b"HTTP/1.1 200 yes\r\n\r\n")
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


# ---- what a crash may leave ----

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
        assert any("disk nearly full, waiting: 'a.bin'" in line for line in process.stderr)
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
        assert f"no room for {12 * MIB} bytes" in done.err and fault.injected
        assert hub.requests(port="cdn") == []


def test_space_that_a_part_has_already_is_not_asked_for_again(ckpt, tmp_path, small_disk):
    disk = small_disk(240)
    with Hub([one(150 * MIB)], connection_rate=2 * MIB) as hub:
        download = Client(ckpt, hub, disk)
        process = download.start()
        wait_for(lambda: hub.requests(port="hub", method="HEAD") and
                 any((download.folder / SIDE).glob("*.state")))
        download.stop(process)
        hub.connection_rate = None
        download()
        download.assert_right()
