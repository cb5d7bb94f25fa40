"""--quantize: named rules, classes and presets; what they lose is told, and can be a gate."""
import json
import shutil

import numpy as np
import pytest

from cli.trees import Job, partial
from corrupt.files import Model, Tensor, bf16, link_tree, read_file, read_header, tensor_files
from interop.quantisers import DONE, Quantiser

EXPERT = "layers.2.ffn.experts.3.w2.weight"
DENSE = "layers.1.attn.wo_b.weight"
FP8_RULES = ["fp8-b128-f32", "fp8-b128-f32-deepseek", "fp8-b128-ue8m0"]
FP4_RULES = ["fp4-b32-deepseek", "fp4-b32-floor", "fp4-b32-even"]


def values(tensor):
    """Of BF16 or F32, as F32."""
    if tensor.dtype == "F32":
        return np.frombuffer(tensor.data, "<f4").reshape(tensor.shape)
    return (np.frombuffer(tensor.data, "<u2").astype("<u4") << 16).view("<f4").reshape(
        tensor.shape)


def to_bf16(x):
    bits = np.asarray(x, "<f4").view("<u4")
    return Tensor("BF16", list(bits.shape),
                  ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2").tobytes())


def is_weight(name):
    return any(part in name for part in (".experts.", ".shared_experts.", ".attn.w",
                                         ".indexer.wq_b", ".e_proj", ".h_proj"))


def trained(path, to, change, only=is_weight):
    """A copy of a BF16 checkpoint in which these weights are change(values)."""
    model = Model(path)
    model.extras.clear()
    for name in filter(only, model.names()):
        model[name] = to_bf16(change(values(model[name])))
    return model.write(to)


@pytest.fixture(scope="module")
def plain(ckpt, golden_a, tmp_path_factory):
    out = tmp_path_factory.mktemp("bf16") / "bf16"
    ckpt("ckpt-convert", "--dtype", "bf16", "--no-manifest", golden_a, out)
    return out


@pytest.fixture(scope="module")
def moved(plain, tmp_path_factory):
    """All weights Gaussian: no block sits on a grid."""
    rng = np.random.default_rng(1)
    return trained(plain, tmp_path_factory.mktemp("moved") / "moved",
                   lambda x: rng.standard_normal(x.shape) * 0.02)


E4M3 = np.array([np.nan if c & 0x7F == 0x7F else
                 (-1) ** (c >> 7) * ((c & 7) * 2.0 ** -9 if c & 0x78 == 0 else
                                     (8 + (c & 7)) * 2.0 ** ((c >> 3 & 15) - 10))
                 for c in range(256)], np.float32)
E2M1 = np.array([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6], np.float32)


def decoded(codes, scales):
    """Values of a stored weight, from the definition."""
    grid = (np.frombuffer(scales.data, "<f4") if scales.dtype == "F32" else
            np.ldexp(np.float32(1), np.frombuffer(scales.data, np.uint8).astype(int) - 127))
    grid = grid.astype(np.float32).reshape(scales.shape)
    raw = np.frombuffer(codes.data, np.uint8).reshape(codes.shape)
    if codes.dtype == "F8_E4M3":
        tall = np.repeat(np.repeat(grid, 128, 0), 128, 1)[:raw.shape[0], :raw.shape[1]]
        return E4M3[raw] * tall
    x = E2M1[np.stack([raw & 15, raw >> 4], -1).reshape(raw.shape[0], -1)]
    return x * np.repeat(grid, 32, 1)


def relative(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return np.sqrt(((y - x) ** 2).sum()) / np.sqrt((x ** 2).sum())


# ---- rules ----

@pytest.mark.parametrize("rule", FP8_RULES + FP4_RULES)
def test_codes_and_scales_are_the_rule_s(ckpt, moved, tmp_path, rule):
    """The kernels of a rule are held against other projects' in tests/interop; here is that the
    command gives every weight to them whole."""
    is_fp4 = rule in FP4_RULES                      # of experts alone, which config.json can tell
    ckpt("ckpt-convert", "--quantize", f"experts={rule}" if is_fp4 else rule, "--threads", "3",
         moved, tmp_path / "out")
    source, out = Model(moved), Model(tmp_path / "out")
    for name in (EXPERT,) if is_fp4 else (DENSE, EXPERT, "layers.0.attn.wkv.weight"):
        f32 = out[name.replace(".weight", ".scale")].dtype == "F32"
        result, codes, scales, _ = Quantiser(rule, "scalar", f32).run(values(source[name]))
        assert result.outcome == DONE
        assert out[name].data == codes.tobytes()
        assert out[name.replace(".weight", ".scale")].data == scales.tobytes()
    assert out.config["quantization_config"]["ckpt_rule"] == rule
    assert ("scale_fmt" in out.config["quantization_config"]) == (rule not in FP8_RULES[:2])


@pytest.mark.parametrize("rule", ["fp8-b128-f32", "fp8-b128-ue8m0", "fp4-b32-deepseek",
                                  "mxfp8-rceil"])
def test_golden_vectors_by_the_command(ckpt, data, tmp_path, rule):
    """Of slime and DeepSeek, in a checkpoint that no family knows: --only says what is a weight."""
    x, _ = read_file(data / "quantise" / "inputs.safetensors")
    want, _ = read_file(data / "quantise" / "vectors.safetensors")
    model = Model()
    model.files["model.safetensors"] = {"a.weight": x["normal"], "b.norm": bf16([4]),
                                        "c.weight": x["normal"]}
    model.config = {"model_type": "other"}
    path = model.write(tmp_path / "in")
    told = ckpt("ckpt-convert", "--quantize", rule, "--only", "a.weight", "--json", path,
                tmp_path / "out").json
    assert ["servers take its codes for FP8" in n for n in told["notes"]] == \
        [True] * (rule in FP4_RULES)
    out = Model(tmp_path / "out")
    assert out["a.weight"].data == want[f"{rule}/normal/codes"].data
    assert out["a.weight_scale_inv"].data == want[f"{rule}/normal/scale"].data
    assert out["b.norm"] == model["b.norm"] and out["c.weight"] == model["c.weight"]
    # A server would take every linear layer for quantised that is not in the list.
    assert out.config["quantization_config"]["modules_to_not_convert"] == ["c"]
    if rule == "mxfp8-rceil":        # SGLang's parameter is U8: E8M0 would be cast by value
        assert out["a.weight_scale_inv"].dtype == "U8"
        assert out.config["quantization_config"]["quant_method"] == "mxfp8"
        assert out.config["quantization_config"]["weight_block_size"] == [1, 32]
    listed = ckpt("ckpt-inspect", "--logical", "--json", tmp_path / "out").json["tensors"]
    assert next(t for t in listed if t["name"] == "a.weight")["encoding"] != "BF16"


def test_threads_and_kernels_do_not_change_bytes_or_losses(ckpt, moved, tmp_path):
    for i, (threads, kernels) in enumerate([(1, "scalar"), (4, "avx2")]):
        ckpt("ckpt-convert", "--quantize", "fp8-f32,experts=fp4", "--threads", str(threads),
             "--report", tmp_path / f"{i}.json", moved, tmp_path / f"{i}",
             env={"CKPT_KERNELS": kernels})
    assert tensor_files(tmp_path / "0") == tensor_files(tmp_path / "1")
    reports = [json.loads((tmp_path / f"{i}.json").read_text()) for i in (0, 1)]
    assert reports[0]["quantised"] == reports[1]["quantised"]
    assert reports[0]["target_tensors"] == reports[1]["target_tensors"]


# ---- what was lost ----

def test_losses_equal_an_independent_computation(ckpt, moved, tmp_path):
    done = ckpt("ckpt-convert", "--quantize", "fp8-f32,experts=fp4", "--json", "--report",
                tmp_path / "r.json", moved, tmp_path / "out").json
    source, out = Model(moved), Model(tmp_path / "out")
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["quantised"] == done["quantised"]
    errors = squares = rounded = 0
    for t in report["target_tensors"]:
        if "quantised" not in t:
            assert out[t["name"]].data == source[t["name"]].data
            continue
        told = t["quantised"]
        x = values(source[t["name"]])
        y = decoded(out[t["name"]], out[t["name"].replace(".weight", ".scale")])
        assert told["relative_error"] == pytest.approx(relative(x, y), rel=1e-6)
        assert told["sqnr_db"] == pytest.approx(-20 * np.log10(relative(x, y)), rel=1e-6)
        assert told["max_abs"] == np.abs(y - x).max()
        assert abs(y - x)[told["max_row"], told["max_column"]] == told["max_abs"]
        assert told["rounded"] == (x != y).sum() and told["elements"] == x.size
        assert told["rule"] == ("fp4-b32-deepseek" if ".experts." in t["name"]
                                else "fp8-b128-f32")
        errors += ((y.astype(float) - x) ** 2).sum()
        squares += (x.astype(float) ** 2).sum()
        rounded += told["rounded"]
    total = done["quantised"]["total"]
    assert total["relative_error"] == pytest.approx(np.sqrt(errors / squares), rel=1e-6)
    assert total["rounded"] == rounded == done["rounded"]
    assert done["quantised"]["rules"] == {"fp8-b128-f32": 44, "fp4-b32-deepseek": 240}
    classes = done["quantised"]["classes"]
    assert classes.keys() == {"experts", "shared", "attention", "mtp", "mtp-experts"}
    assert 0.11 < classes["experts"]["relative_error"] < 0.15
    assert 0.026 < classes["attention"]["relative_error"] < 0.028


def test_the_closing_lines_tell_the_loss_and_both_roots(ckpt, moved, digest, tmp_path):
    done = ckpt("ckpt-convert", "--quantize", "v4-release", moved, tmp_path / "out")
    lost, roots = done.out.splitlines()[-2:]
    assert "fp8-b128-ue8m0 (44 tensors), fp4-b32-deepseek (240 tensors)" in lost
    assert "0 exact, 0 restored, 284 rounded" in lost and "SQNR" in lost and "worst '" in lost
    assert digest(moved) in roots and digest(tmp_path / "out") in roots


def test_exact_weights_lose_nothing(ckpt, plain, digest, tmp_path):
    done = ckpt("ckpt-convert", "--quantize", "v4-release", "--json", plain, tmp_path / "out").json
    assert done["rounded"] == done["changed_tensors"] == 0
    assert done["quantised"]["exact_tensors"] == 284
    assert done["quantised"]["total"]["sqnr_db"] is None
    assert digest(tmp_path / "out") == digest(plain)


def test_canonical_groups_have_the_original_s_bytes(ckpt, plain, golden_a, tmp_path):
    """The plain rule gives a group whose largest code is 5 half the scale; +canonical does not."""
    same = {}
    for rule in ("fp4", "fp4-b32-deepseek+canonical"):
        ckpt("ckpt-convert", "--quantize", f"experts={rule}", plain, tmp_path / rule)
        out, original = Model(tmp_path / rule), Model(golden_a)
        experts = [n for n in out.names() if ".experts." in n and n.endswith(".scale")]
        same[rule] = np.mean([a == b for n in experts
                              for a, b in zip(out[n].data, original[n].data)])
    assert same["fp4"] < 0.9 and same["fp4-b32-deepseek+canonical"] > 0.999


def test_a_limit_is_a_gate(ckpt, moved, tmp_path):
    run = "ckpt-convert", "--quantize", "v4-release"
    for limit in ("0.2", "0.03,experts=0.2", "0.03,experts=0.2,mtp=0.2"):
        ckpt(*run, "--max-relf", limit, moved, tmp_path / limit)
    err = ckpt(*run, "--max-relf", "0.03", moved, tmp_path / "out", check=2).err
    assert ".experts." in err and "fp4-b32-deepseek" in err
    assert err.endswith("more than --max-relf 0.03; 240 tensors lose too much\n")
    assert "--allow-lossy" not in err
    err = ckpt(*run, "--max-relf", "0.2,attention=0.001", moved, tmp_path / "out", check=2).err
    assert ".attn." in err and "more than --max-relf 0.001; " in err
    assert not list(tmp_path.glob("out*"))


def test_a_resumed_run_tells_the_whole_loss(ckpt, moved, fault, tmp_path):
    job = Job(tmp_path, "ckpt-convert", "--quantize", "v4-release", "--json", moved)
    whole = job.run(job.new_target()).json
    resumed = 0
    for target in job.killed_in_turn("write", 150, fault):
        if partial(target).exists():
            done = job.run(target).json
            resumed += done["kept"] > 0
            assert done["quantised"] == whole["quantised"] and done["rounded"] == whole["rounded"]
            assert done["rounded_in_this_run_only"] is False
    assert resumed > 0


# ---- classes and presets ----

def dtypes(path):
    return {name: h["dtype"] for p in path.glob("*.safetensors")
            for name, h in read_header(p)[0].items()}


@pytest.mark.parametrize("words,expert,dense,scale,expert_dtype", [
    ("v4-release", "I8", "F8_E4M3", "F8_E8M0", "fp4"),
    ("v4-vllm-fp8", "F8_E4M3", "F8_E4M3", "F32", "fp8"),
    ("v3-release", "F8_E4M3", "F8_E4M3", "F32", "fp8"),
    ("fp8-ue8m0", "F8_E4M3", "F8_E4M3", "F32", "fp8"),
    ("experts=fp4,rest=fp8-ue8m0", "I8", "F8_E4M3", "F8_E8M0", "fp4"),
    ("experts=mxfp4", "I8", "BF16", None, "fp4"),
    ("v4-release,experts=keep", "BF16", "F8_E4M3", "F8_E8M0", None),
    ("v4-release,attention=keep", "I8", "BF16", None, "fp4"),
])
def test_classes_and_presets(ckpt, moved, tmp_path, words, expert, dense, scale, expert_dtype):
    out = tmp_path / "out"
    ckpt("ckpt-convert", "--quantise", words, moved, out)
    got = dtypes(out)
    assert got[EXPERT] == expert and got[DENSE] == dense
    assert got.get(DENSE.replace(".weight", ".scale")) == scale
    assert got["embed.weight"] == "BF16" and got["layers.0.ffn.gate.weight"] == "BF16"
    config = json.loads((out / "config.json").read_text())
    assert config.get("expert_dtype") == expert_dtype
    plain = config["quantization_config"].get("modules_to_not_convert", [])
    assert ("layers.1.attn.wo_b" in plain) == (dense == "BF16")
    assert ("layers.2.ffn.experts" in plain) == (expert == "BF16")
    assert ckpt("ckpt-inspect", "--json", out).json["family"] == "deepseek_v4"


def test_mtp_is_a_class_over_the_others(ckpt, moved, tmp_path):
    def name(what):
        return f"mtp.0.{what}.weight"
    expert, attention = name("ffn.experts.0.w1"), name("attn.wq_a")
    for words, want in [("experts=fp4", {expert: "I8", attention: "BF16"}),
                        ("fp8-ue8m0,mtp=keep", {expert: "BF16", attention: "BF16"}),
                        ("fp8-ue8m0,mtp=keep,mtp-experts=fp8-ue8m0",
                         {expert: "F8_E4M3", attention: "BF16"}),
                        ("attention=fp8-ue8m0", {expert: "BF16", attention: "F8_E4M3"})]:
        ckpt("ckpt-convert", "--quantize", words, moved, tmp_path / words)
        got = dtypes(tmp_path / words)
        assert {n: got[n] for n in want} == want, words


def test_only_and_skip(ckpt, moved, tmp_path):
    ckpt("ckpt-convert", "--quantize", "fp8-ue8m0", "--only", "layers.1.*", "--only",
         "layers.2.attn.*", "--skip", "*.shared_experts.*", moved, tmp_path / "out")
    got = dtypes(tmp_path / "out")
    quantised = {n for n, d in got.items() if d == "F8_E4M3"}
    assert DENSE in quantised
    assert "layers.1.ffn.shared_experts.w1.weight" not in quantised
    assert all(n.startswith(("layers.1.", "layers.2.attn.")) for n in quantised)
    for pattern, why in [("nothing*", "matches no tensor"),
                         ("layers.0.attn.attn_sink", "never quantised"),
                         ("*.norm.weight", "never quantised")]:
        err = ckpt("ckpt-convert", "--quantize", "fp8-ue8m0", "--only", pattern, moved,
                   tmp_path / "no", check=2).err
        assert why in err


@pytest.mark.parametrize("options,said", [
    (["fp8-ue8m0", "--only", "layers.1.*", "--only", "lyers.2.*"], "--only 'lyers.2.*' matches no"),
    (["fp8-ue8m0", "--skip", "*.shared_expert.*"], "--skip '*.shared_expert.*' matches no"),
    (["v4-release,mtp=fp8-f32"], "names the class mtp, but"),
])
@pytest.mark.parametrize("like", [False, True])
def test_a_word_about_no_tensor_is_refused(ckpt, moved, golden_a, tmp_path, options, said, like):
    """Here nothing is of MTP, and a pattern has a misprint."""
    plain = Model(moved)
    plain.config["num_nextn_predict_layers"] = 0
    plain.config["compress_ratios"] = plain.config["compress_ratios"][:-1]
    for name in [n for n in plain.names() if n.startswith("mtp.")]:
        del plain[name]
    path = plain.write(tmp_path / "in")
    if like:
        options = [*options, "--like", shutil.copytree(path, tmp_path / "like")]
    err = ckpt("ckpt-convert", "--quantize", *options, path, tmp_path / "out", check=2).err
    assert said in err and not list(tmp_path.glob("out*"))
    if like:                                 # plain, as the source
        err = ckpt("ckpt-convert", "--quantize", "fp8-ue8m0", *options[-2:], path,
                   tmp_path / "out", check=2).err
        assert "changes nothing" in err
    else:                                    # what is to stay as it is need not be there
        ckpt("ckpt-convert", "--quantize", "fp8-ue8m0,mtp=keep", "--only", "layers.1.*", path,
             tmp_path / "out")


def test_wo_a_can_stay_plain(ckpt, moved, golden_a, tmp_path):
    ckpt("ckpt-convert", "--quantize", "v4-release", "--wo-a", "bf16", moved, tmp_path / "out")
    assert dtypes(tmp_path / "out")["layers.0.attn.wo_a.weight"] == "BF16"
    plain = json.loads((tmp_path / "out" / "config.json").read_text())
    assert "layers.0.attn.wo_a" in plain["quantization_config"]["modules_to_not_convert"]
    ckpt("ckpt-convert", "--wo-a", "bf16", golden_a, tmp_path / "cast")
    got = dtypes(tmp_path / "cast")
    assert got["layers.0.attn.wo_a.weight"] == "BF16" and got[DENSE] == "F8_E4M3"


# ---- refusals ----

@pytest.mark.parametrize("options,said", [
    (["--quantize", "fp8-b128-uem0"], "the nearest is 'fp8-b128-ue8m0'"),
    (["--quantize", "fp8"], "the nearest is 'fp8-f32'"),
    (["--quantize", "v4-relase"], "the nearest is 'v4-release'"),
    (["--quantize", "v4"], "the nearest is 'v4-release', and ckpt(7) lists all"),
    (["--quantize", "expert=fp4"], "there is no class 'expert'"),
    (["--quantize", "experts=fp4,experts=mxfp4"], "second value for the class experts"),
    (["--quantize", "fp4,mxfp4"], "write CLASS=mxfp4 if it is meant for a class"),
    (["--quantize", "fp4,"], "something is missing between commas"),
    (["--quantize", "experts="], "something is missing after '='"),
    (["--quantize", "experts=fp4,rest=none"], "there is no rule 'none'; keep leaves weights as"),
    (["--quantize", "fp4", "--quantise=fp8-f32"], "is given twice, as 'fp4' and 'fp8-f32'"),
    (["--quantize", "fp4", "--skip", "*"], "--only and --skip leave out all weights"),
    (["--quantize", "fp4", "--input-scale", "2"], "about NVFP4 weights, and --quantize fp4 makes"),
    (["--quantize", "experts=nvfp4", "--input-scale", "1e60"], "number above 0 that F32 can hold"),
    (["--quantize", ""], "got ''"),
    (["--quantize", "fp4", "--dtype", "fp8"], "leave out --dtype"),
    (["--quantize", "fp8-f32", "--scale-dtype", "e8m0"], "no powers of two"),
    (["--quantize", "mxfp8"], "wo_a.weight' would be MXFP8, which SGLang does not read of it"),
    (["--quantize", "nvfp4"], "would be NVFP4, which servers read of experts alone"),
    (["--quantize", "fp4"], "would be FP4, which servers read of experts alone"),
    (["--quantize", "shared=mxfp4"], "name them (--quantize experts=fp4-b32-floor,rest=fp8-ue8m0)"),
    (["--quantize", "fp8-ue8m0", "--only", "*.wo_a.*", "--wo-a", "bf16"],
     "--quantize changes nothing: --wo-a bf16 leaves out all weights"),
    (["--quantize", "experts=fp8-channel"], "family deepseek_v4 has other blocks"),
    (["--quantize", "v4-release,v4-nvfp4"], "'v4-nvfp4' is the rules of all classes: it comes"),
    (["--quantize", "experts=v3-release"], "'v3-release' is the rules of all classes"),
    (["--quantize", "experts=keep,rest=keep"], "names no rule, and changes nothing"),
    (["--quantize", "experts=fp4", "--max-relf", "1,attention=0.1"],
     "limits the class attention, but no tensor of it is quantised"),
    (["--quantize", "v4-release,mtp=keep", "--max-relf", "1,mtp-experts=0.1"],
     "limits the class mtp-experts, but no tensor of it is quantised"),
    (["--allow-lossy", "--max-relf", "0.1"], "and no weight is rounded: leave them out"),
    (["--allow-lossy", "--nonfinite", "zero"], "and no weight is rounded: leave them out"),
    (["--only", "*"], "give a rule"),
    (["--max-relf", "0.1"], "give --quantize"),
    (["--quantize", "fp4", "--max-relf", "x"], "is not a number"),
    (["--quantize", "fp4", "--max-relf", "-1"], "is not a number"),
    (["--quantize", "fp4", "--max-relf", "0.1", "--part", "1/2"], "--part"),
    (["--quantize", "fp4", "--sticky-scale"], "--like"),
])
def test_words_that_are_refused(ckpt, plain, tmp_path, options, said):
    assert said in ckpt("ckpt-convert", *options, plain, tmp_path / "out", check=2).err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("layout, words, said", [
    (["--layout", "mp", "--mp", "2"], ["attention=fp4"], "would be FP4, which servers read of"),
    (["--layout", "mp", "--mp", "2"], ["fp8-f32", "--only", "*.wo_a.*"],
     "--quantize changes nothing: layout mp has 5 weights of its classes plain, such as "
     "'layers.0.attn.wo_a.weight'"),
    (["--layout", "gguf", "--without-tokenizer"], ["attention=fp4"],
     "--quantize changes nothing: layout gguf has"),
])
def test_a_layout_that_has_the_weights_plain_refuses(ckpt, plain, tmp_path, layout, words, said):
    for more in ([], ["--dry-run"]):
        err = ckpt("ckpt-shard", *layout, *more, "--quantize", *words, plain, tmp_path / "out",
                   check=2).err
        assert said in err and err.count("\n") == 1 and not list(tmp_path.iterdir())


def test_weights_that_the_layout_has_plain_are_told(ckpt, plain, tmp_path):
    told = ckpt("ckpt-shard", "--layout", "gguf", "--without-tokenizer", "--quantize", "fp4",
                "--json", plain, tmp_path / "out").json
    assert told["quantised"]["rules"] == {"fp4-b32-deepseek": 192}
    assert ["not quantised, because layout gguf has them plain; the first is 'layers.0.attn" in n
            for n in told["notes"]] == [True]


def test_fp4_of_a_model_whose_config_has_no_words_for_it_is_refused(ckpt, tmp_path):
    config = {"model_type": "qwen3", "hidden_size": 64, "intermediate_size": 64, "vocab_size": 64,
              "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 2,
              "head_dim": 32, "tie_word_embeddings": True}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ckpt("ckpt-synth", "--config", tmp_path / "config.json", tmp_path / "source")
    err = ckpt("ckpt-convert", "--quantize", "mxfp4", tmp_path / "source", tmp_path / "out",
               check=2).err
    assert "would be FP4, which no config.json of its family tells servers" in err
    assert not (tmp_path / "out").exists()


def test_a_rule_of_one_family_s_reader_is_not_for_others(ckpt, plain, tmp_path):
    """attn.wo_a in MXFP8 is refused for what SGLang makes of it in DeepSeek-V4 alone."""
    other = tmp_path / "other"
    link_tree(plain, other)
    (other / "config.json").unlink()
    (other / "config.json").write_text('{"model_type": "other"}')
    ckpt("ckpt-convert", "--quantize", "mxfp8", "--only", "*.attn.w*.weight", other,
         tmp_path / "out")
    assert Model(tmp_path / "out")["layers.0.attn.wo_a.weight"].dtype == "F8_E4M3"


def test_what_is_quantised_already_is_refused(ckpt, golden_a, tmp_path):
    err = ckpt("ckpt-convert", "--quantize", "v4-release", golden_a, tmp_path / "out",
               check=2).err
    assert "quantised already" in err
    err = ckpt("ckpt-convert", "--quantize", "fp4", golden_a, tmp_path / "out", check=2).err
    assert "'layers.0.attn" in err and "a second time" in err and "--dtype bf16" in err
    assert not list(tmp_path.iterdir())


def test_a_rule_that_does_not_fit_the_shape_is_refused(ckpt, tmp_path):
    model = Model()
    model.files["model.safetensors"] = {"a.weight": bf16([4, 48])}
    model.config = {"model_type": "other"}
    path = model.write(tmp_path / "in")
    err = ckpt("ckpt-convert", "--quantize", "fp4", "--only", "*", path, tmp_path / "out",
               check=2).err
    assert "'a.weight', [4, 48]" in err and "fp4-b32-deepseek" in err and "groups of 32" in err
    err = ckpt("ckpt-convert", "--quantize", "fp8-f32", path, tmp_path / "out", check=2).err
    assert "--only" in err
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("bits,word", [(0x7FC0, "NaN"), (0x7F80, "infinite"), (0xFF80, "infinite")])
def test_nan_and_infinity_are_refused_with_their_place(ckpt, plain, tmp_path, bits, word):
    model = Model(plain)
    model.extras.clear()
    cols = model[EXPERT].shape[1]
    data = bytearray(model[EXPERT].data)
    at = 2 * (5 * cols + 37)
    data[at:at + 2] = bits.to_bytes(2, "little")
    model[EXPERT] = Tensor("BF16", model[EXPERT].shape, bytes(data))
    path = model.write(tmp_path / "in")
    run = "ckpt-convert", "--quantize", "v4-release"
    err = ckpt(*run, path, tmp_path / "out", check=2).err
    assert f"'{EXPERT}', row 5, column 37" in err and word in err and "--nonfinite" in err
    assert not list(tmp_path.glob("out*"))
    said = ckpt(*run, "--nonfinite", "zero", "--report", tmp_path / "r.json", path,
                tmp_path / "out").out
    assert "283 exact, 0 restored, 1 rounded; 1 value was NaN or infinite and became 0" in said
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["totals"]["replaced"] == report["quantised"]["replaced"] == 1
    assert {t["name"] for t in report["target_tensors"] if t.get("replaced")} == {EXPERT}
    out = Model(tmp_path / "out")
    assert decoded(out[EXPERT], out[EXPERT.replace(".weight", ".scale")])[5, 37] == 0


def test_zeros_and_tiny_blocks_come_out(ckpt, plain, digest, tmp_path):
    path = trained(plain, tmp_path / "in", lambda x: x * 0)
    done = ckpt("ckpt-convert", "--quantize", "v4-release", "--json", path, tmp_path / "out").json
    assert done["quantised"]["total"]["relative_error"] == 0
    out = Model(tmp_path / "out")
    assert set(out[EXPERT.replace(".weight", ".scale")].data) == {1}
    assert set(out[DENSE.replace(".weight", ".scale")].data) == {105}
    assert digest(tmp_path / "out") == digest(path)
    path = trained(plain, tmp_path / "tiny", lambda x: np.full_like(x, 1e-30))
    ckpt("ckpt-convert", "--quantize", "v4-release", path, tmp_path / "out2")
    out = Model(tmp_path / "out2")
    y = decoded(out[EXPERT], out[EXPERT.replace(".weight", ".scale")])
    assert np.allclose(y, 1e-30, rtol=0.2) and set(out[DENSE].data) == {0}


def test_tensors_without_elements_lose_nothing(ckpt, tmp_path):
    model = Model()
    model.files["model.safetensors"] = {"a.weight": bf16([4, 0]), "b.weight": bf16([0, 64]),
                                        "c.weight": bf16([3, 64])}
    model.config = {"model_type": "other"}
    path = model.write(tmp_path / "in")
    for rule in ("fp8-f32", "fp4", "mxfp8", "fp4-b32-deepseek+canonical"):
        told = ckpt("ckpt-convert", "--quantize", rule, "--only", "*", "--json", path,
                    tmp_path / rule).json["quantised"]
        assert (told["exact_tensors"], told["restored_tensors"]) == (3, 0)


# ---- F32 ----

def test_f32_is_rounded_to_bf16_first_unless_told(ckpt, moved, tmp_path):
    model = Model(moved)
    rng = np.random.default_rng(3)
    x = (rng.standard_normal(model[DENSE].shape) * 0.02).astype("<f4")
    model[DENSE] = Tensor("F32", model[DENSE].shape, x.tobytes())
    path = model.write(tmp_path / "in")
    for options, taken in ([], values(to_bf16(x))), (["--from-f32"], x):
        out = tmp_path / f"out{len(options)}"
        ckpt("ckpt-convert", "--quantize", "fp8-f32", *options, path, out)
        _, codes, scales, _ = Quantiser("fp8-b128-f32", "scalar").run(taken)
        got = Model(out)
        assert got[DENSE].data == codes.tobytes()
        assert got[DENSE.replace(".weight", ".scale")].data == scales.tobytes()


# ---- layouts ----

def test_from_torch_dist_with_mtp_of_the_original(ckpt, golden_a, digest, tmp_path):
    """Trainers write BF16 without MTP; the original's MTP is quantised already, and stays."""
    ckpt("ckpt-shard", "--layout", "torch_dist", golden_a, tmp_path / "dist")
    done = ckpt("ckpt-convert", "--quantize", "v4-release", "--fill-from", golden_a, "--json",
                tmp_path / "dist", tmp_path / "out").json
    assert digest(tmp_path / "out") == digest(golden_a)
    assert done["quantised"]["exact_tensors"] == sum(done["quantised"]["rules"].values()) > 200
    mine, original = Model(tmp_path / "out"), Model(golden_a)
    assert all(mine[n] == original[n] for n in original.names() if n.startswith("mtp.0.ffn."))
    err = ckpt("ckpt-shard", "--layout", "torch_dist", "--quantize", "fp4", golden_a,
               tmp_path / "no", check=2).err
    assert "leave out --quantize" in err


def test_to_mp_shards(ckpt, moved, digest, tmp_path):
    ckpt("ckpt-shard", "--layout", "mp", "--mp", "2", "--quantize", "v4-release", moved,
         tmp_path / "mp")
    ckpt("ckpt-convert", "--quantize", "v4-release", moved, tmp_path / "hf")
    mine = ckpt("ckpt-verify", "compare", "--json", tmp_path / "hf", tmp_path / "mp",
                check=(0, 1)).json
    assert all(".attn.wo_a." in n["name"] for n in mine["differing"])     # BF16 in that layout
    assert mine["missing_in_a"] == mine["missing_in_b"] == []


def test_the_plan_tells_rules(ckpt, moved, tmp_path):
    plan = ckpt("ckpt-convert", "--quantize", "v4-release", "--dry-run", "--json", moved,
                tmp_path / "out").json
    rules = {t["name"]: t.get("rule") for t in plan["tensors"]}
    assert rules[EXPERT] == "fp4-b32-deepseek" and rules[DENSE] == "fp8-b128-ue8m0"
    assert rules["embed.weight"] is None
    text = ckpt("ckpt-convert", "--quantize", "v4-release", "--dry-run", moved,
                tmp_path / "out").out
    assert "by fp8-b128-ue8m0" in text and "by fp4-b32-deepseek" in text
    assert "stay as they are" in text
    assert not list(tmp_path.iterdir())
