"""Damaged GGUF files: every rule of the container has a file that breaks it."""
import random
import shutil
import struct

import pytest

from cli.measure import measure
from cli.trees import INSTRUMENTED
from corrupt.gguf_files import array, info, key, model, pack, text

MIB = 1 << 20
HUGE = 1 << 60
TENSOR = ("t", [4], "F32", bytes(16))
INFO = info("t", [4], "F32", 0)
DATA = bytes(32)
ARCH = key("general.architecture", "string", "llama")


def raw_key(name, kind, content=b""):
    return text(name) + struct.pack("<I", kind) + content


def aligned(number, kind="u32"):
    return pack([key("general.alignment", kind, number)], [INFO], DATA)


def cut(data, size):
    return data[:size]


GOOD = model([ARCH, key("a", "array", array("string", ["x", "y"]))], [TENSOR])

# name: (bytes of the file, words of the message)
BROKEN = {
    # the beginning
    "empty file": (b"", ["ends inside its header"]),
    "three bytes": (b"GGU", ["the magic"]),
    "other magic": (pack([], [INFO], DATA, magic=b"GGML"), ["does not begin with GGUF"]),
    "magic turned round": (pack([], [INFO], DATA, magic=b"FUGG"), ["does not begin with GGUF"]),
    "version 0": (pack([], [INFO], DATA, version=0), ["version 0", "2 or 3"]),
    "version 1": (pack([], [INFO], DATA, version=1), ["version 1", "2 or 3"]),
    "version 4": (pack([], [INFO], DATA, version=4), ["version 4", "2 or 3"]),
    "big endian": (b"GGUF" + struct.pack(">IQQ", 3, 1, 0) + bytes(64), ["big-endian"]),
    "no counts": (b"GGUF\3\0\0\0", ["number of tensors"]),
    "half of a count": (b"GGUF\3\0\0\0" + bytes(12), ["number of keys"]),
    "no tensors": (pack([ARCH]), ["has no tensors"]),
    # counts
    "2^60 tensors": (pack([], [INFO], DATA, counts=(HUGE, 0)), [str(HUGE), "number of tensors"]),
    "2^64 - 1 tensors": (pack([], [INFO], DATA, counts=((1 << 64) - 1, 0)), ["number of tensors"]),
    "2^60 keys": (pack([], [INFO], DATA, counts=(1, HUGE)), [str(HUGE), "number of keys"]),
    "2^64 - 1 keys": (pack([], [INFO], DATA, counts=(1, (1 << 64) - 1)), ["number of keys"]),
    "a tensor more than there is": (pack([], [INFO], counts=(2, 0)), ["number of tensors"]),
    "a tensor more, in the data": (pack([], [INFO], bytes(64), counts=(2, 0)), []),
    "a key more than there is": (pack([ARCH], counts=(0, 9)), ["number of keys"]),
    "a key more, in the tensors": (pack([ARCH], [INFO], bytes(96), counts=(1, 2)), []),
    # strings
    "a key's name of 2^60 bytes": (pack([struct.pack("<Q", HUGE)], [INFO], DATA), [str(HUGE)]),
    "a key's name of 2^64 - 1 bytes":
        (pack([struct.pack("<Q", (1 << 64) - 1)], [INFO], DATA), ["18446744073709551615"]),
    "a key's name of 1024 bytes": (pack([key("k" * 1024, "u8", 1)], [INFO], DATA),
                                   ["1024", "1023"]),
    "a key's name that is not UTF-8": (pack([key(b"\xff\xfe", "u8", 1)], [INFO], DATA),
                                       ["not text"]),
    "a key's name with a NUL": (pack([key(b"a\0b", "u8", 1)], [INFO], DATA), ["not text"]),
    "a string of 2^60 bytes": (pack([raw_key("a", 8, struct.pack("<Q", HUGE))], [INFO], DATA),
                               [str(HUGE)]),
    "a string one byte too long": (pack([raw_key("a", 8, struct.pack("<Q", 100))], [INFO], b""),
                                   ["100 bytes"]),
    "a string that is not UTF-8": (pack([key("a", "string", b"\xc3")], [INFO], DATA),
                                   ["not text"]),
    "a tensor's name of 64 bytes": (pack([], [info("n" * 64, [4], "F32", 0)], DATA),
                                    ["64 bytes", "63"]),
    "a tensor's name that is empty": (pack([], [info("", [4], "F32", 0)], DATA), ["no name"]),
    "a tensor's name that is not UTF-8": (pack([], [info(b"\x80", [4], "F32", 0)], DATA),
                                          ["not text"]),
    "a tensor's name with a NUL": (pack([], [info(b"t\0", [4], "F32", 0)], DATA), ["not text"]),
    "a tensor's name of 2^63 bytes": (pack([], [struct.pack("<Q", 1 << 63) + bytes(40)], DATA),
                                      [str(1 << 63)]),
    # keys
    "a key of type 13": (pack([raw_key("a", 13, bytes(8))], [INFO], DATA), ["'a'", "type 13"]),
    "a key of type 2^32 - 1": (pack([raw_key("a", 0xFFFFFFFF, bytes(8))], [INFO], DATA),
                               ["'a'", "4294967295"]),
    "a key twice": (pack([key("a", "u8", 1), key("a", "u8", 1)], [INFO], DATA),
                    ["the key 'a' twice"]),
    "a key twice, of two types": (pack([key("a", "u8", 1), key("a", "f32", 1)], [INFO], DATA),
                                  ["the key 'a' twice"]),
    "a bool of 2": (pack([key("a", "bool", 2)], [INFO], DATA), ["'a'", "bool"]),
    "a bool of 255": (pack([key("a", "bool", 255)], [INFO], DATA), ["'a'", "bool"]),
    "a value that is cut off": (cut(pack([key("a", "u64", 1)], counts=(0, 1)), 37), []),
    # arrays
    "an array of 2^60 bytes": (pack([raw_key("a", 9, struct.pack("<IQ", 0, HUGE))], [INFO], DATA),
                               [str(HUGE), "length of an array"]),
    "an array of 2^61 numbers of 8 bytes":
        (pack([raw_key("a", 9, struct.pack("<IQ", 10, 1 << 61))], [INFO], DATA), [str(1 << 61)]),
    "an array of 2^60 strings":
        (pack([raw_key("a", 9, struct.pack("<IQ", 8, HUGE))], [INFO], DATA), [str(HUGE)]),
    "an array with a string too few":
        (pack([raw_key("a", 9, struct.pack("<IQ", 8, 5) + text("x"))], [INFO], bytes(96)), []),
    "an array with a string of 2^60 bytes":
        (pack([raw_key("a", 9, struct.pack("<IQQ", 8, 1, HUGE))], [INFO], DATA), [str(HUGE)]),
    "an array of arrays": (pack([raw_key("a", 9, struct.pack("<IQ", 9, 1) + bytes(16))], [INFO],
                                DATA), ["array of arrays"]),
    "an array of a type that is unknown":
        (pack([raw_key("a", 9, struct.pack("<IQ", 99, 1) + bytes(16))], [INFO], DATA),
         ["'a'", "type 99"]),
    # alignment
    **{f"alignment {n}": (aligned(n), ["general.alignment", str(n)])
       for n in (0, 1, 4, 7, 24, 33, 96, 1 << 17, 1 << 31)},
    "alignment that is negative": (aligned(-32, "i32"), ["general.alignment"]),
    "alignment that is text": (pack([key("general.alignment", "string", "32")], [INFO], DATA),
                               ["general.alignment"]),
    "alignment that is a fraction": (aligned(32.0, "f32"), ["general.alignment"]),
    # tensors
    "a tensor twice": (pack([], [INFO, info("t", [4], "F32", 32)], bytes(64)), ["'t'", "twice"]),
    "no dimensions": (pack([], [info("t", [], "F32", 0)], DATA), ["'t'", "0 dimensions"]),
    "five dimensions": (pack([], [info("t", [1] * 5, "F32", 0)], DATA), ["'t'", "5 dimensions"]),
    "2^32 - 1 dimensions":
        (pack([], [text("t") + struct.pack("<I", 0xFFFFFFFF) + bytes(40)], DATA), ["4294967295"]),
    "a dimension of 0": (pack([], [info("t", [4, 0], "F32", 0)], DATA), ["'t'", "dimension of 0"]),
    "a dimension of 2^60": (pack([], [info("t", [HUGE], "F32", 0)], DATA), ["'t'"]),
    "a dimension of 2^64 - 1": (pack([], [info("t", [(1 << 64) - 1], "F32", 0)], DATA), ["'t'"]),
    "dimensions whose product is over 64 bits":
        (pack([], [info("t", [1 << 32, 1 << 32], "F32", 0)], DATA), ["'t'", "too large"]),
    "dimensions whose product is 0 in 64 bits":
        (pack([], [info("t", [1 << 32, 1 << 31, 2], "F32", 0)], DATA), ["'t'", "too large"]),
    "bytes that are over 64 bits": (pack([], [info("t", [1 << 62], "F32", 0)], DATA),
                                    ["'t'", "too large"]),
    **{f"type {n}": (pack([], [info("t", [4], n, 0)], DATA), ["'t'", f"type {n}"])
       for n in (4, 5, 31, 36, 42, 1000, 0xFFFFFFFF)},
    "blocks that are not whole": (pack([], [info("t", [33], "Q8_0", 0)], bytes(96)),
                                  ["'t'", "Q8_0", "multiple of 32"]),
    "blocks of MXFP4 that are not whole": (pack([], [info("t", [16], "MXFP4", 0)], bytes(96)),
                                           ["'t'", "multiple of 32"]),
    "blocks of Q4_K that are not whole": (pack([], [info("t", [128], "Q4_K", 0)], bytes(96)),
                                          ["'t'", "multiple of 256"]),
    # places
    "an offset that is not aligned": (pack([], [info("t", [4], "F32", 16)], bytes(64)),
                                      ["'t'", "multiple of 32"]),
    "an offset behind the end": (pack([], [info("t", [4], "F32", 64)], bytes(64)), ["'t'"]),
    "an offset of 2^63": (pack([], [info("t", [4], "F32", 1 << 63)], bytes(64)), ["'t'"]),
    "an offset of 2^64 - 32": (pack([], [info("t", [4], "F32", (1 << 64) - 32)], bytes(64)),
                               ["'t'"]),
    "data that ends early": (pack([], [INFO], bytes(15)), ["'t'", "needs 16 bytes"]),
    "no data": (pack([], [INFO]), ["'t'", "needs 16 bytes"]),
    "two tensors in one place": (pack([], [INFO, info("u", [4], "F32", 0)], bytes(64)),
                                 ["'t'", "'u'", "share"]),
    "a tensor that ends in the next": (pack([], [info("t", [16], "F32", 0),
                                                 info("u", [4], "F32", 32)], bytes(64)),
                                       ["'t'", "'u'", "share"]),
    "a split without its files": (model([key("split.count", "u16", 3)], [TENSOR]),
                                  ["one of 3 files"]),
}


def test_there_are_enough_of_them():
    assert len(BROKEN) >= 60


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_refused(ckpt, tmp_path, name):
    data, words = BROKEN[name]
    path = tmp_path / "x.gguf"
    path.write_bytes(data)
    for command in (["ckpt-inspect"], ["ckpt-verify", "digest"]):
        err = ckpt(*command, path, check=2).err
        assert str(path) in err and all(word in err for word in words), err
    ckpt("ckpt-shard", "--layout", "hf", path, tmp_path / "out", check=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.gguf"]


def test_the_good_file_is_read(ckpt, tmp_path):
    (tmp_path / "x.gguf").write_bytes(GOOD)
    found = ckpt("ckpt-inspect", "--json", tmp_path / "x.gguf").json["tensors"]
    assert [(t["name"], t["dtype"], t["shape"], t["bytes"]) for t in found] == \
        [("t", "F32", [4], 16)]


def test_the_last_padding_need_not_be_there(ckpt, tmp_path):
    (tmp_path / "x.gguf").write_bytes(pack([], [INFO], bytes(16)))
    ckpt("ckpt-verify", "digest", tmp_path / "x.gguf")


def test_version_2_is_read(ckpt, tmp_path):
    (tmp_path / "x.gguf").write_bytes(model([ARCH], [TENSOR], version=2))
    ckpt("ckpt-verify", "digest", tmp_path / "x.gguf")


# ---- split files ----

def split(folder, count=3, **change):
    """A model of one tensor a file; change: keys of one file, as {number: [keys]}."""
    for i in range(count):
        keys = change.get(f"file{i}", [key("split.no", "u16", i), key("split.count", "u16", count),
                                       key("split.tensors.count", "i32", count)])
        name = f"m-{i + 1:05}-of-{count:05}.gguf"
        tensor = (f"t{i}", [4], "F32", struct.pack("<4f", *[i] * 4))
        (folder / name).write_bytes(model(keys, [tensor]))
    return folder


def test_any_file_of_a_split_model_stands_for_all(ckpt, digest, tmp_path):
    split(tmp_path)
    roots = {digest(tmp_path / f"m-{i:05}-of-00003.gguf") for i in (1, 2, 3)}
    assert roots == {digest(tmp_path)}
    assert len(ckpt("ckpt-inspect", "--json", tmp_path).json["tensors"]) == 3


def numbered(no, count, total=3):
    return [key("split.no", "u16", no), key("split.count", "u16", count),
            key("split.tensors.count", "i32", total)]


SPLITS = {
    "a number that is doubled": (numbered(0, 3), ["split.no", "expected 1"]),
    "a number that is too large": (numbered(7, 3), ["split.no", "7"]),
    "another count": (numbered(1, 4), ["split.count", "4"]),
    "no count": ([key("split.no", "u16", 1)], ["split.count"]),
    "no number": ([key("split.count", "u16", 3)], ["split.no"]),
    "a number that is text": ([key("split.no", "string", "1"), key("split.count", "u16", 3)],
                              ["split.no"]),
}


@pytest.mark.parametrize("name", SPLITS)
def test_keys_of_splits_that_disagree_are_refused(ckpt, tmp_path, name):
    keys, words = SPLITS[name]
    split(tmp_path, file1=keys)
    err = ckpt("ckpt-verify", "digest", tmp_path, check=2).err
    assert "m-00002-of-00003.gguf" in err and all(w in err for w in words), err


def test_a_split_with_another_number_of_tensors_is_refused(ckpt, tmp_path):
    split(tmp_path, file0=numbered(0, 3, 4))
    assert "split.tensors.count" in ckpt("ckpt-verify", "digest", tmp_path, check=2).err


def test_a_split_that_lacks_a_file_is_refused(ckpt, tmp_path):
    split(tmp_path)
    (tmp_path / "m-00002-of-00003.gguf").unlink()
    err = ckpt("ckpt-verify", "digest", tmp_path, check=2).err
    assert "'m-00002-of-00003.gguf' does not exist" in err


def test_a_tensor_in_two_files_is_refused(ckpt, tmp_path):
    split(tmp_path)
    (tmp_path / "m-00002-of-00003.gguf").write_bytes(model(numbered(1, 3), [
        ("t0", [4], "F32", bytes(16))]))
    err = ckpt("ckpt-verify", "digest", tmp_path, check=2).err
    assert "'t0' is there twice" in err and "m-00001-of-00003.gguf" in err


def test_two_models_in_a_folder_are_refused(ckpt, tmp_path):
    split(tmp_path)
    (tmp_path / "other.gguf").write_bytes(GOOD)
    assert "name one of them" in ckpt("ckpt-verify", "digest", tmp_path, check=2).err
    ckpt("ckpt-verify", "digest", tmp_path / "other.gguf")


# ---- damage without a plan ----

@pytest.mark.parametrize("batch", range(4))
def test_damage_is_refused_or_harmless(ckpt, data, tmp_path, batch):
    """Bytes of the head are changed: one line and status 2, or a digest."""
    good = (data / "gguf" / "golden.gguf").read_bytes()
    rng = random.Random(batch)
    statuses = []
    for _ in range(25):
        bad = bytearray(good[:1728])
        for _ in range(rng.randint(1, 3)):
            bad[rng.randrange(8, len(bad))] = rng.choice([0, 1, 8, 0x7F, 0x80, 0xFF])
        (tmp_path / "x.gguf").write_bytes(bytes(bad) + good[1728:rng.choice([1728, 4128])])
        statuses.append(ckpt("ckpt-verify", "digest", tmp_path / "x.gguf", check=(0, 2)).status)
    assert statuses.count(2) > 5


# ---- memory ----

LIMIT = 64 * MIB


def many_keys():
    return pack([key(f"{i:x}", "u8", 1) for i in range(1_500_000)], [INFO], DATA)


def many_tensors():
    return pack([], [info(f"{i:x}", [4], "F32", 32 * i) for i in range(700_000)],
                bytes(32 * 700_000))


def many_strings():
    return pack([key("a", "array", struct.pack("<IQ", 8, 10_000_000) + bytes(80_000_000))], [INFO],
                DATA)


def texts():
    return pack([key(f"{i:x}", "string", "x" * 4000) for i in range(30_000)], [INFO], DATA)


@pytest.mark.skipif(INSTRUMENTED, reason="a sanitizer's memory is not the tool's")
@pytest.mark.parametrize("make, status", [(many_keys, 2), (many_tensors, 2), (many_strings, 0),
                                          (texts, 2)])
def test_no_head_takes_more_than_the_limit(tmp_path, make, status):
    path = tmp_path / "x.gguf"
    path.write_bytes(make())
    for command in (["ckpt-inspect", "--summary"], ["ckpt-verify", "digest"]):
        done = measure(tmp_path, *command, "--memory", LIMIT, path)
        assert done.status == status, done.err
        assert done.peak_bytes <= LIMIT + 64 * MIB
        assert status == 0 or "memory limit" in done.err
    shutil.rmtree(tmp_path)


@pytest.mark.skipif(INSTRUMENTED, reason="a sanitizer's memory is not the tool's")
def test_a_sparse_file_of_terabytes_costs_nothing(tmp_path):
    """The counts of a head are believed only as far as its largest size."""
    path = tmp_path / "x.gguf"
    with open(path, "wb") as f:
        f.write(pack([raw_key("a", 9, struct.pack("<IQ", 8, 1 << 36))], counts=(1, 1)))
        f.truncate(1 << 41)
    done = measure(tmp_path, "ckpt-inspect", "--memory", LIMIT, path)
    assert done.status == 2 and done.cpu_seconds < 20 and done.peak_bytes <= LIMIT + 64 * MIB
    assert "length of an array is" in done.err
