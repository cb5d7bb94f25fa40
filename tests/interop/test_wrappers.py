"""Models of transformers that contain a language model of a family, with a tower beside it."""
import json

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
safetensors_torch = pytest.importorskip("safetensors.torch")

TEXT = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 40, "head_dim": 8}
QWEN_TOWER = {"depth": 1, "hidden_size": 32, "num_heads": 2, "out_hidden_size": 32,
              "intermediate_size": 40, "deepstack_visual_indexes": [0]}
CLIP = {"model_type": "clip_vision_model", "hidden_size": 32, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 40, "image_size": 28, "patch_size": 14}
# model_type: family, naming style, text_config, vision_config
MODELS = {
    "glm4v_moe": ("glm4_moe", "model.language_model",
                  {**TEXT, "n_routed_experts": 4, "n_shared_experts": 1,
                   "moe_intermediate_size": 24, "first_k_dense_replace": 1,
                   "attention_bias": True, "num_experts_per_tok": 2}, QWEN_TOWER),
    "qwen3_vl": ("qwen3", "model.language_model", TEXT, QWEN_TOWER),
    "llava": ("llama", "language_model", {**TEXT, "model_type": "llama"}, CLIP),
    "internvl": ("qwen3", "language_model", {**TEXT, "model_type": "qwen3"},
                 {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
                  "intermediate_size": 40, "image_size": [28, 28], "patch_size": [14, 14]}),
}
UNKNOWN = {"qwen3_vl_moe": {**TEXT, "num_experts": 4, "moe_intermediate_size": 24,
                            "num_experts_per_tok": 2}}
PREFIX = {"language_model": "language_model.model.", "model.language_model":
          "model.language_model."}


def save(kind, text, vision, path):
    config = transformers.CONFIG_MAPPING[kind](text_config=text, vision_config=vision)
    model = transformers.AutoModelForImageTextToText.from_config(config)
    model.to(torch.bfloat16).save_pretrained(path)
    return safetensors_torch.load_file(path / "model.safetensors")


def copied(path):
    return sorted(n for f in path.glob("*.safetensors") for n in safetensors_torch.load_file(f))


@pytest.fixture(params=MODELS)
def model(request, tmp_path):
    """(family, naming style, folder, its tensors)"""
    family, style, text, vision = MODELS[request.param]
    return family, style, tmp_path / "model", save(request.param, text, vision, tmp_path / "model")


def test_it_is_of_the_family_of_its_language_model(ckpt, model, tmp_path):
    family, style, path, tensors = model
    seen = ckpt("ckpt-inspect", "--json", "--logical", path).json
    assert (seen["family"], seen["names"]) == (family, style)
    names = {t["name"] for t in seen["tensors"]}
    head = PREFIX[style]
    ends = {"language_model.lm_head.weight": "lm_head.weight"}
    assert names == {ends.get(n, n.removeprefix(head)) for n in tensors}
    others = [n for n in names if n in tensors and n != "lm_head.weight"]
    assert f"{len(others)} tensors do not belong to the family" in seen["notes"][0]
    ckpt("ckpt-convert", "--quantize", "fp8-ue8m0", path, tmp_path / "fp8")
    fp8 = safetensors_torch.load_file(next((tmp_path / "fp8").glob("*.safetensors")))
    codes = {n for n, t in fp8.items() if t.dtype == torch.float8_e4m3fn}
    assert codes == {n for n in tensors if n.startswith(head) and n.endswith("_proj.weight")}
    config = json.loads((tmp_path / "fp8/config.json").read_text())["quantization_config"]
    assert any(n.startswith(others[0].split(".")[0]) for n in config["modules_to_not_convert"])


def test_a_copy_has_the_same_names_or_says_which_not(ckpt, digest, model, tmp_path):
    """Only of a tensor that is called as one inside, and so is read as one."""
    path, tensors = model[2:]
    copy = ["ckpt-convert", "--json", "--dtype", "keep", "--experts", "keep"]
    tensors.update({"other.weight": torch.ones(3), PREFIX[model[1]] + "other": torch.ones(3)})
    safetensors_torch.save_file(tensors, path / "model.safetensors")
    notes = ckpt(*copy, path, tmp_path / "same").json["notes"]
    assert copied(tmp_path / "same") == sorted(tensors)
    assert not any("under another name" in n for n in notes)
    tensors["layers.1.other"] = torch.ones(3)
    safetensors_torch.save_file(tensors, path / "model.safetensors")
    notes = ckpt(*copy, path, tmp_path / "other").json["notes"]
    name = PREFIX[model[1]] + "layers.1.other"
    assert set(copied(tmp_path / "other")) ^ set(tensors) == {"layers.1.other", name}
    assert f"1 tensor is written under another name: 'layers.1.other' became '{name}'" in notes
    assert digest(tmp_path / "other") == digest(path)


@pytest.mark.parametrize("model", ["glm4v_moe"], indirect=True)
def test_a_name_that_means_another_tensor_inside_is_refused(ckpt, model, tmp_path):
    """The layer behind the last one is a prediction layer inside, and has another name there."""
    names, path, tensors = model[1:]
    tensors["layers.2.other"] = torch.ones(3)
    safetensors_torch.save_file(tensors, path / "model.safetensors")
    err = ckpt("ckpt-convert", "--dtype", "keep", "--experts", "keep", path, tmp_path / "out",
               check=2).err
    assert f"'{PREFIX[names]}layers.2.other', which is 'mtp.0.other'" in err
    assert not (tmp_path / "out").exists()


def test_the_language_model_is_built_from_its_own_config(ckpt, digest, model, tmp_path):
    """As transformers do, whatever the root says; but the root says whether the head is tied."""
    path = model[2]
    before, text = digest(path), (path / "config.json").read_text()
    config = {**json.loads(text), "num_hidden_layers": 1, "vocab_size": 99, "hidden_size": 48}
    (path / "config.json").write_text(json.dumps(config))
    built = transformers.AutoModelForImageTextToText.from_config(
        transformers.AutoConfig.from_pretrained(path))
    assert built.get_input_embeddings().weight.shape == (64, 32)
    assert digest(path) == before
    inside = config["text_config"]
    config["text_config"] = {"model_type": inside["model_type"], "text_config": inside}
    (path / "config.json").write_text(json.dumps(config))
    err = ckpt("ckpt-verify", "digest", path, check=2).err
    assert "the config describes its language model in 'text_config.text_config': expected it " \
        "in 'text_config'" in err and err.count("\n") == 1


def test_it_trains_as_its_language_model_alone_and_comes_back(ckpt, digest, model, tmp_path):
    family, style, path, tensors = model
    head = PREFIX[style]
    text = json.loads((path / "config.json").read_text())
    tied = text.get("tie_word_embeddings", False)
    alone = {n.replace(head, "model."): t for n, t in tensors.items() if n.startswith(head)}
    alone.update({"lm_head.weight": t for n, t in tensors.items() if n.endswith("lm_head.weight")})
    (tmp_path / "alone").mkdir()
    safetensors_torch.save_file(alone, tmp_path / "alone/model.safetensors")
    (tmp_path / "alone/config.json").write_text(json.dumps(
        {**text["text_config"], "model_type": family, "tie_word_embeddings": tied}))
    for name in ("model", "alone"):
        done = ckpt("ckpt-shard", "--layout", "torch_dist", tmp_path / name, tmp_path / f"{name}-d")
        assert ("carries no vision tower" in done.out + done.err) == (name == "model")
    assert digest(tmp_path / "model-d") == digest(tmp_path / "alone-d")
    ckpt("ckpt-shard", "--layout", "hf", "--fill-from", path, tmp_path / "model-d",
         tmp_path / "back")
    back = {n: t for file in (tmp_path / "back").glob("*.safetensors")
            for n, t in safetensors_torch.load_file(file).items()}
    assert set(back) == set(tensors)
    assert all(torch.equal(back[n], t) for n, t in tensors.items())


@pytest.mark.parametrize("kind", UNKNOWN)
def test_what_is_packed_in_unknown_ways_is_told(ckpt, kind, tmp_path):
    save(kind, UNKNOWN[kind], QWEN_TOWER, tmp_path / "model")
    seen = ckpt("ckpt-inspect", "--json", tmp_path / "model").json
    assert seen["family"] == "generic"
    assert seen["notes"][0] == (
        f"the language model inside is like family qwen3_moe, but how '{kind}' names and packs its "
        "tensors is not known: they are read as stored")


def test_a_kimi_k25_saved_by_transformers_is_read_in_its_names(ckpt, digest, tmp_path):
    """Version 5.23 renames the layers as those of the tower, and does not do all that it undoes."""
    text = {**TEXT, "model_type": "deepseek_v3", "n_routed_experts": 4, "n_shared_experts": 1,
            "moe_intermediate_size": 24, "first_k_dense_replace": 1, "num_experts_per_tok": 2,
            "q_lora_rank": 20, "kv_lora_rank": 12, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
            "v_head_dim": 16, "n_group": 1, "topk_group": 1}
    tensors = save("kimi_k25", text, {"hidden_size": 32, "num_hidden_layers": 1,
                                      "num_attention_heads": 2, "intermediate_size": 40},
                   tmp_path / "model")
    assert "language_model.model.blocks.0.self_attn.o_proj.weight" in tensors
    seen = ckpt("ckpt-inspect", "--json", "--logical", tmp_path / "model").json
    assert (seen["family"], seen["names"]) == ("deepseek_v3", "transformers-saved")
    assert {"layers.0.self_attn.o_proj.weight", "mm_projector.pre_norm.weight",
            "mm_projector.proj.0.weight"} <= {t["name"] for t in seen["tensors"]}
    for names, style in ((set(tensors), ()), ({
            n.replace("model.blocks.", "model.layers.").replace("model.mm_proj", "mm_proj")
            for n in tensors}, ("--names", "language_model"))):
        out = tmp_path / f"out{len(style)}"
        ckpt("ckpt-convert", *style, tmp_path / "model", out)
        assert {n for p in out.glob("*.safetensors")
                for n in safetensors_torch.load_file(p)} == names
        assert digest(out) == digest(tmp_path / "model")
