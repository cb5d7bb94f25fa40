"""NVFP4 and FP8 by rows: what --quantize writes of them, as servers and quantisers have it."""
import json

import numpy as np
import pytest

from cli.kernels import tool      # noqa: F401
from corrupt.files import Model, Tensor, bf16, read_file, tensor_files

PARTS = {"weight": ("U8", 2), "weight_scale": ("F8_E4M3", 16), "weight_scale_2": ("F32", None),
         "input_scale": ("F32", None)}


def number(tensor):
    assert tensor.dtype == "F32" and tensor.shape == []
    return np.frombuffer(tensor.data, "<f4")[0]


def parts(model, weight):
    """The four tensors of an NVFP4 weight."""
    return [model[weight.removesuffix("weight") + part] for part in PARTS]


def experts(model, blocks="layers."):
    return [n for n in model.names() if ".ffn.experts." in n and n.startswith(blocks) and
            n.endswith(".weight")]


@pytest.fixture(scope="module")
def exact(ckpt, golden_a, tmp_path_factory):
    out = tmp_path_factory.mktemp("exact") / "out"
    ckpt("ckpt-convert", "--quantize", "v4-nvfp4", golden_a, out)
    return out


@pytest.fixture(scope="module")
def bf16_experts(ckpt, golden_a, tmp_path_factory):
    out = tmp_path_factory.mktemp("bf16") / "out"
    ckpt("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", golden_a, out)
    return out


# ---- exactly, from FP4 ----

def test_experts_become_nvfp4_without_a_change_of_value(ckpt, golden_a, exact):
    source, out = Model(golden_a), Model(exact)
    for name in experts(source):
        rows, columns = source[name].shape
        weight, scale, whole, given = parts(out, name)
        assert (weight.dtype, weight.shape) == ("U8", [rows, columns])
        assert weight.data == source[name].data             # nibbles stay, -0 too
        assert (scale.dtype, scale.shape) == ("F8_E4M3", [rows, columns // 8])
        assert np.frexp(number(whole))[0] == 0.5 and number(given) == 1
        if ".w1." in name:                                  # servers fuse them
            assert out[name.replace(".w1.weight", ".w3.weight_scale_2")].data == whole.data
    for name in experts(source, "mtp."):                    # drafters of servers read FP4
        assert out[name] == source[name]
    same = ckpt("ckpt-verify", "compare", "--json", golden_a, exact).json
    assert same["same"] is True
    roots = [ckpt("ckpt-verify", "digest", "--json", path).json["root"]
             for path in (golden_a, exact)]
    assert roots[0] == roots[1]


def test_the_result_is_of_the_family_and_returns_to_the_original(ckpt, golden_a, exact, tmp_path):
    told = ckpt("ckpt-inspect", "--json", exact).json
    assert told["family"] == "deepseek_v4" and told["notes"] == []
    ckpt("ckpt-convert", "--like", golden_a, exact, tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(golden_a)
    ckpt("ckpt-convert", exact, tmp_path / "copy")
    assert tensor_files(tmp_path / "copy") == tensor_files(exact)
    for name in ("config.json", "hf_quant_config.json"):
        assert (tmp_path / "copy" / name).read_bytes() == (exact / name).read_bytes()


def test_servers_are_told_of_it(ckpt, golden_a, exact):
    quantization = Model(exact).config["quantization_config"]
    assert Model(exact).config["expert_dtype"] == "fp4"
    assert quantization["quant_method"] == "fp8"
    assert quantization["moe_quant_algo"] == "NVFP4"
    assert quantization["quant_algo"] == "MIXED_PRECISION"
    assert quantization["group_size"] == 16 and quantization["kv_cache_quant_algo"] is None
    assert quantization["ckpt_rule"] == "nvfp4-cast"
    assert quantization["quantized_layers"] == {
        f"layers.{i}.ffn.experts": {"quant_algo": "NVFP4", "group_size": 16} for i in range(4)}
    assert {"layers.0.attn.wq_a", "layers.3.ffn.shared_experts.w2", "mtp.0.ffn.experts",
            "mtp.0.e_proj"} <= set(quantization["ignore"])
    assert not any("layers.0.ffn.experts" in module for module in quantization["ignore"])
    beside = json.loads((exact / "hf_quant_config.json").read_text())
    assert beside["producer"]["name"] == "ckpt"
    assert beside["quantization"] == {
        "quant_algo": "MIXED_PRECISION", "kv_cache_quant_algo": None, "group_size": 16,
        "quantized_layers": quantization["quantized_layers"],
        "exclude_modules": quantization["ignore"]}
    for loader in ("vllm", "sglang"):
        ckpt("ckpt-inspect", "--for", loader, exact)
    ckpt("ckpt-inspect", "--for", "transformers", exact, check=1)


def test_words_for_it_go_when_no_weight_has_it(ckpt, exact, tmp_path):
    ckpt("ckpt-convert", "--experts", "fp4", "--like", tmp_path, exact, tmp_path / "x", check=2)
    ckpt("ckpt-convert", "--experts", "bf16", exact, tmp_path / "out")
    quantization = Model(tmp_path / "out").config["quantization_config"]
    assert not {"moe_quant_algo", "quant_algo", "group_size", "quantized_layers",
                "ignore", "kv_cache_quant_algo"} & set(quantization)
    assert not (tmp_path / "out" / "hf_quant_config.json").exists()
    assert not any("input_scale" in name for name in Model(tmp_path / "out").names())


def test_the_runner_reads_it_unconverted(ckpt, data, golden_a, exact, tmp_path):
    for name, model in (("fp4", golden_a), ("nvfp4", exact)):
        ckpt("ckpt-run", "--tokens", data / "golden-a.safetensors", "--out",
             tmp_path / f"{name}.safetensors", model)
    ckpt("ckpt-verify", "logits", tmp_path / "fp4.safetensors", tmp_path / "nvfp4.safetensors",
         "--max-kl", "0")
    logits = [read_file(tmp_path / f"{name}.safetensors")[0] for name in ("fp4", "nvfp4")]
    assert logits[0] == logits[1]


@pytest.mark.parametrize("powers, status", [(17, 0), (18, 2)])
def test_scales_too_far_apart_are_refused_by_place(ckpt, golden_a, tmp_path, powers, status):
    name = "layers.1.ffn.experts.5.w3"
    model = Model(golden_a)
    model.extras.clear()
    groups = model[f"{name}.scale"].shape[1]
    largest = max(max(model[f"{name}.scale"].data),
                  max(model[f"{name}.scale".replace("w3", "w1")].data))
    scales = bytearray(model[f"{name}.scale"].data)
    codes = bytearray(model[f"{name}.weight"].data)
    scales[7 * groups + 1] = largest - powers
    codes[(7 * groups + 1) * 16:(7 * groups + 2) * 16] = bytes([0x17]) * 16
    model[f"{name}.scale"] = Tensor("F8_E8M0", model[f"{name}.scale"].shape, bytes(scales))
    model[f"{name}.weight"] = Tensor("I8", model[f"{name}.weight"].shape, bytes(codes))
    path = model.write(tmp_path / "in")
    done = ckpt("ckpt-convert", "--quantize", "experts=nvfp4-exact", path, tmp_path / "out",
                check=status)
    assert (tmp_path / "out").exists() == (status == 0)
    if status == 0:
        return
    assert f"'{name}.weight', row 7, group 1" in done.err and done.err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


# ---- by the rule, from values ----

def generic(tmp_path, tensors):
    model = Model()
    model.files["model.safetensors"] = tensors
    model.config = {"model_type": "other"}
    return model.write(tmp_path / "in")


@pytest.mark.parametrize("name", ["normal", "edge"])
def test_codes_and_scales_are_model_optimizer_s(tool, data, tmp_path, name):
    x, _ = read_file(data / "quantise" / "inputs.safetensors")
    want, _ = read_file(data / "quantise" / "vectors.safetensors")
    path = generic(tmp_path, {"a.weight": x[name], "b.norm": bf16([4]), "c.weight": x["normal"]})
    tool("ckpt-convert", "--quantize", "nvfp4", "--only", "a.weight", path, tmp_path / "out")
    out = Model(tmp_path / "out")
    weight, scale, whole, given = parts(out, "a.weight")
    assert weight.data == want[f"nvfp4-modelopt/{name}/codes"].data
    assert scale.data == want[f"nvfp4-modelopt/{name}/scale"].data
    assert whole.data == want[f"nvfp4-modelopt/{name}/scale2"].data and number(given) == 1
    quantization = out.config["quantization_config"]
    assert (quantization["quant_method"], quantization["quant_algo"]) == ("modelopt", "NVFP4")
    assert quantization["group_size"] == 16 and quantization["ignore"] == ["c"]
    beside = json.loads((tmp_path / "out" / "hf_quant_config.json").read_text())["quantization"]
    assert beside["quant_algo"] == "NVFP4" and beside["exclude_modules"] == ["c"]


def test_a_tensor_of_zeros_has_a_scale(ckpt, tmp_path):
    path = generic(tmp_path, {"a.weight": Tensor("BF16", [8, 64], bytes(1024))})
    ckpt("ckpt-convert", "--quantize", "nvfp4", "--only", "*", path, tmp_path / "out")
    weight, scale, whole, _ = parts(Model(tmp_path / "out"), "a.weight")
    assert weight.data == bytes(256) and scale.data == b"\x38" * 32 and number(whole) == 1


def random_bf16(shape, scale, seed):
    bits = np.random.default_rng(seed).standard_normal(shape).astype("<f4").view("<u4")
    values = ((bits >> 16 << 16).view("<f4") * np.float32(scale)).view("<u4")
    return Tensor("BF16", list(shape), (values >> 16).astype("<u2").tobytes())


@pytest.mark.parametrize("one, other", [("w1", "w3"), ("gate_proj", "up_proj")])
def test_weights_that_servers_fuse_share_a_scale(ckpt, tmp_path, one, other):
    names = [f"m.experts.0.{w}.weight" for w in (one, other, "w2")]
    sizes = (1, 8, 4)
    path = generic(tmp_path, {n: random_bf16((256, 128), s, i)
                              for i, (n, s) in enumerate(zip(names, sizes))})
    ckpt("ckpt-convert", "--quantize", "nvfp4", "--only", "*", "--input-scale", "0.375", path,
         tmp_path / "out")
    out = Model(tmp_path / "out")
    scales = [number(parts(out, n)[2]) for n in names]
    values = [(np.frombuffer(Model(path)[n].data, "<u2").astype("<u4") << 16).view("<f4")
              for n in names]
    assert scales[0] == scales[1] == np.float32(abs(values[1]).max()) / np.float32(2688)
    assert scales[2] == np.float32(abs(values[2]).max()) / np.float32(2688)
    assert [number(parts(out, n)[3]) for n in names] == [0.375] * 3
    ckpt("ckpt-verify", "compare", "--up-to-rule", "nvfp4", path, tmp_path / "out")
    ckpt("ckpt-convert", tmp_path / "out", tmp_path / "copy")       # what was calibrated stays
    assert tensor_files(tmp_path / "copy") == tensor_files(tmp_path / "out")


def test_threads_and_memory_change_no_byte(ckpt, tmp_path):
    """Tensors of many tiles: threads find the largest value together."""
    path = generic(tmp_path, {f"m.experts.{e}.{w}.weight": random_bf16((3000, 1024), 1 + e, e)
                              for e in range(2) for w in ("w1", "w3")})
    results = []
    for i, options in enumerate((["--threads", "1"], ["--threads", "4"],
                                 ["--threads", "3", "--memory", "48MiB"])):
        ckpt("ckpt-convert", "--quantize", "nvfp4", "--only", "*", *options, path,
             tmp_path / f"{i}")
        results.append(tensor_files(tmp_path / f"{i}"))
    assert results[0] == results[1] == results[2]


def test_like_keeps_the_scale_of_a_tensor_while_it_fits(ckpt, tmp_path):
    x = np.frombuffer(random_bf16((64, 256), 1, 5).data, "<u2").reshape(64, 256).copy()
    path = generic(tmp_path, {"a.weight": Tensor("BF16", [64, 256], x.tobytes())})
    ckpt("ckpt-convert", "--quantize", "nvfp4", "--only", "*", path, tmp_path / "old")
    ckpt("ckpt-convert", "--dtype", "bf16", "--allow-lossy", tmp_path / "old", tmp_path / "plain")
    old = Model(tmp_path / "old")
    trained = Model(tmp_path / "plain")
    trained.extras.clear()
    for name, change in (("fits", 0x3C00), ("beyond", 0x4500)):
        now = np.frombuffer(trained["a.weight"].data, "<u2").copy()
        now[700] = change                                  # in row 2: 2^-7, or 2048
        trained["a.weight"] = Tensor("BF16", [64, 256], now.tobytes())
        trained.write(tmp_path / name)
        ckpt("ckpt-convert", "--quantize", "nvfp4", "--like", tmp_path / "old", tmp_path / name,
             tmp_path / f"{name}-out")
        out = Model(tmp_path / f"{name}-out")
        kept = [a == b for a, b in zip(parts(out, "a.weight"), parts(old, "a.weight"))]
        assert kept == [False, name == "fits", name == "fits", True], name
        if name == "fits":
            rows = [np.frombuffer(parts(m, "a.weight")[0].data, np.uint8).reshape(64, 128)
                    for m in (old, out)]
            assert set(np.nonzero((rows[0] != rows[1]).any(axis=1))[0]) <= {2}


# ---- FP8 by rows ----

def test_rows_of_fp8_are_miles(tool, data, tmp_path):
    x, _ = read_file(data / "quantise" / "inputs.safetensors")
    want, _ = read_file(data / "quantise" / "vectors.safetensors")
    path = generic(tmp_path, {"a.weight": x["normal"], "c.weight": x["normal"]})
    tool("ckpt-convert", "--quantize", "fp8-channel", "--only", "a.weight", path, tmp_path / "out")
    out = Model(tmp_path / "out")
    assert out["a.weight"].data == want["fp8-channel/normal/codes"].data
    assert out["a.weight_scale"] == want["fp8-channel/normal/scale"]
    quantization = out.config["quantization_config"]
    assert quantization["quant_method"] == "compressed-tensors" and quantization["ignore"] == ["c"]
    weights = quantization["config_groups"]["group_0"]["weights"]
    assert (weights["num_bits"], weights["type"], weights["strategy"]) == (8, "float", "channel")
    told = {t["name"]: t for t in ckpt_logical(tool, tmp_path / "out")}
    assert told["a.weight"]["encoding"] == "F8_E4M3 1xrow F32"


def ckpt_logical(tool, path):
    return tool("ckpt-inspect", "--logical", "--json", path).json["tensors"]


# ---- refused ----

@pytest.mark.parametrize("options, words", [
    (["--quantize", "nvfp4", "--only", "*", "--input-scale", "0"], "--input-scale '0'"),
    (["--quantize", "nvfp4", "--only", "*", "--input-scale", "x"], "--input-scale 'x'"),
    (["--input-scale", "2"], "--input-scale is about NVFP4"),
    (["--quantize", "nvfp4", "--only", "a.weight"], "whole groups of 16"),
    (["--quantize", "nvpf4", "--only", "*"], "the nearest is 'nvfp4'"),
    (["--quantize", "mxfp4", "--only", "a.weight"], "whole groups of 32"),
    (["--quantize", "mxfp8", "--only", "a.weight"], "whole groups of 32"),
])
def test_what_cannot_be_is_one_line(ckpt, tmp_path, options, words):
    path = generic(tmp_path, {"a.weight": random_bf16((16, 40), 1, 1)})
    done = ckpt("ckpt-convert", *options, path, tmp_path / "out", check=2)
    assert words in done.err and done.err.count("\n") == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in"]


def test_what_is_quantised_is_not_rounded_again(ckpt, exact, tmp_path):
    done = ckpt("ckpt-convert", "--quantize", "experts=fp4", exact, tmp_path / "out", check=2)
    assert "is quantised already" in done.err and done.err.count("\n") == 1
    done = ckpt("ckpt-convert", "--quantize", "experts=nvfp4-exact,mtp-experts=keep", exact,
                tmp_path / "out", check=2)
    assert "quantised already" in done.err and not (tmp_path / "out").exists()
    done = ckpt("ckpt-convert", "--json", "--quantize", "mtp-experts=nvfp4-exact", exact,
                tmp_path / "out").json                      # those that are left
    assert done["quantised"]["rules"] == {"nvfp4-cast": 48}
    assert ["48 weights have an input_scale of 1" in n for n in done["notes"]] == [True]


def test_layouts_for_training_do_not_take_it(ckpt, golden_a, tmp_path):
    done = ckpt("ckpt-shard", "--layout", "mp", "--mp", "2", "--quantize", "experts=nvfp4-exact",
                golden_a, tmp_path / "out", check=2)
    assert "NVFP4" in done.err and done.err.count("\n") == 1


# ---- what was written is read again ----

QWEN3 = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 128,
         "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4,
         "num_key_value_heads": 2, "head_dim": 32, "vocab_size": 256, "rms_norm_eps": 1e-6,
         "rope_theta": 10000, "tie_word_embeddings": False, "torch_dtype": "bfloat16",
         "max_position_embeddings": 1024, "hidden_act": "silu", "attention_bias": False}


@pytest.mark.parametrize("rule", ["nvfp4", "fp8-channel", "mxfp8"])
def test_a_dense_family_stays_itself_when_it_is_quantised(ckpt, tmp_path, rule):
    (tmp_path / "config.json").write_text(json.dumps(QWEN3))
    source, out = tmp_path / "source", tmp_path / "out"
    ckpt("ckpt-synth", "--config", tmp_path / "config.json", source)
    ckpt("ckpt-convert", "--verify", "--quantize", rule, source, out)
    checked = ckpt("ckpt-verify", "check", "--json", out).json
    assert checked["family"] == "qwen3"
    ckpt("ckpt-verify", "compare", "--up-to-rule", rule, source, out)


@pytest.mark.parametrize("words", [["--quantize", "v4-nvfp4"], ["--quantize", "v4-release"],
                                   ["--quantize", "v4-nvfp4", "--input-scale", "2"]])
def test_a_preset_for_experts_is_refused_where_there_are_none(ckpt, tmp_path, words):
    (tmp_path / "config.json").write_text(json.dumps(QWEN3))
    ckpt("ckpt-synth", "--config", tmp_path / "config.json", tmp_path / "source")
    err = ckpt("ckpt-convert", *words, tmp_path / "source", tmp_path / "out", check=2).err
    assert f"--quantize {words[1]} names the class experts, but no tensor is of it" in err
    assert not (tmp_path / "out").exists()


def test_its_own_output_may_be_replaced(ckpt, bf16_experts, tmp_path):
    for _ in range(2):
        ckpt("ckpt-convert", "--overwrite", "--quantize", "v4-nvfp4", bf16_experts,
             tmp_path / "out")


@pytest.mark.parametrize("rules", ["nvfp4-exact", "experts=nvfp4-exact,rest=fp8-ue8m0"])
def test_the_exact_cast_never_rounds(ckpt, bf16_experts, tmp_path, rules):
    err = ckpt("ckpt-convert", "--quantize", rules, bf16_experts, tmp_path / "out", check=2).err
    assert "takes FP4 weights" in err and not (tmp_path / "out").exists()
