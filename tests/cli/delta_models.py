"""Checkpoints that drifted: what a step of training leaves."""
import json
import shutil

import numpy as np

from interop.delta_reader import tensors_of


def drift(base, target, share=0.01, seed=1, only=None):
    """A copy of `base` with a share of the elements changed, by one bit each."""
    shutil.copytree(base, target)
    draw = np.random.default_rng(seed)
    for name, (path, offset, size) in sorted(tensors_of(target).items()):
        if size == 0 or (only is not None and not only(name)):
            continue
        data = np.fromfile(path, np.uint8)
        part = data[offset:offset + size]
        # The low mantissa bit of BF16 and FP8, of a byte that is not the exponent of a scale.
        width = 2 if size % 2 == 0 and not name.endswith("scale") else 1
        count = max(1, int(size / width * share))
        at = draw.choice(size // width, count, replace=False) * width
        part[at] ^= 1
        data.tofile(path)
    return target


def edit_config(folder, **members):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **members}))
