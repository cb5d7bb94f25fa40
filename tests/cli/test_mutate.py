"""ckpt-verify mutate: faults made in flight, which the checks must find by name."""
import json

import pytest

from corrupt.files import Model, Tensor, all_files

TOKENIZER = {"tokenizer.json": b'{"version": "1.0", "model": {}}\n',
             "tokenizer_config.json": b'{"model_max_length": 1048576}\n',
             "chat_template.jinja": b"{% for m in messages %}{{ m }}{% endfor %}\n"}
BESIDE = {"swap_tokenizer_files", "change_tokenizer", "change_template"}
NVFP4 = {"flip_bit_tensor_scale"}


def mutate(ckpt, path, *options, check=0, **how):
    doc = ckpt("ckpt-verify", "mutate", "--json", *options, path, check=check, **how).json
    return doc, {m["name"]: m for m in doc["mutations"]}


def named(kinds, wanted):
    return {n for n, m in kinds.items() if wanted(m)}


def test_every_fault_is_found(ckpt, golden):
    before = all_files(golden)
    doc, kinds = mutate(ckpt, golden)
    assert named(kinds, lambda m: not m["applicable"]) == BESIDE | NVFP4
    assert named(kinds, lambda m: m["caught"]) == set(kinds) - BESIDE - NVFP4
    assert doc["applicable"] == len(kinds) - len(BESIDE | NVFP4) >= 24 and doc["missed"] == 0
    assert {m["by"] for n, m in kinds.items() if n.startswith("config_")} == {"config"}
    assert kinds["swap_experts"]["by"] == "values" and "experts" in kinds["swap_experts"]["what"]
    assert all(m["reason"] for n, m in kinds.items() if n in BESIDE)
    assert all_files(golden) == before


def test_files_beside_the_weights(ckpt, golden_a, tmp_path):
    model = Model(golden_a)
    model.extras.update(TOKENIZER)
    doc, kinds = mutate(ckpt, model.write(tmp_path / "m"))
    assert doc["applicable"] == len(kinds) - len(NVFP4) and doc["missed"] == 0
    assert {n: kinds[n]["by"] for n in BESIDE} == {
        "swap_tokenizer_files": "tokenizer", "change_tokenizer": "tokenizer",
        "change_template": "template"}


@pytest.mark.parametrize("command,lacks", [
    (["ckpt-convert", "--dtype", "fp8"],
     {"swap_nibbles", "flip_bit_fp4", "flip_bit_fp4_scale", "swap_scales"}),
    (["ckpt-convert", "--dtype", "bf16", "--experts", "bf16"],
     {"swap_nibbles", "flip_bit_fp4", "flip_bit_fp4_scale", "flip_bit_fp8", "flip_bit_fp8_scale",
      "scale_up", "scale_all_up", "swap_scales"}),
    (["ckpt-shard", "--layout", "torch_dist"], None), (["ckpt-shard", "--layout", "mp", "--mp", 2],
                                                       None)])
def test_other_encodings_and_layouts(ckpt, golden_a, tmp_path, command, lacks):
    ckpt(*command, golden_a, tmp_path / "x")
    doc, kinds = mutate(ckpt, tmp_path / "x")
    assert doc["missed"] == 0 and doc["applicable"] >= 20
    if lacks is not None:
        assert named(kinds, lambda m: not m["applicable"]) == BESIDE | NVFP4 | lacks


def test_scales_of_whole_tensors(ckpt, tmp_path):
    """NVFP4: three parts, each of which has its own mutations."""
    model = Model()
    model.config = {"quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4",
                                            "group_size": 16}}
    tensors = model.files["model.safetensors"] = {}
    for e in range(3):
        name = f"model.layers.0.mlp.experts.{e}.up_proj.weight"
        tensors[name] = Tensor("U8", [64, 32], bytes((7 * e + 5 * i) % 251 for i in range(2048)))
        tensors[name + "_scale"] = Tensor("F8_E4M3", [64, 4], bytes(range(40, 44)) * 64)
        tensors[name + "_scale_2"] = Tensor("F32", [], b"\0\0\0\x3f")
    doc, kinds = mutate(ckpt, model.write(tmp_path / "m"))
    assert doc["missed"] == 0 and NVFP4 | {"swap_experts", "scale_up", "swap_scales"} <= named(
        kinds, lambda m: m["caught"])


def test_a_policy_that_looks_away_misses_faults(ckpt, golden_a, tmp_path):
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"schema": "ckpt-policy/1", "roots": "any", "config": "any"}))
    doc, kinds = mutate(ckpt, golden_a, "--policy", policy, check=1)
    assert doc["missed"] > 20
    assert named(kinds, lambda m: m["caught"]) == {"set_nan", "set_infinity", "id_out_of_range"}
    assert kinds["set_nan"]["by"] == "findings"
    policy.write_text(json.dumps({"schema": "ckpt-policy/1", "roots": "any", "findings": "none"}))
    _, kinds = mutate(ckpt, golden_a, "--policy", policy, check=1)
    assert {"set_nan", "narrow_vector", "narrow_matrix", "id_out_of_range", "id_repeated",
            "zero_tensor"} <= named(kinds, lambda m: m["by"] == "findings")
    out = ckpt("ckpt-verify", "mutate", "--policy", policy, golden_a, check=1).out
    assert "MISSED  swap_experts" in out and "found   config_rope_theta" in out


def test_what_changes_nothing_is_not_counted(ckpt, tmp_path):
    """All rows alike: moving them is no fault."""
    model = Model()
    row = bytes(range(1, 65))
    model.files["model.safetensors"] = {
        "layers.0.a.weight": Tensor("BF16", [32, 32], row * 32),
        "layers.1.a.weight": Tensor("BF16", [32, 32], row * 32)}
    doc, kinds = mutate(ckpt, model.write(tmp_path / "m"))
    assert not kinds["rotate_rows"]["applicable"] and not kinds["swap_rows"]["applicable"]
    assert not kinds["swap_layers"]["applicable"] and kinds["swap_columns"]["caught"]
    assert kinds["transpose_square"]["caught"] and doc["missed"] == 0
    out = ckpt("ckpt-verify", "mutate", "--kind", "rotate_rows", "--kind", "set_nan",
               tmp_path / "m").out
    assert "it changes no value" in out and "1 of 1 applicable faults were found" in out


def test_threads_change_nothing(ckpt, golden_b):
    first = mutate(ckpt, golden_b, "--threads", 1)
    assert mutate(ckpt, golden_b, "--threads", 4, env={"CKPT_KERNELS": "scalar"}) == first


def test_nothing_tested_is_no_pass(ckpt, golden_a):
    done = ckpt("ckpt-verify", "mutate", "--kind", "change_template", golden_a, check=2)
    assert "no place for any" in done.err


@pytest.mark.parametrize("options,word", [(["--kind", "nothing", "x"], "'nothing'"), ([], "PATH"),
                                          (["--list", "--kind", "set_nan"], "--list"),
                                          (["--list", "x"], "takes no PATH")])
def test_bad_requests_are_refused(ckpt, options, word):
    assert word in ckpt("ckpt-verify", "mutate", *options, check=2).err


def test_the_list(ckpt):
    lines = ckpt("ckpt-verify", "mutate", "--list").out.splitlines()
    assert len(lines) >= 24 and lines[0].startswith("swap_experts ")
