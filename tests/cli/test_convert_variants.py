"""Checkpoints that are not quite the official form: Base, FP8 repacks, other storage and files."""
import json
import struct

import pytest

from corrupt.files import INDEX, Model, Tensor, all_files, bf16, file_bytes, tensor_files

ROOTS = {
    "golden-a": "cc556e3e991d7856f8e68505f775672a6c3f969b7ed0a33a33fa047d0928ce76",
    "golden-b": "a820911368b7954165faf1041cc7ca311c3be1e52c6a19e26a4865e165a641f6",
}
EMBED_COPY, HEAD_COPY = "mtp.0.emb.tok_emb.weight", "mtp.0.head.weight"


@pytest.fixture(scope="module")
def f32(ckpt, golden, tmp_path_factory):
    """The golden checkpoint in FP8 with F32 scales, as the Base releases are."""
    out = tmp_path_factory.mktemp("base") / golden.name
    ckpt("ckpt-convert", "--dtype", "fp8", "--scale-dtype", "f32", golden, out)
    return out


@pytest.fixture(scope="module")
def bf16_wo_a(ckpt, golden, tmp_path_factory):
    """{name: tensor} of wo_a in BF16."""
    out = tmp_path_factory.mktemp("wo_a") / golden.name
    ckpt("ckpt-convert", "--dtype", "bf16", golden, out)
    model = Model(out)
    return {n: model[n] for n in model.names() if n.endswith(".wo_a.weight")}


@pytest.fixture
def base(f32):
    model = Model(f32)
    model.extras.clear()
    model[EMBED_COPY] = model["embed.weight"]
    model[HEAD_COPY] = model["head.weight"]
    return model


# ---- Base ----

def test_base_has_the_same_digest_and_copies_are_not_in_it(base, digest, golden, tmp_path):
    assert base["layers.0.ffn.experts.0.w1.scale"].dtype == "F32"
    path = base.write(tmp_path / "base")
    assert digest(path) == ROOTS[golden.name]


@pytest.mark.parametrize("options", [["--dtype", "bf16"], ["--scale-dtype", "e8m0"], []])
def test_base_copies_stay_copies(ckpt, base, digest, golden, tmp_path, options):
    path = base.write(tmp_path / "base")
    ckpt("ckpt-convert", *options, path, tmp_path / "out")
    out = Model(tmp_path / "out")
    assert out[EMBED_COPY] == base["embed.weight"]
    assert out[HEAD_COPY] == base["head.weight"]
    assert digest(tmp_path / "out") == ROOTS[golden.name]


def test_base_to_fp4_and_back(ckpt, base, digest, golden, tmp_path):
    path = base.write(tmp_path / "base")
    ckpt("ckpt-convert", "--experts", "fp4", path, tmp_path / "fp4")
    assert digest(tmp_path / "fp4") == ROOTS[golden.name]
    ckpt("ckpt-convert", "--like", path, tmp_path / "fp4", tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(path)


@pytest.mark.parametrize("name,original", [(EMBED_COPY, "embed.weight"),
                                           (HEAD_COPY, "head.weight")])
def test_a_copy_that_differs_is_an_error(ckpt, base, tmp_path, name, original):
    base[name] = base[name].changed(1001, lambda b: b ^ 0x10)
    path = base.write(tmp_path / "base")
    for out in (["ckpt-convert", "--dtype", "bf16", path, tmp_path / "out"],
                ["ckpt-verify", "digest", path]):
        err = ckpt(*out, check=2).err
        assert name in err and original in err
    assert not (tmp_path / "out").exists()


def test_keep_copies_makes_them_tensors(ckpt, base, digest, golden, tmp_path):
    base[EMBED_COPY] = base[EMBED_COPY].changed(1001, lambda b: b ^ 0x10)
    path = base.write(tmp_path / "base")
    ckpt("ckpt-convert", "--keep-copies", "--dtype", "bf16", path, tmp_path / "out")
    out = Model(tmp_path / "out")
    assert out[EMBED_COPY] == base[EMBED_COPY] != out["embed.weight"]
    kept = ckpt("ckpt-verify", "digest", "--json", "--keep-copies", tmp_path / "out").json
    before = ckpt("ckpt-verify", "digest", "--json", "--keep-copies", path).json
    assert kept["root"] == before["root"] != ROOTS[golden.name]
    assert {EMBED_COPY, HEAD_COPY} < {t["name"] for t in kept["tensors"]}


def test_a_copy_of_another_shape_is_an_error(ckpt, base, tmp_path):
    t = base[HEAD_COPY]
    rows, cols = t.shape
    base[HEAD_COPY] = Tensor(t.dtype, [rows // 2, cols], t.data[:len(t.data) // 2])
    err = ckpt("ckpt-verify", "digest", base.write(tmp_path / "base"), check=2).err
    assert HEAD_COPY in err and "head.weight" in err


# ---- FP8 repacks ----

@pytest.fixture
def repack(f32, bf16_wo_a):
    """As sgl-project's FP8 releases: wo_a in BF16, its scale only in the index."""
    model = Model(f32)
    model.extras.clear()
    del model.config["expert_dtype"]
    for name, tensor in bf16_wo_a.items():
        scale = name.replace(".weight", ".scale")
        model.stale[scale] = model.file_of(scale)
        del model[scale]
        model[name] = tensor
    return model


def test_a_stale_index_entry_is_an_error(ckpt, repack, tmp_path):
    path = repack.write(tmp_path / "repack")
    err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out", check=2).err
    assert "stale index entry" in err and ".wo_a.scale" in err and INDEX in err
    assert not (tmp_path / "out").exists()


def test_lenient_lets_a_stale_index_entry_pass(ckpt, repack, digest, golden, tmp_path):
    path = repack.write(tmp_path / "repack")
    report = tmp_path / "report.json"
    ckpt("ckpt-convert", "--lenient", "--dtype", "bf16", "--report", report, path,
         tmp_path / "out")
    assert digest(tmp_path / "out") == ROOTS[golden.name]
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    assert not any(n.endswith(".scale") for n in index["weight_map"])


def test_a_repack_without_stale_entries_needs_no_flag(ckpt, repack, digest, golden, tmp_path):
    repack.stale.clear()
    path = repack.write(tmp_path / "repack")
    assert digest(path) == ROOTS[golden.name]
    ckpt("ckpt-convert", path, tmp_path / "same")
    assert tensor_files(tmp_path / "same") == tensor_files(path)
    ckpt("ckpt-convert", "--dtype", "fp8", path, tmp_path / "fp8")
    assert Model(tmp_path / "fp8")["layers.0.attn.wo_a.weight"].dtype == "F8_E4M3"
    assert digest(tmp_path / "fp8") == ROOTS[golden.name]


def test_scales_may_be_called_weight_scale_inv(ckpt, f32, digest, golden, tmp_path):
    model = Model(f32)
    model.extras.clear()
    for name in model.names():
        if name.endswith(".scale"):
            model.rename(name, name.replace(".scale", ".weight_scale_inv"))
    path = model.write(tmp_path / "inv")
    assert digest(path) == ROOTS[golden.name]
    ckpt("ckpt-convert", path, tmp_path / "kept")
    assert tensor_files(tmp_path / "kept") == tensor_files(path)
    ckpt("ckpt-convert", "--names", "native", path, tmp_path / "native")
    assert tensor_files(tmp_path / "native") == tensor_files(f32)


def test_scales_of_mixed_dtypes_are_told_apart_by_their_headers(ckpt, f32, digest, golden,
                                                                tmp_path):
    """FP8 experts with E8M0 scales beside F32 ones: a byte must not be taken for a float."""
    ckpt("ckpt-convert", "--dtype", "fp8", golden, tmp_path / "e8m0")
    model, e8m0 = Model(f32), Model(tmp_path / "e8m0")
    model.extras.clear()
    for name in model.names():
        if ".experts." in name and name.endswith(".scale"):
            model[name] = e8m0[name]
    path = model.write(tmp_path / "mixed")
    assert digest(path) == ROOTS[golden.name]
    ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out")
    assert digest(tmp_path / "out") == ROOTS[golden.name]


def test_bf16_scales_are_scales(f32, digest, golden, tmp_path):
    model = Model(f32)
    model.extras.clear()
    for name in model.names():
        if name.endswith(".scale"):
            t = model[name]
            halves = [t.data[i + 2:i + 4] for i in range(0, len(t.data), 4)]
            model[name] = Tensor("BF16", t.shape, b"".join(halves))
    assert digest(model.write(tmp_path / "bf16")) == ROOTS[golden.name]


def test_u8_scales_are_exponents_only_when_someone_says_so(ckpt, digest, golden, tmp_path):
    model = Model(golden)
    for name in model.names():
        if name.endswith(".scale"):
            model[name].dtype = "U8"
    path = model.write(tmp_path / "ue8m0")
    assert digest(path) == ROOTS[golden.name]          # scale_fmt in config.json says so
    ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out")
    assert digest(tmp_path / "out") == ROOTS[golden.name]
    del model.config["quantization_config"]["scale_fmt"]
    path = model.write(tmp_path / "silent")
    err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "no", check=2).err
    assert "U8" in err and "--u8-scales" in err and ".scale" in err
    assert not (tmp_path / "no").exists()
    ckpt("ckpt-convert", "--u8-scales", "--dtype", "bf16", path, tmp_path / "told")
    assert digest(tmp_path / "told") == ROOTS[golden.name]


# ---- storage of FP4 ----

@pytest.mark.parametrize("dtype", ["U8", "F4"])
def test_fp4_may_be_stored_as(ckpt, digest, golden, tmp_path, dtype):
    model = Model(golden)
    for name in model.names():
        t = model[name]
        if t.dtype == "I8":
            shape = t.shape if dtype == "U8" else [t.shape[0], 2 * t.shape[1]]
            model[name] = Tensor(dtype, shape, t.data)
    path = model.write(tmp_path / "stored")
    assert digest(path) == ROOTS[golden.name]
    ckpt("ckpt-convert", path, tmp_path / "kept")
    assert tensor_files(tmp_path / "kept") == tensor_files(path)
    ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "bf16")
    ckpt("ckpt-convert", "--like", path, tmp_path / "bf16", tmp_path / "back")
    assert all_files(tmp_path / "back") == all_files(path)
    ckpt("ckpt-convert", "--like", golden, path, tmp_path / "i8")
    assert tensor_files(tmp_path / "i8") == tensor_files(golden)


# ---- files ----

def test_files_of_bounded_size(ckpt, digest, golden, tmp_path):
    limit = 1 << 20
    ckpt("ckpt-convert", "--max-shard-size", "1MiB", golden, tmp_path / "out")
    out = Model(tmp_path / "out")
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    names = sorted(out.files)
    assert names == [f"model-{i + 1:05}-of-{len(names):05}.safetensors"
                     for i in range(len(names))]
    assert index == out.index()
    assert len(names) >= sum(len(t.data) for f in out.files.values() for t in f.values()) / limit
    for tensors in out.files.values():
        assert len(tensors) <= 2 or sum(len(t.data) for t in tensors.values()) <= limit
    for name in out.names():         # a weight and its scale are in one file
        if name.endswith(".scale"):
            assert out.file_of(name) == out.file_of(name.replace(".scale", ".weight"))
    assert digest(tmp_path / "out") == ROOTS[golden.name]
    ckpt("ckpt-convert", "--like", golden, tmp_path / "out", tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(golden)


def test_one_large_file_has_the_plain_name(ckpt, digest, golden, tmp_path):
    ckpt("ckpt-convert", "--max-shard-size", "1GiB", golden, tmp_path / "out")
    assert list(tensor_files(tmp_path / "out")) == ["model.safetensors"]
    assert digest(tmp_path / "out") == ROOTS[golden.name]


def test_files_are_what_the_library_would_write(ckpt, golden, tmp_path):
    ckpt("ckpt-convert", "--max-shard-size", "3MB", "--dtype", "fp8", golden, tmp_path / "out")
    out = Model(tmp_path / "out")
    for name, data in tensor_files(tmp_path / "out").items():
        assert data == file_bytes(out.files[name], out.metadata[name])


def without_mtp(path):
    model = Model(path)
    for name in model.names():
        if name.startswith("mtp."):
            del model[name]
    return model


def test_a_source_without_any_mtp_is_told(ckpt, golden, tmp_path):
    path = without_mtp(golden).write(tmp_path / "main")
    said = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out").out
    assert "no MTP block" in said
    main = ckpt("ckpt-verify", "digest", "--json", golden).json["main"]
    assert ckpt("ckpt-verify", "digest", "--json", tmp_path / "out").json["main"] == main


def test_a_source_with_half_an_mtp_is_incomplete(ckpt, golden, tmp_path):
    model = Model(golden)
    del model["mtp.0.attn.q_norm.weight"]
    path = model.write(tmp_path / "main")
    err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out", check=2).err
    assert "'mtp.0.attn.q_norm.weight'" in err and "lacks" in err


@pytest.mark.parametrize("options", [[], ["--dtype", "bf16"]])
def test_fill_from_supplies_what_is_missing(ckpt, digest, golden, tmp_path, options):
    path = without_mtp(golden).write(tmp_path / "main")
    report = tmp_path / "report.json"
    ckpt("ckpt-convert", *options, "--fill-from", golden, "--report", report, path,
         tmp_path / "out")
    assert digest(tmp_path / "out") == ROOTS[golden.name]
    for t in json.loads(report.read_text())["target_tensors"]:
        assert t.get("filled_from") == (str(golden) if t["name"].startswith("mtp.") else None)


def test_fill_from_and_like_give_the_original(ckpt, golden, tmp_path):
    path = without_mtp(golden).write(tmp_path / "main")
    ckpt("ckpt-convert", "--fill-from", golden, "--like", golden, path, tmp_path / "out")
    assert all_files(tmp_path / "out") == all_files(golden)


def test_fill_from_need_not_have_what_the_layout_leaves_out(ckpt, digest, golden, tmp_path):
    """torch_dist has no MTP block, which config.json requires."""
    model = Model(golden)
    del model["layers.0.attn_norm.weight"]
    path = model.write(tmp_path / "part")
    done = ckpt("ckpt-shard", "--layout", "torch_dist", "--fill-from", golden, path,
                tmp_path / "out")
    assert "1 tensor comes from" in done.out
    main = ckpt("ckpt-verify", "digest", "--json", golden).json["main"]
    assert digest(tmp_path / "out") == main
    del model["layers.1.attn_norm.weight"]
    both = model.write(tmp_path / "less")
    err = ckpt("ckpt-shard", "--layout", "torch_dist", "--fill-from", path, both,
               tmp_path / "no", check=2).err
    assert "has tensor 'layers.0.attn_norm.weight', which config.json requires" in err


def test_fill_from_never_replaces(ckpt, golden, tmp_path):
    model = Model(golden)
    name = "layers.0.attn_norm.weight"
    other = bf16(model[name].shape, 0x4000)
    assert other != model[name]
    model[name] = other
    path = model.write(tmp_path / "other")
    ckpt("ckpt-convert", "--fill-from", golden, path, tmp_path / "out")
    assert Model(tmp_path / "out")[name] == other


def test_fill_from_does_not_excuse_what_is_still_missing(ckpt, golden, tmp_path):
    model = without_mtp(golden)
    path = model.write(tmp_path / "main")
    model2 = Model(golden)
    del model2["mtp.0.norm.weight"]
    other = model2.write(tmp_path / "other")
    err = ckpt("ckpt-convert", "--fill-from", other, path, tmp_path / "out", check=2).err
    assert "mtp.0.norm.weight" in err
    assert not (tmp_path / "out").exists()


def test_tensors_of_another_model_are_no_filling(ckpt, golden_a, golden_b, tmp_path):
    path = without_mtp(golden_a).write(tmp_path / "main")
    err = ckpt("ckpt-convert", "--fill-from", golden_b, path, tmp_path / "out", check=2).err
    assert str(golden_b) in err and "layers.0.attn.compressor.ape" in err
    assert not (tmp_path / "out").exists()


# ---- a generic model ----

def test_f32_scales_that_are_no_powers_of_two_stay_in_f32(ckpt, tmp_path):
    """FP8 codes are copied whatever the scales are."""
    folder = tmp_path / "in"
    folder.mkdir()
    data = bytes(range(0x10, 0x30)) * 8 * 160
    tensors = {"a.weight": Tensor("F8_E4M3", [160, 256], data),
               "a.weight_scale_inv": Tensor("F32", [2, 2], struct.pack("<4f", .1, .2, .3, .4))}
    (folder / "model.safetensors").write_bytes(file_bytes(tensors))
    ckpt("ckpt-convert", folder, tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(folder)
