"""--like: the exact way back, what may be rounded on it, and what may not."""
import json
import random

import numpy as np
import pytest

from corrupt.files import Model, Tensor, tensor_files


def scaled(name):
    return name.endswith(".scale") and "hc_" not in name


@pytest.fixture(scope="module")
def odd(ckpt, golden_a, tmp_path_factory):
    """The golden checkpoint in FP8, with F32 scales that are no powers of two."""
    folder = tmp_path_factory.mktemp("odd")
    ckpt("ckpt-convert", "--experts", "fp8", golden_a, folder / "fp8")
    model = Model(folder / "fp8")
    model.extras.clear()
    rng = np.random.default_rng(11)
    for name in filter(scaled, model.names()):
        t = model[name]
        scales = np.frombuffer(t.data, "<f4") * rng.uniform(1, 2, len(t.data) // 4)
        model[name] = Tensor(t.dtype, t.shape, scales.astype("<f4").tobytes())
    return model.write(folder / "odd")


@pytest.fixture(scope="module")
def odd_bf16(ckpt, odd, tmp_path_factory):
    """That in BF16: every product is rounded."""
    out = tmp_path_factory.mktemp("odd-bf16") / "bf16"
    done = ckpt("ckpt-convert", "--dtype", "bf16", "--allow-lossy", "--json", odd, out).json
    assert done["rounded"] > 100000 and done["root"] != done["source_root"]
    return out


@pytest.mark.parametrize("options", [[], ["--verify"], ["--threads", "3", "--json"]])
def test_bf16_to_fp8_with_the_originals_f32_scales_is_exact(ckpt, odd, odd_bf16, digest, tmp_path,
                                                            options):
    done = ckpt("ckpt-convert", *options, "--like", odd, odd_bf16, tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(odd)
    if "--json" in options:
        assert done.json["rounded"] == 0 and done.json["changed_tensors"] > 0
        assert done.json["root"] == digest(odd)
        assert done.json["source_root"] == digest(odd_bf16) != digest(odd)
    else:
        assert digest(odd) in done.out and digest(odd_bf16) in done.out


def test_a_value_that_does_not_return_is_refused(ckpt, odd, odd_bf16, tmp_path):
    """One step of BF16 away from the product of a code: no code returns it."""
    model = Model(odd_bf16)
    name = "layers.1.attn.wo_b.weight"
    position = next(i for i, b in enumerate(model[name].data) if i % 2 == 0 and b not in (0, 255)
                    and model[name].data[i + 1] & 0x7F > 0x10)
    model[name] = model[name].changed(position, lambda b: b ^ 1)
    path = model.write(tmp_path / "in")
    err = ckpt("ckpt-convert", "--like", odd, path, tmp_path / "out", check=2).err
    row, column = divmod(position // 2, model[name].shape[1])
    assert f"'{name}', row {row}, column {column}" in err
    done = ckpt("ckpt-convert", "--like", odd, "--allow-lossy", "--json", path,
                tmp_path / "out").json
    assert 1 <= done["rounded"] <= 128 * 128         # its block has a scale of its own now
    assert done["quantised"]["rules"].keys() == {"fp8-b128-ue8m0"}
    out, old = Model(tmp_path / "out"), Model(odd)
    assert [n for n in old.names() if out[n] != old[n]] in ([name], [name.replace(
        ".weight", ".scale")], [name, name.replace(".weight", ".scale")],
        [name.replace(".weight", ".scale"), name])


# ---- values that were trained ----

@pytest.fixture(scope="module")
def bf16(ckpt, golden_a, tmp_path_factory):
    out = tmp_path_factory.mktemp("bf16") / "bf16"
    ckpt("ckpt-convert", "--dtype", "bf16", golden_a, out)
    return out


def trained(bf16, path, change):
    """A copy whose quantised weights are change(values)."""
    model = Model(bf16)
    model.extras.clear()
    for name in model.names():
        if ".experts." in name or ".attn.w" in name:
            t = model[name]
            values = (np.frombuffer(t.data, "<u2").astype("<u4") << 16).view("<f4")
            bits = change(values).astype("<f4").view("<u4")
            bits = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
            model[name] = Tensor(t.dtype, t.shape, bits.astype("<u2").tobytes())
    return model.write(path)


def test_values_that_old_scales_cannot_express_need_fresh_ones(ckpt, bf16, golden_a, tmp_path):
    path = trained(bf16, tmp_path / "in", lambda x: x * 1000)
    err = ckpt("ckpt-convert", "--like", golden_a, path, tmp_path / "out", check=2).err
    assert "row 0, column" in err and "is larger than" in err and "--quantize RULE" in err
    assert not (tmp_path / "out").exists()
    done = ckpt("ckpt-convert", "--like", golden_a, "--allow-lossy", "--json", path,
                tmp_path / "out").json["quantised"]
    assert done["total"]["saturated"] == 0 and done["total"]["relative_error"] < 0.15


@pytest.mark.parametrize("name", ["layers.0.attn.wq_a.weight",
                                  "layers.2.ffn.experts.3.w2.weight"])
@pytest.mark.parametrize("factor", [1.02, 1.2])
def test_one_value_changes_its_block_alone(ckpt, bf16, golden_a, tmp_path, name, factor):
    model = Model(bf16)
    fp4 = ".experts." in name
    scale = Model(golden_a)[name.replace(".weight", ".scale")].data[0]
    largest = (6 if fp4 else 448) * 2.0 ** (scale - 127)
    bits = int(np.array([largest * factor], "<f4").view("<u4")[0]) >> 16
    data = bytearray(model[name].data)
    data[6:8] = bits.to_bytes(2, "little")
    model[name] = Tensor("BF16", model[name].shape, bytes(data))
    path = model.write(tmp_path / "in")
    assert f"'{name}', row 0, column 3" in ckpt("ckpt-convert", "--like", golden_a, path,
                                                tmp_path / "out", check=2).err
    done = ckpt("ckpt-convert", "--like", golden_a, "--allow-lossy", "--json", path,
                tmp_path / "out").json
    assert done["quantised"]["total"]["saturated"] == 0
    assert done["quantised"]["restored_tensors"] == 283
    out, old = Model(tmp_path / "out"), Model(golden_a)
    changed = {n for n in old.names() if out[n] != old[n]}
    assert name.replace(".weight", ".scale") in changed      # the rule's scale, not the old one
    assert changed <= {name, name.replace(".weight", ".scale")}
    assert sum(a != b for a, b in zip(out[name].data, old[name].data)) <= (16 if fp4 else 1 << 14)


@pytest.mark.parametrize("verify", [[], ["--verify"]])
def test_rounding_is_counted_and_both_roots_are_told(ckpt, bf16, golden_a, digest, tmp_path,
                                                    verify):
    rng = np.random.default_rng(5)
    path = trained(bf16, tmp_path / "in", lambda x: x * (1 + 0.004 * rng.standard_normal(x.shape)))
    report = tmp_path / "report.json"
    done = ckpt("ckpt-convert", "--like", golden_a, "--allow-lossy", "--report", report, *verify,
                path, tmp_path / "out")
    line = done.out.splitlines()[-1]
    assert digest(path) in line and digest(tmp_path / "out") in line and "were rounded" in line
    told = json.loads(report.read_text())
    assert told["root"] == digest(tmp_path / "out") and told["source_root"] == digest(path)
    assert f"{told['totals']['inexact']} values" in line and told["totals"]["inexact"] > 100000
    told = {t["name"]: t["value"] for t in told["target_tensors"]}
    made = ckpt("ckpt-verify", "digest", "--json", tmp_path / "out").json
    assert told == {t["name"]: t["value"] for t in made["tensors"]}


@pytest.mark.parametrize("options", [[], ["--allow-lossy"]])
def test_no_scale_is_rounded(ckpt, odd, tmp_path, options):
    run = "ckpt-convert", "--scale-dtype", "e8m0", *options
    err = ckpt(*run, odd, tmp_path / "out", check=2).err
    assert "is not exact in F8_E8M0, and --allow-lossy does not round scales" in err
    assert "--allow-lossy rounds" not in err and not list(tmp_path.iterdir())


def test_a_part_counts_what_it_rounded_itself(ckpt, odd, odd_bf16, tmp_path):
    run = "ckpt-convert", "--dtype", "bf16", "--allow-lossy"
    whole = ckpt(*run, "--json", odd, tmp_path / "whole").json
    assert whole["rounded"] > 0 and not whole["rounded_in_this_run_only"]
    ckpt(*run, "--part", "1/2", odd, tmp_path / "out")
    done = ckpt(*run, "--part", "2/2", "--json", odd, tmp_path / "out").json
    assert 0 < done["rounded"] < whole["rounded"] and done["rounded_in_this_run_only"]
    assert done["changed_tensors"] == whole["changed_tensors"] and done["root"] == whole["root"]
    ckpt(*run, "--part", "2/2", odd, tmp_path / "text")
    done = ckpt(*run, "--part", "1/2", odd, tmp_path / "text")
    assert "values were rounded (in this run);" in done.out


def test_json_tells_rounding_without_like_too(ckpt, bf16, golden_a, digest, tmp_path):
    path = trained(bf16, tmp_path / "in", lambda x: x * np.float32(1.01))
    done = ckpt("ckpt-convert", "--dtype", "fp8", "--allow-lossy", "--json", "--verify", path,
                tmp_path / "out").json
    assert done["rounded"] > 100000 and done["changed_tensors"] > 10
    assert done["root"] == digest(tmp_path / "out") != done["source_root"] == digest(path)
    same = ckpt("ckpt-convert", "--allow-lossy", "--json", bf16, tmp_path / "same").json
    assert same["rounded"] == same["changed_tensors"] == 0
    assert same["root"] == same["source_root"]


def test_bf16_groups_of_tiny_values_get_a_scale_that_everybody_reads(ckpt, bf16, digest, tmp_path):
    """Scale byte 0x00 is 2^-127, which many readers take for 0."""
    random.seed(3)
    model = Model(bf16)
    name = "layers.0.ffn.experts.0.w1.weight"
    t = model[name]
    codes = [0x0080, 0x0100, 0x0180, 0x8080, 0, 0x8000]         # 2^-126, 2^-125, 3 * 2^-126 ...
    tiny = b"".join(random.choice(codes).to_bytes(2, "little") for _ in range(32 * 4))
    model[name] = Tensor(t.dtype, t.shape, tiny + t.data[len(tiny):])
    path = model.write(tmp_path / "in")
    ckpt("ckpt-convert", "--dtype", "fp8", "--experts", "fp4", path, tmp_path / "out")
    scales = Model(tmp_path / "out")[name.replace(".weight", ".scale")].data
    assert set(scales[:4]) == {1}
    assert digest(tmp_path / "out") == digest(path)


# ---- the same encoding, other scales ----

def check_follows(ckpt, other, original, out):
    ckpt("ckpt-verify", "compare", other, original)
    assert tensor_files(other) != tensor_files(original)
    ckpt("ckpt-convert", "--verify", "--like", original, other, out)
    assert tensor_files(out) == tensor_files(original)


def test_fp4_with_scales_by_rule_gets_those_to_follow(ckpt, golden_a, tmp_path):
    ckpt("ckpt-convert", "--experts", "fp8", golden_a, tmp_path / "fp8")
    (tmp_path / "fp8" / "fp4_scales.zst").unlink()
    ckpt("ckpt-convert", "--experts", "fp4", tmp_path / "fp8", tmp_path / "fp4")
    check_follows(ckpt, tmp_path / "fp4", golden_a, tmp_path / "out")


def test_fp8_with_halved_codes_gets_the_scales_to_follow(ckpt, golden_a, tmp_path):
    """Codes halved and scales doubled where that is exact: the same values, other bytes."""
    original = tmp_path / "original"
    ckpt("ckpt-convert", "--experts", "fp8", "--scale-dtype", "e8m0", golden_a, original)
    model = Model(original)
    model.extras.clear()
    count = 0
    for name in [n for n in model.names() if n.endswith(".weight")]:
        weight, to = model[name], name.replace(".weight", ".scale")
        if weight.dtype != "F8_E4M3":
            continue
        codes = np.frombuffer(weight.data, "u1").reshape(weight.shape).copy()
        scales = np.frombuffer(model[to].data, "u1").reshape(model[to].shape).copy()
        for r, c in np.ndindex(scales.shape):
            block = codes[128 * r:128 * r + 128, 128 * c:128 * c + 128]
            if np.all((block & 127 >= 16) | (block & 127 == 0)):
                block[:] = np.where(block & 127 == 0, block, block - 8)
                scales[r, c] += 1
                count += 1
        model[name] = Tensor(weight.dtype, weight.shape, codes.tobytes())
        model[to] = Tensor("F8_E8M0", model[to].shape, scales.tobytes())
    assert count > 20
    check_follows(ckpt, model.write(tmp_path / "other"), original, tmp_path / "out")


@pytest.mark.parametrize("options", [[], ["--allow-lossy"]])
def test_values_that_the_scales_to_follow_do_not_represent_keep_their_own(ckpt, golden_a, tmp_path,
                                                                          options):
    model = Model(golden_a)
    model.extras.clear()
    for name in list(filter(scaled, model.names())):
        t = model[name]
        model[name] = Tensor(t.dtype, t.shape, bytes(b + 5 for b in t.data))
    path = model.write(tmp_path / "in")
    done = ckpt("ckpt-convert", *options, "--json", "--like", golden_a, path, tmp_path / "out").json
    assert done["rounded"] == done["changed_tensors"] == 0
    ckpt("ckpt-verify", "compare", path, tmp_path / "out")
