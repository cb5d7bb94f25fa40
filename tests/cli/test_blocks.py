"""Shapes that cannot have a block-scaled encoding: refused before a byte is read or written."""
import json

import pytest

from cli.kernels import FLAGS, needs_kernels
from conftest import ROOT, run_tool
from corrupt.files import Model, Tensor

COLUMNS = (16, 48, 80, 272)                     # no multiple of 32, which is FP4's group


def generic(folder, columns):
    """One FP8 expert of a model that no family knows."""
    model = Model()
    name = "model.layers.0.mlp.experts.0.up_proj.weight"
    model.config = {"model_type": "unknown"}
    model.files["model.safetensors"] = {
        name: Tensor("F8_E4M3", [16, columns], b"\x38" * (16 * columns)),
        name + "_scale_inv": Tensor("F32", [1, -(-columns // 128)],
                                    b"\0\0\x80\x3f" * -(-columns // 128))}
    return model.write(folder), name


def family(folder, columns):
    """DeepSeek-V4 whose experts are FP8 and have this many columns in w2."""
    config = json.loads((ROOT / "formats" / "maps" / "deepseek_v4.tiny.json").read_text())
    config.update(moe_intermediate_size=columns, expert_dtype="fp8", num_hidden_layers=1,
                  compress_ratios=[0, 0])
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    run_tool("ckpt-synth", "--config", folder / "config.json", folder / "model")
    return folder / "model", "layers.0.ffn.experts.0.w2.weight"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    return {(make, columns): make(folder / f"{make.__name__}-{columns}", columns)
            for make in (generic, family) for columns in COLUMNS}


@pytest.mark.parametrize("kernels", FLAGS)
@pytest.mark.parametrize("make", (generic, family))
@pytest.mark.parametrize("columns", COLUMNS)
def test_columns_that_are_not_whole_groups_cannot_become_fp4(ckpt, sources, tmp_path, kernels,
                                                             make, columns):
    needs_kernels(kernels)
    source, name = sources[make, columns]
    env = {"CKPT_KERNELS": kernels}
    err = ckpt("ckpt-convert", "--experts", "fp4", source, tmp_path / "dst", check=2, env=env).err
    assert f"'{name}'" in err and f", {columns}]" in err and "F4 1x32" in err, err
    assert not list(tmp_path.iterdir())
    # The same columns in FP8 are fine, whole blocks or not.
    ckpt("ckpt-convert", "--dtype", "fp8", "--experts", "fp8", source, tmp_path / "fp8", env=env)
    ckpt("ckpt-verify", "compare", source, tmp_path / "fp8", env=env)


@pytest.mark.parametrize("options", (["--dtype", "bf16"], ["--experts", "bf16"],
                                     ["--dtype", "fp8", "--experts", "bf16"]))
@pytest.mark.parametrize("columns", COLUMNS)
def test_bf16_experts_of_any_width_open_again(ckpt, sources, tmp_path, columns, options):
    """Their config.json has no expert_dtype, and FP4, its default, is not for such rows."""
    source, name = sources[family, columns]
    out, again = tmp_path / "out", tmp_path / "again"
    ckpt("ckpt-convert", *options, source, out)
    assert "expert_dtype" not in json.loads((out / "config.json").read_text())
    ckpt("ckpt-inspect", out)
    ckpt("ckpt-verify", "check", out)
    ckpt("ckpt-verify", "compare", source, out)
    err = ckpt("ckpt-convert", "--experts", "fp4", out, again, check=2).err
    assert f"'{name}'" in err and f", {columns}]" in err and ".family" not in err, err
    ckpt("ckpt-convert", "--like", source, out, again)
    for file in source.glob("*.safetensors"):
        assert (again / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize("options", ([], ["--dry-run"], ["--json"]))
def test_an_option_about_experts_that_are_not_there_is_told(ckpt, tmp_path, options):
    """Stacked experts have no number."""
    model = Model()
    model.config = {"model_type": "unknown"}
    name = "model.layers.0.mlp.experts.down_proj"
    model.files["model.safetensors"] = {
        name: Tensor("F8_E4M3", [2, 128, 128], b"\x38" * 32768),
        name + "_scale_inv": Tensor("F32", [2, 1, 1], b"\0\0\x80\x3f" * 2)}
    path = model.write(tmp_path / "in")
    says = "no tensor is a numbered expert"
    assert says in ckpt("ckpt-convert", "--experts", "bf16", *options, path, tmp_path / "a").out
    assert says not in ckpt("ckpt-convert", "--dtype", "bf16", *options, path, tmp_path / "b").out
