"""A small HTTP/1.1 server on loopback: one thread a connection, every byte under control."""
import contextlib
import socket
import struct
import threading
import time
import urllib.parse

PIECE = 1 << 18


class Gone(Exception):
    """The connection is over."""


class Request:
    def __init__(self, method, target, headers, connection, port):
        self.method = method
        self.target = target
        self.headers = headers
        self.connection = connection
        self.port = port
        self.path, _, self.query_text = target.partition("?")
        self.query = dict(urllib.parse.parse_qsl(self.query_text, keep_blank_values=True))
        self.body = b""
        self.status = 0
        self.sent = 0
        self.begin = time.time()
        self.extra = []                # headers of every reply

    def range(self):
        """(first, last) or None; last may be None."""
        text = self.headers.get("range", "")
        if not text.startswith("bytes="):
            return None
        first, _, last = text[6:].partition("-")
        return int(first), int(last) if last else None


class Connection:
    def __init__(self, listener, sock, number):
        self.listener = listener
        self.sock = sock
        self.number = number
        self.pending = b""

    def line_block(self):
        while b"\r\n\r\n" not in self.pending:
            got = self.sock.recv(65536)
            if not got:
                raise Gone
            self.pending += got
        block, _, self.pending = self.pending.partition(b"\r\n\r\n")
        return block.decode("latin-1").split("\r\n")

    def read(self, size):
        while len(self.pending) < size:
            got = self.sock.recv(65536)
            if not got:
                raise Gone
            self.pending += got
        data, self.pending = self.pending[:size], self.pending[size:]
        return data

    def request(self):
        lines = self.line_block()
        method, target, _ = lines[0].split(" ", 2)
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.strip().lower()] = value.strip()
        request = Request(method, target, headers, self, self.listener.name)
        request.body = self.read(int(headers.get("content-length", 0)))
        return request

    def head(self, request, status, headers):
        request.status = status
        lines = "".join(f"{k}: {v}\r\n" for k, v in [*headers, *request.extra]
                        if k not in self.listener.hidden)
        text = f"HTTP/1.1 {status} X\r\n{lines}\r\n"
        self.sock.sendall(text.encode("latin-1"))

    def reset(self):
        """Close so that the peer sees an error, not an end."""
        with contextlib.suppress(OSError):
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        raise Gone


class Listener:
    """One port. handle(request) answers through request.connection."""

    def __init__(self, name, host, handle, tls=None, port=0):
        self.name = name
        self.host = host
        self.handle = handle
        self.tls = tls
        self.lock = threading.Lock()
        self.open = set()
        self.most = 0
        self.count = 0
        self.port = port
        self.buffer_bytes = None
        self.hidden = ()               # headers that a proxy in front of it drops
        self.listen()

    def listen(self):
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.sock.bind((self.host, self.port))
        self.port = self.sock.getsockname()[1]
        self.sock.listen(128)
        self.alive = True
        threading.Thread(target=self.accept, args=(self.sock,), daemon=True).start()

    @property
    def origin(self):
        return f"{'https' if self.tls else 'http'}://{self.host}:{self.port}"

    def accept(self, sock):
        while True:
            try:
                peer, _ = sock.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(peer,), daemon=True).start()

    def serve(self, peer):
        try:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.buffer_bytes:
                peer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.buffer_bytes)
            if self.tls:
                peer = self.tls.wrap_socket(peer, server_side=True)
        except OSError:
            peer.close()
            return
        with self.lock:
            self.count += 1
            connection = Connection(self, peer, self.count)
            self.open.add(connection)
            self.most = max(self.most, len(self.open))
        try:
            while self.alive:
                request = connection.request()
                self.handle(request)
                if request.headers.get("connection", "").lower() == "close":
                    break
        except (Gone, OSError, ValueError):
            pass
        finally:
            with self.lock:
                self.open.discard(connection)
            peer.close()

    def close(self):
        """Stop listening and drop everyone."""
        self.alive = False
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        with self.lock:
            for connection in self.open:
                with contextlib.suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)
