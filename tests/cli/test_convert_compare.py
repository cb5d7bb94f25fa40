"""Any flipped bit that changes a value is found and named; any other is found with --bits."""
import math
import pathlib
import random
import re
import struct

import pytest

from corrupt.files import Model, Tensor, read_header, with_byte

FP4 = [0, .5, 1, 1.5, 2, 3, 4, 6]


@pytest.fixture(scope="module")
def models(ckpt, golden_a, tmp_path_factory):
    """{encoding: path}: between them every class of tensor in every encoding it can have."""
    folder = tmp_path_factory.mktemp("models")
    made = {"native": golden_a}
    for name, options in {"fp8": ["--dtype", "fp8", "--scale-dtype", "e8m0"],
                          "fp8-f32": ["--dtype", "fp8", "--scale-dtype", "f32"],
                          "bf16": ["--dtype", "bf16"]}.items():
        made[name] = folder / name
        ckpt("ckpt-convert", *options, golden_a, made[name])
    return made


@pytest.fixture(scope="module")
def tensors(models):
    return {encoding: Model(path) for encoding, path in models.items()}


# One name of every class; l stands for any layer, e for any expert.
CLASSES = {
    "native": ["embed.weight", "head.weight", "norm.weight", "hc_head_fn", "hc_head_base",
               "hc_head_scale", "layers.1.attn_norm.weight", "layers.1.ffn_norm.weight",
               "layers.1.hc_attn_fn", "layers.1.hc_attn_base", "layers.1.hc_attn_scale",
               "layers.1.hc_ffn_fn", "layers.1.hc_ffn_base", "layers.1.hc_ffn_scale",
               "layers.1.attn.attn_sink", "layers.1.attn.wq_a.weight", "layers.1.attn.wq_a.scale",
               "layers.1.attn.q_norm.weight", "layers.1.attn.wq_b.weight",
               "layers.1.attn.wq_b.scale", "layers.1.attn.wkv.weight", "layers.1.attn.wkv.scale",
               "layers.1.attn.kv_norm.weight", "layers.1.attn.wo_a.weight",
               "layers.1.attn.wo_a.scale", "layers.1.attn.wo_b.weight",
               "layers.1.attn.wo_b.scale", "layers.1.attn.compressor.ape",
               "layers.1.attn.compressor.wkv.weight", "layers.1.attn.compressor.wgate.weight",
               "layers.1.attn.compressor.norm.weight", "layers.1.attn.indexer.wq_b.weight",
               "layers.1.attn.indexer.wq_b.scale", "layers.1.attn.indexer.weights_proj.weight",
               "layers.1.attn.indexer.compressor.ape",
               "layers.1.attn.indexer.compressor.wkv.weight",
               "layers.1.attn.indexer.compressor.wgate.weight",
               "layers.1.attn.indexer.compressor.norm.weight", "layers.1.ffn.gate.weight",
               "layers.1.ffn.gate.tid2eid", "layers.2.ffn.gate.bias",
               "layers.1.ffn.experts.3.w1.weight", "layers.1.ffn.experts.3.w1.scale",
               "layers.1.ffn.experts.3.w2.weight", "layers.1.ffn.experts.3.w2.scale",
               "layers.1.ffn.experts.3.w3.weight", "layers.1.ffn.experts.3.w3.scale",
               "layers.1.ffn.shared_experts.w1.weight", "layers.1.ffn.shared_experts.w1.scale",
               "layers.1.ffn.shared_experts.w2.weight", "layers.1.ffn.shared_experts.w2.scale",
               "layers.1.ffn.shared_experts.w3.weight", "layers.1.ffn.shared_experts.w3.scale",
               "mtp.0.e_proj.weight", "mtp.0.e_proj.scale", "mtp.0.h_proj.weight",
               "mtp.0.h_proj.scale", "mtp.0.enorm.weight", "mtp.0.hnorm.weight",
               "mtp.0.norm.weight", "mtp.0.hc_head_fn", "mtp.0.hc_head_base",
               "mtp.0.hc_head_scale", "mtp.0.ffn.gate.bias", "mtp.0.ffn.experts.0.w2.weight"],
    "fp8": ["layers.1.ffn.experts.3.w1.weight", "layers.1.ffn.experts.3.w1.scale",
            "mtp.0.ffn.experts.3.w2.weight", "mtp.0.ffn.experts.3.w2.scale"],
    "fp8-f32": ["layers.1.attn.wq_b.scale", "layers.1.ffn.experts.3.w2.scale",
                "layers.1.ffn.shared_experts.w2.scale", "mtp.0.h_proj.scale"],
    "bf16": ["layers.1.attn.wq_a.weight", "layers.1.attn.wo_a.weight",
             "layers.1.attn.indexer.wq_b.weight", "layers.1.ffn.experts.3.w1.weight",
             "layers.1.ffn.shared_experts.w2.weight", "mtp.0.e_proj.weight"],
}
CASES = [(encoding, name) for encoding, names in CLASSES.items() for name in names]


def test_every_class_of_the_model_is_here(golden_a):
    """Names differ in numbers alone within a class; no class may be forgotten."""
    def general(name):
        return re.sub(r"\.\d+\.", ".N.", name)
    mtp_only = {"mtp.N." + w for w in ("e_proj.weight", "e_proj.scale", "h_proj.weight",
                                       "h_proj.scale", "enorm.weight", "hnorm.weight",
                                       "norm.weight", "hc_head_fn", "hc_head_base",
                                       "hc_head_scale")}
    there = {general(n) for n in Model(golden_a).names()}
    assert {n for n in there if not n.startswith("mtp.") or n in mtp_only} <= \
        {general(n) for n in CLASSES["native"]}


def decode(t):
    """Value of every element of a stored tensor that is no scale, as a list."""
    if t.dtype == "BF16":
        return [struct.unpack("<f", b"\0\0" + t.data[i:i + 2])[0]
                for i in range(0, len(t.data), 2)]
    letter, size = {"F32": ("f", 4), "I64": ("q", 8)}[t.dtype]
    return list(struct.unpack(f"<{len(t.data) // size}{letter}", t.data))


def e4m3(code):
    sign, e, m = -1 if code >> 7 else 1, code >> 3 & 15, code & 7
    return sign * (m * 2.0 ** -9 if e == 0 else (8 + m) * 2.0 ** (e - 10))


def scale_value(t, i):
    return 2.0 ** (t.data[i] - 127) if t.dtype == "F8_E8M0" else \
        struct.unpack_from("<f", t.data, 4 * i)[0]


def expected(model, name, at, changed):
    """(row, col, a, b) of the first element whose value is another, or None; row-major order."""
    t = model[name]
    if name.endswith(".scale") and "hc_" not in name:
        return expected_scale(model, name, at, changed)
    cols = t.shape[-1]
    if t.dtype in ("I8", "F8_E4M3"):
        scale = model[name.replace(".weight", ".scale")]
        row, byte = divmod(at, cols)
        for half in range(2 if t.dtype == "I8" else 1):
            if t.dtype == "I8":
                col = 2 * byte + half
                s = scale_value(scale, row * scale.shape[-1] + col // 32)
                a, b = ((-1 if c & 8 else 1) * FP4[c & 7] * s
                        for c in (t.data[at] >> 4 * half, changed >> 4 * half))
            else:
                col = byte
                s = scale_value(scale, row // 128 * scale.shape[-1] + col // 128)
                a, b = e4m3(t.data[at]) * s, e4m3(changed) * s
            if a != b:
                return row, col, a, b
        return None
    size = len(t.data) // math.prod(t.shape)
    a, b = decode(t)[at // size], decode(t.changed(at, changed))[at // size]
    return (*divmod(at // size, cols), a, b) if a != b else None


def expected_scale(model, name, at, changed):
    t, weight = model[name], model[name.replace(".scale", ".weight")]
    width = 4 if t.dtype == "F32" else 1
    block_row, block_col = divmod(at // width, t.shape[-1])
    a_scale, b_scale = scale_value(t, at // width), scale_value(t.changed(at, changed),
                                                                at // width)
    if weight.dtype == "I8":
        for col in range(32 * block_col, 32 * block_col + 32):
            byte = weight.data[block_row * weight.shape[-1] + col // 2]
            v = FP4[(byte >> 4 * (col % 2)) & 7] * (-1 if byte >> 4 * (col % 2) & 8 else 1)
            if v != 0:
                return block_row, col, v * a_scale, v * b_scale
        return None
    rows, cols = weight.shape
    for row in range(128 * block_row, min(128 * block_row + 128, rows)):
        for col in range(128 * block_col, min(128 * block_col + 128, cols)):
            v = e4m3(weight.data[row * cols + col])
            if v != 0:
                return row, col, v * a_scale, v * b_scale
    return None


@pytest.mark.parametrize("encoding,name", CASES, ids=["-".join(c) for c in CASES])
def test_a_flipped_bit_is_found_and_named(ckpt, models, tensors, tmp_path, encoding, name):
    model = tensors[encoding]
    draw = random.Random(name + encoding)
    at = draw.randrange(len(model[name].data))
    # A bit that leaves a number a number: no NaN, no infinity, no scale 0x00 or 0xFF.
    bit = 1 << draw.randrange(3)
    want = expected(model, name, at, model[name].data[at] ^ bit)
    while want is None:                        # zeros of a scale's group: another place
        at = (at + 7) % len(model[name].data)
        want = expected(model, name, at, model[name].data[at] ^ bit)
    with_byte(models[encoding], tmp_path / "flipped", name, at, lambda b: b ^ bit)
    logical = name.replace(".scale", ".weight") if "hc_" not in name else name
    result = ckpt("ckpt-verify", "compare", "--json", models["native"], tmp_path / "flipped",
                  check=1).json
    assert result["same"] is False
    assert result["missing_in_a"] == result["missing_in_b"] == []
    assert [d["name"] for d in result["differing"]] == [logical]
    first = result["first_difference"]
    row, col, a, b = want
    assert (first["kind"], first["row"], first["col"]) == ("values", row, col)
    assert struct.pack("<d", first["a"]) == struct.pack("<d", a) or \
        struct.pack("<f", first["a"]) == struct.pack("<f", a)
    assert struct.pack("<f", first["b"]) == struct.pack("<f", b)
    assert first["count"] >= 1
    text = ckpt("ckpt-verify", "compare", models["native"], tmp_path / "flipped", check=1).out
    assert logical in text and re.search(rf"\b{row}\b", text) and re.search(rf"\b{col}\b", text)


def test_every_bit_of_a_byte_is_found(ckpt, models, tensors, tmp_path):
    """All eight bits of a code: sign, exponent and mantissa."""
    name = "layers.0.attn.wo_b.weight"
    at = next(i for i, b in enumerate(tensors["native"][name].data) if b & 0x7F not in (0, 0x7F))
    for bit in range(8):
        path = tmp_path / str(bit)
        with_byte(models["native"], path, name, at, lambda b: b ^ 1 << bit)
        result = ckpt("ckpt-verify", "compare", "--json", models["bf16"], path, check=1).json
        assert [d["name"] for d in result["differing"]] == [name]


def test_the_digest_sees_what_compare_sees(ckpt, models, digest, tmp_path):
    with_byte(models["native"], tmp_path / "x", "layers.3.ffn.experts.7.w3.weight", 5,
              lambda b: b ^ 1)
    assert digest(tmp_path / "x") != digest(models["native"])


# ---- flips that change no value ----

def invisible(tensors):
    """(encoding, tensor, byte, new value) of changes that leave every value what it is."""
    model = tensors["native"]
    for name in sorted(model.names()):
        t = model[name]
        if t.dtype == "I8":
            for at, b in enumerate(t.data):
                if b & 7 == 0:
                    yield "native", name, at, b ^ 8
                    break
            break
    for name in sorted(model.names()):
        t = model[name]
        if t.dtype == "F8_E4M3":
            at = next((i for i, b in enumerate(t.data) if b & 0x7F == 0), None)
            if at is not None:
                yield "native", name, at, t.data[at] ^ 0x80
                break
    for encoding, dtype, zero in (("bf16", "BF16", b"\0\0"), ("bf16", "BF16", b"\0\x80")):
        for name in sorted(tensors[encoding].names()):
            t = tensors[encoding][name]
            at = next((i for i in range(0, len(t.data), 2) if t.data[i:i + 2] == zero), None) \
                if t.dtype == dtype else None
            if at is not None:
                yield encoding, name, at + 1, t.data[at + 1] ^ 0x80
                break


def check_invisible(ckpt, source, path, logical):
    same = ckpt("ckpt-verify", "compare", "--json", source, path).json
    assert same["same"] is True and same["re_encoded"] == [logical]
    strict = ckpt("ckpt-verify", "compare", "--bits", "--json", source, path, check=1).json
    assert strict["same"] is False
    assert [(d["name"], d["kind"]) for d in strict["differing"]] == [(logical, "bits")]
    assert logical in ckpt("ckpt-verify", "compare", "--bits", source, path, check=1).out


def test_the_sign_of_a_zero_is_reported_with_bits(ckpt, models, tensors, digest, tmp_path):
    cases = list(invisible(tensors))
    assert {model[name].dtype for model, name in ((tensors[e], n) for e, n, _, _ in cases)} >= \
        {"I8", "F8_E4M3", "BF16"}, "the golden data lacks zeros: a weak test"
    for i, (encoding, name, at, value) in enumerate(cases):
        with_byte(models[encoding], tmp_path / str(i), name, at, value)
        check_invisible(ckpt, models[encoding], tmp_path / str(i), name)
        assert digest(tmp_path / str(i)) == digest(models[encoding])


def test_the_scale_of_a_group_of_zeros_is_reported_with_bits(ckpt, golden_a, tmp_path):
    model = Model(golden_a)
    name = "layers.0.ffn.experts.2.w1.weight"
    model[name] = Tensor("I8", model[name].shape, bytes(16) + model[name].data[16:])
    model.write(tmp_path / "zeros")
    with_byte(tmp_path / "zeros", tmp_path / "other", name.replace(".weight", ".scale"), 0,
              lambda b: b - 3)
    check_invisible(ckpt, tmp_path / "zeros", tmp_path / "other", name)


def test_bits_finds_another_encoding_of_the_same_values(ckpt, models):
    result = ckpt("ckpt-verify", "compare", "--bits", "--json", models["native"], models["fp8"],
                  check=1).json
    assert {d["kind"] for d in result["differing"]} == {"encoding"}
    assert all(".experts." in d["name"] for d in result["differing"])
    ckpt("ckpt-verify", "compare", "--bits", models["native"], models["native"], check=0)


def test_a_missing_tensor_is_named(ckpt, golden_a, tmp_path):
    model = Model(golden_a)
    del model["layers.3.attn_norm.weight"]
    path = model.write(tmp_path / "less")
    result = ckpt("ckpt-verify", "compare", "--lenient", "--json", golden_a, path, check=1).json
    assert result["missing_in_b"] == ["layers.3.attn_norm.weight"]
    assert result["differing"] == result["missing_in_a"] == []


def test_headers_alone_make_no_difference(ckpt, golden_a, tmp_path):
    """Another order of files and metadata is the same checkpoint."""
    ckpt("ckpt-convert", "--max-shard-size", "2MiB", golden_a, tmp_path / "out")
    headers = [read_header(p)[0] for p in pathlib.Path(tmp_path / "out").glob("*.safetensors")]
    assert len(headers) > 5
    assert ckpt("ckpt-verify", "compare", "--bits", golden_a, tmp_path / "out").status == 0
