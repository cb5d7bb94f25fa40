"""Quantised weights of forms that are not decoded, made by torch: they are what is stored.

Inspect, digest, compare and plain copies treat codes and scales as tensors of their own; a change
of encoding is refused by the name of the form.
"""
import json

import pytest

from corrupt.files import Tensor, file_bytes

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
dcp = pytest.importorskip("torch.distributed.checkpoint")
from interop import value_digest     # noqa: E402

DRAW = torch.Generator().manual_seed(11)
E4M3 = torch.float8_e4m3fn
E5M2 = torch.float8_e5m2
E8M0 = torch.float8_e8m0fnu


def codes(dtype, *shape):
    """Random codes; none of them a NaN or an infinity, whose digests are another test's."""
    raw = torch.randint(0, 0x78, shape, dtype=torch.uint8, generator=DRAW)
    return raw.view(dtype)


def scales(dtype, *shape):
    return (torch.rand(shape, generator=DRAW) + 0.5).to(dtype)


# form: (the weight, what lies beside it, words of the refusal, the config's scheme)
FORMS = {
    "per row": (codes(E4M3, 64, 256), {"weight_scale": scales(torch.float32, 64, 1)},
                "FP8 with a scale for each row", {"quant_method": "compressed-tensors"}),
    "per tensor": (codes(E4M3, 64, 256), {"weight_scale": scales(torch.float32),
                                          "input_scale": scales(torch.float32)},
                   "FP8 with one scale for the tensor", {"quant_method": "fp8"}),
    "per tensor under our name": (codes(E4M3, 256, 256),
                                  {"weight_scale_inv": scales(torch.float32)},
                                  "FP8 with one scale for the tensor", {"quant_method": "fp8"}),
    "blocks of 60": (codes(E4M3, 120, 240), {"weight_scale_inv": scales(torch.float32, 2, 4)},
                     "FP8 with scales of another form",
                     {"quant_method": "fp8", "weight_block_size": [60, 60]}),
    "blocks of 100 whose grid would fit 128": (
        codes(E4M3, 200, 200), {"weight_scale_inv": scales(torch.float32, 2, 2)},
        "FP8 with scales of another form",
        {"quant_method": "fp8", "weight_block_size": [100, 100]}),
    "E5M2": (codes(E5M2, 128, 128), {"weight_scale_inv": scales(torch.float32, 1, 1)},
             "FP8 with one scale", None),
    "MXFP8": (codes(E4M3, 64, 256), {"weight_scale": codes(torch.uint8, 64, 8)}, "MXFP8", None),
    "MXFP8 under our name": (codes(E4M3, 64, 256),
                             {"weight_scale_inv": codes(torch.uint8, 64, 8)}, "MXFP8", None),
    "NVFP4": (codes(torch.uint8, 64, 64), {"weight_scale": codes(E4M3, 64, 8),
                                           "weight_scale_2": scales(torch.float32)},
              "NVFP4", {"quant_method": "modelopt"}),
    "NVFP4 under our name": (codes(torch.uint8, 64, 64), {"scale": codes(E4M3, 64, 8)}, "NVFP4",
                             None),
    "NVFP4 of another scheme whose grid would fit ours": (
        codes(torch.uint8, 64, 64), {"scale": codes(E8M0, 64, 4)}, "MXFP4",
        {"quant_method": "modelopt"}),
    "MXFP4": (codes(torch.uint8, 64, 64), {"weight_scale": codes(torch.uint8, 64, 4)},
              "MXFP4 (groups of 32 with U8 scales)", None),
    "bytes in groups of 64": (codes(torch.uint8, 64, 64),
                              {"weight_scale": codes(torch.uint8, 64, 2)},
                              "bytes with scales of another form", None),
    "INT8": (torch.randint(-127, 128, (64, 64), dtype=torch.int8, generator=DRAW),
             {"scale": scales(torch.float32, 64)}, "INT8 with F32 scales", None),
    "INT4 in words": (torch.randint(-2**31, 2**31, (64, 8), dtype=torch.int32, generator=DRAW),
                      {"scale": scales(torch.bfloat16, 64, 2)}, "integers packed in words",
                      {"quant_method": "compressed-tensors"}),
    "no scale": (codes(E4M3, 64, 64), {}, "F8_E4M3 without a scale", None),
}
ids = [name.replace(" ", "-") for name in FORMS]


@pytest.fixture(params=FORMS, ids=ids)
def form(request, tmp_path):
    """(path of a checkpoint, its tensors, words of the refusal)."""
    weight, beside, says, scheme = FORMS[request.param]
    tensors = {"model.norm.weight": torch.ones(8).bfloat16(), "model.l.proj.weight": weight,
               **{f"model.l.proj.{name}": t for name, t in beside.items()}}
    path = tmp_path / "in"
    path.mkdir()
    safetensors_torch.save_file(tensors, path / "model.safetensors")
    config = {"model_type": "llama"}
    if scheme is not None:
        config["quantization_config"] = scheme
    (path / "config.json").write_text(json.dumps(config))
    return path, tensors, says


def test_every_stored_tensor_is_a_logical_one(ckpt, form):
    path, tensors, says = form
    seen = ckpt("ckpt-inspect", "--json", "--logical", path).json
    assert {t["name"]: t["shape"] for t in seen["tensors"]} == \
        {name: list(t.shape) for name, t in tensors.items()}
    unknown = {t["name"]: t["dtype"] for t in seen["tensors"] if t["encoding"] == "unknown"}
    assert list(unknown) == ["model.l.proj.weight"]
    assert all(" " not in t["encoding"] for t in seen["tensors"])
    digested = ckpt("ckpt-verify", "digest", "--json", path).json["tensors"]
    assert {t["name"]: t["encoding"] for t in digested} == \
        {t["name"]: t["encoding"] for t in seen["tensors"]}
    assert sum(says in note and "'model.l.proj.weight'" in note for note in seen["notes"]) == 1


def test_nobody_shows_values_of_codes(ckpt, form):
    path, _, _ = form
    run = ckpt("ckpt-inspect", "--values", "0", "--tensors", "*.proj.weight", path, check=2)
    assert "'model.l.proj.weight'" in run.err and "encoding that is not known" in run.err
    seen = ckpt("ckpt-inspect", "--stat", "--json", path).json["tensors"]
    assert [t["name"] for t in seen if t["statistics"] is None] == ["model.l.proj.weight"]


def test_the_digest_is_of_the_codes(ckpt, form):
    path, tensors, _ = form
    got = ckpt("ckpt-verify", "digest", "--json", path).json
    root, lines = value_digest.digest(tensors)
    assert [(t["name"], t["class"], t["shape"], t["value"]) for t in got["tensors"]] == lines
    assert got["root"] == root


def test_a_plain_copy_is_the_same_bytes(ckpt, form, tmp_path):
    path, _, _ = form
    ckpt("ckpt-convert", "--verify", path, tmp_path / "out")
    assert (tmp_path / "out/model.safetensors").read_bytes() == \
        (path / "model.safetensors").read_bytes()


def test_what_dcp_saved_is_the_same_and_comes_back_as_it_was(ckpt, form, tmp_path):
    path, tensors, _ = form
    dcp.save(dict(tensors), checkpoint_id=tmp_path / "dcp", no_dist=True)
    (tmp_path / "dcp/config.json").write_bytes((path / "config.json").read_bytes())
    assert ckpt("ckpt-verify", "compare", "--json", path, tmp_path / "dcp").json["same"]
    ckpt("ckpt-shard", "--layout", "hf", tmp_path / "dcp", tmp_path / "back")
    back = safetensors_torch.load_file(tmp_path / "back/model.safetensors")
    assert back.keys() == tensors.keys()
    for name, t in tensors.items():
        assert back[name].dtype == t.dtype and back[name].shape == t.shape
        assert torch.equal(back[name].reshape(-1).view(torch.uint8),
                           t.reshape(-1).view(torch.uint8)), name


def test_compare_finds_a_code_and_a_scale_that_differ(ckpt, form, tmp_path):
    path, tensors, _ = form
    (tmp_path / "other").mkdir()
    (tmp_path / "other/config.json").write_bytes((path / "config.json").read_bytes())
    for name in [n for n in tensors if n.startswith("model.l.")]:
        changed = {n: t.clone() for n, t in tensors.items()}
        changed[name].reshape(-1).view(torch.uint8)[0] ^= 1
        safetensors_torch.save_file(changed, tmp_path / "other/model.safetensors")
        got = ckpt("ckpt-verify", "compare", "--json", path, tmp_path / "other", check=1).json
        assert [d if isinstance(d, str) else d["name"] for d in got["differing"]] == [name]


@pytest.mark.parametrize("options", [["--dtype", "bf16"], ["--dtype", "fp8"],
                                     ["--scale-dtype", "e8m0"]], ids=lambda o: o[-1])
def test_a_change_of_encoding_is_refused_by_the_name_of_the_form(ckpt, form, tmp_path, options):
    path, _, says = form
    scheme = json.loads((path / "config.json").read_text()).get("quantization_config", {})
    err = ckpt("ckpt-convert", *options, path, tmp_path / "out", check=2).err
    if scheme.get("quant_method", "fp8") == "fp8":
        assert "'model.l.proj.weight'" in err and says in err
    else:                           # the config names it already
        assert f"'{scheme['quant_method']}'" in err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_like_does_not_decode_bare_codes(ckpt, tmp_path):
    safetensors_torch.save_file({"a.weight": codes(E4M3, 4, 4)}, tmp_path / "a.safetensors")
    safetensors_torch.save_file({"a.weight": torch.ones(4, 4).bfloat16()},
                                tmp_path / "b.safetensors")
    err = ckpt("ckpt-convert", "--like", tmp_path / "b.safetensors", tmp_path / "a.safetensors",
               tmp_path / "out", check=2).err
    assert "'a.weight'" in err and "F8_E4M3 without a scale" in err


def test_scales_that_the_family_must_have_are_still_missed(ckpt, golden_a, tmp_path):
    from corrupt.files import Model
    model = Model(golden_a)
    del model["layers.0.attn.wq_a.scale"]
    err = ckpt("ckpt-verify", "digest", model.write(tmp_path / "in"), check=2).err
    assert "'layers.0.attn.wq_a.weight'" in err and "no scale" in err


def test_codes_let_pass_by_lenient_are_not_converted(ckpt, golden_a, tmp_path):
    from corrupt.files import Model
    model = Model(golden_a)
    del model["layers.0.attn.wq_a.scale"]
    path = model.write(tmp_path / "in")
    err = ckpt("ckpt-convert", "--lenient", "--dtype", "bf16", path, tmp_path / "out", check=2).err
    assert "'layers.0.attn.wq_a.weight'" in err and "without a scale" in err


def test_gpt_oss_blocks_are_named(ckpt, tmp_path):
    tensors = {"m.experts.gate_up_proj_blocks": Tensor("U8", [2, 4, 3, 16], bytes(384)),
               "m.experts.gate_up_proj_scales": Tensor("U8", [2, 4, 3], bytes(24))}
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_bytes(tensors))
    err = ckpt("ckpt-convert", "--dtype", "bf16", path, tmp_path / "out", check=2).err
    assert "MXFP4 in blocks" in err and "'m.experts.gate_up_proj_scales' U8" in err


def test_a_family_quantised_by_another_method_is_taken_as_it_is_stored(ckpt, golden_a, tmp_path):
    """DeepSeek-V4 with NVFP4 experts, as ModelOpt writes it."""
    from corrupt.files import Model
    model = Model(golden_a)
    for name in [n for n in model.names() if ".experts." in n and n.endswith(".weight")]:
        rows, half = model[name].shape
        del model[name.replace(".weight", ".scale")]
        add = {name: Tensor("U8", [rows, half], model[name].data),
               name + "_scale": Tensor("F8_E4M3", [rows, half // 8], b"\x38" * (rows * half // 8)),
               name + "_scale_2": Tensor("F32", [], b"\0\0\x80\x3f")}
        for key, tensor in add.items():
            model[key] = tensor
    model.config["quantization_config"].update(moe_quant_algo="NVFP4", quant_algo="MIXED")
    path, out = model.write(tmp_path / "in"), tmp_path / "out"
    notes = ckpt("ckpt-inspect", "--json", path).json["notes"]
    assert any("'NVFP4'" in n and "family deepseek_v4" in n for n in notes)
    ckpt("ckpt-convert", path, out)
    assert (out / "config.json").read_bytes() == (path / "config.json").read_bytes()
    ckpt("ckpt-verify", "check", out)
    ckpt("ckpt-verify", "compare", path, out)
    for command in (["ckpt-convert", "--dtype", "bf16"], ["ckpt-shard", "--layout", "torch_dist"],
                    ["ckpt-shard", "--layout", "mp", "--mp", "2"]):
        err = ckpt(*command, path, tmp_path / "no", check=2).err
        assert "NVFP4" in err or "is not supported" in err
        assert not list(tmp_path.glob("no*"))


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
def test_codes_that_would_be_nan_are_copied(ckpt, tmp_path, dtype):
    """Of a weight whose scale is not ours nobody computes values."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(file_bytes({"a.weight": Tensor(dtype, [2, 2], b"\x7f\x38\xff\x80"),
                                 "a.weight_scale": Tensor("F32", [], b"\0\0\x80\x3f")}))
    ckpt("ckpt-convert", "--verify", path, tmp_path / "out")
    ckpt("ckpt-verify", "compare", path, tmp_path / "out")


@pytest.mark.parametrize("layout", [["mp", "--mp", "2"], ["torch_dist"]])
def test_layouts_of_one_family_say_so(ckpt, form, tmp_path, layout):
    err = ckpt("ckpt-shard", "--layout", *layout, form[0], tmp_path / "out", check=2).err
    assert f"layout {layout[0]} is not supported for it" in err
