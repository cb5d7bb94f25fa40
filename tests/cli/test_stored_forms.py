"""Weights that are stored in blocks alone: what can be made of them, and what cannot."""
import numpy as np
import pytest

from corrupt.files import Tensor, read_file
from corrupt.gguf_files import key, model

ROWS, COLS = 130, 96
NAME = "layers.0.proj.weight"


@pytest.fixture
def blocks(tmp_path):
    """A GGUF of no known model with one Q8_0 tensor, and its values."""
    draw = np.random.default_rng(5)
    codes = draw.integers(-128, 128, (ROWS, COLS), dtype=np.int8)
    scales = draw.uniform(1e-3, 2, (ROWS, COLS // 32)).astype("<f2")
    data = b"".join(scales[r, b].tobytes() + codes[r, 32 * b:32 * b + 32].tobytes()
                    for r in range(ROWS) for b in range(COLS // 32))
    path = tmp_path / "m.gguf"
    path.write_bytes(model([key("general.architecture", "string", "unheard-of")],
                           [(NAME, [COLS, ROWS], "Q8_0", data)]))
    return path, codes.astype("f4") * np.repeat(scales.astype("f4"), 32, axis=1)


def test_no_layout_without_such_blocks_takes_them(ckpt, blocks, tmp_path):
    path, _ = blocks
    err = ckpt("ckpt-convert", path, tmp_path / "out", check=2).err
    assert f"'{NAME}' is I8 1x32 F16" in err and "layout hf does not have" in err
    assert "--dtype f32" in err and not (tmp_path / "out").exists()
    err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out", check=2).err
    assert "not exact in BF16" in err and not (tmp_path / "out").exists()


def test_a_cast_to_f32_has_all_values(ckpt, blocks, tmp_path):
    path, values = blocks
    ckpt("ckpt-convert", "--verify", "--dtype", "f32", path, tmp_path / "out")
    file, = (tmp_path / "out").glob("*.safetensors")
    tensors, _ = read_file(file)
    assert list(tensors) == [NAME]
    assert tensors[NAME] == Tensor("F32", [ROWS, COLS], values.astype("<f4").tobytes())
    said = ckpt("ckpt-verify", "compare", "--json", path, tmp_path / "out").json
    assert said["same"] and said["compared"] == 1
