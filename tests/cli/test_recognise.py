"""What people give for a checkpoint: each is told in one line what it is and what to do."""
import io
import json
import pickle
import zipfile

import numpy
import pytest
import safetensors.numpy
import torch

from corrupt.files import INDEX, Model, bf16, file_bytes, link_tree

LFS = (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 +
       b"\nsize 4999800000\n")


def archive():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("archive/data.pkl", pickle.dumps({}, 2))
    return out.getvalue()


FILES = {
    "model-00001-of-00002.safetensors": (LFS, "Git LFS pointer", "git lfs pull"),
    "model.gguf": (LFS, "Git LFS pointer", "git lfs pull"),
    "model.safetensors": (b"GGUF\3\0\0\0" + bytes(64), "GGUF", "'.gguf'"),
    "pytorch_model.bin": (archive(), "torch.save", "safetensors"),
    "old.pt": (pickle.dumps({}, 2), "pickle", "safetensors"),
    "new.pt": (pickle.dumps({}, 4), "pickle", "safetensors"),
    "__0_0.distcp": (archive(), "data file of a torch_dist checkpoint", "use its folder"),
    "latest_checkpointed_iteration.txt": (b"release", "tracker file", "use its folder"),
    ".metadata": (b"\x80\x02}.", "metadata of a torch_dist checkpoint", "use its folder"),
    "common.pt": (archive(), "part of a torch_dist checkpoint", "use its folder"),
    INDEX: (b"{}", "index of a checkpoint", "use its folder"),
    "config.json": (b"{}", "configuration of a model", "use its folder"),
    "model.tar.gz": (b"\x1f\x8b\x08" + bytes(32), "compressed with gzip", "decompress"),
    "page.safetensors": (b"<!DOCTYPE html>" + bytes(32), "web page", "download"),
    "x.safetensors": (b'{"error":"Entry not found"}', "is text", "starts with '{\"error\":\"Entry"),
    "y.safetensors": (b"Access to model o/n is restricted.\nLog in.", "download", "restricted.'"),
    "empty": (b"", "is empty", "did not finish"),
    "2c5a8d": (file_bytes({"a": bf16([2])}), "looks like a safetensors file", "'.safetensors'"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_told_by_its_name_or_first_bytes(ckpt, tmp_path, name):
    data, *says = FILES[name]
    (tmp_path / name).write_bytes(data)
    err = ckpt("ckpt-inspect", tmp_path / name, check=2).err
    assert f"'{tmp_path / name}'" in err and all(word in err for word in says)
    if "use its folder" in says:
        assert f"'{tmp_path}'" in err


def test_pointers_in_place_of_shards_are_told(ckpt, golden_a, tmp_path):
    path = link_tree(golden_a, tmp_path / "in")
    shard = sorted(path.glob("*.safetensors"))[1]
    shard.unlink()
    shard.write_bytes(LFS)
    err = ckpt("ckpt-verify", "digest", path, check=2).err
    assert f"'{shard}'" in err and "git lfs pull" in err


@pytest.mark.parametrize("name", ["config.json", INDEX, "ckpt-manifest.json", "tokenizer.json"])
def test_pointers_in_place_of_json_are_told(ckpt, golden_a, tmp_path, name):
    path = link_tree(golden_a, tmp_path / "in")
    (path / name).unlink(missing_ok=True)
    (path / name).write_bytes(LFS)
    words = ["ckpt-run", "--prompt", "a"] if name == "tokenizer.json" else ["ckpt-verify", "check"]
    err = ckpt(*words, path, check=2).err
    assert f"'{path / name}'" in err and "git lfs pull" in err


@pytest.mark.parametrize("name", ["common.pt", ".metadata", "__0_0.distcp"])
def test_pointers_in_a_torch_dist_folder_are_told(ckpt, golden_a, tmp_path, name):
    ckpt("ckpt-shard", "--layout", "torch_dist", golden_a, tmp_path / "in")
    path = tmp_path / "in" / "release" / name
    path.write_bytes(LFS)
    err = ckpt("ckpt-verify", "digest", tmp_path / "in", check=2).err
    assert f"'{path}'" in err and "git lfs pull" in err
    path.write_bytes(b"PK\3\4" + bytes(64) if name != ".metadata" else b"\x80\2" + bytes(64))
    err = ckpt("ckpt-verify", "digest", tmp_path / "in", check=2).err
    assert "not read" not in err                    # it is what it should be, but damaged


def folder(path, *names):
    for name in names:
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"{}")
    return path


FOLDERS = {
    "diffusers": (["model_index.json", "vae/config.json", "unet/x.safetensors"], "diffusers",
                  "'unet'"),
    "cache": (["blobs/ab", "refs/main", "snapshots/0123abc/config.json"], "in a hub's cache",
              "'snapshots/0123abc'"),
    "hub": (["models--o--n/snapshots/0123abc/config.json"], "use one", "'models--o--n'"),
    "snapshots": (["0123abc/config.json"], "use one", "'0123abc'"),
    "training": (["checkpoint-20/config.json", "checkpoint-10/config.json", "runs/x"], "use one",
                 "'checkpoint-10'"),
    "torch": (["config.json", "pytorch_model-00001-of-00002.bin"],
              "'pytorch_model-00001-of-00002.bin'", "safetensors"),
    "two GGUF models": (["m.gguf", "n.gguf"], "'m.gguf' and 'n.gguf'", "name one of them"),
    "config only": (["config.json", "tokenizer.json"], "no weights", "ckpt-download"),
    "no metadata": (["__0_0.distcp", "common.pt"], "without '.metadata'", "torch_dist"),
    "old Megatron": (["mp_rank_00/model_optim_rng.pt"], "older format", "torch_dist"),
    "nothing": (["notes.txt"], "is not a checkpoint", "expected safetensors"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_is_told_by_what_is_in_it(ckpt, tmp_path, kind):
    names, *says = FOLDERS[kind]
    err = ckpt("ckpt-inspect", folder(tmp_path / "in", *names), check=2).err
    assert f"'{tmp_path / 'in'}'" in err and all(word in err for word in says)


def test_of_two_snapshots_the_one_of_main_is_told(ckpt, tmp_path):
    path = folder(tmp_path, "blobs/ab", "refs/main", "snapshots/a/config.json",
                  "snapshots/b/config.json")
    (path / "refs" / "main").write_text("b")
    assert "'snapshots/b'" in ckpt("ckpt-inspect", path, check=2).err


@pytest.mark.parametrize("path, says", [
    ("deepseek-ai/DeepSeek-V4-Flash", "ckpt-download deepseek-ai/DeepSeek-V4-Flash"),
    ("deepseek-ai/DeepSeek-V4-Flash@main", "ckpt-download deepseek-ai/DeepSeek-V4-Flash"),
    ("deepseek-ai/DeepSeek-V4/", "ckpt-download deepseek-ai/DeepSeek-V4"),
    ("me@node7:/data/model", "on other machines"),
    ("C:/data/model", "'C:/data/model' does not exist\n"),
    ("s3://bucket/model", "is a URL that this command does not read: download it first"),
    ("node7:/data/model", "on other machines"),
    ("missing", "does not exist"),
])
def test_what_is_not_on_this_machine_is_told(ckpt, tmp_path, path, says):
    err = ckpt("ckpt-inspect", path, check=2, cwd=tmp_path).err
    assert f"'{path}'" in err and says in err


@pytest.mark.parametrize("path, says", [
    ("hf://deepseek-ai/DeepSeek-V4", "ckpt-download deepseek-ai/DeepSeek-V4"),
    ("https://huggingface.co/deepseek-ai/DeepSeek-V4/tree/main",
     "ckpt-download deepseek-ai/DeepSeek-V4"),
    ("https://modelscope.cn/models/deepseek-ai/DeepSeek-V4",
     "ckpt-download --hub modelscope deepseek-ai/DeepSeek-V4"),
    ("https://huggingface.co/datasets/o/n", "download it first"),
    ("ms://o/n", "download it first"),
])
def test_a_url_is_told_by_commands_that_read_local_files(ckpt, tmp_path, path, says):
    err = ckpt("ckpt-run", path, "--prompt", "x", check=2, cwd=tmp_path).err
    assert f"'{path}' is a URL" in err and says in err


def test_a_path_in_a_folder_that_is_there_is_no_repository(ckpt, tmp_path):
    (tmp_path / "models").mkdir()
    for path in ("models/v4", "models/v4/"):
        err = ckpt("ckpt-inspect", path, check=2, cwd=tmp_path).err
        assert err.endswith(f"'{path}' does not exist\n")


def test_a_link_to_nothing_is_told(ckpt, tmp_path):
    (tmp_path / "model").symlink_to("gone")
    err = ckpt("ckpt-inspect", tmp_path / "model", check=2).err
    assert "is a link to 'gone', which does not exist" in err


@pytest.mark.parametrize("command", [
    ["ckpt-verify", "digest"], ["ckpt-verify", "check"], ["ckpt-run", "--prompt", "a"],
    ["ckpt-convert", "--dry-run"], ["ckpt-shard", "--dry-run", "--layout", "hf"]],
    ids=lambda c: c[0] if c[0] != "ckpt-verify" else c[1])
def test_every_command_tells_it(ckpt, tmp_path, command):
    (tmp_path / "m.pt").write_bytes(pickle.dumps({}, 2))
    out = [tmp_path / "out"] if command[0] in ("ckpt-convert", "ckpt-shard") else []
    assert "torch.save pickle" in ckpt(*command, tmp_path / "m.pt", *out, check=2).err
    err = ckpt("ckpt-verify", "compare", tmp_path / "m.pt", tmp_path / "m.pt", check=2).err
    assert "torch.save pickle" in err


def test_like_and_fill_from_tell_it(ckpt, golden_a, tmp_path):
    (tmp_path / "m.pt").write_bytes(pickle.dumps({}, 2))
    for option in ("--like", "--fill-from"):
        err = ckpt("ckpt-convert", option, tmp_path / "m.pt", golden_a, tmp_path / "out",
                   check=2).err
        assert "torch.save pickle" in err


# ---- real files of other packages ----

Q = "model.layers.0.self_attn.q_proj"


def zeros(dtype, *shape):
    return numpy.zeros(shape, dtype)


def ones(*shape, dtype="float16"):
    return numpy.ones(shape, dtype)


NOT_DECODED = "listed, copied, digested and compared as stored, and not decoded"
FORMATS = {
    "gptq": ({"qweight": zeros("int32", 8, 64), "qzeros": zeros("int32", 1, 8),
              "scales": ones(1, 64), "g_idx": zeros("int32", 64)},
             {"quant_method": "gptq", "bits": 4, "group_size": 64},
             f"weights are quantised by GPTQ: its tensors are {NOT_DECODED}"),
    "gptq without groups of rows": (
        {"qweight": zeros("int32", 8, 64), "qzeros": zeros("int32", 1, 8), "scales": ones(1, 64)},
        {"quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": False},
        f"weights are quantised by GPTQ: its tensors are {NOT_DECODED}"),
    "awq": ({"qweight": zeros("int32", 64, 8), "qzeros": zeros("int32", 1, 8),
             "scales": ones(1, 64)},
            {"quant_method": "awq", "bits": 4, "group_size": 64},
            f"weights are quantised by AWQ: its tensors are {NOT_DECODED}"),
    "nf4": ({"weight": zeros("uint8", 2048, 1), "weight.absmax": zeros("uint8", 64),
             "weight.quant_map": zeros("float32", 16),
             "weight.quant_state.bitsandbytes__nf4": zeros("uint8", 90)},
            {"quant_method": "bitsandbytes", "load_in_4bit": True},
            f"weights are quantised by bitsandbytes, NF4: its tensors are {NOT_DECODED}"),
    "int8": ({"weight": zeros("int8", 64, 64), "SCB": zeros("float32", 64)},
             {"quant_method": "bitsandbytes", "load_in_8bit": True},
             f"weights are quantised by bitsandbytes, LLM.int8: its tensors are {NOT_DECODED}"),
    "mlx": ({"weight": zeros("uint32", 64, 8), "scales": ones(64, 1), "biases": ones(64, 1)},
            None, f"weights are quantised by MLX: its tensors are {NOT_DECODED}"),
    "mlx, MXFP4": ({"weight": zeros("uint32", 64, 8), "scales": zeros("uint8", 64, 2)},
                   None, f"weights are quantised by MLX: its tensors are {NOT_DECODED}"),
    "hqq": ({"W_q": zeros("uint8", 32, 64), "scale": ones(1, 64), "zero": ones(1, 64)},
            {"quant_method": "hqq"},
            f"weights are quantised by HQQ: its tensors are {NOT_DECODED}"),
    "exl3": ({"trellis": zeros("int16", 4, 4, 48), "suh": ones(64), "svh": ones(64),
              "mcg": zeros("int32", 1)}, {"quant_method": "exl3", "bits": 3.0},
             f"weights are quantised by EXL3: its tensors are {NOT_DECODED}"),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_weights_quantised_by_other_packages_are_told(ckpt, tmp_path, kind):
    """In the names, dtypes and shapes of the packages, written by safetensors."""
    tensors, config, says = FORMATS[kind]
    path = tmp_path / "in"
    path.mkdir()
    safetensors.numpy.save_file({f"{Q}.{n}": t for n, t in tensors.items()},
                                path / "model.safetensors")
    members = {} if config is None else {"quantization_config": config}
    (path / "config.json").write_text(json.dumps({"model_type": "llama", **members}))
    notes = ckpt("ckpt-inspect", "--json", path).json["notes"]
    assert says in notes and not any("remove it" in n for n in notes)
    assert f"note: {says}\n" in ckpt("ckpt-verify", "digest", path).err
    if config is not None:
        done = ckpt("ckpt-inspect", "--for", "vllm", path, check=(0, 1))
        assert f"'{config['quant_method']}', whose tensors are not looked at" in done.out
    ckpt("ckpt-convert", "--dtype", "keep", path, tmp_path / "out")
    ckpt("ckpt-verify", "compare", "--bits", path, tmp_path / "out")


def quantised_folder(path, tensors, config, **files):
    """A folder with tensors of one weight, and JSON files beside config.json."""
    path.mkdir()
    safetensors.numpy.save_file({f"{Q}.{n}": t for n, t in tensors.items()},
                                path / "model.safetensors")
    config = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], **config}
    for name, content in {"config": config, **files}.items():
        (path / f"{name}.json").write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("method", ["aqlm", "of-tomorrow"])
def test_weights_that_are_not_seen_are_not_called_missing(ckpt, tmp_path, method):
    """The advice to remove the quantization_config would make such a checkpoint useless."""
    path = quantised_folder(tmp_path / "in", {"codes": zeros("int16", 8, 8, 1)},
                            {"quantization_config": {"quant_method": method}})
    assert not any("remove it" in n for n in ckpt("ckpt-inspect", "--json", path).json["notes"])
    done = ckpt("ckpt-inspect", "--for", "vllm", path)
    assert f"quant_method is '{method}', whose tensors are not looked at" in done.out


LLAMA = {"vocab_size": 8, "hidden_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
         "intermediate_size": 64}


@pytest.mark.parametrize("package, kind", [("GPTQ", "gptq"), ("MLX", "mlx"), ("AWQ", "awq")])
def test_a_package_is_told_where_config_json_does_not_name_it(ckpt, tmp_path, package, kind):
    """As in old checkpoints of AutoGPTQ, whose quantize_config.json is a file of its own."""
    path = quantised_folder(tmp_path / "in", FORMATS[kind][0], LLAMA,
                            quantize_config={"bits": 4, "group_size": 64})
    seen = ckpt("ckpt-inspect", "--json", path).json
    assert seen["family"] == "generic"
    assert (f"quantised by {package}, which is not decoded: tensors are read as stored, not as "
            "family llama") in seen["notes"]
    said = ckpt("ckpt-inspect", "--for", "vllm", path, check=1).out
    assert f"weights are quantised by {package}, but config.json has no quantization_config" in said


def test_a_config_of_model_optimizer_beside_config_json_is_read(ckpt, tmp_path):
    """vLLM and SGLang read it, transformers does not; without a quant_algo it declares nothing."""
    tensors = {"weight": zeros("uint8", 64, 32), "weight_scale": zeros("uint8", 64, 2)}
    lacks = "config.json has no quantization_config"
    for algorithm in ("NVFP4", None):
        path = quantised_folder(tmp_path / str(algorithm), tensors, {},
                                hf_quant_config={"producer": {"name": "modelopt"},
                                                 "quantization": {"quant_algo": algorithm}})
        notes = ckpt("ckpt-inspect", "--json", path).json["notes"]
        assert any(lacks in n for n in notes) == (algorithm is None)
        for loader in ("vllm", "sglang", "transformers"):
            is_read = algorithm is not None and loader != "transformers"
            done = ckpt("ckpt-inspect", "--for", loader, path, check=0 if is_read else 1)
            assert (lacks in done.out) == (not is_read)
            assert ("hf_quant_config.json says NVFP4, whose tensors are not looked at" in
                    done.out) == is_read


def test_files_of_torch_save_are_told(ckpt, tmp_path):
    for name, is_new, says in (("pytorch_model.bin", True, "is a torch.save archive"),
                               ("old.pt", False, "is an old torch.save pickle")):
        torch.save({"a": torch.zeros(2)}, tmp_path / name, _use_new_zipfile_serialization=is_new)
        err = ckpt("ckpt-inspect", tmp_path / name, check=2).err
        assert f"{says}, which is not supported: save it as safetensors" in err


def test_the_own_form_of_mistral_is_told(ckpt, tmp_path):
    safetensors.numpy.save_file({"layers.0.attention.wq.weight": ones(64, 64)},
                                tmp_path / "consolidated.safetensors")
    assert not any("Mistral" in n for n in ckpt("ckpt-inspect", "--json", tmp_path).json["notes"])
    (tmp_path / "params.json").write_text('{"dim": 64}')
    assert any(n.startswith("this is Mistral's own form")
               for n in ckpt("ckpt-inspect", "--json", tmp_path).json["notes"])


def test_a_lora_adapter_is_told(ckpt, tmp_path):
    safetensors.numpy.save_file(
        {f"base_model.model.{Q}.lora_A.weight": ones(4, 64),
         f"base_model.model.{Q}.lora_B.weight": ones(64, 4)},
        tmp_path / "adapter_model.safetensors")
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 4}')
    assert "this is a LoRA adapter, not a complete model; merge it into its base model first" in \
        ckpt("ckpt-inspect", "--json", tmp_path).json["notes"]


def test_a_real_checkpoint_is_not_mistaken(ckpt, golden_a, tmp_path):
    model = Model(golden_a)
    model.extras["pytorch_model.bin"] = archive()
    model.extras["model_index.json"] = b"{}"
    assert ckpt("ckpt-inspect", "--json", model.write(tmp_path / "in")).json["layout"] == "hf"
