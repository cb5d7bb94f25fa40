"""The rule q8_0 is what the package `gguf` makes, bit for bit: values, and whole files."""
import subprocess

import numpy
import pytest

from corrupt.gguf_files import Parsed
from interop import quantisers
from interop.quantisers import DONE, SETS, Quantiser
from interop.test_gguf import CLIENT, needs_client

WORKER = quantisers.ROOT / "tests" / "interop" / "gguf_quantise_worker.py"
BLOCKS = 65_536             # of 32: more than 2 * 10^6 values


def by_package(values, folder):
    """{name: bytes of each row} of {name: matrix}."""
    numpy.savez(folder / "in.npz", **values)
    subprocess.run([CLIENT, WORKER, folder / "in.npz", folder / "out.npz", "Q8_0"], check=True)
    return dict(numpy.load(folder / "out.npz"))


def blocks_of(scales, codes):
    """Scales and codes of blocks side by side, as a file has them."""
    return numpy.concatenate([scales.reshape(-1, 1).view(numpy.uint8),
                              codes.reshape(-1, 32)], axis=1).reshape(len(codes), -1)


def random_values():
    """Blocks of all magnitudes whose scale F16 holds, some of them 0 in it; halves; zeros; BF16."""
    draw = numpy.random.default_rng(20261129)
    x = draw.standard_normal((BLOCKS // 8, 256)).astype(numpy.float32)
    size = numpy.repeat(draw.integers(-60, 20, (len(x), 8)), 32, axis=1)
    x *= numpy.ldexp(numpy.float32(1), size).astype(numpy.float32)
    x[::2] = (x[::2].view(numpy.uint32) & 0xFFFF0000).view(numpy.float32)
    halves = draw.integers(-254, 255, (1000, 256)) / numpy.float32(2)
    halves[:, ::32] = 127                                  # so that the scale is 1
    x[:1000] = halves
    x[1000, :64] = 0
    x[1001] = -0.0
    return x


@pytest.mark.parametrize("kernels", SETS)
@needs_client
def test_a_million_values_become_the_bytes_of_the_package(tmp_path, kernels):
    if not quantisers.LIB.kernels_find(kernels.encode()):
        pytest.skip(f"this CPU lacks {kernels}")
    x = random_values()
    assert x.size > 1_000_000
    result, codes, scales, loss = Quantiser("q8_0", kernels).run(x)
    assert result.outcome == DONE
    want = by_package({"x": x}, tmp_path)["x"]
    numpy.testing.assert_array_equal(blocks_of(scales, codes), want)
    halves = codes[:1000].view(numpy.int8)                 # rounded away from 0, also even ones
    assert (halves == numpy.trunc(x[:1000] + numpy.copysign(0.5, x[:1000]))).all()
    y = (codes.view(numpy.int8).reshape(-1, 32) *
         scales.reshape(-1, 1).astype(numpy.float32)).reshape(x.shape)
    assert loss.rounded == (y != x).sum() and loss.underflowed == ((x != 0) & (y == 0)).sum()
    assert loss.underflowed > 1000 and loss.saturated == 0


@needs_client
def test_a_file_of_others_is_up_to_the_rule(ckpt, golden, tmp_path):
    """Dense weights as upstream's converter has them: our own file has the same bytes, and the
    comparison tells one code that is not as the rule makes it."""
    bare = ["--layout", "gguf", "--without-tokenizer", "--mtp"]
    ckpt("ckpt-shard", *bare, golden, tmp_path / "plain")
    ckpt("ckpt-shard", *bare, "--quantize", "q8_0,experts=keep", golden, tmp_path / "ours")
    plain = Parsed(tmp_path / "plain" / "model.gguf")
    ours = {t[0]: t for t in Parsed(tmp_path / "ours" / "model.gguf").tensors}
    dense = {n: (numpy.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4").reshape(ne[::-1])
             for n, ne, kind, data in plain.tensors if kind == "BF16" and ours[n][2] == "Q8_0"}
    assert {n.split(".", 2)[2].removesuffix(".weight") for n in dense} == {
        "attn_q_a", "attn_q_b", "attn_kv", "attn_output_a", "attn_output_b", "indexer.attn_q_b",
        "ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp", "nextn.eh_proj"}
    theirs = by_package(dense, tmp_path)
    plain.tensors = [(n, ne, "Q8_0", theirs[n].tobytes()) if n in theirs else (n, ne, kind, data)
                     for n, ne, kind, data in plain.tensors]
    for n, ne, kind, data in plain.tensors:
        assert (n, ne, kind, data) == ours[n], n
    path = plain.write(tmp_path / "theirs.gguf")
    asked = ["ckpt-verify", "compare", "--json", "--up-to-rule", "q8_0", golden]
    found = ckpt(*asked, path).json
    assert found["same"] and found["by_rule"]["wrong"] == 0
    assert found["by_rule"]["tensor_count"] == len(theirs) + 1       # two are joined in eh_proj
    i = [t[0] for t in plain.tensors].index("blk.1.attn_q_a.weight")
    n, ne, kind, data = plain.tensors[i]
    assert kind == "Q8_0" and ne[0] >= 6 * 32
    at = 34 * 5 + 2 + 17
    plain.tensors[i] = (n, ne, kind, data[:at] + bytes([data[at] ^ 1]) + data[at + 1:])
    found = ckpt(*asked, plain.write(path), check=1).json
    assert found["by_rule"]["wrong"] == 1 and len(found["differing"]) == 1
    assert (found["first_difference"]["row"], found["first_difference"]["col"]) == (0, 5 * 32 + 17)
