"""A Kimi-K2 with INT4 experts: of its family, to BF16 and to torch_dist, against NumPy."""
import json
import shutil

import numpy as np
import pytest

from corrupt.files import INDEX, Tensor, file_bytes, read_file, tensor_files

torch = pytest.importorskip("torch")
import torch.distributed.checkpoint as dcp          # noqa: E402
from interop import value_digest                    # noqa: E402
from interop.test_int4 import products              # noqa: E402


@pytest.fixture(scope="module")
def kimi(ckpt, tmp_path_factory):
    out = tmp_path_factory.mktemp("synth") / "kimi-int4"
    ckpt("ckpt-synth", "--config", "kimi-int4", out)
    return out


def all_tensors(path):
    return {name: tensor for file in tensor_files(path)
            for name, tensor in read_file(path / file)[0].items()}


def decoded(tensors):
    """{logical name: torch tensor} of a Kimi-K2, by NumPy."""
    values = {}
    for name, t in tensors.items():
        logical = name.removeprefix("model.")
        if name.endswith(".weight_packed"):
            word = np.frombuffer(t.data, "<u4").reshape(t.shape)
            codes = word[..., None] >> np.arange(0, 32, 4, np.uint32) & 15
            scale = tensors[name[:-len("packed")] + "scale"]
            bits = np.frombuffer(scale.data, "<u2").reshape(scale.shape)
            values[logical[:-len("_packed")]] = torch.from_numpy(
                products(codes.reshape(len(word), -1), bits)[0])
        elif not name.endswith((".weight_scale", ".weight_shape")):
            dtype = {"BF16": torch.bfloat16, "F32": torch.float32}[t.dtype]
            values[logical] = torch.frombuffer(bytearray(t.data), dtype=dtype).reshape(t.shape)
    return values


def test_a_kimi_k2_with_int4_experts_is_of_its_family(ckpt, kimi):
    seen = ckpt("ckpt-inspect", "--json", "--logical", kimi).json
    assert seen["family"] == "deepseek_v3" and not seen["notes"]
    forms = {t["encoding"] for t in seen["tensors"] if ".mlp.experts." in t["name"]}
    assert forms == {"I4 1x32 BF16"}
    assert "I4 1x32 BF16" not in {t["encoding"] for t in seen["tensors"]
                                  if ".mlp.experts." not in t["name"]}
    got = ckpt("ckpt-verify", "digest", "--json", kimi).json
    assert got["root"] == value_digest.digest(decoded(all_tensors(kimi)))[0]


def test_a_kimi_k2_goes_to_bf16_and_torch_dist_with_one_root(ckpt, digest, kimi, tmp_path):
    """Rounded once; then files, layouts and names change, and no value."""
    ckpt("ckpt-convert", kimi, tmp_path / "copy")
    assert tensor_files(tmp_path / "copy") == tensor_files(kimi)
    ckpt("ckpt-convert", "--dtype", "f32", kimi, tmp_path / "f32")
    assert digest(tmp_path / "f32") == digest(kimi)
    ckpt("ckpt-convert", "--dtype", "bf16", "--allow-lossy", kimi, tmp_path / "bf16")
    want = {name: t if t.dtype == torch.float32 and "bias" in name else t.to(torch.bfloat16)
            for name, t in decoded(all_tensors(kimi)).items()}
    assert digest(tmp_path / "bf16") == value_digest.digest(want)[0] != digest(kimi)
    ckpt("ckpt-verify", "compare", "--as", "bf16", kimi, tmp_path / "bf16")
    ckpt("ckpt-shard", "--layout", "torch_dist", "--verify", tmp_path / "bf16", tmp_path / "dist")
    ckpt("ckpt-shard", "--layout", "torch_dist", "--allow-lossy", kimi, tmp_path / "direct")
    for path in ("dist", "direct"):
        assert digest(tmp_path / path, "main") == digest(tmp_path / "bf16", "main")
    ckpt("ckpt-shard", "--layout", "hf", "--like", tmp_path / "bf16", tmp_path / "dist",
         tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(tmp_path / "bf16")


def test_a_family_refuses_a_weight_that_is_not_quite_int4(ckpt, kimi, tmp_path):
    (file,) = [f for f in tensor_files(kimi)
               if any(n.endswith("_packed") for n in read_file(kimi / f)[0])][:1]
    tensors = read_file(kimi / file)[0]
    packed = next(n for n in tensors if n.endswith("_packed"))
    module = packed[:-len("weight_packed")]
    for name, change, words in (
            ("weight_scale", Tensor("BF16", [64, 1], bytes(128)), "does not fit"),
            ("weight_shape", Tensor("I32", [1], bytes(4)), "expected 2 numbers"),
            ("weight_zero_point", Tensor("I32", [8, 4], bytes(128)), "not decoded")):
        shutil.rmtree(tmp_path / "m", ignore_errors=True)
        shutil.copytree(kimi, tmp_path / "m")
        other = {**tensors, module + name: change}
        (tmp_path / "m" / file).write_bytes(file_bytes(other))
        (tmp_path / "m" / INDEX).unlink(missing_ok=True)
        err = ckpt("ckpt-inspect", tmp_path / "m", check=2).err
        assert module + name in err and words in err, err


def test_a_delta_keeps_codes_scales_and_shapes(ckpt, kimi, tmp_path):
    after = tmp_path / "after"
    ckpt("ckpt-synth", "--config", "kimi-int4", "--seed", "2", after)
    ckpt("ckpt-delta", "diff", kimi, after, tmp_path / "delta")
    ckpt("ckpt-delta", "apply", kimi, tmp_path / "delta", tmp_path / "applied")
    assert tensor_files(tmp_path / "applied") == tensor_files(after) != tensor_files(kimi)
    ckpt("ckpt-delta", "diff", "--base", "none", kimi, tmp_path / "packed.ckpt")
    ckpt("ckpt-verify", "compare", "--bits", kimi, tmp_path / "packed.ckpt")


TOWER = ("vision_tower.encoder.blocks.0.norm0.weight", "mm_projector.proj.0.weight")


def inside(kimi, path):
    """As K2.5: the config in text_config, names under language_model, and a tower beside."""
    path.mkdir()
    config = {"model_type": "kimi_k25", "text_config": json.loads(
        (kimi / "config.json").read_text())}
    (path / "config.json").write_text(json.dumps(config))
    tensors = {"language_model." + name: t for name, t in all_tensors(kimi).items()}
    tensors.update({name: Tensor("BF16", [8], bytes(range(16))) for name in TOWER})
    (path / "model.safetensors").write_bytes(file_bytes(tensors))
    return config, tensors


def test_a_kimi_k25_is_a_kimi_k2_with_a_tower(ckpt, digest, kimi, tmp_path):
    config, tensors = inside(kimi, tmp_path / "k25")
    seen = ckpt("ckpt-inspect", "--json", "--logical", tmp_path / "k25").json
    assert (seen["family"], seen["names"]) == ("deepseek_v3", "language_model")
    assert seen["notes"] == ["2 tensors do not belong to the family: they are kept; the first "
                             f"is '{TOWER[1]}'"]
    forms = {t["encoding"] for t in seen["tensors"] if ".mlp.experts." in t["name"]}
    assert forms == {"I4 1x32 BF16"}
    tower = {name: torch.frombuffer(bytearray(tensors[name].data), dtype=torch.bfloat16)
             for name in TOWER}
    want = value_digest.digest({**decoded(all_tensors(kimi)), **tower})[0]
    assert digest(tmp_path / "k25") == want != digest(kimi)
    ckpt("ckpt-convert", "--names", "native", tmp_path / "k25", tmp_path / "native")
    assert set(all_tensors(tmp_path / "native")) == {*all_tensors(kimi), *TOWER}
    ckpt("ckpt-verify", "compare", "--bits", tmp_path / "k25", tmp_path / "native")
    del tensors["language_model.model.layers.1.mlp.gate.weight"]
    (tmp_path / "k25/model.safetensors").write_bytes(file_bytes(tensors))
    err = ckpt("ckpt-inspect", tmp_path / "k25", check=2).err
    assert "lacks tensor 'layers.1.mlp.gate.weight'" in err


def test_a_kimi_k25_goes_to_torch_dist_and_back_without_its_tower(ckpt, digest, kimi, tmp_path):
    """In torch_dist it is what the Kimi-K2 inside is; the config tells the names of files."""
    _, tensors = inside(kimi, tmp_path / "k25")
    for name in ("k25", "kimi"):
        ckpt("ckpt-shard", "--layout", "torch_dist", "--allow-lossy",
             kimi if name == "kimi" else tmp_path / name, tmp_path / f"{name}-dist")
    assert digest(tmp_path / "k25-dist") == digest(tmp_path / "kimi-dist")
    ckpt("ckpt-shard", "--layout", "hf", tmp_path / "k25-dist", tmp_path / "back")
    codes = ("_packed", "_scale", "_shape")
    assert {n for n in all_tensors(tmp_path / "back") if "experts." not in n} == {
        n for n in tensors if n not in TOWER and not n.endswith(codes) and "experts." not in n}
    ckpt("ckpt-shard", "--layout", "hf", "--fill-from", tmp_path / "k25", tmp_path / "k25-dist",
         tmp_path / "filled")
    assert set(TOWER) <= set(all_tensors(tmp_path / "filled"))
    ckpt("ckpt-verify", "compare", "--as", "bf16", tmp_path / "k25", tmp_path / "filled")


def test_torch_dist_of_a_kimi_k25_with_keys_of_its_own_is_read_as_stored(
        ckpt, digest, kimi, tmp_path):
    """As trainers of the whole model write it, with a prefix."""
    inside(kimi, tmp_path / "k25")
    state = {"language_model.decoder.final_layernorm.weight": torch.ones(4).bfloat16(),
             "vision_tower.a.weight": torch.ones(4).bfloat16(),
             "optimizer.state.exp_avg.a": torch.ones(4)}
    dcp.save(state, checkpoint_id=tmp_path / "dist/release", no_dist=True)
    (tmp_path / "dist/latest_checkpointed_iteration.txt").write_text("release")
    root = digest(tmp_path / "dist")
    (tmp_path / "dist/config.json").write_text((tmp_path / "k25/config.json").read_text())
    seen = ckpt("ckpt-inspect", "--json", tmp_path / "dist").json
    assert seen["family"] == "generic" and digest(tmp_path / "dist") == root
    assert "how 'kimi_k25' names and packs its tensors is not known" in seen["notes"][0]


def test_a_kimi_k25_is_cast_and_its_inner_config_says_so(ckpt, kimi, tmp_path):
    path = tmp_path / "k25"
    config, _ = inside(kimi, path)
    ckpt("ckpt-convert", "--dtype", "bf16", "--allow-lossy", path, tmp_path / "bf16")
    ckpt("ckpt-verify", "compare", "--as", "bf16", path, tmp_path / "bf16")
    del config["text_config"]["quantization_config"]
    assert json.loads((tmp_path / "bf16/config.json").read_text()) == config
    assert {t.dtype for t in all_tensors(tmp_path / "bf16").values()} == {"BF16", "F32"}
