"""ckpt-verify compare --stat: how far values are apart, against NumPy."""

import numpy as np
import pytest

from corrupt.files import Model, Tensor
from interop.numpy_codes import e4m3

SHAPES = {"layers.0.a.weight": (300, 257), "layers.1.a.weight": (128, 64),
          "layers.10.a.weight": (5, 1000), "embed.weight": (7, 33)}


def bf16_bits(values):
    """float32 -> BF16 codes, to nearest even."""
    bits = values.astype(np.float32).view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


def bf16_values(codes):
    return (codes.astype(np.uint32) << 16).view(np.float32)


def ordinals(values, unit):
    """Places among all numbers of a dtype."""
    magnitude = np.abs(values).astype(np.float32)
    place = (bf16_bits(magnitude).astype(np.int64) if unit == "BF16"
             else magnitude.view(np.uint32).astype(np.int64))
    return np.where(np.signbit(values), -place, place)


def figures(a, b, unit):
    """What the document says of two arrays of float32."""
    x, y = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    changed = ~((x == y) | np.isnan(x) & np.isnan(y))
    finite = np.isfinite(x) & np.isfinite(y)
    distance = np.abs(ordinals(a.ravel()[changed & finite], unit) -
                      ordinals(b.ravel()[changed & finite], unit))
    ulps = {}
    for d in distance:
        low = 0 if d == 0 else 1 << (int(d).bit_length() - 1)
        ulps[str(low)] = ulps.get(str(low), 0) + 1
    x, y = x[finite], y[finite]
    return {"elements": a.size, "changed": int(changed.sum()),
            "nonfinite": int((changed & ~finite).sum()), "max_abs": np.abs(y - x).max(),
            "relative_error": np.linalg.norm(y - x) / np.linalg.norm(x),
            "cosine": x @ y / np.linalg.norm(x) / np.linalg.norm(y), "ulps": ulps}


def check(said, expected):
    for key, value in expected.items():
        if isinstance(value, float):
            assert said[key] == pytest.approx(value, rel=1e-6, abs=1e-300), key
        else:
            assert said[key] == value, key


def plain(values, dtype):
    data = bf16_bits(values).tobytes() if dtype == "BF16" else values.astype("<f4").tobytes()
    return Tensor(dtype, list(values.shape), data)


def write(path, arrays, dtypes, more=None):
    model = Model()
    model.files["model.safetensors"] = {n: plain(v, dtypes[n]) for n, v in arrays.items()} | (
        more or {})
    return model.write(path)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two checkpoints and their arrays: some elements of B moved, a little or far."""
    folder = tmp_path_factory.mktemp("stat")
    rng = np.random.default_rng(7)
    dtypes = {n: "F32" if n.startswith("layers.1.") else "BF16" for n in SHAPES}
    a, b = {}, {}
    for name, shape in SHAPES.items():
        x = (rng.standard_normal(shape) * 2.0 ** rng.integers(-9, 3, shape)).astype(np.float32)
        y = x.copy()
        moved = rng.random(shape) < 0.1
        y[moved] *= 1 + rng.choice([2 ** -22, 0.004, 0.1, -2.5], moved.sum()).astype(np.float32)
        x.flat[::97] = 0
        y.flat[5] = -y.flat[5]
        if dtypes[name] == "BF16":
            x, y = bf16_values(bf16_bits(x)), bf16_values(bf16_bits(y))
        a[name], b[name] = x, y
    a["layers.0.a.weight"][3, 4] = np.nan
    b["layers.0.a.weight"][7, 8] = np.inf
    ids = np.arange(12, dtype="<i8")
    write(folder / "a", a, dtypes, {"ids": Tensor("I64", [12], ids.tobytes())})
    ids[3] = -90
    write(folder / "b", b, dtypes, {"ids": Tensor("I64", [12], ids.tobytes())})
    return folder, a, b, dtypes


def test_figures_are_those_of_numpy(ckpt, pair):
    folder, a, b, dtypes = pair
    doc = ckpt("ckpt-verify", "compare", "--stat", "--json", folder / "a", folder / "b",
               check=1).json
    said = {t["name"]: t for t in doc["tensors"]}
    assert set(said) == set(SHAPES) | {"ids"}
    for name in SHAPES:
        assert said[name]["ulp_of"] == dtypes[name]
        check(said[name], figures(a[name], b[name], dtypes[name]))
        x, y = a[name].astype(float), b[name].astype(float)
        with np.errstate(invalid="ignore"):
            error = np.where(np.isfinite(x) & np.isfinite(y), np.abs(y - x), 0)
        place = np.unravel_index(error.argmax(), error.shape)
        assert (said[name]["row"], said[name]["col"]) == place
    check(said["ids"], {"changed": 1, "max_abs": 93.0, "relative_error": None, "cosine": None})
    assert {d["name"]: d["count"] for d in doc["differing"]} == {
        n: t["changed"] for n, t in said.items() if t["changed"]}


def test_the_first_entry_is_the_most_changed_one(ckpt, pair):
    folder = pair[0]
    for order, key, sign in (("error", "relative_error", -1), ("max", "max_abs", -1),
                             ("cosine", "cosine", 1)):
        doc = ckpt("ckpt-verify", "compare", "--stat", "--sort", order, "--json", "--tensors",
                   "*.weight", folder / "a", folder / "b", check=1).json
        values = [sign * t[key] for t in doc["tensors"]]
        assert len(values) == len(SHAPES) and values == sorted(values)
    names = [t["name"] for t in ckpt("ckpt-verify", "compare", "--stat", "--sort", "name",
                                     "--json", folder / "a", folder / "b", check=1).json["tensors"]]
    assert names == ["embed.weight", "ids", "layers.0.a.weight", "layers.1.a.weight",
                     "layers.10.a.weight"]


def test_groups_sum_up_their_tensors(ckpt, pair):
    folder, a, b, _ = pair
    doc = ckpt("ckpt-verify", "compare", "--stat", "--group", "kind", "--json", folder / "a",
               folder / "b", check=1).json
    said = {g["name"]: g for g in doc["groups"]}
    assert {n: g["tensor_count"] for n, g in said.items()} == {"layers.*.a.weight": 3,
                                                          "embed.weight": 1, "ids": 1}
    together = [np.concatenate([s[n].ravel() for n in SHAPES if n.startswith("layers")])
                for s in (a, b)]
    expected = figures(*together, "F32")
    del expected["ulps"]                     # of two units
    check(said["layers.*.a.weight"], expected)
    layers = ckpt("ckpt-verify", "compare", "--stat", "--group", "layer", "--sort", "name",
                  "--json", folder / "a", folder / "b", check=1).json["groups"]
    assert [g["name"] for g in layers] == ["layers.0", "layers.1", "layers.10", "rest"]
    assert sum(g["changed"] for g in layers) == doc["total"]["changed"]


def test_threads_and_kernels_change_nothing(ckpt, pair):
    folder = pair[0]
    command = ["ckpt-verify", "compare", "--stat", "--json", folder / "a", folder / "b"]
    first = ckpt(*command, "--threads", 1, check=1).out
    for threads in 2, 5:
        assert ckpt(*command, "--threads", threads, check=1).out == first
    assert ckpt(*command, check=1, env={"CKPT_KERNELS": "scalar"}).out == first


def test_text_names_the_most_changed_and_draws_distances(ckpt, pair):
    folder = pair[0]
    out = ckpt("ckpt-verify", "compare", "--stat", folder / "a", folder / "b", check=1).out
    lines = out.splitlines()
    head = next(i for i, line in enumerate(lines) if line.endswith("tensor"))
    assert lines[head].split() == ["rel", "error", "max", "error", "cosine", "changed", "tensor"]
    assert "layers." in lines[head + 1] and "place of BF16" in out and "##" in out


# ---- the cast alone ----

def fp8_and_casts(folder, rng):
    """FP8 with free F32 scales, its cast to BF16, and what slime's two roundings make of it."""
    codes = rng.integers(0, 256, (256, 384)).astype(np.uint8)
    codes[codes & 0x7F == 0x7F] = 0x31
    scales = np.exp(rng.uniform(-9, -5, (2, 3))).astype(np.float32)
    blocks = np.repeat(np.repeat(scales, 128, 0), 128, 1)
    config = {"quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}
    model = Model()
    model.config = config
    model.files["model.safetensors"] = {
        "x.weight": Tensor("F8_E4M3", [256, 384], codes.tobytes()),
        "x.weight_scale_inv": Tensor("F32", [2, 3], scales.tobytes())}
    model.write(folder / "fp8")
    once = e4m3(codes).astype(np.float32) * blocks
    twice = e4m3(codes).astype(np.float32) * bf16_values(bf16_bits(blocks))
    for name, values in ("bf16", once), ("slime", twice):
        write(folder / name, {"x.weight": values}, {"x.weight": "BF16"})
    return once


def test_a_cast_alone_is_no_difference(ckpt, tmp_path):
    once = fp8_and_casts(tmp_path, np.random.default_rng(3))
    fp8 = tmp_path / "fp8"

    def compare(*options, check):
        return ckpt("ckpt-verify", "compare", "--json", *options, fp8, tmp_path / other,
                    check=check).json

    for other, form, wrong in ("bf16", "bf16", "bf16-slime"), ("slime", "bf16-slime", "bf16"):
        assert compare(check=1)["as"] is None
        assert compare("--as", form, check=0)["same"]
        assert not compare("--as", wrong, check=1)["same"]
    other = "bf16"
    said = compare("--stat", check=1)["tensors"][0]
    check(said, figures(once, bf16_values(bf16_bits(once)), "BF16"))
    assert set(said["ulps"]) == {"0"}
    assert compare("--stat", "--as", "bf16", check=0)["total"]["changed"] == 0


def test_as_bf16_finds_an_element_that_moved(ckpt, tmp_path):
    once = fp8_and_casts(tmp_path, np.random.default_rng(4))
    codes = bf16_bits(once)
    codes[200, 300] ^= 1
    write(tmp_path / "moved", {"x.weight": bf16_values(codes)}, {"x.weight": "BF16"})
    doc = ckpt("ckpt-verify", "compare", "--as", "bf16", "--stat", "--json", tmp_path / "fp8",
               tmp_path / "moved", check=1).json
    d = doc["first_difference"]
    assert (d["row"], d["col"], d["count"]) == (200, 300, 1)
    assert doc["tensors"][0]["ulps"] == {"1": 1}


# ---- the gate ----

def gate(ckpt, folder, tolerance, *options, check):
    return ckpt("ckpt-verify", "compare", "--tolerance", tolerance, "--json", *options,
                folder / "a", folder / "b", check=check).json


def simple(folder, change, more=None):
    x = np.linspace(1, 2, 640, dtype=np.float32).reshape(10, 64)
    y = change(x.copy())
    for name, values, extra in ("a", x, None), ("b", y, more):
        write(folder / name, {"x": values}, {"x": "F32"}, extra)


def test_a_tolerance_is_kept_or_not(ckpt, tmp_path):
    simple(tmp_path, lambda x: x * np.float32(1.01))
    doc = gate(ckpt, tmp_path, 0.011, check=0)
    assert not doc["same"] and doc["within_tolerance"] and doc["tolerance"] == 0.011
    assert "tensors" not in doc
    assert not gate(ckpt, tmp_path, 0.009, check=1)["within_tolerance"]
    out = ckpt("ckpt-verify", "compare", "--tolerance", "0.5", tmp_path / "a", tmp_path / "b").out
    assert "\nwithin the tolerance of 0.5\n" in out
    out = ckpt("ckpt-verify", "compare", "--tolerance", "0.009", tmp_path / "a", tmp_path / "b",
               check=1).out
    assert "NOT within the tolerance of 0.009: 1 tensor is beyond it, the farthest is 'x' " \
        "(relative error 0.01)" in out


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_tolerance_covers_a_nan_or_infinity(ckpt, tmp_path, value):
    def change(x):
        x[3, 3] = value
        return x
    simple(tmp_path, change)
    assert not gate(ckpt, tmp_path, 100, check=1)["within_tolerance"]


def test_no_tolerance_covers_a_missing_tensor(ckpt, tmp_path):
    simple(tmp_path, lambda x: x, {"y": Tensor("F32", [1], bytes(4))})
    assert gate(ckpt, tmp_path, 100, check=1)["missing_in_a"] == ["y"]
    assert gate(ckpt, tmp_path, 100, "--tensors", "x", check=0)["same"]


def test_no_tolerance_covers_an_integer(ckpt, pair):
    assert not gate(ckpt, pair[0], 1e9, "--tensors", "ids", check=1)["within_tolerance"]


# ---- options ----

def test_globs_choose_what_is_compared(ckpt, golden_a, golden_b):
    doc = ckpt("ckpt-verify", "compare", "--json", "--weights-only", "--tensors",
               "layers.*.hc_*_base", "--stat", golden_a, golden_b, check=1).json
    assert {d["name"].split(".")[-1] for d in doc["tensors"]} == {"hc_attn_base", "hc_ffn_base"}
    assert all("hc_" in n for n in doc["missing_in_a"])
    err = ckpt("ckpt-verify", "compare", "--tensors", "nothing*", golden_a, golden_b, check=2).err
    assert "'nothing*'" in err


@pytest.mark.parametrize("options", [["--sort", "max"], ["--group", "kind"],
                                     ["--stat", "--sort", "size"], ["--tolerance", "-1"],
                                     ["--tolerance", "nan"], ["--tolerance", "0x1"],
                                     ["--as", "bf16", "--bits"], ["--bits", "--tolerance", "1"]])
def test_options_that_make_no_sense_are_refused(ckpt, golden_a, options):
    ckpt("ckpt-verify", "compare", *options, golden_a, golden_a, check=2)


def test_a_glob_that_matches_nothing_on_either_side_is_told(ckpt, golden_a):
    said = ckpt("ckpt-verify", "compare", "--tensors", "norm.weight", "--tensors", "nrm*",
                golden_a, golden_a, check=2)
    assert "matches 'nrm*'" in said.err and said.out == ""


def test_equal_checkpoints_have_no_distance(ckpt, golden):
    doc = ckpt("ckpt-verify", "compare", "--stat", "--json", golden, golden).json
    assert doc["total"]["relative_error"] == 0 and doc["total"]["cosine"] == 1
    assert doc["total"]["bf16_ulps"] == doc["total"]["f32_ulps"] == {}
    assert len(doc["tensors"]) == doc["compared"]
