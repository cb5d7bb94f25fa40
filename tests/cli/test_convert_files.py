"""What stands beside the tensors: config.json, the index, carried files, report, manifest, plan."""
import json
import os
import shutil
import subprocess

import pytest

from corrupt.files import INDEX, Model, read_header, tensor_files

QUANTISATION = {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}


@pytest.fixture
def config(ckpt, tmp_path):
    """config(source, options...) -> the converted config.json, parsed, and its bytes."""
    def get(source, *options):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        ckpt("ckpt-convert", *options, source, out)
        text = (out / "config.json").read_text()
        return json.loads(text), text
    return get


def test_bf16_has_no_quantization_config(config, golden):
    before = json.loads((golden / "config.json").read_text())
    after, _ = config(golden, "--dtype", "bf16")
    del before["quantization_config"], before["expert_dtype"]
    assert after == before and after["torch_dtype"] == "bfloat16"


def test_fp8_experts_are_told(config, golden):
    before = json.loads((golden / "config.json").read_text())
    assert before["expert_dtype"] == "fp4" and before["quantization_config"] == QUANTISATION
    after, _ = config(golden, "--experts", "fp8")
    assert after == {**before, "expert_dtype": "fp8"}


def test_a_scheme_inside_the_language_part_is_edited_there(config, golden_a, tmp_path):
    """As multimodal models have it; a second one beside it could contradict it."""
    path = shutil.copytree(golden_a, tmp_path / "in")
    inside = json.loads((golden_a / "config.json").read_text())
    inside["text_config"] = {"quantization_config": inside.pop("quantization_config")}
    (path / "config.json").write_text(json.dumps(inside))
    after, _ = config(path, "--experts", "bf16")
    told, _ = config(golden_a, "--experts", "bf16")
    assert "quantization_config" not in after
    assert after["text_config"]["quantization_config"] == told["quantization_config"]
    assert "modules_to_not_convert" in told["quantization_config"]


@pytest.mark.parametrize("other", [{}, {"comment": "x"}], ids=["alike", "another"])
def test_like_puts_a_scheme_where_the_original_has_it(ckpt, digest, golden_a, tmp_path, other):
    """Without it, codes would be taken for numbers."""
    path = shutil.copytree(golden_a, tmp_path / "in")
    inside = json.loads((golden_a / "config.json").read_text())
    inside["text_config"] = {"quantization_config": inside.pop("quantization_config")}
    (path / "config.json").write_text(json.dumps(inside))
    ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "bf16")
    bare = json.loads((tmp_path / "bf16/config.json").read_text())
    assert "quantization_config" not in bare["text_config"]
    (tmp_path / "bf16/config.json").write_text(json.dumps(bare | other))
    ckpt("ckpt-convert", "--like", path, tmp_path / "bf16", tmp_path / "back")
    assert json.loads((tmp_path / "back/config.json").read_text()) == inside | other
    assert digest(tmp_path / "back") == digest(golden_a)


def test_what_does_not_change_keeps_its_bytes(config, golden):
    _, text = config(golden, "--experts", "fp8")
    assert text == (golden / "config.json").read_text().replace('"expert_dtype": "fp4"',
                                                                '"expert_dtype": "fp8"')


def modules_of(golden, weight):
    """Native module names of the quantised weights for which weight(name) is true."""
    return {name.removesuffix(".weight") for p in golden.glob("*.safetensors")
            for name, h in read_header(p)[0].items()
            if h["dtype"] in ("F8_E4M3", "I8") and weight(name)}


def test_bf16_experts_beside_fp8_weights(config, golden):
    after, _ = config(golden, "--experts", "bf16")
    listed = after["quantization_config"].pop("modules_to_not_convert")
    assert after["quantization_config"] == QUANTISATION and "expert_dtype" not in after
    layers = {n.split(".experts.")[0] for n in modules_of(golden, lambda n: ".experts." in n)}
    assert set(listed) == {n + ".experts" for n in layers} | \
        {n.replace(".ffn", ".mlp") + ".experts" for n in layers}
    assert len(listed) == len(set(listed))


def test_f32_scales_beside_bf16_experts_need_expert_dtype(config, golden):
    """Without it vLLM has E8M0 scales in mind."""
    after, _ = config(golden, "--experts", "bf16", "--scale-dtype", "f32")
    assert after["expert_dtype"] == "fp8"


def test_bf16_weights_beside_fp4_experts(config, golden):
    after, _ = config(golden, "--dtype", "bf16", "--experts", "keep")
    listed = set(after["quantization_config"].pop("modules_to_not_convert"))
    assert after["quantization_config"] == QUANTISATION and after["expert_dtype"] == "fp4"
    dense = modules_of(golden, lambda n: ".experts." not in n)
    assert dense <= listed and not any(".experts" in n for n in listed)
    # The names of SGLang's own modules, one of which is fused.
    assert {"layers.0.self_attn.wqkv_a", "layers.0.self_attn.wo_b",
            "layers.0.mlp.shared_experts.gate_proj"} <= listed


@pytest.mark.parametrize("options", [["--experts", "bf16"], ["--dtype", "bf16", "--experts",
                                                            "keep"]])
def test_what_is_quantised_again_is_listed_no_more(ckpt, config, golden, tmp_path, options):
    ckpt("ckpt-convert", *options, golden, tmp_path / "mixed")
    _, text = config(tmp_path / "mixed", "--dtype", "fp8", "--experts", "fp4")
    before = json.loads((golden / "config.json").read_text())
    assert json.loads(text) == before


def test_experts_of_two_encodings_are_refused(ckpt, golden, tmp_path):
    """expert_dtype has one value."""
    ckpt("ckpt-convert", "--experts", "fp8", golden, tmp_path / "fp8")
    model, fp8 = Model(golden), Model(tmp_path / "fp8")
    for name in model.names():
        if name.startswith("layers.1.ffn.experts."):
            model[name] = fp8[name]
    source = model.write(tmp_path / "in")
    ckpt("ckpt-convert", source, tmp_path / "copy")         # it is what it is
    err = ckpt("ckpt-convert", "--scale-dtype", "f32", source, tmp_path / "out", check=2).err
    assert "expert_dtype" in err and "--experts" in err
    ckpt("ckpt-convert", "--experts", "fp8", source, tmp_path / "out")


@pytest.mark.parametrize("options", [["--experts", "bf16"], ["--dtype", "bf16", "--experts",
                                                            "fp8"]])
def test_an_mp_folder_says_one_dtype(ckpt, golden, tmp_path, options):
    err = ckpt("ckpt-shard", "--layout", "mp", "--mp", 1, *options, golden, tmp_path / "out",
               check=2).err
    assert "inference/config.json" in err and "--experts" in err
    assert not (tmp_path / "out").exists()
    # In two steps as in one: config.json of the first has a list, inference/config.json none.
    ckpt("ckpt-convert", *options, golden, tmp_path / "mixed")
    err = ckpt("ckpt-shard", "--layout", "mp", "--mp", 1, tmp_path / "mixed", tmp_path / "out",
               check=2).err
    assert "inference/config.json" in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("options", [[], ["--dtype", "fp8"], ["--dtype", "fp8", "--experts",
                                                             "fp8"]])
def test_wo_a_of_an_mp_folder_is_bf16_whatever_is_asked(ckpt, golden, digest, tmp_path, options):
    ckpt("ckpt-shard", "--layout", "mp", "--mp", 1, *options, golden, tmp_path / "out")
    header = read_header(tmp_path / "out" / "model0-mp1.safetensors")[0]
    assert {h["dtype"] for n, h in header.items() if n.endswith(".wo_a.weight")} == {"BF16"}
    assert not any(n.endswith(".wo_a.scale") for n in header)
    assert digest(tmp_path / "out") == digest(golden)


# ---- other people's quantisation ----

OTHER_METHODS = {
    "mxfp4": {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]},
    "compressed-tensors": {"quant_method": "compressed-tensors", "ignore": ["lm_head"]},
    "gptq": {"quant_method": "gptq", "bits": 4},
    "NVFP4": {"quant_method": "fp8", "moe_quant_algo": "NVFP4", "activation_scheme": "dynamic"},
}


@pytest.fixture
def foreign(golden_a, tmp_path):
    """foreign("gptq") -> a checkpoint whose config.json says so."""
    def get(method):
        model = Model(golden_a)
        for name in model.names():
            if model[name].dtype in ("I8", "F8_E4M3", "F8_E8M0"):
                del model[name]
        model.config = {"model_type": "other", "expert_dtype": "int3",
                        "quantization_config": OTHER_METHODS[method]}
        return model.write(tmp_path / "foreign")
    return get


@pytest.mark.parametrize("method", OTHER_METHODS)
def test_a_copy_keeps_what_another_method_says(ckpt, foreign, tmp_path, method):
    source = foreign(method)
    for options in ([], ["--max-shard-size", "1MB"]):
        out = tmp_path / f"out{len(options)}"
        ckpt("ckpt-convert", *options, source, out)
        assert (out / "config.json").read_bytes() == (source / "config.json").read_bytes()


@pytest.mark.parametrize("options", [["--dtype", "bf16"], ["--experts", "fp8"],
                                     ["--scale-dtype", "f32"]])
@pytest.mark.parametrize("method", OTHER_METHODS)
def test_another_encoding_of_another_method_is_refused_by_name(ckpt, foreign, tmp_path, method,
                                                               options):
    err = ckpt("ckpt-convert", *options, foreign(method), tmp_path / "out", check=2).err
    assert f"'{method}'" in err and not (tmp_path / "out").exists()


@pytest.mark.parametrize("experts", ["fp4", "fp8"])
def test_a_quantised_copy_of_bf16_says_so(ckpt, config, golden, tmp_path, experts):
    ckpt("ckpt-convert", "--dtype", "bf16", golden, tmp_path / "bf16")
    after, _ = config(tmp_path / "bf16", "--dtype", "fp8", "--experts", experts)
    assert after["quantization_config"] == QUANTISATION and after["expert_dtype"] == experts


def test_a_config_without_expert_dtype_gets_it(config, golden, tmp_path):
    """Some copies of the official config lack the key."""
    model = Model(golden)
    del model.config["expert_dtype"]
    after, _ = config(model.write(tmp_path / "in"), "--experts", "fp8")
    assert after["expert_dtype"] == "fp8"


@pytest.mark.parametrize("options,said", [
    (["--dtype", "bf16"], {"dtype": "bf16", "scale_fmt": None, "expert_dtype": None}),
    (["--experts", "fp8"], {"dtype": "fp8", "scale_fmt": "ue8m0", "expert_dtype": None}),
    ([], {"dtype": "fp8", "scale_fmt": "ue8m0", "expert_dtype": "fp4"}),
])
def test_inference_config_follows(ckpt, golden, tmp_path, options, said):
    source = Model(golden).write(tmp_path / "in")
    (source / "inference").mkdir()
    inference = {"dim": 256, "dtype": "fp8", "scale_fmt": "ue8m0", "expert_dtype": "fp4"}
    (source / "inference" / "config.json").write_text(json.dumps(inference))
    ckpt("ckpt-convert", *options, source, tmp_path / "out")
    after = json.loads((tmp_path / "out" / "inference" / "config.json").read_text())
    assert after == {"dim": 256, **said}


# inference/config.json of the release by config.json, but for what tells the encoding.
INFERENCE = {
    "vocab_size": "vocab_size", "dim": "hidden_size", "moe_inter_dim": "moe_intermediate_size",
    "n_layers": "num_hidden_layers", "n_hash_layers": "num_hash_layers",
    "n_mtp_layers": "num_nextn_predict_layers", "n_heads": "num_attention_heads",
    "n_routed_experts": "n_routed_experts", "n_shared_experts": "n_shared_experts",
    "n_activated_experts": "num_experts_per_tok", "score_func": "scoring_func",
    "route_scale": "routed_scaling_factor", "swiglu_limit": "swiglu_limit",
    "q_lora_rank": "q_lora_rank", "head_dim": "head_dim", "rope_head_dim": "qk_rope_head_dim",
    "norm_eps": "rms_norm_eps", "o_groups": "o_groups", "o_lora_rank": "o_lora_rank",
    "window_size": "sliding_window", "rope_theta": "rope_theta", "hc_eps": "hc_eps",
    "compress_rope_theta": "compress_rope_theta", "compress_ratios": "compress_ratios",
    "index_n_heads": "index_n_heads", "index_head_dim": "index_head_dim",
    "index_topk": "index_topk", "hc_mult": "hc_mult", "hc_sinkhorn_iters": "hc_sinkhorn_iters",
}
ROPE = {"original_seq_len": "original_max_position_embeddings", "rope_factor": "factor",
        "beta_fast": "beta_fast", "beta_slow": "beta_slow"}
MP = "--layout", "mp", "--mp", "2"


@pytest.mark.parametrize("options,said", [
    (["--dtype", "bf16"], {"dtype": "bf16", "scale_fmt": None, "expert_dtype": None}),
    (["--experts", "fp8"], {"dtype": "fp8", "scale_fmt": "ue8m0", "expert_dtype": None}),
    ([], {"dtype": "fp8", "scale_fmt": "ue8m0", "expert_dtype": "fp4"}),
])
def test_ranks_get_the_config_of_their_code(ckpt, golden, tmp_path, options, said):
    report = tmp_path / "report.json"
    ckpt("ckpt-shard", *MP, *options, "--report", report, golden, tmp_path / "mp")
    root = json.loads((golden / "config.json").read_text())
    expected = {k: root[v] for k, v in INFERENCE.items()} | {
        k: root["rope_scaling"][v] for k, v in ROPE.items()} | said
    made = json.loads((tmp_path / "mp" / "inference" / "config.json").read_text())
    assert made == expected
    assert {"name": "inference/config.json", "action": "written"} in \
        json.loads(report.read_text())["other_files"]
    runs = [ckpt("ckpt-run", "--json", "--tokens", "-", *more, tmp_path / "mp",
                 input="1 2 3").json["config_digest"]
            for more in ([], ["--config", tmp_path / "mp" / "inference" / "config.json"])]
    assert runs[0] == runs[1]
    # A source that has one keeps it, but for the encoding.
    ckpt("ckpt-shard", "--layout", "mp", "--mp", "1", tmp_path / "mp", tmp_path / "again")
    assert json.loads((tmp_path / "again" / "inference" / "config.json").read_text()) == made


def test_the_config_of_ranks_is_found_where_transformers_5_has_it(ckpt, golden_a, tmp_path):
    model = Model(golden_a)
    scaling = model.config.pop("rope_scaling")
    model.config["rope_parameters"] = {
        "main": {"rope_theta": model.config.pop("rope_theta")},
        "compress": {**scaling, "rope_theta": model.config.pop("compress_rope_theta")}}
    del model.config["hc_eps"]
    ckpt("ckpt-shard", *MP, model.write(tmp_path / "in"), tmp_path / "mp")
    made = json.loads((tmp_path / "mp" / "inference" / "config.json").read_text())
    assert (made["rope_theta"], made["compress_rope_theta"]) == (10000, 160000)
    assert {k: made[k] for k in ROPE} == {k: scaling[v] for k, v in ROPE.items()}
    assert made["hc_eps"] == 1e-6


def test_a_config_that_cannot_be_made_is_told(ckpt, golden_a, tmp_path):
    model = Model(golden_a)
    del model.config["sliding_window"]
    source = model.write(tmp_path / "in")
    for options in ["--dry-run"], []:
        said = ckpt("ckpt-shard", *MP, *options, source, tmp_path / "mp").out
        assert "inference/config.json is not written: config.json has no 'sliding_window'" in said
    assert not (tmp_path / "mp" / "inference").exists()


def test_other_files_are_carried_along(ckpt, golden, tmp_path):
    source = Model(golden).write(tmp_path / "in")
    (source / "encoding").mkdir()
    extras = {"tokenizer.json": b"{}", "README.md": b"\xff\0", "encoding/code.py": b"pass\n"}
    for name, data in extras.items():
        (source / name).write_bytes(data)
    ckpt("ckpt-convert", "--dtype", "bf16", source, tmp_path / "out")
    for name, data in extras.items():
        assert (tmp_path / "out" / name).read_bytes() == data


@pytest.mark.parametrize("options", [["--dtype", "bf16"], ["--experts", "fp8"],
                                     ["--dtype", "bf16", "--names", "transformers"]])
def test_the_index_is_what_the_files_hold(ckpt, golden, tmp_path, options):
    ckpt("ckpt-convert", *options, golden, tmp_path / "out")
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert index == Model(tmp_path / "out").index()


def test_the_report_accounts_for_every_stored_tensor(ckpt, golden, tmp_path):
    report = tmp_path / "report.json"
    ckpt("ckpt-convert", "--experts", "fp8", "--report", report, golden, tmp_path / "out")
    report = json.loads(report.read_text())
    stored = {name: (p.name, h) for p in golden.glob("*.safetensors")
              for name, h in read_header(p)[0].items()}
    assert sorted(t["name"] for t in report["source_tensors"]) == sorted(stored)
    for t in report["source_tensors"]:
        file, header = stored[t["name"]]
        assert (t["file"], t["dtype"], t["shape"]) == (file, header["dtype"], header["shape"])
        if t["name"].endswith(".scale") and "hc_" not in t["name"]:
            assert (t["fate"], t["of"]) == ("scale", t["name"].replace(".scale", ".weight"))
        else:
            assert (t["fate"], t["as"]) == ("used", t["name"])
    totals = report["totals"]
    assert totals["used"] + totals["scales"] == totals["stored_tensor_count"] == len(stored)
    assert totals["dropped"] == totals["copies"] == totals["inexact"] == 0
    assert totals["re_encoded"] == sum(h["dtype"] in ("I8", "F8_E4M3")
                                       for _, h in stored.values())
    for t in report["target_tensors"]:
        expert = ".experts." in t["name"]
        assert t["from"].startswith("F4 ") if expert else \
            t["from"].replace(" F8_E8M0", " F32") == t["to"]
        assert t["inexact"] == 0 and t["spread"] <= 14
    assert totals["exceptions"] == sum(t["exceptions"] for t in report["target_tensors"]) > 0


def test_the_report_names_copies_and_what_lenient_let_pass(ckpt, golden, tmp_path):
    model = Model(golden)
    model["mtp.0.head.weight"] = model["head.weight"]
    model["mtp.0.gone.scale"] = model["layers.0.attn.wq_a.scale"]
    path = model.write(tmp_path / "in")
    report = tmp_path / "report.json"
    ckpt("ckpt-convert", "--lenient", "--dtype", "bf16", "--report", report, path,
         tmp_path / "out")
    fates = {t["name"]: t for t in json.loads(report.read_text())["source_tensors"]}
    assert fates["mtp.0.head.weight"]["fate"] == "copy"
    assert fates["mtp.0.head.weight"]["of"] == "head.weight"
    assert fates["mtp.0.gone.scale"]["fate"] == "dropped"
    assert fates["mtp.0.gone.scale"]["reason"]


def test_a_report_may_be_compressed(ckpt, golden_a, tmp_path):
    ckpt("ckpt-convert", "--report", tmp_path / "r.json", golden_a, tmp_path / "one")
    ckpt("ckpt-convert", "--report", tmp_path / "r.zst", golden_a, tmp_path / "two")
    plain = json.loads((tmp_path / "r.json").read_text())
    packed = (tmp_path / "r.zst").read_bytes()
    assert packed[:4] == b"\x28\xb5\x2f\xfd"
    assert len(packed) < (tmp_path / "r.json").stat().st_size / 4
    assert plain["target"]["names"] == "native"


def test_the_manifest_is_the_digest_of_the_result(ckpt, golden, tmp_path):
    ckpt("ckpt-convert", "--dtype", "bf16", golden, tmp_path / "out")
    manifest = json.loads((tmp_path / "out" / "ckpt-manifest.json").read_text())
    again = ckpt("ckpt-verify", "digest", "--json", tmp_path / "out").json
    assert all((tmp_path / "out" / name).is_file() for name in manifest.pop("files"))
    assert again.pop("notes") == [] and manifest == again
    assert ckpt("ckpt-verify", "check", tmp_path / "out").status == 0


def test_the_manifest_goes_where_it_is_told(ckpt, golden_a, tmp_path):
    ckpt("ckpt-convert", "--manifest", tmp_path / "m.json", golden_a, tmp_path / "one")
    ckpt("ckpt-convert", "--no-manifest", golden_a, tmp_path / "two")
    assert json.loads((tmp_path / "m.json").read_text())["root"]
    assert not (tmp_path / "two" / "ckpt-manifest.json").exists()


def test_json_says_root_and_bytes(ckpt, golden, tmp_path):
    said = ckpt("ckpt-convert", "--json", "--dtype", "bf16", golden, tmp_path / "out").json
    digest = ckpt("ckpt-verify", "digest", "--json", golden).json
    assert (said["root"], said["main"]) == (digest["root"], digest["main"])
    assert said["out_bytes"] == sum(map(len, tensor_files(tmp_path / "out").values()))


# ---- --dry-run ----

def test_dry_run_promises_what_the_run_does(ckpt, golden, tmp_path):
    plan = ckpt("ckpt-convert", "--dry-run", "--json", "--dtype", "bf16", golden,
                tmp_path / "out").json
    assert list(tmp_path.iterdir()) == []
    ckpt("ckpt-convert", "--dtype", "bf16", golden, tmp_path / "out")
    files = tensor_files(tmp_path / "out")
    assert {f["name"]: f["bytes"] for f in plan["files"]} == {n: len(b) for n, b in files.items()}
    assert {t["to"] for t in plan["tensors"]} == {"BF16", "F32", "I64"}


def test_a_plan_does_not_depend_on_tensor_data(ckpt, golden_a, tmp_path):
    """Files whose data are holes plan as well as any, but for the time that a sample takes."""
    source = tmp_path / "in"
    source.mkdir()
    for p in golden_a.iterdir():
        data = p.read_bytes()
        with open(source / p.name, "wb") as f:
            f.write(data if p.suffix == ".json" else data[:read_header(p)[2]])
            f.truncate(len(data))
    plans = [ckpt("ckpt-convert", "--dry-run", "--json", "--dtype", "fp8", path,
                  tmp_path / "x").json for path in (source, golden_a)]
    for plan in plans:
        assert plan.pop("free_bytes") > 0                         # others use the disk, too
        assert plan.pop("time_guess")["sample_bytes"] > 0
    assert plans[0] == plans[1]


def test_too_little_memory_is_refused_before_a_byte_is_written(ckpt, golden_a, tmp_path):
    err = ckpt("ckpt-convert", "--memory", "100KiB", "--dtype", "bf16", golden_a,
               tmp_path / "out", check=2).err
    assert "memory" in err
    assert list(tmp_path.iterdir()) == []


# ---- DST ----

def test_an_existing_target_is_refused_and_left_alone(ckpt, golden_a, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("mine")
    err = ckpt("ckpt-convert", golden_a, tmp_path / "out", check=2).err
    assert "'" + str(tmp_path / "out") + "' already exists" in err and "--overwrite" not in err
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]


def test_overwrite_replaces_the_whole_target(ckpt, golden_a, digest, tmp_path):
    ckpt("ckpt-convert", "--dtype", "bf16", "--names", "sglang",
         golden_a, tmp_path / "out")
    (tmp_path / "out" / "model-00009-of-00009.safetensors").write_bytes(b"stray")
    assert "--overwrite replaces it" in ckpt("ckpt-convert", golden_a, tmp_path / "out",
                                             check=2).err
    ckpt("ckpt-convert", "--overwrite", golden_a, tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(golden_a)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize("tool, args", [("ckpt-convert", ["--dtype", "bf16", "SRC"]),
                                        ("ckpt-synth", ["--config", "tiny"])])
def test_overwrite_destroys_nothing_that_is_no_checkpoint(ckpt, golden_a, tmp_path, tool, args):
    """Before anything is written, and with the name of what is in the way."""
    out = tmp_path / "precious"
    (out / "chapters").mkdir(parents=True)
    (out / "chapters" / "1.tex").write_text("mine")
    args = [golden_a if a == "SRC" else a for a in args]
    err = ckpt(tool, "--overwrite", *args, out, check=2).err
    assert "chapters/1.tex" in err
    assert (out / "chapters" / "1.tex").read_text() == "mine"
    assert [p.name for p in tmp_path.iterdir()] == ["precious"]


def test_overwrite_replaces_what_a_conversion_carried_along(ckpt, golden_a, tmp_path):
    """The manifest lists it; what came later is not in the list."""
    source = shutil.copytree(golden_a, tmp_path / "source")
    (source / "notes.txt").write_text("of the release")
    for more in [], ["--overwrite"]:
        ckpt("ckpt-convert", *more, source, tmp_path / "out")
    (tmp_path / "out" / "later.txt").write_text("mine")
    err = ckpt("ckpt-convert", "--overwrite", source, tmp_path / "out", check=2).err
    assert "later.txt" in err and (tmp_path / "out" / "later.txt").exists()


def test_overwrite_replaces_another_layout_only_where_ckpt_made_it(ckpt, golden_a, tmp_path):
    dist = ("ckpt-shard", "--layout", "torch_dist")
    release = shutil.copytree(golden_a, tmp_path / "release")
    before = {p: p.read_bytes() for p in release.iterdir()}
    err = ckpt(*dist, "--overwrite", golden_a, release, check=2).err
    assert "layout hf, not torch_dist" in err
    assert "--overwrite" not in ckpt(*dist, golden_a, release, check=2).err
    assert {p: p.read_bytes() for p in release.iterdir()} == before
    ckpt("ckpt-convert", golden_a, tmp_path / "ours")
    ckpt(*dist, "--overwrite", golden_a, tmp_path / "ours")
    (tmp_path / "ours" / "ckpt-manifest.json").unlink()        # a training run has none
    err = ckpt("ckpt-convert", "--overwrite", golden_a, tmp_path / "ours", check=2).err
    assert "layout torch_dist, not hf" in err
    ckpt(*dist, "--overwrite", golden_a, tmp_path / "ours")


@pytest.mark.parametrize("options, says", [
    (["--dtype", "bf16", "--scale-dtype", "f32"], "--scale-dtype"),
    (["--dtype", "bf16", "--match-reference"], "--match-reference"),
    (["--many-files"], "--max-shard-size")])
def test_an_option_without_an_effect_is_refused(ckpt, golden_a, tmp_path, options, says):
    err = ckpt("ckpt-convert", *options, golden_a, tmp_path / "out", check=2).err
    assert says in err and list(tmp_path.iterdir()) == []


def test_swapped_paths_are_told_by_what_is_not_there(ckpt, golden_a, tmp_path):
    err = ckpt("ckpt-convert", "--dtype", "bf16", tmp_path / "o", golden_a, check=2).err
    assert "/o'" in err and "--overwrite" not in err


def test_one_path_for_both_is_told_as_that(ckpt, golden_a, tmp_path):
    source = shutil.copytree(golden_a, tmp_path / "source")
    err = ckpt("ckpt-convert", source, source, check=2).err
    assert "are the same" in err and "--overwrite" not in err


@pytest.mark.parametrize("name", ["-", ".", ".."])
def test_a_target_without_a_name_of_its_own_is_refused_at_once(ckpt, golden_a, tmp_path, name):
    (tmp_path / "in").mkdir()
    for word in [], ["--overwrite"], ["--dry-run"]:
        ckpt("ckpt-convert", *word, golden_a, name, check=2, cwd=tmp_path / "in")
    assert [p.name for p in tmp_path.rglob("*")] == ["in"]


@pytest.mark.parametrize("option, schema", [("--report", "ckpt-report/1"),
                                            ("--manifest", "ckpt-manifest/1")])
def test_a_report_goes_to_standard_output_alone(ckpt, golden_a, tmp_path, option, schema):
    """No remarks beside it, no file of this name, and no second document."""
    done = ckpt("ckpt-convert", option, "-", golden_a, "out", cwd=tmp_path)
    assert done.json["schema"] == schema and os.listdir(tmp_path) == ["out"]
    assert "can have standard output" in ckpt("ckpt-convert", option, "-", "--json", golden_a,
                                              "out2", check=2, cwd=tmp_path).err


@pytest.mark.parametrize("option", ["--report", "--manifest"])
def test_a_report_replaces_an_earlier_one_and_nothing_else(ckpt, golden_a, tmp_path, option):
    for name in "r.json", "r.zst":
        for i in range(2):
            ckpt("ckpt-convert", option, tmp_path / name, golden_a, tmp_path / f"{name}{i}")
    mine = tmp_path / "thesis.tex"
    mine.write_text("mine")
    err = ckpt("ckpt-convert", option, mine, golden_a, tmp_path / "out", check=2).err
    assert "thesis.tex" in err and mine.read_text() == "mine" and not (tmp_path / "out").exists()


def test_a_tensor_larger_than_a_file_may_be_is_told(ckpt, golden_a, tmp_path):
    said = ckpt("ckpt-convert", "--max-shard-size", "100KB", "--json", golden_a,
                tmp_path / "out").json
    assert any("larger than --max-shard-size" in note for note in said["notes"])


def test_more_than_a_thousand_files_want_a_word(ckpt, tmp_path):
    ckpt("ckpt-synth", "--config", "flash", "--layers", "2", "--sparse", tmp_path / "in")
    words = ["ckpt-convert", "--dry-run", "--max-shard-size", "5"]
    err = ckpt(*words, tmp_path / "in", tmp_path / "out", check=2).err
    assert "--many-files" in err
    ckpt(*words, "--many-files", tmp_path / "in", tmp_path / "out")


def test_a_disk_that_is_too_small_is_told_before_a_byte(ckpt, small_disk, golden_a):
    disk = small_disk(1)
    err = ckpt("ckpt-convert", "--dtype", "bf16", golden_a, disk / "out", check=2).err
    assert "not enough disk space" in err and list(disk.iterdir()) == []
    words = ["ckpt-convert", "--dry-run", "--json", "--dtype", "bf16", golden_a, disk / "out"]
    planned = ckpt(*words, check=2)
    assert planned.json["needed_bytes"] > planned.json["free_bytes"]
    assert "not enough disk space" in planned.err
    assert ckpt(*words, "--no-space-check").json["files"] == planned.json["files"]


def test_a_part_without_room_leaves_nothing_but_the_work_of_others(ckpt, small_disk, golden_a):
    disk = small_disk(64)
    share = ("ckpt-convert", "--dtype", "bf16", "--part")
    full = disk / "full"

    def fill():
        room = os.statvfs(disk)
        full.write_bytes(bytes(room.f_bavail * room.f_frsize - (256 << 10)))

    fill()
    for part in ("1/2", "2/2"):
        err = ckpt(*share, part, golden_a, disk / "out", check=2).err
        assert "not enough disk space" in err and list(disk.iterdir()) == [full]
    full.unlink()
    ckpt(*share, "1/2", golden_a, disk / "out")
    before = {p: p.read_bytes() for p in (disk / "out.partial").iterdir()}
    fill()
    err = ckpt(*share, "2/2", golden_a, disk / "out", check=2).err
    after = {p: p.read_bytes() for p in (disk / "out.partial").iterdir()}
    assert "not enough disk space" in err and before.items() <= after.items()
    full.unlink()
    ckpt(*share, "2/2", golden_a, disk / "out")
    assert (disk / "out").is_dir() and not (disk / "out.partial").exists()


@pytest.mark.parametrize("name", ["a\nb", "a\u202eb", "a\u009bb", "a\x7f"])
def test_a_file_name_that_is_not_what_it_looks_like_is_refused(ckpt, golden_a, tmp_path, name):
    source = shutil.copytree(golden_a, tmp_path / "source")
    (source / name).write_text("x")
    assert "characters" in ckpt("ckpt-convert", source, tmp_path / "out", check=2).err
    assert not (tmp_path / "out").exists()


def test_a_target_inside_a_missing_folder_is_an_error(ckpt, golden_a, tmp_path):
    err = ckpt("ckpt-convert", golden_a, tmp_path / "no" / "out", check=2).err
    assert str(tmp_path / "no") in err


def test_a_plan_that_contradicts_itself_is_refused(ckpt, golden_a, tmp_path):
    for options in (["--like", golden_a, "--dtype", "bf16"], ["--like", golden_a, "--names",
                    "sglang"], ["--names", "klingon"], ["--names", "mp"],
                    ["--names", "torch_dist-v1"], ["--report", ""], ["--manifest", ""],
                    ["--dtype", "fp4"], ["--experts", "mxfp8"],
                    ["--like", golden_a, "--max-shard-size", "1GB"]):
        ckpt("ckpt-convert", *options, golden_a, tmp_path / "out", check=2)
        assert list(tmp_path.iterdir()) == [], options


# ---- a stopped run ----

def test_a_killed_run_goes_on_and_gives_the_same_bytes(ckpt, golden, tmp_path, fault):
    ckpt("ckpt-convert", "--experts", "fp8", golden, tmp_path / "whole")
    env = fault.env("pwrite:ENOSPC:60")
    ckpt("ckpt-convert", "--experts", "fp8", golden, tmp_path / "out", check=2, env=env)
    assert fault.injected
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "out.partial").is_dir()
    said = ckpt("ckpt-convert", "--json", "--experts", "fp8", golden, tmp_path / "out").json
    assert said["kept"] > 0
    assert not (tmp_path / "out.partial").exists()
    whole = {p.name: p.read_bytes() for p in (tmp_path / "whole").iterdir()}
    assert {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir()} == whole


def test_another_command_does_not_go_on_with_it(ckpt, golden_a, tmp_path, fault):
    env = fault.env("pwrite:ENOSPC:60")
    ckpt("ckpt-convert", "--experts", "fp8", golden_a, tmp_path / "out", check=2, env=env)
    assert fault.injected
    err = ckpt("ckpt-convert", "--dtype", "bf16", golden_a, tmp_path / "out", check=2).err
    assert "out.partial" in err


def test_what_was_kept_is_checked(ckpt, golden_a, digest, tmp_path, fault):
    """A finished piece whose bytes changed since is done again."""
    env = fault.env("pwrite:ENOSPC:60")
    ckpt("ckpt-convert", "--experts", "fp8", "--threads", "1", golden_a, tmp_path / "out",
         check=2, env=env)
    assert fault.injected
    damaged = 0
    for p in (tmp_path / "out.partial").rglob("*.safetensors"):
        data = bytearray(p.read_bytes())
        if any(data[-1000:]):
            data[-1000:] = bytes(b ^ 0x11 for b in data[-1000:])
            p.write_bytes(data)
            damaged += 1
    assert damaged > 0
    ckpt("ckpt-convert", "--experts", "fp8", golden_a, tmp_path / "out")
    ckpt("ckpt-convert", "--experts", "fp8", golden_a, tmp_path / "whole")
    assert tensor_files(tmp_path / "out") == tensor_files(tmp_path / "whole")


def test_stderr_is_one_line_without_control_characters(golden_a, build, tmp_path):
    name = tmp_path / "new\nline\x1b[31m"
    done = subprocess.run([build / "bin" / "ckpt-convert", name, tmp_path / "out"],
                          capture_output=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1 and b"\x1b" not in done.stderr
