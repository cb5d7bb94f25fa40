"""File contents made from a seed: any byte of a multi-gigabyte file without storing it."""
import functools
import hashlib
import random
import struct

BLOCK = 1 << 20
SLACK = 1 << 16


@functools.lru_cache(maxsize=4)
def noise(seed):
    return memoryview(random.Random(seed).randbytes(BLOCK + SLACK))


class Content:
    """`size` bytes. Every MiB starts with its own number, so a misplaced one is a wrong one."""

    def __init__(self, size, seed=0, data=None):
        self.size = size if data is None else len(data)
        self.seed = seed
        self.data = None if data is None else memoryview(data)

    def pieces(self, start, end):
        """Buffers that make up [start, end)."""
        if self.data is not None:
            yield self.data[start:end]
            return
        base = noise(0)
        while start < end:
            number, inside = divmod(start, BLOCK)
            upto = min(BLOCK, inside + end - start)
            header = struct.pack("<QQ", self.seed, number)
            slide = (number * 7919 + self.seed * 104729) % SLACK
            if inside < len(header):
                yield header[inside:upto]
            if upto > len(header):
                yield base[slide + max(inside, len(header)):slide + upto]
            start += upto - inside

    def bytes(self, start=0, end=None):
        return b"".join(bytes(p) for p in self.pieces(start, self.size if end is None else end))

    @functools.cached_property
    def sha256(self):
        return self.digest(hashlib.sha256())

    @functools.cached_property
    def blob(self):
        """Name of the content as a git blob."""
        return self.digest(hashlib.sha1(b"blob %d\0" % self.size))

    def digest(self, state):
        for piece in self.pieces(0, self.size):
            state.update(piece)
        return state.hexdigest()


def pointer(sha256, size):
    """The text that git keeps in place of a large file."""
    return (f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\n"
            f"size {size}\n").encode()
