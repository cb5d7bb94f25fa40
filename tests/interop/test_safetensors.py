"""The safetensors library reads what we write and we read what it writes; values are torch's."""
import json

import pytest

from corrupt.files import Model, tensor_files

torch = pytest.importorskip("torch")
safetensors = pytest.importorskip("safetensors")
safetensors_torch = pytest.importorskip("safetensors.torch")

# E2M1: torch has no cast from its packed dtype.
FP4 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])


def load(path):
    """{name: tensor} of a directory, by the library."""
    return {n: t for p in sorted(path.glob("*.safetensors"))
            for n, t in safetensors_torch.load_file(p).items()}


def bits(t):
    """Storage as integers: equality that sees the sign of zero and NaN."""
    view = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[t.element_size()]
    return t.contiguous().view(view)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(bits(a), bits(b))


def spread(scale, rows, cols, block_rows, block_cols):
    """Every element's scale, in F32."""
    s = scale.to(torch.float32)
    s = s.repeat_interleave(block_rows, 0).repeat_interleave(block_cols, 1)
    return s[:rows, :cols]


def dequantise(weight, scale):
    """By torch's own casts, product in F32."""
    if weight.dtype == torch.float8_e4m3fn:
        rows, cols = weight.shape
        return weight.to(torch.float32) * spread(scale, rows, cols, 128, 128)
    codes = weight.view(torch.uint8)
    values = torch.stack([FP4[(codes & 15).long()], FP4[(codes >> 4).long()]], -1).flatten(1)
    return values * spread(scale, *values.shape, 1, 32)


@pytest.fixture(scope="module")
def native(golden):
    return load(golden)


@pytest.mark.parametrize("options", [["--dtype", "bf16"], ["--dtype", "fp8"],
                                     ["--dtype", "fp8", "--scale-dtype", "f32"],
                                     ["--dtype", "bf16", "--names", "transformers"], []])
def test_the_library_opens_what_we_write(ckpt, golden, tmp_path, options):
    ckpt("ckpt-convert", *options, golden, tmp_path / "out")
    ours, theirs = Model(tmp_path / "out"), load(tmp_path / "out")
    assert sorted(ours.names()) == sorted(theirs)
    for name, t in theirs.items():
        assert bits(t).numpy().tobytes() == ours[name].data, name
    for p in (tmp_path / "out").glob("*.safetensors"):
        with safetensors.safe_open(p, "pt") as f:
            assert f.metadata() == {"format": "pt"}
    for name, data in tensor_files(tmp_path / "out").items():     # and would write the same bytes
        tensors = {n: theirs[n] for n in ours.files[name]}
        assert safetensors_torch.save(tensors, {"format": "pt"}) == data


def test_bf16_is_torchs_cast(ckpt, golden, native, tmp_path):
    ckpt("ckpt-convert", "--dtype", "bf16", golden, tmp_path / "out")
    cast = load(tmp_path / "out")
    kinds = set()
    for name, t in cast.items():
        scale = native.get(name.replace(".weight", ".scale")) if name.endswith(".weight") else None
        if scale is None:
            assert same(t, native[name]), name
            continue
        kinds.add(native[name].dtype)
        assert same(t, dequantise(native[name], scale).to(torch.bfloat16)), name
    assert kinds == {torch.int8, torch.float8_e4m3fn}


@pytest.mark.parametrize("scales", ["e8m0", "f32"])
def test_fp8_decodes_to_the_values_of_fp4(ckpt, golden, native, tmp_path, scales):
    ckpt("ckpt-convert", "--dtype", "fp8", "--scale-dtype", scales, golden, tmp_path / "out")
    fp8 = load(tmp_path / "out")
    experts = [n for n, t in native.items() if t.dtype == torch.int8]
    assert len(experts) > 50
    for name in experts:
        scale = name.replace(".weight", ".scale")
        assert fp8[name].dtype == torch.float8_e4m3fn
        assert fp8[scale].dtype == {"e8m0": torch.float8_e8m0fnu, "f32": torch.float32}[scales]
        assert same(dequantise(fp8[name], fp8[scale]), dequantise(native[name], native[scale])), \
            name


def test_match_reference_is_deepseeks_cast(ckpt, golden, native, tmp_path):
    """inference/convert.py, in torch: block scale 2^(Emax - 127) / 64; code 8 is +0."""
    ckpt("ckpt-convert", "--dtype", "fp8", "--scale-dtype", "e8m0", "--match-reference", golden,
         tmp_path / "out")
    fp8 = load(tmp_path / "out")
    table = FP4.clone()
    table[8] = 0.
    for name in [n for n, t in native.items() if t.dtype == torch.int8][:24]:
        codes, scale = native[name].view(torch.uint8), native[name.replace(".weight", ".scale")]
        values = torch.stack([table[(codes & 15).long()], table[(codes >> 4).long()]], -1)
        values = values.flatten(1)
        rows, cols = values.shape
        s = scale.to(torch.float32)
        largest = s.view(rows // 128, 128, cols // 128, 4).amax((1, 3)) / 64
        offset = spread(s, rows, cols, 1, 32) / spread(largest, rows, cols, 128, 128)
        assert same(fp8[name], (values * offset).to(torch.float8_e4m3fn)), name
        assert same(fp8[name.replace(".weight", ".scale")], largest.to(torch.float8_e8m0fnu))


DTYPES = [torch.bool, torch.uint8, torch.int8, torch.int16, torch.uint16, torch.int32,
          torch.uint32, torch.int64, torch.uint64, torch.float16, torch.bfloat16, torch.float32,
          torch.float64, torch.complex64, torch.float8_e4m3fn, torch.float8_e5m2,
          torch.float8_e8m0fnu, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz]


def test_we_open_what_the_library_writes(ckpt, tmp_path):
    """Every dtype of torch, odd shapes and metadata; the copy is byte for byte the library's."""
    draw = torch.Generator().manual_seed(1)
    tensors = {}
    for dtype in DTYPES:
        for shape in ([], [1], [3, 5], [2, 0, 3], [7]):
            size = torch.empty(shape, dtype=dtype)
            raw = torch.randint(0, 2 if dtype == torch.bool else 256,
                                (size.numel() * size.element_size(),), generator=draw)
            tensors[f"{dtype}.{shape}"] = raw.to(torch.uint8).view(dtype).reshape(shape)
    data = safetensors_torch.save(tensors, {"format": "pt", "clé": "é\"\\\n"})
    (tmp_path / "all.safetensors").write_bytes(data)
    ckpt("ckpt-convert", "--lenient", "--no-digest", tmp_path / "all.safetensors",
         tmp_path / "out")
    assert (tmp_path / "out" / "all.safetensors").read_bytes() == data
    again = load(tmp_path / "out")
    assert again.keys() == tensors.keys()
    for name, t in tensors.items():
        assert again[name].shape == t.shape and again[name].dtype == t.dtype
        if t.numel() > 0 and t.dtype != torch.complex64:
            assert torch.equal(bits(again[name]), bits(t)), name
    listed = ckpt("ckpt-inspect", "--lenient", "--json", tmp_path / "all.safetensors").json
    shapes = {t["name"]: t["shape"] for t in listed["tensors"]}
    assert shapes == {n: list(t.shape) for n, t in tensors.items()}


def test_a_file_of_the_library_is_copied_to_the_byte(ckpt, tmp_path):
    tensors = {"b": torch.arange(6, dtype=torch.bfloat16).view(2, 3),
               "a": torch.arange(5, dtype=torch.float32), "c": torch.arange(3),
               "d": torch.ones(3, dtype=torch.uint8)}
    for name, metadata in (("pt", {"format": "pt"}), ("none", None)):
        path = tmp_path / f"{name}.safetensors"
        safetensors_torch.save_file(tensors, path, metadata)
        ckpt("ckpt-convert", path, tmp_path / name)
        assert (tmp_path / name / path.name).read_bytes() == path.read_bytes()


def test_what_the_library_refuses_we_refuse(ckpt, tmp_path):
    """Their reader is the reference for what is malformed."""
    good = safetensors_torch.save({"a": torch.arange(4, dtype=torch.int16),
                                   "b": torch.arange(3, dtype=torch.uint8)}, {"format": "pt"})
    path = tmp_path / "x.safetensors"
    refused = 0
    for at in range(len(good)):
        for value in {good[at] ^ 1, good[at] ^ 0x10, 0, 0xFF, ord("]")} - {good[at]}:
            data = bytearray(good)
            data[at] = value
            try:
                safetensors.deserialize(bytes(data))
                continue
            except (safetensors.SafetensorError, ValueError):
                refused += 1
            if refused % 5 != 0:          # a process each: a sample
                continue
            path.write_bytes(data)
            ckpt("ckpt-inspect", path, check=2)
    assert refused > 100


def test_index_is_what_transformers_expects(ckpt, golden, tmp_path):
    ckpt("ckpt-convert", "--dtype", "bf16", "--max-shard-size", "2MB", golden, tmp_path / "out")
    index = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())
    for name, file in index["weight_map"].items():
        with safetensors.safe_open(tmp_path / "out" / file, "pt") as f:
            assert name in f.keys()
