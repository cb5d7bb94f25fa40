"""Rules of ckpt-convert --quantize as one writes them with torch: the peer of bench_quantize.py.

    torch_quantise.py RULE IN.safetensors OUT.safetensors

Loads a file, quantises every matrix in BF16 on all cores, saves. A loss is not counted.
"""
import sys

import torch
from safetensors.torch import load_file, save_file

EDGES = torch.tensor([.25, .75, 1.25, 1.75, 2.5, 3.5, 5])


def power(v):
    """The least power of two that is not below."""
    mantissa, exponent = torch.frexp(v)
    return torch.exp2(torch.where(mantissa == 0.5, exponent - 1, exponent).float())


def fp8_blocks(x, powers_of_two):
    rows, cols = x.shape
    high, wide = -(-rows // 128), -(-cols // 128)
    padded = torch.zeros(high * 128, wide * 128)
    padded[:rows, :cols] = x
    blocks = padded.view(high, 128, wide, 128)
    scale = blocks.abs().amax(dim=(1, 3), keepdim=True).clamp(min=1e-4) / 448
    scale = power(scale) if powers_of_two else scale
    codes = (blocks / scale).clamp(-448, 448).to(torch.float8_e4m3fn)
    codes = codes.view(high * 128, wide * 128)[:rows, :cols].contiguous()
    return codes, scale.view(high, wide)


def fp4_groups(x):
    rows, cols = x.shape
    groups = x.view(rows, cols // 32, 32)
    scale = power(groups.abs().amax(dim=2, keepdim=True).clamp(min=6 * 2.0 ** -126) / 6)
    q = groups / scale
    codes = torch.bucketize(q.abs(), EDGES).to(torch.uint8) | (q < 0).to(torch.uint8) << 3
    codes = codes.view(rows, cols // 2, 2)
    return codes[..., 0] | codes[..., 1] << 4, scale.view(rows, cols // 32)


def quantise(rule, x):
    return fp4_groups(x) if rule.startswith("fp4") else fp8_blocks(x, rule.endswith("ue8m0"))


def main(rule, source, target):
    out = {}
    for name, tensor in load_file(source).items():
        if tensor.dtype != torch.bfloat16 or tensor.dim() != 2 or tensor.shape[1] % 32 != 0:
            out[name] = tensor
            continue
        codes, scale = quantise(rule, tensor.float())
        out[name] = codes
        out[name.removesuffix(".weight") + ".scale"] = scale
    save_file(out, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
