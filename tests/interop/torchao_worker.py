"""torchao_worker.py IN OUT: what torchao's to_mx makes of a .npy of F32 values; a .npz of bytes.

It runs in a process of its own: torchao is in .venv/clients/torchao, and its import changes torch.
"""
import glob
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path += glob.glob(str(ROOT / ".venv/clients/torchao/lib/python*/site-packages"))

import numpy as np  # noqa: E402
import torch  # noqa: E402
from torchao.prototype.mx_formats.mx_tensor import ScaleCalculationMode, to_mx  # noqa: E402

MODES = {"fp4-b32-floor": (torch.float4_e2m1fn_x2, ScaleCalculationMode.FLOOR),
         "fp4-b32-even": (torch.float4_e2m1fn_x2, ScaleCalculationMode.EVEN),
         "fp4-b32-deepseek": (torch.float4_e2m1fn_x2, ScaleCalculationMode.RCEIL),
         "mxfp8-rceil": (torch.float8_e4m3fn, ScaleCalculationMode.RCEIL),
         "mxfp8-floor": (torch.float8_e4m3fn, ScaleCalculationMode.FLOOR)}

values = torch.from_numpy(np.load(sys.argv[1]))
made = {}
for rule, (dtype, mode) in MODES.items():
    scale, codes = to_mx(values, dtype, 32, mode)
    made[rule + "/scale"] = scale.contiguous().view(torch.uint8).numpy()
    made[rule + "/codes"] = codes.contiguous().view(torch.uint8).numpy()
np.savez(sys.argv[2], **made)
