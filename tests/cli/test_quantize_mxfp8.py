"""MXFP8 of DeepSeek-V4: what --quantize mxfp8 writes is read as what it is, and by SGLang alone."""
import pytest

from cli.test_quantize import values
from corrupt.files import Model, tensor_files
from interop.quantisers import DONE, Quantiser

WORDS = ["--quantize", "mxfp8", "--wo-a", "bf16"]
PROJECTION = "model.layers.1.self_attn.wq_b.weight"


@pytest.fixture(scope="module")
def plain(ckpt, golden_a, tmp_path_factory):
    out = tmp_path_factory.mktemp("bf16") / "bf16"
    ckpt("ckpt-convert", "--dtype", "bf16", "--names", "sglang", "--no-manifest", golden_a, out)
    return out


@pytest.fixture(scope="module")
def quantised(ckpt, plain, tmp_path_factory):
    out = tmp_path_factory.mktemp("mxfp8") / "out"
    ckpt("ckpt-convert", *WORDS, "--names", "sglang", plain, out)
    return out


def test_codes_and_scales_are_the_rule_s_in_the_form_of_sglang(ckpt, plain, quantised):
    source, out = Model(plain), Model(quantised)
    done = [n for n in out.names() if out[n].dtype == "F8_E4M3"]
    assert PROJECTION in done and sum(".mlp.experts." in n for n in done) == 5 * 16 * 3
    for name in (PROJECTION, done[0], done[-1]):
        result, codes, scales, _ = Quantiser("mxfp8-rceil", "scalar").run(values(source[name]))
        scale = out[name + "_scale_inv"]
        assert result.outcome == DONE
        assert (out[name].data, scale.data) == (codes.tobytes(), scales.tobytes())
        assert (scale.dtype, scale.shape) == ("U8", [out[name].shape[0], out[name].shape[1] // 32])
    quantization = out.config["quantization_config"]
    assert (quantization["quant_method"], quantization["weight_block_size"]) == ("mxfp8", [1, 32])
    assert out.config["expert_dtype"] == "fp8"
    assert "layers.0.self_attn.wo_a" in quantization["modules_to_not_convert"]
    ckpt("ckpt-inspect", "--for", "sglang", quantised)
    ckpt("ckpt-inspect", "--for", "vllm", quantised, check=1)


def test_it_belongs_to_the_family_and_returns(ckpt, golden_a, plain, quantised, tmp_path):
    told = ckpt("ckpt-inspect", "--json", quantised).json
    assert told["family"] == "deepseek_v4" and told["notes"] == []
    assert ckpt("ckpt-verify", "compare", "--json", golden_a, quantised).json["same"] is True
    ckpt("ckpt-convert", quantised, tmp_path / "copy")
    assert tensor_files(tmp_path / "copy") == tensor_files(quantised)
    ckpt("ckpt-convert", "--dtype", "bf16", quantised, tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(plain)
    assert "quantization_config" not in Model(tmp_path / "back").config


def test_mp_shards_hold_none(ckpt, plain, quantised, tmp_path):
    for source, words in ((quantised, []), (plain, WORDS)):
        err = ckpt("ckpt-shard", "--layout", "mp", "--mp", "2", *words, source, tmp_path / "mp",
                   check=2).err
        assert "is MXFP8, which layout mp cannot hold" in err
        assert not (tmp_path / "mp").exists()


def test_grids_of_mxfp8_need_a_config_that_declares_it(ckpt, quantised, tmp_path):
    model = Model(quantised)
    model.config["quantization_config"].update(quant_method="fp8", weight_block_size=[128, 128])
    model.extras.clear()
    path = model.write(tmp_path / "in")
    err = ckpt("ckpt-inspect", path, check=2).err
    assert "does not fit weight" in err or "is U8" in err
