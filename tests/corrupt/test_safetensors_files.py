"""Damaged .safetensors files: every rule of the format has a file that breaks it."""
import json
import struct

import pytest

from corrupt.files import Tensor, file_bytes, pack, read_file, tensor_files

MIB = 1 << 20


def entry(dtype="U8", shape=(4,), offsets=(0, 4)):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def one(text, data=b"1234"):
    """A file whose only tensor is given as JSON text."""
    return pack('{"t":' + text + "}", data)


GOOD = pack({"t": entry()}, b"1234")
DEEP = "[" * 1000 + "]" * 1000
BAD_UTF8 = {
    "lone continuation": b"\x80", "cut sequence": b"\xc3", "overlong slash": b"\xc0\xaf",
    "overlong nul": b"\xc0\x80", "surrogate": b"\xed\xa0\x80",
    "above the last": b"\xf4\x90\x80\x80",
    "0xFF": b"\xff",
}

# name: (bytes of the file, words of the message)
BROKEN = {
    # length
    "empty file": (b"", ["0 bytes", "too few"]),
    "seven bytes": (b"\x02\0\0\0\0\0\0", ["7 bytes", "too few"]),
    "no header": (struct.pack("<Q", 0), ["does not start with '{'"]),
    "header longer than the file": (pack(b"{}", length=3), ["3 bytes", "10"]),
    "header of 100 MB and a byte": (pack(b"{}", length=100_000_001), ["100000001", "100000000"]),
    "header of 2^60 bytes": (pack(b"{}", length=1 << 60), ["1152921504606846976"]),
    "header of 2^64 - 1 bytes": (pack(b"{}", length=(1 << 64) - 1), ["18446744073709551615"]),
    "header of 2^64 - 8 bytes": (pack(b"{}", length=(1 << 64) - 8), ["18446744073709551608"]),
    # JSON
    "space before the brace": (pack(b" {}"), ["does not start with '{'"]),
    "byte order mark": (pack(b"\xef\xbb\xbf{}"), ["does not start with '{'"]),
    "an array": (pack(b"[]"), ["does not start with '{'"]),
    "not closed": (pack(b'{"t":'), []),
    "text after the end": (pack(b'{"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}x'), []),
    "nul after the end": (pack(b'{"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}\0'), []),
    "comma at the end": (pack(b'{"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},}'), []),
    "comment": (pack(b'{/**/"t":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'), []),
    "single quotes": (pack(b"{'t':{}}"), []),
    "control character in a name": (pack(b'{"t\n":{}}'), []),
    "nul in a name": (pack(b'{"t\0":{}}'), []),
    "escaped nul in a name": (pack(b'{"t\\u0000":{}}'), []),
    "half a surrogate pair": (pack(b'{"\\ud800":{}}'), []),
    "surrogates in the wrong order": (pack(b'{"\\udc00\\ud800":{}}'), []),
    "unknown escape": (pack(b'{"\\x41":{}}'), []),
    "deep nesting": (one(DEEP, b""), []),
    "deep nesting in the metadata": (pack('{"__metadata__":{"a":' + DEEP + "}}"), []),
    "deep objects": (pack('{"a":' * 5000 + "1" + "}" * 5000), []),
    "a million brackets": (pack("{" + '"a":[' + "[" * MIB), []),
    **{f"bad UTF-8: {what}": (pack(b'{"' + b + b'":{"dtype":"U8","shape":[0],'
                                   b'"data_offsets":[0,0]}}'), [])
       for what, b in BAD_UTF8.items()},
    # duplicates
    "duplicate name": (pack('{"t":%s,"t":%s}' % ((json.dumps(entry()),) * 2), b"1234"), ["t"]),
    "duplicate name, spelled otherwise":
        (pack('{"t":%s,"\\u0074":%s}' % ((json.dumps(entry()),) * 2), b"1234"), ["t"]),
    "duplicate field": (one('{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}'),
                        ["dtype"]),
    "duplicate metadata": (pack('{"__metadata__":{},"__metadata__":{}}'), ["__metadata__"]),
    "duplicate key in the metadata": (pack('{"__metadata__":{"a":"1","a":"2"}}'), ["a"]),
    # entries
    "entry that is a number": (one("4"), ["'t'", "not an object"]),
    "no dtype": (one('{"shape":[4],"data_offsets":[0,4]}'), ["'t'", "dtype"]),
    "no shape": (one('{"dtype":"U8","data_offsets":[0,4]}'), ["'t'", "shape"]),
    "no offsets": (one('{"dtype":"U8","shape":[4]}'), ["'t'", "data_offsets"]),
    "unknown field": (one('{"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":1}'),
                      ["'t'", "unknown field"]),
    "unknown dtype": (pack({"t": entry("Q7")}, b"1234"), ["'t'", "'Q7'"]),
    "dtype in lower case": (pack({"t": entry("u8")}, b"1234"), ["'t'", "'u8'"]),
    "dtype NONE": (pack({"t": entry("NONE")}, b"1234"), ["'t'", "'NONE'"]),
    "dtype that is a number": (one('{"dtype":8,"shape":[4],"data_offsets":[0,4]}'), ["'t'"]),
    "shape that is a number": (one('{"dtype":"U8","shape":4,"data_offsets":[0,4]}'), ["'t'"]),
    "shape with text": (one('{"dtype":"U8","shape":["4"],"data_offsets":[0,4]}'), ["'t'"]),
    "nine dimensions": (pack({"t": entry(shape=[1] * 8 + [4])}, b"1234"), ["'t'", "8 dim"]),
    "a thousand dimensions": (pack({"t": entry(shape=[1] * 1000)}, b"1234"), ["'t'"]),
    # numbers
    **{f"dimension {text}": (one('{"dtype":"U8","shape":[%s],"data_offsets":[0,4]}' % text),
                             [])
       for text in ("-4", "4.0", "4e0", "0x4", "04", "+4", "4.", "NaN", "1e3", "null", "true",
                    "18446744073709551616", "1" * 400)},
    **{f"offsets {text}": (one('{"dtype":"U8","shape":[4],"data_offsets":%s}' % text), [])
       for text in ("[-4,0]", "[0,4.0]", "[0.0,4]", "[0,4e0]", "[0]", "[0,4,8]", "[]", "[4,0]",
                    '["0","4"]', "{}", "4", "[0,18446744073709551620]", "[0,-0]")},
    "2^53 + 1 is not 2^53": (one('{"dtype":"U8","shape":[9007199254740993],'
                                 '"data_offsets":[0,9007199254740993]}'),
                             ["9007199254740993"]),
    "a name of 1024 bytes": (pack({"n" * 1024: entry()}, b"1234"), ["tensor 0", "1024", "1023"]),
    # sizes
    "shape that overflows": (one('{"dtype":"U8","shape":[4294967296,4294967296],'
                                 '"data_offsets":[0,0]}', b""), ["'t'"]),
    "shape that wraps to four":       # 2^64 + 4
        (one('{"dtype":"U8","shape":[4,2147418113,2147549185],"data_offsets":[0,4]}'), ["'t'"]),
    "bytes that wrap to two":         # 2^64 + 2
        (one('{"dtype":"BF16","shape":[119537721,77158673929],"data_offsets":[0,2]}', b"12"),
         ["'t'"]),
    "shape and offsets disagree": (pack({"t": entry(shape=[3])}, b"1234"),
                                   ["'t'", "[3]", "3 bytes", "4"]),
    "dtype and offsets disagree": (pack({"t": entry("BF16")}, b"1234"), ["'t'", "BF16"]),
    "F4 row of half a byte": (pack({"t": entry("F4", [2, 3], [0, 3])}, b"123"), ["'t'"]),
    "F4 of one code": (pack({"t": entry("F4", [1], [0, 1])}, b"1"), ["'t'"]),
    "F6 row of half a byte": (pack({"t": entry("F6_E2M3", [2, 2], [0, 3])}, b"123"), ["'t'"]),
    # cover
    "hole at the beginning": (pack({"t": entry(offsets=[1, 5])}, b"12345"), ["'t'", "hole"]),
    "hole between": (pack({"s": entry(offsets=[0, 4]), "t": entry(offsets=[5, 9])}, b"1" * 9),
                     ["'t'", "starts at 5", "expected 4", "hole"]),
    "overlap": (pack({"s": entry(offsets=[0, 4]), "t": entry(offsets=[3, 7])}, b"1" * 7),
                ["'t'", "starts at 3", "expected 4", "overlap"]),
    "the same bytes twice": (pack({"s": entry(), "t": entry()}, b"1234"), ["overlap"]),
    "hole at the end": (pack({"t": entry()}, b"12345"), ["5 bytes", "4"]),
    "no tensor, but data": (pack({}, b"1"), ["1 bytes", "0"]),
    "data missing": (pack({"t": entry()}, b"123"), ["'t'", "4", "3"]),
    "end beyond the file": (pack({"t": entry(shape=[1 << 40], offsets=[0, 1 << 40])}, b"1234"),
                            ["'t'", str(1 << 40)]),
    "empty tensor in a hole": (pack({"s": entry(offsets=[0, 4]),
                                     "t": entry(shape=[0], offsets=[2, 2])}, b"1234"), []),
    # metadata
    "metadata that is text": (pack('{"__metadata__":"pt"}'), ["__metadata__"]),
    "metadata of a number": (pack('{"__metadata__":{"a":1}}'), ["__metadata__"]),
    "metadata of an object": (pack('{"__metadata__":{"a":{}}}'), ["__metadata__"]),
    # nothing
    "no tensors": (pack("{}"), ["no tensors"]),
    "only metadata": (pack('{"__metadata__":{"a":"b"}}'), ["no tensors"]),
}


@pytest.mark.parametrize("case", BROKEN, ids=[c.replace(" ", "-") for c in BROKEN])
def test_is_refused_with_its_message(ckpt, tmp_path, case):
    data, words = BROKEN[case]
    path = tmp_path / "broken.safetensors"
    path.write_bytes(data)
    err = ckpt("ckpt-convert", path, tmp_path / "out", check=2).err
    assert "broken.safetensors'" in err, err
    for word in words:
        assert word in err, err
    assert [p.name for p in tmp_path.iterdir()] == ["broken.safetensors"]


def test_the_file_that_all_others_are_made_of_is_good(ckpt, tmp_path):
    (tmp_path / "good.safetensors").write_bytes(GOOD)
    ckpt("ckpt-convert", tmp_path / "good.safetensors", tmp_path / "out")
    assert tensor_files(tmp_path / "out")["good.safetensors"][-4:] == b"1234"


def test_every_truncation_is_refused(ckpt, tmp_path):
    data = file_bytes({"a": Tensor("BF16", [2, 3], bytes(12)), "b": Tensor("U8", [3], b"abc")},
                      {"format": "pt"})
    path = tmp_path / "cut.safetensors"
    for size in list(range(0, 24)) + list(range(24, len(data), 5)) + [len(data) - 1]:
        path.write_bytes(data[:size])
        ckpt("ckpt-inspect", path, check=2)
    path.write_bytes(data + b"\0")
    ckpt("ckpt-inspect", path, check=2)
    path.write_bytes(data)
    ckpt("ckpt-inspect", path)


ODD = {
    "a name of 1023 bytes": ({"n" * 1023: Tensor("U8", [1], b"x")}, None),
    "rank 0": ({"t": Tensor("F32", [], b"\0\0\x80\x3f")}, None),
    "no elements": ({"t": Tensor("F32", [0], b""), "s": Tensor("BF16", [3, 0, 2], b""),
                     "wide": Tensor("U8", [0, 1 << 32, 1 << 32], b""),
                     "high": Tensor("U8", [(1 << 53) - 1, 0], b""),
                     "r": Tensor("U8", [1], b"x")}, None),
    "every dtype": ({d: Tensor(d, [2, 8], bytes(range(16 * bits // 8))) for d, bits in
                     {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "U8": 8, "I8": 8,
                      "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16,
                      "U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32,
                      "C64": 64, "F64": 64, "I64": 64, "U64": 64}.items()}, None),
    "names": ({n: Tensor("U8", [1], b"x") for n in
               ("é", "漢字", "\U0001f600", 'quote"', "back\\slash", "a/b", " ", "tab\t",
                "\x7f", "..", "x" * 900)}, {"ключ": "значение"}),
    "eight dimensions": ({"t": Tensor("I64", [1, 2, 1, 2, 1, 1, 1, 3], bytes(96))}, None),
    "odd positions": ({"a": Tensor("U8", [3], b"abc"), "b": Tensor("I64", [1], bytes(8))}, None),
}


@pytest.mark.parametrize("case", ODD, ids=[c.replace(" ", "-") for c in ODD])
def test_unusual_but_allowed(ckpt, tmp_path, case):
    tensors, metadata = ODD[case]
    (tmp_path / "odd.safetensors").write_bytes(file_bytes(tensors, metadata))
    if case == "every dtype":        # some of them have no digest
        ckpt("ckpt-convert", "--no-digest", tmp_path / "odd.safetensors", tmp_path / "out")
    else:
        ckpt("ckpt-convert", tmp_path / "odd.safetensors", tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(tmp_path)


def test_unsorted_and_unaligned_data_are_read_and_written_in_order(ckpt, tmp_path):
    """Key order and data order are free; the writer's are not."""
    header = {"b": entry("U8", [3], [0, 3]), "a": entry("F64", [1], [3, 11]),
              "c": entry("BF16", [2], [11, 15])}
    data = b"abc" + struct.pack("<d", 1.5) + b"\x80\x3f\0\x40"
    (tmp_path / "x.safetensors").write_bytes(pack(header, data))
    ckpt("ckpt-convert", "--no-digest", tmp_path / "x.safetensors", tmp_path / "out")
    assert tensor_files(tmp_path / "out")["x.safetensors"] == file_bytes({
        "a": Tensor("F64", [1], data[3:11]), "b": Tensor("U8", [3], b"abc"),
        "c": Tensor("BF16", [2], data[11:])})


def test_spaces_after_the_header_are_padding(ckpt, tmp_path):
    header = json.dumps({"t": entry()}) + " " * 1000
    (tmp_path / "x.safetensors").write_bytes(pack(header, b"1234"))
    ckpt("ckpt-convert", tmp_path / "x.safetensors", tmp_path / "out")
    assert tensor_files(tmp_path / "out")["x.safetensors"] == \
        file_bytes({"t": Tensor("U8", [4], b"1234")})


def test_metadata_that_is_null_is_none(ckpt, tmp_path):
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack('{"__metadata__":null,"t":{"dtype":"U8","shape":[1],'
                          '"data_offsets":[0,1]}}', b"x"))
    ckpt("ckpt-convert", path, tmp_path / "out")
    tensors, metadata = read_file(tmp_path / "out/a.safetensors")
    assert tensors["t"].data == b"x" and metadata is None
