#!/usr/bin/env python3
"""A hub on loopback: Hugging Face and ModelScope as clients see them, with faults on demand.

    python tests/hub/mock_hub.py CATALOG.json     serves until killed; prints its addresses

The hub listens on 127.0.0.1, its data host on 127.0.0.2, a second one on another port of
127.0.0.1. Tests use class Hub directly. CATALOG: {"repos": [{"id": "o/m", "files": [{"path",
"size", "seed", "kind": "lfs"|"git"}]}], "faults": [...]}. Faults: see faults.py.
"""
import contextlib
import hashlib
import hmac
import json
import sys
import threading
import time
import urllib.parse

import faults
import hub_pages
from content import Content, pointer
from server import Gone, Listener, PIECE

SECRET = b"signing key of the mock"
PACED_PIECE = 1 << 14
QUIET_SECONDS = 60           # what only a client that still runs would take


class Entry:
    """A file of a repo. shape: direct | hop (shape B) | cdn; listed: overrides in the listing,
    or a function that returns them."""

    def __init__(self, path, size=None, seed=0, kind="lfs", shape=None, data=None, listed=None,
                 sha256=None):
        self.path = path
        self.content = Content(size, seed, data)
        self.kind = kind
        self.shape = shape or ("cdn" if kind == "lfs" else "hop")
        self.listed = listed or {}
        if sha256:
            self.content.sha256 = sha256

    @property
    def size(self):
        return self.content.size

    @property
    def etag(self):
        return self.content.sha256 if self.kind == "lfs" else self.content.blob

    def tree(self):
        entry = {"type": "file", "path": self.path, "size": self.size}
        if self.kind == "lfs":
            text = pointer(self.content.sha256, self.size)
            entry["oid"] = hashlib.sha1(b"blob %d\0" % len(text) + text).hexdigest()
            entry["lfs"] = {"oid": self.content.sha256, "size": self.size,
                            "pointerSize": len(text)}
        else:
            entry["oid"] = self.content.blob
        entry.update(self.overrides())
        return entry

    def overrides(self):
        return self.listed() if callable(self.listed) else self.listed


class Repo:
    def __init__(self, id, files, commit=None, type="model", private=False, gated=False,
                 renamed_to=None, revisions=None):
        self.id = id
        self.files = [f if isinstance(f, Entry) else Entry(**f) for f in files]
        self.type = type
        self.private = private
        self.gated = gated
        self.renamed_to = renamed_to
        self.commit = commit or hashlib.sha1(
            repr((id, [(f.path, f.size, f.content.seed) for f in self.files])).encode()).hexdigest()
        self.revisions = {"main": self.commit, "master": self.commit, **(revisions or {})}

    def find(self, path):
        return next((f for f in self.files if f.path == path), None)


def matching(log, want):
    return [e for e in log if all(e[k] == v for k, v in want.items())]


class Hub:
    def __init__(self, repos=(), tls=None, **options):
        self.repos = {r.id: r for r in repos}
        self.page_size = 1000
        self.url_seconds = 3600
        self.clock_offset = 0          # of the data host, against the hub's
        self.issued = 0                # signed addresses given out, each with its number
        self.revoked = 0               # those up to this number are refused
        self.second_hop = False
        self.rangeless_max = None      # a GET of more than this without Range gets 400
        self.connection_rate = None    # bytes/s of one connection on the data hosts, from now on
        self.latency = 0               # before every answer of the data hosts
        self.connections_max = None    # more of them at once get 503
        self.knee = None               # (K, bytes/s): the total rate falls above K connections
        self.limits = {}               # bucket -> (quota, window seconds)
        self.used = {}
        self.token = "hf_test"
        self.hub_headers = []          # of every reply of the hub's own port
        self.web_headers = [("ETag", '"{etag}"')]     # of a server without API
        self.web_missing = 404         # how that server answers for what it does not have
        self.link_first = None         # a Link header before that of the next page
        self.cdn_name = "cdn"
        self.plain_etag = '"opaque-1"'
        self.streaming = 0
        self.range_status = 206        # ModelScope: 200
        self.faults = []
        self.logged = []               # log, while clients may be at work
        self.leaks = []
        self.payload = 0               # bytes of file contents that left any port
        self.open_late = 0            # replies whose bytes are out, and whose end is not
        self.busy = 0                  # requests that are not answered yet
        self.held = 0                  # those of them that never will be, by the fault "silent"
        self.released = threading.Event()       # ends the silence of the fault of that name
        self.lock = threading.Lock()
        for name, value in options.items():
            assert hasattr(self, name), name
            setattr(self, name, value)
        self.hub = Listener("hub", "127.0.0.1", self.handle, tls)
        self.cdn = Listener("cdn", "127.0.0.2", self.handle, tls)
        self.cdn2 = Listener("cdn2", "127.0.0.1", self.handle, tls)
        self.listeners = (self.hub, self.cdn, self.cdn2)
        if self.connection_rate:      # what was sent shall have arrived
            self.cdn.buffer_bytes = 65536

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.release()
        for listener in self.listeners:
            listener.close()
        if kind is None:
            self.assert_faults_came()

    def assert_faults_came(self):
        """A test whose fault never came has tested nothing."""
        assert all("taken" in f for f in self.faults), self.faults

    @property
    def url(self):
        return self.hub.origin

    def reset(self):
        """Forget what was, once the requests of clients that are gone have ended."""
        self.assert_faults_came()
        self.release()
        self.settle()
        with self.lock:
            self.faults, self.logged, self.leaks, self.used = [], [], [], {}
            self.payload = 0
            self.released = threading.Event()

    def hold(self):
        """Leave a request without a reply until release()."""
        with self.lock:
            self.held += not self.released.is_set()
        self.released.wait()

    def release(self):
        with self.lock:
            self.held = 0
            self.released.set()

    def settle(self):
        """Until every request is counted: a client has its reply before the log has it."""
        until = time.monotonic() + QUIET_SECONDS
        while self.busy > self.held:
            assert time.monotonic() < until, "a client is still there"
            time.sleep(0.005)

    def fault(self, kind, **scope):
        self.faults.append({"kind": kind, "count": 1, **scope})

    def refuse(self, listener, seconds):
        """Nobody listens on that port for a while."""
        listener.close()

        def back():
            time.sleep(seconds)
            listener.listen()
        threading.Thread(target=back, daemon=True).start()

    # ---- what the tests look at ----

    @property
    def log(self):
        """What was asked, in the order of its end, once the clients are gone."""
        self.settle()
        return self.logged

    def requests(self, **want):
        """Entries of the log in which every given field is as given."""
        return matching(self.log, want)

    def requests_so_far(self, **want):
        """The same, while a client is at work."""
        return matching(self.logged, want)

    # ---- requests ----

    def handle(self, request):
        request.is_data = False
        entry = {"t0": request.begin, "port": request.port, "conn": request.connection.number,
                 "method": request.method, "target": request.target,
                 "range": request.headers.get("range"),
                 "accept_encoding": request.headers.get("accept-encoding"),
                 "has_authorization": "authorization" in request.headers,
                 "cookie": request.headers.get("cookie"), "ua": request.headers.get("user-agent")}
        if request.path.startswith("/__mock/"):
            self.control(request)
            return
        if request.port != "hub" and (entry["has_authorization"] or entry["cookie"]):
            self.leaks.append(entry)
        with self.lock:
            self.busy += 1
        try:
            if request.port == "hub":
                request.extra = self.hub_headers
                hub_pages.answer(self, request)
            else:
                self.data(request)
        finally:
            entry.update(t1=time.time(), status=request.status, bytes=request.sent,
                         is_data=request.is_data)
            with self.lock:
                self.logged.append(entry)
                self.busy -= 1

    def control(self, request):
        name = request.path[len("/__mock/"):]
        if name == "faults":
            self.faults += json.loads(request.body)
        elif name == "reset":
            self.reset()
        answer = {"log": "".join(json.dumps(e) + "\n" for e in self.logged),
                  "stats": json.dumps({v.name: v.most for v in self.listeners})}.get(name, "{}")
        self.reply(request, 200, answer)

    def reply(self, request, status, body="", headers=()):
        body = body.encode() if isinstance(body, str) else body
        length = () if any(k == "Content-Length" for k, _ in headers) else \
            (("Content-Length", len(body)),)
        request.connection.head(request, status, [*headers, *length])
        if request.method != "HEAD":
            request.connection.sock.sendall(body)

    def signed(self, entry):
        listener = getattr(self, self.cdn_name)
        expires = int(time.time() + self.url_seconds)
        with self.lock:
            self.issued += 1
            number = self.issued
        sign = self.signature(entry.content.sha256, expires, number)
        name = urllib.parse.quote(entry.path)
        return f"{listener.origin}/x/{entry.content.sha256}/{name}?Expires={expires}" \
               f"&Number={number}&Signature={sign}&Key-Pair-Id=K1"

    def revoke_addresses(self):
        """Every address given out so far has run out; new ones are good."""
        self.revoked = self.issued

    @staticmethod
    def signature(sha256, expires, number):
        return hmac.new(SECRET, f"{sha256}:{expires}:{number}".encode(),
                        hashlib.sha256).hexdigest()

    def by_hash(self, sha256):
        return next((f for r in self.repos.values() for f in r.files
                     if f.content.sha256 == sha256), None)

    def data(self, request):
        """The data host: signed URLs only."""
        parts = request.path.split("/")
        entry = self.by_hash(parts[2]) if len(parts) > 2 and parts[1] in ("x", "y") else None
        if self.latency:
            time.sleep(self.latency)
        listener = request.connection.listener
        if self.connections_max and len(listener.open) > self.connections_max:
            self.reply(request, 503, "too many connections", [("Connection", "close")])
            raise Gone
        if entry is None:
            self.reply(request, 404, "<Error><Code>NoSuchKey</Code></Error>")
            return
        fault = faults.take(self, request, entry.path)
        if fault and faults.before(self, request, entry, fault):
            return
        expires = int(request.query.get("Expires", 0))
        number = int(request.query.get("Number", 0))
        if request.query.get("Signature") != self.signature(parts[2], expires, number) or \
                number <= self.revoked or time.time() + self.clock_offset > expires:
            self.reply(request, 403, "<Error><Code>AccessDenied</Code><Message>Request has "
                                     "expired</Message></Error>", [("Content-Type", "text/xml")])
            return
        if self.second_hop and parts[1] == "x":
            other = f"/y/{'/'.join(parts[2:])}?{request.query_text}"
            self.reply(request, 302, "", [("Location", self.cdn2.origin + other)])
            return
        self.send(request, entry, [("ETag", self.plain_etag)], fault)

    def send(self, request, entry, headers, fault=None):
        """A file or a range of it, with what the fault does to it."""
        total = entry.size
        asked = request.range()
        if asked is None and self.rangeless_max is not None and total > self.rangeless_max \
                and request.method == "GET":
            self.reply(request, 400, "too large without Range")
            return
        first, last = (0, total - 1) if asked is None else asked
        last = total - 1 if last is None else min(last, total - 1)
        if asked is not None and first >= total:
            self.reply(request, 416, "", [("Content-Range", f"bytes */{total}")])
            return
        plan = {"status": 200 if asked is None else self.range_status, "first": first,
                "last": last, "length": last - first + 1, "headers": list(headers),
                "range": asked and f"bytes {first}-{last}/{total}", "flip": None, "cut": None,
                "extra": 0, "close": False}
        if fault:
            faults.shape(plan, fault, total)
        lines = [("Content-Length", plan["length"])] if plan["length"] is not None else []
        lines += [("Content-Range", plan["range"])] if plan["range"] else []
        lines += [("Accept-Ranges", "bytes")] + plan["headers"]
        request.connection.head(request, plan["status"], lines)
        if request.method != "HEAD":
            with self.lock:
                self.streaming += 1
            try:
                self.stream(request, entry.content, plan)
            finally:
                with self.lock:
                    self.streaming -= 1

    def stream(self, request, content, plan):
        sock = request.connection.sock
        begin = time.monotonic()
        step = PACED_PIECE if self.connection_rate else PIECE
        request.is_data = True
        at = plan["first"]
        for piece in content.pieces(plan["first"], plan["last"] + 1):
            for cut in range(0, len(piece), step):
                part = piece[cut:cut + step]
                if plan["cut"] is not None:
                    part = part[:plan["cut"] - request.sent]
                if plan["flip"] is not None and at <= plan["flip"] < at + len(part):
                    part = bytearray(part)
                    part[plan["flip"] - at] ^= 0x40
                if plan.get("trickle"):
                    self.trickle(request, part)
                else:
                    sock.sendall(part)
                    self.count(request, len(part))
                at += len(part)
                if plan["cut"] is not None and request.sent >= plan["cut"]:
                    if plan["orderly"]:
                        raise Gone
                    request.connection.reset()
                self.pace(request, begin)
        if plan["extra"]:
            sock.sendall(b"surplus!" * plan["extra"])
        if plan.get("late"):
            with self.lock:
                self.open_late += 1
            time.sleep(plan["late"])
            with self.lock:
                self.open_late -= 1
        if plan["close"]:
            raise Gone

    def pace(self, request, begin):
        rate = self.connection_rate
        if self.knee:
            busy = max(1, self.streaming)
            most, total = self.knee
            total *= min(1, (most / busy) ** 2)
            rate = min(rate or total, total / busy)
        if rate:
            due = begin + request.sent / rate
            time.sleep(max(0, due - time.monotonic()))

    def trickle(self, request, part):
        for byte in bytes(part):
            request.connection.sock.sendall(bytes([byte]))
            self.count(request, 1)
            time.sleep(1 / 40)

    def count(self, request, size):
        with self.lock:
            request.sent += size
            self.payload += size


def main():
    with open(sys.argv[1], encoding="utf-8") as f:
        catalog = json.load(f)
    repos = [Repo(**r) for r in catalog["repos"]]
    with contextlib.suppress(KeyboardInterrupt), Hub(repos, **catalog.get("options", {})) as hub:
        hub.faults += catalog.get("faults", [])
        print(json.dumps({v.name: v.origin for v in hub.listeners}), flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()
