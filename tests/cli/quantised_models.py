"""Quantised models for ckpt-run. Needs no library, because machines with a GPU may have none."""
import json
import struct

from corrupt.files import Model, Tensor

# name: words after --quantize, for a BF16 source; the encoding of an expert, as ckpt-inspect has it
PRESETS = {
    "v4-release": (["v4-release"], "F4 1x32 F8_E8M0"),
    "v4-vllm-fp8": (["v4-vllm-fp8"], "F8_E4M3 128x128 F32"),
    "v4-nvfp4": (["v4-nvfp4"], "F4 1x16 F8_E4M3 * F32"),
    "v3-release": (["v3-release"], "F8_E4M3 128x128 F32"),
    "mxfp8": (["mxfp8", "--wo-a", "bf16"], "F8_E4M3 1x32 F8_E8M0"),
}
EXPERT = "layers.0.ffn.experts.0.w1.weight"


PACKED = {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized",
          "config_groups": {"group_0": {"targets": ["Linear"], "weights": {
              "type": "float", "num_bits": 4, "strategy": "tensor_group", "group_size": 16}}}}


def divided(source, path):
    """NVFP4 experts respelt as compressed-tensors has them: the scale of the tensor divides. Its
    inverse is exact, because the scales of nvfp4-exact are powers of two."""
    model = Model(source)
    model.extras.clear()
    for name in [n for n in model.names() if n.endswith(".weight_scale_2")]:
        base = name.removesuffix(".weight_scale_2")
        scale, = struct.unpack("<f", model[name].data)
        model[name] = Tensor("F32", [1], struct.pack("<f", 1 / scale))
        model.rename(name, base + ".weight_global_scale")
        model.rename(base + ".weight", base + ".weight_packed")
        del model[base + ".input_scale"]
    model.config["quantization_config"] = PACKED
    return model.write(path)


def encoding_of(ckpt, path):
    """The encoding of the first expert."""
    told = json.loads(ckpt("ckpt-inspect", "--json", "--logical", path).out)
    return next(t["encoding"] for t in told["tensors"] if t["name"] == EXPERT)
