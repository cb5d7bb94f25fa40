"""Checkpoints written by other packages (tests/data/foreign.tar.xz): each is decoded, or told
by the name of its package and kept as it is."""
import hashlib
import json
import tarfile

import pytest

from conftest import ROOT

safetensors_torch = pytest.importorskip("safetensors.torch")
torch = pytest.importorskip("torch")

BNB = "weights are quantised by bitsandbytes, {}: its tensors are listed"
CODES = "7 tensors are codes as stored, not values: {}; the first is"
# What is not decoded, and a note that tells of it.
TOLD = {
    "bitsandbytes-nf4": BNB.format("NF4"),
    "bitsandbytes-nf4-twice": BNB.format("NF4"),
    "bitsandbytes-fp4": BNB.format("FP4"),
    "bitsandbytes-int8": BNB.format("LLM.int8"),
    "compressed-tensors-fp8-tensor": CODES.format("FP8 with one scale for the tensor"),
    "compressed-tensors-int4-asym": CODES.format("integers packed in words"),
    "compressed-tensors-int8": CODES.format("INT8 with BF16 scales"),
    "mlx-affine": "quantised by MLX, which is not decoded",
    "mlx-mxfp4": "quantised by MLX, which is not decoded",
    "mlx-mxfp8": "quantised by MLX, which is not decoded",
    "mlx-nvfp4": "quantised by MLX, which is not decoded",
    "modelopt-fp8": CODES.format("FP8 with one scale for the tensor"),
    "modelopt-int8": CODES.format("INT8 with F32 scales"),
    "peft-lora": "this is a LoRA adapter, not a complete model",
}
DECODED = {
    "compressed-tensors-fp8": "F8_E4M3 1xrow BF16",
    "compressed-tensors-int4": "I4 1x32 BF16",
    "compressed-tensors-mxfp4": "F4 1x32 F8_E8M0",
    "compressed-tensors-nvfp4": "F4 1x16 F8_E4M3 / F32",
    "modelopt-mxfp8": "F8_E4M3 1x32 F8_E8M0",
    "modelopt-nvfp4": "F4 1x16 F8_E4M3 * F32",
}


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    folder = tmp_path_factory.mktemp("foreign")
    with tarfile.open(ROOT / "tests/data/foreign.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    assert {p.name for p in folder.iterdir()} == {*TOLD, *DECODED, "diffusers"}
    return folder


@pytest.mark.parametrize("kind", TOLD)
def test_what_is_not_decoded_is_told_and_kept(ckpt, foreign, tmp_path, kind):
    seen = ckpt("ckpt-inspect", "--json", foreign / kind).json
    assert seen["family"] == "generic"
    assert any(note.startswith(TOLD[kind]) for note in seen["notes"]), seen["notes"]
    ckpt("ckpt-convert", foreign / kind, tmp_path / "copy")
    ckpt("ckpt-verify", "compare", "--bits", foreign / kind, tmp_path / "copy")
    files = [p for p in foreign.joinpath(kind).iterdir() if "index" not in p.name]
    weights = {n: t for p in files if p.suffix == ".safetensors"
               for n, t in safetensors_torch.load_file(p).items()}
    copied = {n: t for p in (tmp_path / "copy").glob("*.safetensors")
              for n, t in safetensors_torch.load_file(p).items()}
    assert {n: t.dtype for n, t in weights.items()} == {n: t.dtype for n, t in copied.items()}


@pytest.mark.parametrize("kind", [k for k in TOLD if k.startswith("mlx")])
def test_servers_do_not_load_what_mlx_writes(ckpt, foreign, kind):
    said = ckpt("ckpt-inspect", "--for", "vllm", foreign / kind, check=1).out
    assert "weights are quantised by MLX, but quantization_config has no quant_method" in said


@pytest.mark.parametrize("kind", DECODED)
def test_what_is_decoded_has_the_values_of_its_package(ckpt, foreign, tmp_path, kind):
    seen = ckpt("ckpt-inspect", "--json", "--logical", foreign / kind).json
    assert (seen["family"], seen["notes"]) == ("llama", [])
    forms = {t["encoding"] for t in seen["tensors"] if t["name"].endswith("_proj.weight")}
    assert forms == {DECODED[kind]}
    ckpt("ckpt-convert", "--dtype", "bf16", "--allow-lossy", foreign / kind, tmp_path / "bf16")
    (file,) = (tmp_path / "bf16").glob("*.safetensors")
    tensors = safetensors_torch.load_file(file)
    if kind.startswith("compressed-tensors"):
        expected = json.loads((foreign / kind / "expected.json").read_text())
        got = {n: hashlib.sha256(tensors[n].view(torch.uint8).numpy().tobytes()).hexdigest()
               for n in expected}
        assert len(got) == 7 and got == expected
    assert {t.dtype for t in tensors.values()} == {torch.bfloat16}


def test_a_pipeline_of_diffusers_is_told(ckpt, foreign):
    err = ckpt("ckpt-inspect", foreign / "diffusers", check=2).err
    assert "is a diffusers pipeline: use the folder of one of its models" in err
    assert ckpt("ckpt-inspect", "--json", foreign / "diffusers/unet").json["family"] == "generic"
