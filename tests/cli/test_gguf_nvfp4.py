"""NVFP4 with a tensor scale in GGUF: X.scale beside blocks, one for each expert of a stack."""
import json
import struct

import numpy
import pytest

from cli.test_gguf import nvfp4_values
from corrupt.files import Model, Tensor
from corrupt.gguf_files import Parsed, model

BARE = ["--layout", "gguf", "--without-tokenizer", "--mtp"]
STACK = "blk.1.ffn_gate_exps"
EXPERT = "layers.1.ffn.experts.{}.w1"


@pytest.fixture(scope="module")
def apart(ckpt, golden_a, tmp_path_factory):
    """golden-a with NVFP4 experts, as ModelOpt writes them; the MTP block has others."""
    folder = tmp_path_factory.mktemp("apart")
    ckpt("ckpt-convert", "--dtype", "bf16", golden_a, folder / "bf16")
    ckpt("ckpt-convert", "--quantize", "v4-nvfp4", "--only", "*experts*", folder / "bf16",
         folder / "bare")
    copy = Model(folder / "bare")
    for e in range(16):              # no expert has the scales of another one; w1 and w3 share
        for part, value in ((".input_scale", 1 + e), (".weight_scale_2", .001 * (e + 1))):
            for name in (EXPERT.format(e), EXPERT.format(e).replace("w1", "w3")):
                copy[name + part] = Tensor("F32", [], struct.pack("<f", value))
    return copy.write(folder / "nvfp4")


@pytest.fixture(scope="module")
def blocks(ckpt, apart, tmp_path_factory):
    path = tmp_path_factory.mktemp("blocks") / "gguf"
    ckpt("ckpt-shard", *BARE, apart, path)
    return path


def tensor_of(path, name):
    return next(t for t in Parsed(path).tensors if t[0] == name)


def changed(blocks, tmp_path, change):
    """A copy of the file with change(tensors by name)."""
    parsed = Parsed(blocks / "model.gguf")
    by_name = {t[0]: t for t in parsed.tensors}
    change(by_name)
    parsed.tensors = list(by_name.values())
    return parsed.write(tmp_path / "x.gguf")


# ---- there and back ----

def test_one_root_for_blocks_and_separate_codes(ckpt, digest, apart, blocks):
    assert digest(blocks / "model.gguf") == digest(apart)
    found = ckpt("ckpt-verify", "compare", "--json", apart, blocks).json
    assert found["same"] and found["compared"] == 383
    ckpt("ckpt-verify", "check", blocks)


def test_the_file_has_what_llama_cpp_asks_for(ckpt, apart, blocks):
    """blk.N.X_exps.scale and .input_scale with one F32 for each expert, in their order."""
    listed = {t["name"]: (t["dtype"], t["shape"]) for t in
              ckpt("ckpt-inspect", "--json", blocks).json["tensors"]}
    assert listed[STACK + ".weight"] == ("NVFP4", [16, 128, 256])
    assert listed[STACK + ".scale"] == listed[STACK + ".input_scale"] == ("F32", [16])
    release = Model(apart)
    for end, part in (("scale", "weight_scale_2"), ("input_scale", "input_scale")):
        want = b"".join(release[f"{EXPERT.format(e)}.{part}"].data for e in range(16))
        assert len(set(want[i:i + 4] for i in range(0, 64, 4))) == 16
        assert tensor_of(blocks / "model.gguf", f"{STACK}.{end}")[3] == want


def test_what_llama_cpp_makes_of_the_scales_is_told(ckpt, apart, blocks, golden_a, tmp_path):
    """Found by running it: with scales ignored its logits have nothing in common with ours."""
    for source, is_told in ((apart, True), (blocks, True), (golden_a, False)):
        notes = ckpt("ckpt-shard", "--json", "--dry-run", *BARE, source,
                     tmp_path / "out").json["notes"]
        assert any("does not multiply" in n for n in notes) == is_told


def test_blocks_have_the_bits_of_llama_cpps_converter(apart, blocks):
    """Scales as they are; of 16 codes the first 8 in low nibbles, the others in high ones."""
    release, _, _, data = Model(apart), *tensor_of(blocks / "model.gguf", STACK + ".weight")[1:]
    for e in (0, 7, 15):
        codes = numpy.frombuffer(release[EXPERT.format(e) + ".weight"].data, "u1")
        scales = numpy.frombuffer(release[EXPERT.format(e) + ".weight_scale"].data, "u1")
        nibbles = numpy.stack([codes & 15, codes >> 4], axis=-1).reshape(-1, 2, 8)
        packed = (nibbles[:, 0] | nibbles[:, 1] << 4).reshape(-1, 32)
        want = numpy.concatenate([scales.reshape(-1, 4), packed], axis=1).tobytes()
        assert data[e * len(want):(e + 1) * len(want)] == want


def test_back_like_the_original_is_the_original(ckpt, apart, blocks, tmp_path):
    ckpt("ckpt-shard", "--layout", "hf", "--like", apart, blocks / "model.gguf",
         tmp_path / "back")
    back, release = Model(tmp_path / "back"), Model(apart)
    assert {n: back[n] for n in back.names()} == {n: release[n] for n in release.names()}
    assert back.config == release.config


@pytest.mark.parametrize("what", ["folder", "file"])
def test_without_the_original_servers_read_it(ckpt, digest, apart, blocks, tmp_path, what):
    """The keys of a file tell nothing of NVFP4: config.json and hf_quant_config.json do."""
    source = blocks / ("model.gguf" if what == "file" else "")
    ckpt("ckpt-shard", "--layout", "hf", source, tmp_path / "hf")
    assert digest(tmp_path / "hf") == digest(apart)
    ckpt("ckpt-inspect", "--for", "vllm", tmp_path / "hf")
    config = Model(tmp_path / "hf").config["quantization_config"]
    assert config["moe_quant_algo"] == "NVFP4" and "layers.3.ffn.experts" in \
        config["quantized_layers"]
    names = Model(tmp_path / "hf").names()
    assert EXPERT.format(3) + ".weight_scale_2" in names
    assert EXPERT.format(3) + ".scale" not in names


def test_a_copy_has_the_same_bytes(ckpt, blocks, tmp_path):
    ckpt("ckpt-shard", *BARE, blocks / "model.gguf", tmp_path / "again")
    assert (tmp_path / "again" / "model.gguf").read_bytes() == \
        (blocks / "model.gguf").read_bytes()


def test_the_release_becomes_such_blocks_directly(ckpt, digest, golden_a, tmp_path):
    """The codes of FP4 are kept, so that nothing is rounded."""
    ckpt("ckpt-shard", *BARE, "--quantize", "v4-nvfp4", golden_a, tmp_path / "out")
    assert digest(tmp_path / "out") == digest(golden_a)
    assert tensor_of(tmp_path / "out" / "model.gguf", STACK + ".weight")[2] == "NVFP4"


# ---- values ----

def test_a_scale_multiplies_its_expert_alone(ckpt, apart, blocks, tmp_path):
    def change(by_name):
        name, ne, kind, data = by_name[STACK + ".scale"]
        scales = numpy.frombuffer(data, "<f4").copy()
        scales[5] *= 2
        by_name[name] = (name, ne, kind, scales.tobytes())

    path = changed(blocks, tmp_path, change)
    found = ckpt("ckpt-verify", "compare", "--json", apart, path, check=1).json
    assert [t["name"] for t in found["differing"]] == [EXPERT.format(5) + ".weight"]


@pytest.mark.parametrize("name, ending", [("a.scale", ""), ("a.weight.scale", ""),
                                          ("a.scale", "input"), ("a.weight.scale", "input")])
def test_values_are_products_with_the_scale_beside_them(ckpt, tmp_path, name, ending):
    """Under both names that files have, of any model. Every scale byte, as ggml reads it."""
    codes = numpy.random.default_rng(3).integers(0, 256, (64, 32)).astype("u1")
    scales = numpy.arange(256, dtype="u1").reshape(64, 4)
    data = numpy.concatenate([scales, codes], axis=1).tobytes()
    whole = numpy.float32(0.013)
    beside = [(name.replace("scale", "input_scale"), [1], "F32", struct.pack("<f", 3))]
    (tmp_path / "x.gguf").write_bytes(model([], [
        ("a.weight", [128, 32], "NVFP4", data), (name, [1], "F32", whole.tobytes()),
        *(beside if ending else [])]))
    want = nvfp4_values(data, 128) * whole
    found = ckpt("ckpt-inspect", "--json", "--logical", "--values", "0-31", "--tensors", "a.weight",
                 tmp_path / "x.gguf").json["tensors"]
    assert [t["shape"] for t in found] == [[32, 128]]
    assert numpy.array_equal(numpy.array(found[0]["values"], "f4"), want)
    (tmp_path / "y.gguf").write_bytes(model([], [("a.weight", [128, 32], "F32", want.tobytes())]))
    ckpt("ckpt-verify", "compare", tmp_path / "x.gguf", tmp_path / "y.gguf")


def test_a_stack_of_no_known_model_stays_codes(ckpt, tmp_path):
    """Its names do not divide it, and a tensor has one scale."""
    (tmp_path / "x.gguf").write_bytes(model([], [
        ("a_exps.weight", [64, 2, 3], "NVFP4", bytes(216)),
        ("a_exps.scale", [3], "F32", bytes(12))]))
    found = ckpt("ckpt-inspect", "--json", tmp_path / "x.gguf").json
    assert [(t["dtype"], t["shape"]) for t in found["tensors"]] == \
        [("NVFP4", [3, 2, 36]), ("F32", [3])]
    assert any("blocks of NVFP4" in n for n in found["notes"])
    logical = ckpt("ckpt-inspect", "--json", "--logical", tmp_path / "x.gguf").json["tensors"]
    assert {t["name"] for t in logical} == {"a_exps.weight", "a_exps.scale"}


# ---- refused ----

@pytest.mark.parametrize("count", [1, 15, 17])
def test_scales_that_do_not_fit_the_experts_are_refused(ckpt, blocks, tmp_path, count):
    def change(by_name):
        name = STACK + ".scale"
        by_name[name] = (name, [count], "F32", struct.pack("<f", 1) * count)
        del by_name[STACK + ".input_scale"]

    err = ckpt("ckpt-inspect", "--logical", changed(blocks, tmp_path, change), check=2).err
    assert f"'{STACK}.scale'" in err and "16" in err


def test_two_scales_are_refused(ckpt, blocks, tmp_path):
    def change(by_name):
        name = STACK + ".weight.scale"
        by_name[name] = (name, [16], "F32", by_name[STACK + ".scale"][3])

    err = ckpt("ckpt-inspect", "--logical", changed(blocks, tmp_path, change), check=2).err
    assert f"'{STACK}.weight.scale'" in err


@pytest.mark.parametrize("byte", [0x80, 0xB8, 0x7F, 0xFF])
def test_scales_that_blocks_would_read_differently_are_refused(ckpt, apart, tmp_path, byte):
    """llama.cpp's converter drops the sign, which changes values."""
    copy = Model(apart)
    name = EXPERT.format(2) + ".weight_scale"
    scale = copy[name]
    copy[name] = Tensor(scale.dtype, scale.shape, scale.data[:9] + bytes([byte]) + scale.data[10:])
    err = ckpt("ckpt-shard", *BARE, copy.write(tmp_path / "hf"), tmp_path / "out", check=2).err
    assert EXPERT.format(2) in err and "block [0, 9]" in err
    assert not (tmp_path / "out").exists()


def test_an_expert_without_its_input_scale_is_refused(ckpt, apart, tmp_path):
    """The others have one: an element of the stack would be invented."""
    copy = Model(apart)
    del copy[EXPERT.format(2) + ".input_scale"]
    err = ckpt("ckpt-shard", *BARE, copy.write(tmp_path / "hf"), tmp_path / "out", check=2).err
    assert EXPERT.format(2) in err and not (tmp_path / "out").exists()


def test_rows_that_are_no_whole_blocks_are_refused(ckpt, golden_a, tmp_path):
    """Of 96 columns: six groups of 16 have a scale each, but a block has 64 values."""
    config = Model(golden_a).config | {"moe_intermediate_size": 96}
    (tmp_path / "config.json").write_text(json.dumps(config))
    ckpt("ckpt-synth", "--config", tmp_path / "config.json", tmp_path / "model")
    ckpt("ckpt-convert", "--quantize", "v4-nvfp4", tmp_path / "model", tmp_path / "hf")
    err = ckpt("ckpt-shard", *BARE, tmp_path / "hf", tmp_path / "out", check=2).err
    assert ".w2.weight' is NVFP4" in err and not (tmp_path / "out").exists()


# ---- what one of two files lacks ----

def test_an_input_scale_that_one_side_lacks_is_a_difference_of_bits(ckpt, apart, blocks, tmp_path):
    """In no digest, so the values are equal."""
    def change(by_name):
        del by_name[STACK + ".input_scale"]

    copy = Model(apart)
    del copy[EXPERT.format(2) + ".input_scale"]
    for without, what in ((changed(blocks, tmp_path, change), "16 tensors have"),
                          (copy.write(tmp_path / "hf"), "1 tensor has")):
        for pair in ((apart, without), (without, apart)):
            done = ckpt("ckpt-verify", "compare", *pair)
            assert f"{what} equal values but different codes or scales" in done.out
            found = ckpt("ckpt-verify", "compare", "--bits", "--json", *pair, check=1).json
            assert EXPERT.format(2) + ".weight" in {t["name"] for t in found["differing"]}


# ---- of a model without a family ----

PLAIN = {"model_type": "other", "num_hidden_layers": 1}


def plain_file(path):
    """One weight, whose scale is 2."""
    data = numpy.random.default_rng(3).integers(0, 120, 72).astype("u1").tobytes()
    path.write_bytes(model([], [("a.weight", [64, 2], "NVFP4", data),
                                ("a.scale", [1], "F32", struct.pack("<f", 2))]))
    return path


def test_without_a_config_files_of_hugging_face_could_not_say_that_it_is_nvfp4(ckpt, digest,
                                                                               tmp_path):
    source = plain_file(tmp_path / "x.gguf")
    err = ckpt("ckpt-shard", "--layout", "hf", source, tmp_path / "out", check=2).err
    assert "'a.weight' is NVFP4" in err and "--config" in err and not (tmp_path / "out").exists()
    ckpt("ckpt-convert", "--dtype", "f32", source, tmp_path / "f32")
    assert digest(tmp_path / "f32") == digest(source)


def test_a_name_of_which_none_can_be_made_for_its_scale_is_refused(ckpt, tmp_path):
    """That of the scale would replace '.weight'."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x.gguf").write_bytes(model([], [
        ("a.kernel", [64, 2], "NVFP4", bytes(range(72))),
        ("a.kernel.scale", [1], "F32", struct.pack("<f", 2))]))
    (tmp_path / "in/config.json").write_text(json.dumps(PLAIN))
    for layout in (["--layout", "hf"], BARE[:-1]):
        err = ckpt("ckpt-shard", *layout, tmp_path / "in", tmp_path / "out", check=2).err
        assert "cannot pack 'a.kernel': the name does not end in '.weight'" in err
        assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("inside", [{}, {"quantization_config": {"quant_method": "fp8"}}])
def test_a_config_says_that_it_is_nvfp4(ckpt, digest, tmp_path, inside):
    source = plain_file(tmp_path / "x.gguf")
    (tmp_path / "c.json").write_text(json.dumps(PLAIN | {"text_config": inside}))
    ckpt("ckpt-shard", "--layout", "hf", "--config", tmp_path / "c.json", source, tmp_path / "out")
    assert digest(tmp_path / "out") == digest(source)
    said = json.loads((tmp_path / "out/hf_quant_config.json").read_text())["quantization"]
    assert said["quant_algo"] == "NVFP4" and said["group_size"] == 16


def test_a_stack_stays_codes_with_a_config_beside_it(ckpt, digest, tmp_path):
    (tmp_path / "in").mkdir()
    path = tmp_path / "in/x.gguf"
    path.write_bytes(model([], [("a_exps.weight", [64, 2, 3], "NVFP4", bytes(216)),
                                ("a_exps.scale", [3], "F32", bytes(12))]))
    alone = digest(path)
    (tmp_path / "in/config.json").write_text(json.dumps(PLAIN))
    assert digest(tmp_path / "in") == alone
