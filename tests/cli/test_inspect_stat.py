"""ckpt-inspect --stat and --values: figures and decoded numbers against NumPy."""
import json

import numpy as np
import pytest

from cli.quantised_models import PACKED
from corrupt.files import Model, Tensor
from interop.numpy_codes import e2m1, e4m3, e8m0

FP4, FP8, ROW = "m.experts.0.up.weight", "m.o_proj.weight", "m.k_proj.weight"


def bf16(values):
    return (np.asarray(values, np.float32).view(np.uint32) >> 16).astype("<u2")


def as_f32(codes):
    return (codes.astype(np.uint32) << 16).view(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A checkpoint and the float32 values of its tensors."""
    rng = np.random.default_rng(11)
    plain = (rng.standard_normal((300, 130)) * 2.0 ** rng.integers(-20, 9, (300, 130))).astype("f4")
    plain[:, 3], plain[17], plain[200, 5], plain[201, 0] = -0.0, 0, np.nan, -np.inf
    half = bf16(rng.standard_normal((2, 3, 40)))
    nibbles = rng.integers(0, 16, (64, 96))
    groups = rng.integers(100, 130, (64, 3)).astype(np.uint8)
    codes = rng.integers(0, 256, (130, 257)).astype(np.uint8)
    scales = np.array([[2 ** -7, 3e-4, 1.5], [1e-3, 0.25, 2 ** -9]], "f4")
    ids = np.array([[5, -7], [0, 0]], "<i8")
    packed = (nibbles[:, ::2] | nibbles[:, 1::2] << 4).astype(np.uint8)
    model = Model()
    model.config = {"quantization_config": {"quant_method": "fp8",
                                            "weight_block_size": [128, 128]}}
    model.files["model.safetensors"] = {
        "plain": Tensor("F32", [300, 130], plain.tobytes()),
        "half": Tensor("BF16", [2, 3, 40], half.tobytes()),
        FP4: Tensor("I8", [64, 48], packed.tobytes()),
        FP4 + "_scale_inv": Tensor("F8_E8M0", [64, 3], groups.tobytes()),
        FP8: Tensor("F8_E4M3", [130, 257], codes.tobytes()),
        FP8 + "_scale_inv": Tensor("F32", [2, 3], scales.tobytes()),
        "ids": Tensor("I64", [2, 2], ids.tobytes()),
        "wide": Tensor("F64", [1], bytes(8)), "none": Tensor("F32", [0, 4], b"")}
    values = {
        "plain": plain, "half": as_f32(half).reshape(6, 40),
        FP4: (e2m1(nibbles) * e8m0(groups).repeat(32, 1)).astype("f4"),
        FP8: e4m3(codes).astype("f4") * scales.repeat(128, 0)[:130].repeat(128, 1)[:, :257],
        "ids": ids}
    path = model.write(tmp_path_factory.mktemp("inspect") / "m")
    return path, values, {FP4: (nibbles, e8m0(groups)), FP8: (codes, scales)}


def statistics(ckpt, path, *options, **how):
    doc = ckpt("ckpt-inspect", "--stat", "--json", *options, path, **how).json
    return {t["name"]: t["statistics"] for t in doc["tensors"]}


def test_figures_are_those_of_numpy(ckpt, made):
    path, values, _ = made
    said = statistics(ckpt, path)
    assert set(said) == set(values) | {"wide", "none"} and said["wide"] is None
    for name in "plain", "half", FP4, FP8:
        v = values[name].astype(float)
        finite = v[np.isfinite(v)]
        s = said[name]
        assert (s["count"], s["zeros"], s["nans"], s["infinities"]) == (
            v.size, (v == 0).sum(), np.isnan(v).sum(), np.isinf(v).sum())
        assert (s["min"], s["max"]) == (finite.min(), finite.max())
        assert s["mean"] == pytest.approx(finite.mean(), rel=1e-6)
        assert s["rms"] == pytest.approx(np.sqrt((finite ** 2).mean()), rel=1e-6)
        assert s["zero_rows"] == (v == 0).all(1).sum()
        bad = np.argwhere(~np.isfinite(v))
        assert s["first_nonfinite"] == (list(bad[0]) if len(bad) else None)
    assert said["plain"]["first_nonfinite"] == [200, 5] and said["plain"]["zero_rows"] == 1
    assert {k: said["ids"][k] for k in ("min", "max", "zeros", "zero_rows")} == {
        "min": -7, "max": 5, "zeros": 2, "zero_rows": 1}


def test_codes_and_scales_are_counted(ckpt, made):
    path, _, parts = made
    said = statistics(ckpt, path)
    for name, bits in (FP4, 4), (FP8, 8):
        codes, scales = parts[name]
        counts = np.bincount(codes.ravel(), minlength=1 << bits)
        assert said[name]["codes"] == list(counts)
        top = 7 if bits == 4 else 0x7E
        assert said[name]["saturated"] == counts[top] + counts[top | 1 << (bits - 1)]
        s = said[name]["scales"]
        assert (s["count"], s["min"], s["max"]) == (scales.size, scales.min(), scales.max())
    assert "scales" not in said["plain"] and "codes" not in said["plain"]


def test_saturated_codes_are_told_without_counts_of_all_codes(ckpt, made):
    """Text has no counters: it counts these codes alone."""
    path, _, _ = made
    said = statistics(ckpt, path)
    out = ckpt("ckpt-inspect", "--stat", path).out
    for name in FP4, FP8:
        line, = (x for x in out.splitlines() if f"  {name}  " in x)
        share = 100 * said[name]["saturated"] / said[name]["count"]
        assert f"  saturated {share:.4f}%" in line and share > 0


def test_histogram_counts_powers_of_two(ckpt, made):
    path, values, _ = made
    said = statistics(ckpt, path, "--histogram")
    for name in "plain", "half", FP4, FP8:
        v = np.abs(values[name][np.isfinite(values[name]) & (values[name] != 0)])
        powers, counts = np.unique(np.frexp(v)[1] - 1, return_counts=True)
        assert said[name]["exponents"] == {str(p): c for p, c in zip(powers, counts)}
    assert "exponents" not in statistics(ckpt, path)["plain"]


def test_threads_and_kernels_change_nothing(ckpt, made):
    path = made[0]
    first = statistics(ckpt, path, "--histogram", "--threads", 1)
    for how in {"--threads": 3}, {}:
        options = [w for pair in how.items() for w in pair]
        assert statistics(ckpt, path, "--histogram", *options,
                          env={"CKPT_KERNELS": "scalar"}) == first


def test_the_table_and_the_bars(ckpt, made):
    path = made[0]
    out = ckpt("ckpt-inspect", "--stat", "--histogram", "--tensors", "*.up.*", path).out
    assert out.split()[:6] == ["min", "max", "mean", "rms", "zeros", "tensor"]
    assert "saturated" in out and "codes of F4" in out and "0x0F" in out and "###" in out
    out = ckpt("ckpt-inspect", "--stat", path).out
    assert "1 NaN  1 infinite (first at row 200 column 5)  1 row is 0" in out
    assert "wide  F64: has no values that are decoded" in out


def test_bars_are_drawn_for_every_power_of_two_in_between(ckpt, tmp_path):
    model = Model()
    values = np.array([0] * 50 + [1, 1, 0.25, -0.3, 3e-39], "f4")
    model.files["model.safetensors"] = {"x": Tensor("F32", [55], values.tobytes())}
    out = ckpt("ckpt-inspect", "--stat", "--histogram", model.write(tmp_path / "m")).out
    table = out.split("to the next\n")[1].split("\n\n")[0].splitlines()
    rows = {line.split("  #")[0].rsplit(None, 1)[0].strip(): int(line.split("  #")[0].split()[-1])
            for line in table}
    assert rows["0"] == 50 and rows["2^0"] == 2 and rows["2^-2"] == 2 and rows["2^-1"] == 0
    assert rows["below 2^-126"] == 1 and len(rows) == 129
    assert table[0].endswith("  " + "#" * 40)


def test_a_product_beyond_f32_is_counted(ckpt, tmp_path):
    model = Model()
    model.files["model.safetensors"] = {
        FP8: Tensor("F8_E4M3", [1, 4], bytes([0x7E, 0x38, 0x00, 0x7F])),
        FP8 + "_scale_inv": Tensor("F8_E8M0", [1, 1], bytes([250]))}
    s = statistics(ckpt, model.write(tmp_path / "m"))[FP8]
    assert (s["infinities"], s["nans"], s["zeros"]) == (1, 1, 1)


@pytest.mark.parametrize("whole, odd", [(0.5, 0), (float("inf"), 1), (float("nan"), 1)])
def test_a_divisor_of_a_tensor_that_is_not_a_number_is_told(ckpt, tmp_path, whole, odd):
    """Divided by infinity, all values are 0, which are finite."""
    model = Model()
    name = FP4.removesuffix("weight")
    model.config = {"model_type": "other", "quantization_config": PACKED}
    model.files["model.safetensors"] = {
        name + "weight_packed": Tensor("U8", [600, 8], bytes([0x21] * 4800)),
        name + "weight_scale": Tensor("F8_E4M3", [600, 1], bytes([0x38] * 600)),
        name + "weight_global_scale": Tensor("F32", [1], np.float32(whole).tobytes())}
    path = model.write(tmp_path / "m")
    s = statistics(ckpt, path)[FP4]
    assert (s["scales"]["count"], s["scales"]["nans"]) == (600, odd)
    out = ckpt("ckpt-inspect", "--stat", path).out
    assert ("1 scale is no number" in out) == bool(odd)


# ---- rows ----

def shown(out):
    return [[float(x) for x in line.split(":")[1].split()] for line in out.splitlines()[1:]]


@pytest.mark.parametrize("name,rows,first,last", [("plain", "5", 5, 5), ("half", "2-4", 2, 4),
                                                  (FP4, "0-63", 0, 63), (FP8, "127-129", 127, 129),
                                                  ("plain", "199-201", 199, 201)])
def test_rows_are_decoded(ckpt, made, name, rows, first, last):
    path, values, _ = made
    out = ckpt("ckpt-inspect", "--values", rows, "--tensors", name, path).out
    assert out.startswith(name + "  ")
    got = np.array(shown(out), np.float32)
    np.testing.assert_array_equal(got, values[name][first:last + 1])
    doc = ckpt("ckpt-inspect", "--json", "--values", rows, "--tensors", name, path).json
    got = np.array([[float(x) for x in row] for row in doc["tensors"][0]["values"]], np.float32)
    np.testing.assert_array_equal(got, values[name][first:last + 1])


def test_integers_are_printed_as_such(ckpt, made):
    out = ckpt("ckpt-inspect", "--values", "0-1", "--tensors", "ids", made[0]).out
    assert out.splitlines()[1:] == ["0: 5 -7", "1: 0 0"]
    doc = ckpt("ckpt-inspect", "--json", "--values", "0-1", "--tensors", "ids", made[0])
    assert json.loads(doc.out)["tensors"][0]["values"] == [[5, -7], [0, 0]]


@pytest.mark.parametrize("options,word", [
    (["--values", "300", "--tensors", "plain"], "300 rows"),
    (["--values", "299-300", "--tensors", "plain"], "300 rows"),
    (["--values", "0", "--tensors", "wide"], "F64"),
    (["--values", "0", "--tensors", "none"], "0 rows"),
    (["--values", "3-2", "--tensors", "plain"], "'3-2'"),
    (["--values", "x", "--tensors", "plain"], "'x'"),
    (["--values", "1-", "--tensors", "plain"], "'1-'"),
    (["--values", "0-18446744073709551615", "--tensors", "plain"], "'0-18446744073709551615'"),
    (["--values", "0"], "--tensors"), (["--histogram"], "--stat"),
    (["--stat", "--summary"], "--summary")])
def test_bad_requests_are_refused(ckpt, made, options, word):
    done = ckpt("ckpt-inspect", *options, made[0], check=2)
    assert word in done.err and done.out == ""


def test_a_memory_limit_is_kept_or_refused(ckpt, golden_b):
    """A tile and the figures of all tensors must fit."""
    ckpt("ckpt-inspect", "--stat", "--memory", "64MiB", golden_b)
    assert "memory limit" in ckpt("ckpt-inspect", "--stat", "--memory", "1MiB", golden_b,
                                  check=2).err
