"""--quantize q8_0: dense weights in GGUF, rounded as llama.cpp does."""
import numpy as np
import pytest

from corrupt.files import Model, Tensor
from corrupt.gguf_files import Parsed

BARE = ["--layout", "gguf", "--without-tokenizer", "--mtp"]
DENSE = [*BARE, "--quantize", "q8_0,experts=keep"]
NAME = "blk.1.attn_q_b.weight"
NATIVE = "layers.1.attn.wq_b.weight"


@pytest.fixture(scope="module")
def made(ckpt, golden_a, tmp_path_factory):
    path = tmp_path_factory.mktemp("q8") / "gguf"
    ckpt("ckpt-shard", *DENSE, golden_a, path)
    return path


def tensors(path):
    return {t[0]: t for t in Parsed(path / "model.gguf").tensors}


def rounded(x):
    """Bytes of Q8_0 by the definition: d = amax / 127 as F16, codes of x * (1 / d) in F32."""
    blocks = x.astype("f4").reshape(-1, 32)
    d = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
    with np.errstate(divide="ignore"):
        inverse = np.where(d == 0, np.float32(0), np.float32(1) / d)
    q = blocks * inverse
    codes = np.trunc(q + np.copysign(np.float32(0.5), q)).astype("i1")
    return np.concatenate([d.astype("<f2").view("u1"), codes.view("u1")], axis=1).tobytes()


def test_dense_weights_are_rounded_and_experts_kept(ckpt, made, golden_a):
    kinds = {n: t[2] for n, t in tensors(made).items()}
    assert {kinds[n] for n in kinds if "_exps" in n} == {"MXFP4"}
    assert kinds[NAME] == "Q8_0" and kinds["token_embd.weight"] == "BF16"
    assert Parsed(made / "model.gguf").values["general.file_type"] == 38
    found = ckpt("ckpt-verify", "compare", "--json", golden_a, made, check=1).json
    assert len(found["differing"]) == list(kinds.values()).count("Q8_0") + 1     # eh_proj is two
    ckpt("ckpt-verify", "compare", "--up-to-rule", "q8_0", golden_a, made)
    ckpt("ckpt-verify", "compare", "--tensors", "*.experts.*", golden_a, made)
    ckpt("ckpt-verify", "check", made)


@pytest.mark.parametrize("options", [["--threads", "7"], ["--memory", "24MiB"]])
def test_bytes_do_not_depend_on_how_they_are_made(ckpt, made, golden_a, tmp_path, options):
    ckpt("ckpt-shard", *DENSE, *options, golden_a, tmp_path / "again")
    assert (tmp_path / "again" / "model.gguf").read_bytes() == (made / "model.gguf").read_bytes()


@pytest.mark.parametrize("kernels", ["scalar", "avx2"])
def test_bytes_do_not_depend_on_the_instruction_set(ckpt, made, golden_a, tmp_path, kernels):
    ckpt("ckpt-shard", *DENSE, golden_a, tmp_path / "again", env={"CKPT_KERNELS": kernels})
    assert (tmp_path / "again" / "model.gguf").read_bytes() == (made / "model.gguf").read_bytes()


def test_f32_masters_are_not_rounded_to_bf16_first(ckpt, golden_a, tmp_path):
    """llama.cpp's converter quantises from F32, exporters to FP8 from BF16."""
    ckpt("ckpt-convert", "--dtype", "f32", "--experts", "f32", golden_a, tmp_path / "f32")
    model = Model(tmp_path / "f32")
    rows, cols = model[NATIVE].shape
    x = np.random.default_rng(7).standard_normal((rows, cols)).astype("<f4")
    model[NATIVE] = Tensor("F32", [rows, cols], x.tobytes())
    model.write(tmp_path / "moved")
    ckpt("ckpt-shard", *DENSE, tmp_path / "moved", tmp_path / "out")
    stored = tensors(tmp_path / "out")
    assert stored[NAME][2:] == ("Q8_0", rounded(x))
    assert stored[NAME][3] != rounded((x.view("<u4") + 0x8000 & 0xFFFF0000).view("<f4"))
    assert Parsed(tmp_path / "out" / "model.gguf").values["general.file_type"] == 7
    ckpt("ckpt-verify", "compare", "--up-to-rule", "q8_0", tmp_path / "moved", tmp_path / "out")


def test_gguf_to_gguf_keeps_the_blocks(ckpt, made, tmp_path):
    ckpt("ckpt-shard", *BARE, made / "model.gguf", tmp_path / "again")
    assert tensors(tmp_path / "again") == tensors(made)


def test_blocks_are_cast_when_asked(ckpt, made, tmp_path):
    """Q8_0 is exact in F32, not in BF16."""
    ckpt("ckpt-shard", "--layout", "hf", "--dtype", "f32", "--experts", "keep", made,
         tmp_path / "hf")
    ckpt("ckpt-verify", "compare", made, tmp_path / "hf")
    err = ckpt("ckpt-shard", *BARE, "--dtype", "bf16", "--experts", "keep", made,
               tmp_path / "bf16", check=2).err
    assert "Q8_0" in err or "I8" in err
    assert not (tmp_path / "bf16").exists()


# ---- refusals ----

@pytest.mark.parametrize("command", [["ckpt-convert"], ["ckpt-shard", "--layout", "hf"],
                                     ["ckpt-shard", "--layout", "mp", "--mp", "1"]])
def test_other_layouts_do_not_hold_it(ckpt, golden_a, tmp_path, command):
    err = ckpt(*command, "--quantize", "q8_0,experts=keep", golden_a, tmp_path / "out",
               check=2).err
    assert "--quantize q8_0" in err and "--layout gguf" in err
    assert list(tmp_path.iterdir()) == []


def test_fp4_experts_are_not_rounded_a_second_time(ckpt, golden_a, tmp_path):
    err = ckpt("ckpt-shard", *BARE, "--quantize", "q8_0", golden_a, tmp_path / "out", check=2).err
    assert ".ffn.experts.0.w1.weight' is quantised already" in err and "leave its class out" in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value, says", [(float("nan"), "NaN"), (1e9, "more than F16 holds")])
def test_values_that_it_cannot_hold_are_refused_with_their_place(ckpt, golden_a, tmp_path, value,
                                                                 says):
    ckpt("ckpt-convert", "--dtype", "f32", golden_a, tmp_path / "f32")
    model = Model(tmp_path / "f32")
    rows, cols = model[NATIVE].shape
    x = np.zeros((rows, cols), "<f4")
    x[3, 64:96] = 1
    x[3, 70] = value
    model[NATIVE] = Tensor("F32", [rows, cols], x.tobytes())
    model.write(tmp_path / "in")
    err = ckpt("ckpt-shard", *DENSE, tmp_path / "in", tmp_path / "out", check=2).err
    assert f"'{NATIVE}', row 3, column 70" in err and says in err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
