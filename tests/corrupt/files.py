"""Checkpoints made byte by byte: no library stands between a test and the bytes it wants."""
import dataclasses
import json
import os
import pathlib
import struct

# In the order of the safetensors library; files are sorted by it, descending.
DTYPES = ["BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0",
          "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64",
          "F64", "I64", "U64"]
INDEX = "model.safetensors.index.json"


@dataclasses.dataclass
class Tensor:
    dtype: str
    shape: list
    data: bytes

    def changed(self, at, value):
        """The same with one byte set (int), or changed by a function of the byte."""
        data = bytearray(self.data)
        data[at] = value(data[at]) if callable(value) else value
        return Tensor(self.dtype, self.shape, bytes(data))


def bf16(shape, value=0x3F80):
    """A BF16 tensor whose elements all have one code."""
    count = 1
    for d in shape:
        count *= d
    return Tensor("BF16", list(shape), struct.pack("<H", value) * count)


def pack(header, data=b"", length=None):
    """A safetensors file of any header (text, bytes or an object) and any data."""
    if not isinstance(header, (str, bytes)):
        header = json.dumps(header, separators=(",", ":"), ensure_ascii=False)
    if isinstance(header, str):
        header = header.encode()
    return struct.pack("<Q", len(header) if length is None else length) + header + data


def file_bytes(tensors, metadata=None):
    """A file as the safetensors library writes it."""
    order = sorted(tensors, key=lambda n: (-DTYPES.index(tensors[n].dtype), n.encode()))
    header, data, end = {}, [], 0
    if metadata is not None:
        header["__metadata__"] = metadata
    for name in order:
        t = tensors[name]
        header[name] = {"dtype": t.dtype, "shape": t.shape,
                        "data_offsets": [end, end + len(t.data)]}
        end += len(t.data)
        data.append(t.data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    return pack(text + b" " * (-len(text) % 8), b"".join(data))


def read_header(path):
    """(header without metadata, metadata, offset of the data)."""
    with open(path, "rb") as f:
        length = struct.unpack("<Q", f.read(8))[0]
        header = json.loads(f.read(length))
    metadata = header.pop("__metadata__", None)
    return header, metadata, 8 + length


def read_file(path):
    """{name: Tensor} and the metadata."""
    header, metadata, offset = read_header(path)
    data = pathlib.Path(path).read_bytes()[offset:]
    tensors = {name: Tensor(h["dtype"], h["shape"], data[slice(*h["data_offsets"])])
               for name, h in header.items()}
    return tensors, metadata


class Model:
    """A Hugging Face directory in memory."""

    def __init__(self, path=None):
        self.files, self.metadata, self.config, self.extras = {}, {}, None, {}
        self.stale = {}                      # index entries of tensors that are in no file
        for p in sorted(pathlib.Path(path).iterdir()) if path is not None else []:
            if p.suffix == ".safetensors":
                self.files[p.name], self.metadata[p.name] = read_file(p)
            elif p.name == "config.json":
                self.config = json.loads(p.read_text())
            elif p.name != INDEX:
                self.extras[p.name] = p.read_bytes()

    def file_of(self, name):
        return next(f for f, tensors in self.files.items() if name in tensors)

    def names(self):
        return [n for tensors in self.files.values() for n in tensors]

    def __contains__(self, name):
        return any(name in tensors for tensors in self.files.values())

    def __getitem__(self, name):
        return self.files[self.file_of(name)][name]

    def __setitem__(self, name, tensor):
        """Replace a tensor, or add one to the last file."""
        self.files[self.file_of(name) if name in self else list(self.files)[-1]][name] = tensor

    def __delitem__(self, name):
        del self.files[self.file_of(name)][name]

    def rename(self, name, to):
        tensors = self.files[self.file_of(name)]
        tensors[to] = tensors.pop(name)

    def index(self):
        where = {n: f for f, tensors in self.files.items() for n in tensors}
        total = sum(len(t.data) for tensors in self.files.values() for t in tensors.values())
        return {"metadata": {"total_size": total}, "weight_map": {**where, **self.stale}}

    def write(self, path, index=True):
        path = pathlib.Path(path)
        path.mkdir()
        for name, tensors in self.files.items():
            (path / name).write_bytes(file_bytes(tensors, self.metadata.get(name)))
        if index:
            (path / INDEX).write_text(json.dumps(self.index(), indent=1))
        if self.config is not None:
            (path / "config.json").write_text(json.dumps(self.config, indent=1))
        for name, data in self.extras.items():
            (path / name).write_bytes(data)
        return path


def link_tree(source, path):
    """A copy whose files are hard links; replace a file, never write into it."""
    path = pathlib.Path(path)
    path.mkdir()
    for p in pathlib.Path(source).iterdir():
        os.link(p, path / p.name)
    return path


def with_byte(source, path, name, at, value):
    """A copy of a checkpoint in which byte `at` of tensor `name` is other; (old, new) byte."""
    path = link_tree(source, path)
    for p in sorted(path.glob("*.safetensors")):
        header, _, offset = read_header(p)
        if name in header:
            data = bytearray(p.read_bytes())
            position = offset + header[name]["data_offsets"][0] + at
            assert position < offset + header[name]["data_offsets"][1]
            old = data[position]
            data[position] = value(old) if callable(value) else value
            assert data[position] != old, "nothing would change"
            p.unlink()
            p.write_bytes(data)
            return old, data[position]
    raise KeyError(name)


def tensor_files(path):
    """{name: bytes} of the tensor files of a directory."""
    return {p.name: p.read_bytes() for p in sorted(pathlib.Path(path).glob("*.safetensors"))}


def all_files(path):
    """{relative name: bytes} of a whole tree."""
    path = pathlib.Path(path)
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*"))
            if p.is_file()}
