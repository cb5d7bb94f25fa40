"""The casts of ckpt-convert as one writes them with torch: the peer of bench_convert.py.

    torch_cast.py fp8|bf16 IN.safetensors OUT.safetensors

Loads a file, converts every pair of weight and scale on all cores, saves. FP4 -> FP8 follows
DeepSeek's converter: the block's scale is its largest group scale over 2^6.
"""
import sys

import torch
from safetensors.torch import load_file, save_file

FP4 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6, -0., -.5, -1, -1.5, -2, -3, -4, -6])


def fp4_values(packed):
    """[rows, cols / 2] bytes -> [rows, cols] F32, low nibble first."""
    codes = packed.view(torch.uint8)
    pairs = torch.stack([FP4[(codes & 15).long()], FP4[(codes >> 4).long()]], dim=-1)
    return pairs.flatten(1)


def fp4_to_bf16(packed, scale):
    values = fp4_values(packed)
    rows, cols = values.shape
    values = values.view(rows, cols // 32, 32) * scale.float().unsqueeze(-1)
    return values.view(rows, cols).bfloat16()


def fp4_to_fp8(packed, scale):
    values = fp4_values(packed)
    rows, cols = values.shape
    high, wide = rows // 128, cols // 128
    values = values.view(high, 128, wide, 4, 32)
    scale = scale.float().view(high, 128, wide, 4)
    block = scale.amax(dim=(1, 3), keepdim=True) / 64
    codes = (values * (scale / block).unsqueeze(-1)).to(torch.float8_e4m3fn)
    return codes.view(rows, cols), block.view(high, wide).to(torch.float8_e8m0fnu)


def fp8_to_bf16(codes, scale):
    rows, cols = codes.shape
    wide = scale.float().repeat_interleave(128, 0)[:rows].repeat_interleave(128, 1)[:, :cols]
    return (codes.float() * wide).bfloat16()


def cast(tensors, target):
    out = {}
    for name, tensor in tensors.items():
        scale_name = name.removesuffix(".weight") + ".scale"
        scale = tensors.get(scale_name)
        if name.endswith(".scale") and name.removesuffix(".scale") + ".weight" in tensors:
            continue
        if not name.endswith(".weight") or scale is None:
            out[name] = tensor
        elif tensor.dtype == torch.int8 and target == "fp8":
            out[name], out[scale_name] = fp4_to_fp8(tensor, scale)
        elif tensor.dtype == torch.int8:
            out[name] = fp4_to_bf16(tensor, scale)
        elif target == "bf16":
            out[name] = fp8_to_bf16(tensor, scale)
        else:
            out[name], out[scale_name] = tensor, scale
    return out


def main():
    target, source, result = sys.argv[1:]
    save_file(cast(load_file(source), target), result)


if __name__ == "__main__":
    main()
