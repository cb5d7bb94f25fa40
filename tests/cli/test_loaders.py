"""What servers ask of a file: names, dtypes and shapes for each loader and encoding.

The table says what the loading code of vLLM 0.33 (deepseek_v4/quant_config.py, nvidia/model.py),
SGLang (models/deepseek_v4.py, layers/quantization/fp8.py), transformers 5.23
(finegrained_fp8.py) and DeepSeek's inference/model.py has parameters for. scripts/vllm-mapping asks
vLLM itself.
"""
import json

import pytest

from corrupt.files import read_header

# encoding: options; dtypes of expert weights, expert scales, dense weights, dense scales.
ENCODINGS = {
    "fp4": ([], "I8", "F8_E8M0", "F8_E4M3", "F8_E8M0"),
    "fp8": (["--experts", "fp8"], "F8_E4M3", "F32", "F8_E4M3", "F32"),
    "fp8-e8m0": (["--experts", "fp8", "--scale-dtype", "e8m0"], "F8_E4M3", "F8_E8M0", "F8_E4M3",
                 "F8_E8M0"),
    "bf16": (["--dtype", "bf16"], "BF16", None, "BF16", None),
    "bf16-experts": (["--experts", "bf16"], "BF16", None, "F8_E4M3", "F8_E8M0"),
    "bf16-dense": (["--dtype", "bf16", "--experts", "keep"], "I8", "F8_E8M0", "BF16", None),
}
EXPERT_DTYPE = {"fp4": "fp4", "fp8": "fp8", "fp8-e8m0": "fp8", "bf16-dense": "fp4"}
# vLLM has one dtype for all scale parameters: E8M0 for expert_dtype fp4 (also where the key is
# missing), else F32. E8M0 bytes of experts are viewed as they are: F32 parameters get garbage.
VLLM_SCALES = {"fp4": "F8_E8M0", "fp8": "F32", None: "F8_E8M0"}
# Others copy scales by value, whatever their dtype.
BY_VALUE = {"F8_E8M0", "F32"}


@pytest.fixture(scope="module", params=ENCODINGS)
def made(request, ckpt, golden, tmp_path_factory):
    out = tmp_path_factory.mktemp(request.param) / "out"
    ckpt("ckpt-convert", *ENCODINGS[request.param][0], golden, out)
    tensors = {n: h for p in out.glob("*.safetensors") for n, h in read_header(p)[0].items()}
    return request.param, tensors, json.loads((out / "config.json").read_text())


def is_scale(name):
    return name.endswith(".scale") and "hc_" not in name


def test_dtypes_and_shapes_are_those_of_the_parameters(made, golden):
    encoding, tensors, _ = made
    _, expert, expert_scale, dense, dense_scale = ENCODINGS[encoding]
    shapes = {n: h for p in golden.glob("*.safetensors") for n, h in read_header(p)[0].items()}
    quantised = [n for n in shapes if shapes[n]["dtype"] in ("I8", "F8_E4M3")]
    for name in quantised:
        is_expert = ".experts." in name
        rows, cols = shapes[name]["shape"]
        cols *= 2 if is_expert else 1
        wanted, scale = (expert, expert_scale) if is_expert else (dense, dense_scale)
        assert tensors[name]["dtype"] == wanted
        assert tensors[name]["shape"] == [rows, cols // 2 if wanted == "I8" else cols]
        found = tensors.get(name.replace(".weight", ".scale"))
        if scale is None:
            assert found is None
            continue
        block = (1, 32) if wanted == "I8" else (128, 128)
        assert found["dtype"] == scale
        assert found["shape"] == [-(-rows // block[0]), -(-cols // block[1])]
    assert quantised
    for name in set(shapes) - set(quantised):
        if not is_scale(name):
            assert tensors[name] | {"data_offsets": 0} == shapes[name] | {"data_offsets": 0}


def test_names_are_native_for_every_server(made):
    _, tensors, _ = made
    for name in tensors:
        assert name.startswith(("layers.", "mtp.", "embed.", "head.", "norm.", "hc_head_"))
    # SGLang looks for the scale of wo_a under exactly this name, for all layers or none.
    layers = {n.removesuffix(".wo_a.weight") for n in tensors if n.endswith(".wo_a.weight")}
    scales = {n.removesuffix(".wo_a.scale") for n in tensors if n.endswith(".wo_a.scale")}
    assert scales in (layers, set())


def test_config_tells_vllm_the_dtypes_of_scales(made):
    encoding, tensors, config = made
    told = config.get("expert_dtype")
    assert told == EXPERT_DTYPE.get(encoding)
    assert ("quantization_config" in config) == (encoding != "bf16")
    dtypes = {h["dtype"] for n, h in tensors.items() if is_scale(n)}
    if encoding == "fp8-e8m0":                 # on request, with a note: not for vLLM
        assert dtypes == {"F8_E8M0"} != {VLLM_SCALES[told]}
    elif dtypes:
        assert dtypes == {VLLM_SCALES[told]}
    assert dtypes <= BY_VALUE


def test_config_has_the_keys_that_all_loaders_require(made):
    encoding, _, config = made
    if encoding == "bf16":
        return
    told = config["quantization_config"]
    assert (told["quant_method"], told["activation_scheme"], told["weight_block_size"]) == \
        ("fp8", "dynamic", [128, 128])
    assert ("modules_to_not_convert" in told) == encoding.startswith("bf16-")


@pytest.mark.parametrize("options,experts", [([], "F4"), (["--experts", "fp8"], "F8_E4M3")])
def test_deepseeks_own_code_reads_e8m0_scales_and_a_bf16_wo_a(ckpt, golden, tmp_path, options,
                                                              experts):
    ckpt("ckpt-shard", "--layout", "mp", "--mp", 1, *options, golden, tmp_path / "mp")
    tensors = read_header(tmp_path / "mp" / "model0-mp1.safetensors")[0]
    assert {h["dtype"] for n, h in tensors.items() if is_scale(n)} == {"F8_E8M0"}
    assert {h["dtype"] for n, h in tensors.items() if ".experts." in n and not is_scale(n)} == \
        {experts}
    assert {h["dtype"] for n, h in tensors.items() if n.endswith(".wo_a.weight")} == {"BF16"}
