"""A checkpoint of no known family, made by torch like DeepSeek-V3: the cast is torch's cast."""
import json

import pytest

from corrupt.files import INDEX, Model

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")

CONFIG = {"model_type": "deepseek_v3", "architectures": ["DeepseekV3ForCausalLM"],
          "torch_dtype": "bfloat16", "hidden_size": 300,
          "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3",
                                  "quant_method": "fp8", "weight_block_size": [128, 128]}}
SHAPES = {"model.layers.0.self_attn.q_a_proj": (200, 300), "model.layers.0.mlp.down_proj": (1, 1),
          "model.layers.0.mlp.experts.0.up_proj": (128, 128),
          "model.layers.1.mlp.up_proj": (129, 257), "model.layers.1.self_attn.o_proj": (300, 127)}


def quantise(shape, draw, power_of_two):
    """FP8 blocks as DeepSeek-V3 has them: scale = amax / 448, in F32."""
    weight = torch.randn(shape, generator=draw) * .02
    rows, cols = (-(-d // 128) for d in shape)
    scale = torch.empty(rows, cols)
    codes = torch.empty(shape, dtype=torch.float8_e4m3fn)
    for r in range(rows):
        for c in range(cols):
            block = (slice(128 * r, 128 * r + 128), slice(128 * c, 128 * c + 128))
            s = weight[block].abs().max() / 448
            if power_of_two:
                s = torch.exp2(torch.ceil(torch.log2(s)))
            scale[r, c] = s
            codes[block] = (weight[block] / s).clamp(-448, 448).to(torch.float8_e4m3fn)
    return codes, scale


@pytest.fixture(params=["arbitrary", "powers of two"])
def checkpoint(request, tmp_path):
    """(path, tensors, whether scales are powers of two)."""
    draw = torch.Generator().manual_seed(3)
    power_of_two = request.param == "powers of two"
    tensors = {"model.embed_tokens.weight": torch.randn(64, 300, generator=draw).bfloat16(),
               "model.norm.weight": torch.randn(300, generator=draw).bfloat16(),
               "model.layers.1.mlp.gate.e_score_correction_bias": torch.randn(7, generator=draw)}
    for name, shape in SHAPES.items():
        codes, scale = quantise(shape, draw, power_of_two)
        tensors[name + ".weight"] = codes
        tensors[name + ".weight_scale_inv"] = scale
    path = tmp_path / "v3"
    path.mkdir()
    names = sorted(tensors)
    weight_map = {}
    for i, part in enumerate((names[::2], names[1::2])):      # scales in other files than weights
        file = f"model-{i + 1:05}-of-00002.safetensors"
        safetensors_torch.save_file({n: tensors[n] for n in part}, path / file)
        weight_map.update({n: file for n in part})
    (path / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    (path / "config.json").write_text(json.dumps(CONFIG, indent=2))
    return path, tensors, power_of_two


def reference(codes, scale):
    """weight_dequant of DeepSeek-V3: F32 product, then RNE."""
    rows, cols = codes.shape
    s = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[:rows, :cols]
    return (codes.to(torch.float32) * s).to(torch.bfloat16)


def load(path):
    return {n: t for p in sorted(path.glob("*.safetensors"))
            for n, t in safetensors_torch.load_file(p).items()}


def test_the_cast_is_torchs(ckpt, checkpoint, tmp_path):
    path, tensors, power_of_two = checkpoint
    lossy = [] if power_of_two else ["--allow-lossy"]
    if not power_of_two:
        err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "no", check=2).err
        assert ".weight'" in err and "row 0" in err
    ckpt("ckpt-convert", "--dtype", "bf16", *lossy, "--report", tmp_path / "r.json", path,
         tmp_path / "out")
    cast = load(tmp_path / "out")
    assert cast.keys() == {n for n in tensors if not n.endswith("_scale_inv")}
    inexact = {}
    for name, t in cast.items():
        scale = tensors.get(name.replace(".weight", ".weight_scale_inv"))
        expected = tensors[name] if scale is None or not name.endswith(".weight") else \
            reference(tensors[name], scale)
        assert t.dtype == expected.dtype and torch.equal(t.view(torch.int16) if
                                                         t.element_size() == 2 else t,
                                                         expected.view(torch.int16) if
                                                         t.element_size() == 2 else expected), name
        if expected is not tensors[name]:
            rows, cols = t.shape
            s = scale.repeat_interleave(128, 0).repeat_interleave(128, 1)[:rows, :cols]
            inexact[name] = int((t.float() != tensors[name].float() * s).sum())
    report = json.loads((tmp_path / "r.json").read_text())
    counted = {t["name"]: t["inexact"] for t in report["target_tensors"] if t["name"] in inexact}
    assert counted == inexact
    assert (sum(inexact.values()) == 0) is power_of_two


def test_config_and_index_of_the_cast(ckpt, checkpoint, tmp_path):
    path, tensors, _ = checkpoint
    ckpt("ckpt-convert", "--dtype", "bf16", "--allow-lossy", path, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config == {k: v for k, v in CONFIG.items() if k != "quantization_config"}
    assert json.loads((tmp_path / "out" / INDEX).read_text()) == Model(tmp_path / "out").index()


def test_the_way_back(ckpt, checkpoint, tmp_path):
    """Exact, also where BF16 has rounded: the scales to follow tell which codes it was."""
    path, _, power_of_two = checkpoint
    ckpt("ckpt-convert", "--dtype", "bf16", "--allow-lossy", path, tmp_path / "bf16")
    done = ckpt("ckpt-convert", "--like", path, tmp_path / "bf16", tmp_path / "back")
    assert ("they had been rounded from" in done.out) is not power_of_two
    for p in path.iterdir():
        assert (tmp_path / "back" / p.name).read_bytes() == p.read_bytes(), p.name


def test_keep_is_a_copy(ckpt, checkpoint, tmp_path):
    path, tensors, _ = checkpoint
    ckpt("ckpt-convert", path, tmp_path / "out")
    for name, t in load(tmp_path / "out").items():
        assert torch.equal(t.float(), tensors[name].float()), name


def test_scales_to_e8m0_where_they_are_powers_of_two(ckpt, checkpoint, tmp_path):
    path, tensors, power_of_two = checkpoint
    done = ckpt("ckpt-convert", "--dtype", "fp8", "--scale-dtype", "e8m0", path, tmp_path / "out",
                check=0 if power_of_two else 2)
    if not power_of_two:
        assert "is not exact in F8_E8M0" in done.err
        return
    out = load(tmp_path / "out")
    for name in SHAPES:
        assert torch.equal(out[name + ".weight_scale_inv"].float(),
                           tensors[name + ".weight_scale_inv"])


def test_nothing_to_quantise_is_said(ckpt, tmp_path):
    path = tmp_path / "plain"
    path.mkdir()
    safetensors_torch.save_file({"a.weight": torch.ones(4, 4)}, path / "model.safetensors")
    err = ckpt("ckpt-convert", "--dtype", "fp8", path, tmp_path / "out", check=2).err
    assert "--like" in err
