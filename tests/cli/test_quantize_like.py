"""--quantize with --like: the original's bytes where nothing changed, fresh scales elsewhere."""
import json

import numpy as np
import pytest

from cli.test_quantize import DENSE, EXPERT, decoded, relative, to_bf16, trained, values
from corrupt.files import Model, read_file, tensor_files
from interop.quantisers import Quantiser

RULES = {"fp8": "fp8-b128-ue8m0", "fp4": "fp4-b32-deepseek"}


@pytest.fixture(scope="module")
def plain(ckpt, golden_a, tmp_path_factory):
    out = tmp_path_factory.mktemp("bf16") / "bf16"
    ckpt("ckpt-convert", "--dtype", "bf16", "--no-manifest", golden_a, out)
    return out


def scale(name):
    return name.replace(".weight", ".scale")


def in_layer_2(name):
    return name.startswith("layers.2.") and (".experts." in name or ".attn.w" in name)


@pytest.fixture(scope="module")
def moved(plain, tmp_path_factory):
    """One layer, in places."""
    rng = np.random.default_rng(2)

    def change(x):
        return np.where(rng.random(x.shape) < 0.001, x + np.float32(0.01), x)
    return trained(plain, tmp_path_factory.mktemp("moved") / "moved", change, in_layer_2)


def test_golden_blocks_that_did_not_change(ckpt, data, tmp_path):
    """The vectors of tests/data/quantise/like.safetensors, as two checkpoints."""
    v, _ = read_file(data / "quantise" / "like.safetensors")
    original, source = Model(), Model()
    original.config = {"model_type": "other", "quantization_config": {"quant_method": "fp8"}}
    source.config = {"model_type": "other"}
    original.files["model.safetensors"] = {}
    source.files["model.safetensors"] = {}
    for kind in RULES:
        original[f"{kind}.weight"] = v[f"{kind}/orig.codes"]
        original[f"{kind}.weight_scale_inv"] = v[f"{kind}/orig.scale"]
        source[f"{kind}.weight"] = v[f"{kind}/trained"]
    like, path = original.write(tmp_path / "like"), source.write(tmp_path / "in")
    done = ckpt("ckpt-convert", "--like", like, "--allow-lossy", "--json", path,
                tmp_path / "out").json["quantised"]
    assert done["rules"] == {rule: 1 for rule in RULES.values()}
    out = Model(tmp_path / "out")
    for kind in RULES:
        assert out[f"{kind}.weight"].data == v[f"{kind}/expect.codes"].data
        assert out[f"{kind}.weight_scale_inv"].data == v[f"{kind}/expect.scale"].data
    assert done["total"]["kept_blocks"] == 1 + 14


def test_untouched_tensors_have_the_original_s_bytes(ckpt, moved, golden_a, tmp_path):
    done = ckpt("ckpt-convert", "--like", golden_a, "--quantize", "v4-release", "--json",
                "--report", tmp_path / "r.json", moved, tmp_path / "out").json
    out, old, source = Model(tmp_path / "out"), Model(golden_a), Model(moved)
    changed = {n for n in old.names() if out[n] != old[n]}
    assert all(in_layer_2(n.replace(".scale", ".weight")) for n in changed) and changed
    report = json.loads((tmp_path / "r.json").read_text())
    told = {t["name"]: t for t in report["target_tensors"]}
    assert done["quantised"]["restored_tensors"] == 284 - sum(
        in_layer_2(n) and "quantised" in t and
        t["quantised"]["kept_blocks"] < t["quantised"]["blocks"] for n, t in told.items())
    for name in filter(in_layer_2, told):
        if "quantised" not in told[name]:
            continue
        loss = told[name]["quantised"]
        q = Quantiser(loss["rule"], "scalar")
        x, y0 = values(source[name]), decoded(old[name], old[scale(name)])
        kept = np.concatenate([q.find_kept(x[r:r + q.block_rows], y0[r:r + q.block_rows])
                               for r in range(0, x.shape[0], q.block_rows)])
        codes = np.frombuffer(old[name].data, np.uint8).reshape(old[name].shape).copy()
        scales = np.frombuffer(old[scale(name)].data, np.uint8).reshape(kept.shape).copy()
        _, codes, scales, _ = q.run(x, kept, (codes, scales))
        assert out[name].data == codes.tobytes() and out[scale(name)].data == scales.tobytes()
        assert loss["kept_blocks"] == kept.sum() and loss["blocks"] == kept.size
        y = decoded(out[name], out[scale(name)])
        assert loss["relative_error"] == pytest.approx(relative(x, y), rel=1e-6)
        assert loss["rounded"] == (x != y).sum() and loss["elements"] == x.size


def test_a_thousand_times_larger_values_get_fresh_scales(ckpt, plain, golden_a, tmp_path):
    path = trained(plain, tmp_path / "in", lambda x: x * 1000)
    done = ckpt("ckpt-convert", "--like", golden_a, "--quantize", "v4-release", "--json", path,
                tmp_path / "out").json
    assert done["quantised"]["total"]["saturated"] == 0
    assert done["quantised"]["total"]["relative_error"] < 0.15
    out, old = Model(tmp_path / "out"), Model(golden_a)
    for name in EXPERT, DENSE:
        got, had = (np.frombuffer(m[scale(name)].data, np.uint8).astype(int) for m in (out, old))
        assert np.all((got - had >= 8) & (got - had <= 11))


def test_sticky_scales_keep_codes_of_neighbours(ckpt, moved, golden_a, tmp_path):
    run = "ckpt-convert", "--like", golden_a, "--quantize", "v4-release", "--json"
    fresh = ckpt(*run, moved, tmp_path / "fresh").json["quantised"]["total"]
    sticky = ckpt(*run, "--sticky-scale", moved, tmp_path / "sticky").json["quantised"]["total"]
    old = Model(golden_a)

    def differing(path):
        new = Model(path)
        return sum(np.count_nonzero(np.frombuffer(new[n].data, np.uint8) !=
                                    np.frombuffer(old[n].data, np.uint8)) for n in old.names())
    assert 0 < differing(tmp_path / "sticky") < differing(tmp_path / "fresh")
    assert sticky["saturated"] == fresh["saturated"] == 0
    assert sticky["kept_blocks"] == fresh["kept_blocks"]


def test_f32_scales_of_the_original_are_kept_too(ckpt, golden_a, plain, tmp_path):
    """Products of odd F32 scales are rounded in BF16; blocks return all the same."""
    ckpt("ckpt-convert", "--quantize", "v3-release", plain, tmp_path / "v3")
    ckpt("ckpt-convert", "--dtype", "bf16", "--allow-lossy", tmp_path / "v3", tmp_path / "cast")
    done = ckpt("ckpt-convert", "--like", tmp_path / "v3", "--quantize", "v3-release", "--json",
                tmp_path / "cast", tmp_path / "back").json
    assert tensor_files(tmp_path / "back") == tensor_files(tmp_path / "v3")
    assert done["quantised"]["restored_tensors"] == 284 and done["rounded"] == 0


def test_what_does_nothing_is_refused(ckpt, plain, tmp_path):
    ckpt("ckpt-convert", "--quantize", "v3-release", plain, tmp_path / "v3")
    run = "ckpt-convert", "--like"
    err = ckpt(*run, tmp_path / "v3", "--quantize", "v3-release", "--sticky-scale", plain,
               tmp_path / "out", check=2).err
    assert "--sticky-scale is about E8M0 scales, which no weight that is quantised has" in err
    err = ckpt(*run, plain, "--quantize", "v3-release", plain, tmp_path / "out", check=2).err
    assert "no weight of the model to follow is quantised" in err
    assert [p.name for p in tmp_path.iterdir()] == ["v3"]


def test_a_rule_of_another_encoding_is_refused(ckpt, moved, golden_a, golden_b, tmp_path):
    for rule in ("fp4", "experts=fp8-ue8m0", "fp8-f32,experts=fp4"):
        err = ckpt("ckpt-convert", "--like", golden_a, "--quantize", rule, moved,
                   tmp_path / "out", check=2).err
        assert "in the model to follow, which" in err and "does not make" in err
    err = ckpt("ckpt-convert", "--like", golden_b, "--quantize", "v4-release", moved,
               tmp_path / "out", check=2).err
    assert "in the model to follow" in err or "is not in" in err
    assert not list(tmp_path.iterdir())


def test_minus_zero_is_a_change(ckpt, plain, golden_a, tmp_path):
    model = Model(plain)
    x = values(model[EXPERT]).copy()
    at = tuple(np.argwhere(x == 0)[0])
    x[at] = -x[at]
    model.extras.clear()
    model[EXPERT] = to_bf16(x)
    path = model.write(tmp_path / "in")
    ckpt("ckpt-convert", "--like", golden_a, "--quantize", "v4-release", path, tmp_path / "out")
    out, old = Model(tmp_path / "out"), Model(golden_a)
    y = decoded(out[EXPERT], out[scale(EXPERT)])
    assert np.array_equal(np.signbit(y), np.signbit(x)) and np.array_equal(y, x)
    assert {n for n in old.names() if out[n] != old[n]} <= {EXPERT, scale(EXPERT)}


def test_a_class_that_is_left_out_must_be_exact(ckpt, moved, golden_a, tmp_path):
    err = ckpt("ckpt-convert", "--like", golden_a, "--quantize", "experts=fp4", moved,
               tmp_path / "out", check=2).err
    assert "'layers.2.attn." in err and not list(tmp_path.iterdir())
