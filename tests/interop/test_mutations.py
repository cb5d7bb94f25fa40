"""Single elements changed at random, in every layout and encoding: what digest, compare and check
say is what NumPy says, also where the bytes change and the values do not.

Nothing here uses the tools to find an element or its value: files are taken apart by their formats,
and values computed by the definitions in ckpt-digest(7)."""
import dataclasses
import hashlib
import io
import json
import os
import pathlib
import pickle
import random
import re
import shutil
import zipfile

import numpy as np
import pytest

from conftest import RELEASE
from corrupt.files import Model, Tensor, read_header
from interop.numpy_codes import e2m1, e4m3, e8m0

# Needs torch, whose classes .metadata holds, too.
pytest.importorskip("torch")
from interop.value_digest import xxhash     # noqa: E402

BATCHES, PER_BATCH = (40 if RELEASE else 6), 50
SEED = int(os.environ.get("CKPT_SEED", "20260901"))
ITEM = {"BF16": "<u2", "F32": "<u4", "I64": "<i8", "I32": "<i4"}      # else a byte


# ---- values ----

@dataclasses.dataclass
class Logical:
    """A tensor as stored: codes or elements in rows, and the scales of its blocks."""
    dtype: str                   # "FP4", "F8_E4M3", "BF16", "F32", "I64", "I32"
    data: np.ndarray = None      # FP4: two codes a byte, the low nibble first
    scale_dtype: str = None
    scale: np.ndarray = None

    @property
    def is_int(self):
        return self.dtype[0] == "I"

    def values(self):
        """(canonical values, whether a product is not finite though its factors are)."""
        if self.is_int:
            return self.data.astype(np.int64), False
        if self.scale is None:
            bits = self.data.astype(np.uint32) << (16 if self.dtype == "BF16" else 0)
            return canonical(bits), False
        if self.dtype == "FP4":
            pairs = np.stack([self.data & 15, self.data >> 4], axis=-1)
            codes, block = e2m1(pairs.reshape(len(self.data), -1)), (1, 32)
        else:
            codes, block = e4m3(self.data), (128, 128)
        scales = e8m0(self.scale.astype(int)) if self.scale_dtype == "F8_E8M0" else \
            self.scale.view("<f4").astype(float)
        spread = scales.repeat(block[0], 0).repeat(block[1], 1)[:codes.shape[0], :codes.shape[1]]
        with np.errstate(all="ignore"):      # exact in 64 bits, rounded once
            product = (codes * spread).astype(np.float32)
        wrong = np.isinf(product) & np.isfinite(codes) & np.isfinite(spread)
        return canonical(product.view(np.uint32)), bool(wrong.any())


def canonical(bits):
    """F32 bits with one zero and one NaN."""
    magnitude = bits & 0x7FFFFFFF
    return np.where(magnitude == 0, 0, np.where(magnitude > 0x7F800000, 0x7FC00000,
                                                bits)).astype("<u4")


def digest_of(values):
    """32 hex digits, as ckpt-digest(7) defines them."""
    per_row = -(-values.shape[1] // 1024)
    total = 0
    for row, row_values in enumerate(values):
        for unit in range(per_row):
            part = row_values[1024 * unit:1024 * (unit + 1)]
            if part.dtype != np.int64 and not (part & 0xFFFF).any():
                part = (part >> 16).astype("<u2")
            data = part.tobytes()
            h = xxhash.XXH3_128bits_withSeed(data, len(data), row * per_row + unit)
            total += h.high << 64 | h.low
    return f"{total % (1 << 128):032x}"


def element(said, values):
    """The element that compare says, canonical as those of `values`."""
    if values.dtype == np.int64:
        return said
    return int(canonical(np.float32(said).reshape(1).view(np.uint32))[0])


# ---- where elements lie ----

@dataclasses.dataclass
class Piece:
    """A box of one part of a logical tensor, in one file, or the same in several."""
    name: str
    part: str                    # "data" or "scale"
    places: list                 # (file, offset)
    box: tuple                   # first row, first column, rows, columns

    def offset(self, place, row, col, width):
        return self.places[place][1] + ((row - self.box[0]) * self.box[3] +
                                        col - self.box[1]) * width


def rows_and_columns(shape):
    shape = list(shape)
    return int(np.prod(shape[:-1])) if len(shape) > 1 else 1, shape[-1] if shape else 1


class World:
    """A checkpoint in some layout, its elements and their values."""

    def __init__(self, path):
        self.path, self.pieces, self.tensors, self.sums = path, [], {}, {}

    def add(self, piece, dtype, shape):
        """`shape` of the whole part, in rows and columns."""
        t = self.tensors.setdefault(piece.name, Logical(None))
        if piece.part == "scale":
            t.scale_dtype = dtype
        else:
            t.dtype = "FP4" if dtype in ("I8", "F4") else dtype
        array = getattr(t, piece.part)
        if array is None:
            array = np.zeros(shape, ITEM.get(dtype, "u1"))
            setattr(t, piece.part, array)
        row, col, rows, cols = piece.box
        file, offset = piece.places[0]
        data = file.read_bytes()[offset:offset + rows * cols * array.itemsize]
        array[row:row + rows, col:col + cols] = np.frombuffer(data, array.dtype).reshape(rows, cols)
        self.pieces.append(piece)

    def finish(self, ckpt, folder):
        """What the tools say of it as it is, once compared with what is known here."""
        self.values = {n: t.values()[0] for n, t in self.tensors.items()}
        said = ckpt("ckpt-verify", "digest", "--json", self.path).json
        self.said = {t["name"]: t for t in said["tensors"]}
        assert {n: digest_of(v) for n, v in self.values.items()} == {
            n: t["value"] for n, t in self.said.items()}, self.path
        self.manifest = folder / f"{self.path.name}.manifest"
        self.manifest.write_text(json.dumps(said))
        return self


def weight_of(name):
    return (name[:-len("scale")] + "weight", "scale") if name.endswith(".scale") else (name, "data")


def packed_shape(header):
    rows, cols = rows_and_columns(header["shape"])
    return rows, cols // 2 if header["dtype"] == "F4" else cols


def hugging_face(path):
    """A folder of safetensors files, or one file."""
    world = World(path)
    for file in sorted(path.glob("*.safetensors")) if path.is_dir() else [path]:
        headers, _, begin = read_header(file)
        for stored, h in headers.items():
            name, part = weight_of(stored) if stored.replace(".scale", ".weight") in headers \
                else (stored, "data")
            shape = packed_shape(h)
            world.add(Piece(name, part, [(file, begin + h["data_offsets"][0])], (0, 0, *shape)),
                      h["dtype"], shape)
    return world


CUT_ROWS = re.compile(r"(embed|head|.*\.attn\.(wq_b|wo_a|indexer\.wq_b|indexer\.weights_proj))\."
                      r"(weight|scale)|.*\.attn\.attn_sink")
CUT_COLUMNS = re.compile(r".*\.attn\.wo_b\.(weight|scale)")


def model_parallel(path):
    """model{rank}-mp{N}: cut by rows or columns, owned by one rank, or in all of them."""
    world, whole = World(path), {}
    files = sorted(path.glob("model*-mp*.safetensors"))
    for rank, file in enumerate(files):
        headers, _, begin = read_header(file)
        for stored, h in headers.items():
            name, part = weight_of(stored) if stored.replace(".scale", ".weight") in headers \
                else (stored, "data")
            rows, cols = packed_shape(h)
            place = file, begin + h["data_offsets"][0]
            if CUT_ROWS.fullmatch(stored) and len(h["shape"]) == 1:
                world.add(Piece(name, part, [place], (0, rank * cols, 1, cols)), h["dtype"],
                          (1, cols * len(files)))
            elif CUT_ROWS.fullmatch(stored):
                world.add(Piece(name, part, [place], (rank * rows, 0, rows, cols)), h["dtype"],
                          (rows * len(files), cols))
            elif CUT_COLUMNS.fullmatch(stored):
                world.add(Piece(name, part, [place], (0, rank * cols, rows, cols)), h["dtype"],
                          (rows, cols * len(files)))
            elif (name, part) in whole:
                whole[name, part].places.append(place)
            else:
                whole[name, part] = Piece(name, part, [place], (0, 0, rows, cols))
                world.add(whole[name, part], h["dtype"], (rows, cols))
    return world


def megatron_box(key, offsets, sizes, names, width):
    """(logical name, first row and column) of a box; `width`: rows of half of a gate-and-up."""
    expert = re.fullmatch(r"decoder\.layers\.(\d+)\.mlp\.experts\.experts\.(linear_fc[12])\.weight",
                          key)
    shared = re.fullmatch(r"decoder\.layers\.(\d+)\.mlp\.shared_experts\.linear_fc1\.weight", key)
    if expert and expert[2] == "linear_fc1":
        e, row, col = offsets
        return (f"layers.{expert[1]}.ffn.experts.{e}.{'w3' if row >= width else 'w1'}.weight",
                row % width, col)
    if expert:
        e, row, col = offsets
        return f"layers.{expert[1]}.ffn.experts.{e}.w2.weight", row, col
    if shared:
        row, col = offsets
        return (f"layers.{shared[1]}.ffn.shared_experts.{'w3' if row >= width else 'w1'}.weight",
                row % width, col)
    return names[key], *([0] * (2 - len(offsets))), *offsets


def torch_dist(path, names, shapes, width):
    """`names`: native by Megatron's; `shapes`: rows and columns by native name."""
    world = World(path)
    folder = path / "release"
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    short = {"bfloat16": "BF16", "float32": "F32", "int32": "I32"}
    for index, info in metadata.storage_data.items():
        entry = metadata.state_dict_metadata[index.fqn]
        sizes = next(c.sizes for c in entry.chunks if c.offsets == index.offset)
        file = folder / info.relative_path
        item = file.read_bytes()[info.offset:info.offset + info.length]
        record, = (i for i in zipfile.ZipFile(io.BytesIO(item)).infolist()
                   if i.filename.endswith("/data/0"))
        at = record.header_offset
        lengths = np.frombuffer(item[at + 26:at + 30], "<u2")
        begin = info.offset + at + 30 + int(lengths.sum())
        name, row, col = megatron_box(index.fqn, index.offset, sizes, names, width)
        piece = Piece(name, "data", [(file, begin)], (row, col, *rows_and_columns(sizes)))
        world.add(piece, short[str(entry.properties.dtype)[6:]], shapes[name])
        world.sums[name, row, col] = 1
    return world


# ---- the checkpoints ----

def prepared(golden):
    """golden-a with zeros of both signs, NaN of several payloads, blocks and groups of zeros."""
    model, rng = Model(golden), np.random.default_rng(1)
    for names in [list(tensors) for tensors in model.files.values()]:
        for name in names:
            t = model[name]
            data = np.frombuffer(t.data, ITEM.get(t.dtype, "u1")).copy()
            if t.dtype in ("BF16", "F32"):
                special = [0, 0x8000, 0x7FC1, 0xFF81] if t.dtype == "BF16" else \
                    [0, 0x80000000, 0x7FC00001, 0xFFFFFFFF, 0x7F800001]
                for value in special[:max(0, data.size - 1)]:
                    data[rng.integers(data.size)] = value
            elif t.dtype in ("I8", "F8_E4M3"):
                codes = data.reshape(t.shape)
                zeros = rng.choice([0, 8, 0x80, 0x88] if t.dtype == "I8" else [0, 0x80],
                                   codes[:128].shape)
                cols = 64 if t.dtype == "I8" else 128          # the first block of 128 x 128
                if rng.integers(4) == 0:
                    codes[:128, :cols] = zeros[:, :cols]
                if t.dtype == "I8":
                    codes[::7, -16:] = zeros[:len(codes[::7]), -16:]
            model[name] = Tensor(t.dtype, t.shape, data.tobytes())
    return model


def megatron_names(values):
    """{Megatron key: native name} of the tensors that are no stack and no pair, from their one
    table in the tests."""
    from interop.v4_values import BOTH, HEAD, TOP, V1
    made = {}
    for name in values:
        layer = re.fullmatch(r"layers\.(\d+)\.(.*)", name)
        if layer is None:
            made[TOP[name] if name in TOP else HEAD["v1"] + name] = name
        else:
            rest = {**BOTH, **V1, "ffn.gate.tid2eid": "mlp.router.tid2eid"}.get(layer[2], layer[2])
            made[f"decoder.layers.{layer[1]}.{rest}"] = name
    return made


@pytest.fixture(scope="module")
def worlds(ckpt, golden_a, tmp_path_factory):
    folder = tmp_path_factory.mktemp("worlds")
    model = prepared(golden_a)
    native = model.write(folder / "native")
    ranks = "--layout", "mp", "--mp"
    dist = "--layout", "torch_dist"
    made = {}
    for name, tool, *options in (
            ("file", "ckpt-convert", "--max-shard-size", "1GB"),
            ("fp8-e8m0", "ckpt-convert", "--dtype", "fp8", "--scale-dtype", "e8m0"),
            ("fp8-f32", "ckpt-convert", "--dtype", "fp8", "--scale-dtype", "f32"),
            ("bf16", "ckpt-convert", "--dtype", "bf16"),
            ("mp2", "ckpt-shard", *ranks, "2"), ("mp4", "ckpt-shard", *ranks, "4", "--experts",
                                                 "fp8"),
            ("layers", "ckpt-shard", *dist),
            ("ranks", "ckpt-shard", *dist, "--files", "rank", "--tp", "4", "--ep", "2", "--etp",
             "2")):
        made[name] = folder / name
        ckpt(tool, *options, native, made[name])
    bf16 = hugging_face(made["bf16"])
    shapes = {n: t.data.shape for n, t in bf16.tensors.items()}
    names = megatron_names(shapes)
    width = model.config["moe_intermediate_size"]
    result = [hugging_face(p) for p in (native, made["fp8-e8m0"], made["fp8-f32"])] + [
        bf16, hugging_face(made["file"] / "model.safetensors"), model_parallel(made["mp2"]),
        model_parallel(made["mp4"]), torch_dist(made["layers"], names, shapes, width),
        torch_dist(made["ranks"], names, shapes, width)]
    originals = folder / "originals"
    for world in result:
        world.finish(ckpt, folder)
        place = pathlib.Path(*world.path.relative_to(folder).parts[:1])
        if not (originals / place).exists():
            shutil.copytree(folder / place, originals / place)
        world.original = originals / world.path.relative_to(folder)
    return result


# ---- mutations ----

def neutral(rng, t, part):
    """(row, column, new) of a change that keeps the values, or None when this tensor has none."""
    if part == "scale":
        block = (1, 16) if t.dtype == "FP4" else (128, 128)
        mask = 0x77 if t.dtype == "FP4" else 0x7F
        at = [(r, c) for r in range(t.scale.shape[0]) for c in range(t.scale.shape[1])
              if not (t.data[r * block[0]:(r + 1) * block[0],
                             c * block[1]:(c + 1) * block[1]] & mask).any()]
        new = rng.randrange(255) if t.scale_dtype == "F8_E8M0" else rng.randrange(0x7F800000)
    elif t.dtype in ("FP4", "F8_E4M3"):
        sign = [0x08, 0x80] if t.dtype == "FP4" else [0x80]
        bit = rng.choice(sign)
        low = bit - 1 if t.dtype == "F8_E4M3" else 0x07 if bit == 0x08 else 0x70
        at, new = np.argwhere(t.data & low == 0), lambda old: old ^ bit
    elif t.is_int:
        return None
    else:
        top = 0x8000 if t.dtype == "BF16" else 0x80000000
        most = 0x7F80 if t.dtype == "BF16" else 0x7F800000
        is_zero = t.data & (top - 1) == 0
        is_nan = t.data & (top - 1) > most
        at = np.argwhere(is_zero | is_nan)

        def new(old):
            if old & (top - 1) == 0:
                return old ^ top
            return rng.choice([0, top]) | most | rng.randint(1, top - 1 - most)
    if len(at) == 0:
        return None
    row, col = map(int, at[rng.randrange(len(at))])
    return row, col, new if callable(new) else lambda _: new


def mutation(rng, world):
    """(piece, row, column, old, new): an element of a stored part, and what it becomes."""
    while True:
        piece = rng.choice(world.pieces)
        t = world.tensors[piece.name]
        array = getattr(t, piece.part)
        width = 8 * array.itemsize
        found = neutral(rng, t, piece.part) if rng.random() < .4 else None
        if found is None:
            row = piece.box[0] + rng.randrange(piece.box[2])
            col = piece.box[1] + rng.randrange(piece.box[3])
            high = rng.randint(0x7E800000, 0x7F7FFFFF) if width == 32 else rng.randint(245, 254)
            new = rng.choice([lambda old: old ^ 1 << rng.randrange(width),
                              lambda old: rng.getrandbits(width), lambda old: 0,
                              lambda old: (1 << width) - 1] +
                             [lambda old: high] * (3 if piece.part == "scale" else 0))
        else:
            row, col, new = found
        if not (piece.box[0] <= row < piece.box[0] + piece.box[2] and
                piece.box[1] <= col < piece.box[1] + piece.box[3]):
            continue                       # of another piece of the same tensor
        old = int(array[row, col]) % (1 << width)
        if new(old) != old and (made := new(old)) != old:
            return piece, row, col, old, made


class Changed:
    """The files with one element changed, until the end of the block; and what is true then."""

    def __init__(self, rng, world):
        self.world = world
        self.piece, self.row, self.col, self.old, self.new = mutation(rng, world)
        t = world.tensors[self.piece.name]
        self.array = getattr(t, self.piece.part)
        count = len(self.piece.places)
        self.places = rng.choice([range(count), [rng.randrange(count)]])
        self.disagree = len(self.places) < count
        self.text = (f"{world.path.name} {self.piece.name} {self.piece.part} {t.dtype} "
                     f"[{self.row}, {self.col}]: {self.old:#x} -> {self.new:#x} in "
                     f"{list(self.places)} of {count}")

    def put(self, value):
        data = value.to_bytes(self.array.itemsize, "little")
        for place in self.places:
            with open(self.piece.places[place][0], "r+b") as f:
                f.seek(self.piece.offset(place, self.row, self.col, self.array.itemsize))
                f.write(data)
        self.array[self.row, self.col] = np.frombuffer(data, self.array.dtype)[0]

    def __enter__(self):
        self.put(self.new)
        with np.errstate(all="ignore"):
            self.values, self.is_refused = self.world.tensors[self.piece.name].values()
        before = self.world.values[self.piece.name]
        self.differs = np.argwhere(self.values != before)
        # The first of several copies is read, the others are compared with it.
        self.is_refused &= 0 in self.places
        self.is_other = len(self.differs) > 0 and 0 in self.places
        self.is_packed = self.piece.part == "data" and \
            self.world.tensors[self.piece.name].dtype == "FP4"
        odd = range(1, len(self.piece.places)) if 0 in self.places else self.places
        self.odd_files = [self.piece.places[i][0].name for i in odd]
        return self

    def __exit__(self, *_):
        self.put(self.old)


def check_digest(ckpt, c):
    said = ckpt("ckpt-verify", "digest", "--json", c.world.path,
                check=2 if c.is_refused or c.disagree else 0)
    if said.status == 2:
        return
    expected = {n: t["value"] for n, t in c.world.said.items()}
    expected[c.piece.name] = digest_of(c.values)
    got = said.json
    assert {t["name"]: t["value"] for t in got["tensors"]} == expected
    lines = "".join(f"{n}\t{t['class']}\t{','.join(map(str, t['shape']))}\t{expected[n]}\n"
                    for n, t in sorted(c.world.said.items(), key=lambda x: x[0].encode()))
    assert got["root"] == hashlib.sha256(lines.encode()).hexdigest()
    assert (expected[c.piece.name] == c.world.said[c.piece.name]["value"]) == (
        len(c.differs) == 0)


def check_compare(ckpt, c):
    status = 2 if c.is_refused else int(c.is_other or c.disagree)
    said = ckpt("ckpt-verify", "compare", "--json", c.world.original, c.world.path, check=status)
    if status == 2:
        return
    got = said.json
    assert got["same"] == (status == 0) and got["compared"] == len(c.world.said)
    assert got["missing_in_a"] == got["missing_in_b"] == []
    assert got["re_encoded"] == ([c.piece.name] if status == 0 else [])
    if status == 0:
        assert got["differing"] == []
        return
    d, = got["differing"]
    assert d["name"] == c.piece.name
    if not c.is_other:
        assert (d["kind"], d["side"], d["row"], d["col"]) == (
            "copy", "b", c.row, c.col * (2 if c.is_packed else 1) + d["col"] % 2 * c.is_packed)
        assert d["file"] in c.odd_files
        return
    first = tuple(map(int, c.differs[0]))
    before = c.world.values[c.piece.name]
    assert (d["kind"], d["row"], d["col"], d["count"]) == ("values", *first, len(c.differs))
    assert (element(d["a"], before), element(d["b"], c.values)) == (before[first],
                                                                   c.values[first])


def check_check(ckpt, c):
    sums = 1 if c.world.sums else 0
    status = 2 if c.is_refused else int(c.is_other or c.disagree or sums > 0)
    said = ckpt("ckpt-verify", "check", "--json", "--manifest", c.world.manifest, c.world.path,
                check=status)
    if status == 2:
        return
    got = said.json["differing"]
    assert [d["name"] for d in got if d["kind"] == "value"] == [c.piece.name] * c.is_other
    copies = [d for d in got if d["kind"] == "copy"]
    assert [d["name"] for d in copies] == [c.piece.name] * c.disagree
    assert all(d["file"] in c.odd_files for d in copies)
    assert [d["kind"] for d in got if d["kind"] not in ("value", "copy")] == ["checksum"] * sums
    assert said.json["same"] == (status == 0)


@pytest.mark.release
@pytest.mark.parametrize("batch", range(BATCHES))
def test_one_element_is_what_it_was_or_is_told(ckpt, worlds, batch):
    rng = random.Random(SEED + batch)
    kept = changed = refused = disagreeing = 0
    for _ in range(PER_BATCH):
        with Changed(rng, rng.choice(worlds)) as c:
            try:
                check_digest(ckpt, c)
                check_compare(ckpt, c)
                check_check(ckpt, c)
            except AssertionError as e:
                raise AssertionError(f"CKPT_SEED={SEED} batch {batch}: {c.text}") from e
            disagreeing += c.disagree
            refused += c.is_refused
            kept += not c.disagree and not c.is_refused and len(c.differs) == 0
            changed += not c.disagree and not c.is_refused and len(c.differs) > 0
    print(f"batch {batch}: {changed} changed, {kept} kept, {refused} refused, "
          f"{disagreeing} ranks disagree")
    assert changed > 5 and kept > 5, "a weak draw"
