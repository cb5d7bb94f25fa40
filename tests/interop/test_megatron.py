"""megatron-core loads what we write into other layouts, strictly, and we read what it saves."""
import pytest

from corrupt.files import tensor_files

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
pytest.importorskip("megatron.core.dist_checkpointing")

from interop.v4_values import bits, megatron_values                          # noqa: E402
from interop.workers import Forks                                            # noqa: E402

# How it was written; then layouts that one process plays, and those that two ranks make up.
FORMS = {
    "layers-v1": ("v1", (), ["1x1x1x1", "4x1x2x2", "2x2x4x1"], ["2x1x2x1", "1x2x1x1", "1x1x2x1"]),
    "ranks-v1": ("v1", ("--files", "rank", "--tp", "2", "--ep", "2", "--etp", "4"),
                 ["1x1x8x1", "2x1x1x4"], ["2x1x1x2"]),
    "ranks-v2": ("v2", ("--key-style", "v2", "--files", "rank", "--tp", "1", "--ep", "8"),
                 ["4x2x1x4"], ["2x1x1x1"]),
}


@pytest.fixture(scope="module")
def expected(golden, tmp_path_factory):
    """{style: file of the values under Megatron's keys}."""
    folder = tmp_path_factory.mktemp("expected")
    for style in ("v1", "v2"):
        torch.save(megatron_values(golden, style), folder / f"{style}.pt")
    return {style: folder / f"{style}.pt" for style in ("v1", "v2")}


# Modules of Transformer Engine keep an empty tensor, Megatron's own a None; by the end of the key.
OWNERS = {
    "v1": {"self_attention.wo_a": True, **dict.fromkeys((
        "input_layernorm", "pre_mlp_layernorm", "final_layernorm", "self_attention.wq_a",
        "self_attention.wq_b", "self_attention.wkv", "self_attention.wo_b",
        "self_attention.q_norm", "self_attention.kv_norm", "self_attention.indexer.linear_wq_b",
        "self_attention.indexer.linear_weights_proj", "mlp.shared_experts.linear_fc1",
        "mlp.shared_experts.linear_fc2", "mlp.experts.experts.linear_fc1",
        "mlp.experts.experts.linear_fc2"), False)},
    "v2": dict.fromkeys((
        "input_layernorm", "pre_mlp_layernorm", "final_layernorm", "linear_q_down_proj",
        "linear_q_up_proj", "linear_kv_proj", "linear_proj", "q_layernorm", "kv_layernorm",
        "compressor.linear_wkv", "compressor.linear_wgate", "compressor.norm",
        "indexer.linear_wq_b", "indexer.linear_weights_proj", "mlp.shared_experts.linear_fc1",
        "mlp.shared_experts.linear_fc2", "mlp.experts.experts.linear_fc1",
        "mlp.experts.experts.linear_fc2"), False),
}


def with_extra_state(values, style):
    """What a strict loader asks for: values, and the byte entries (how many, is it None)."""
    more = {}
    for key, t in values.items():
        for owner, is_none in OWNERS[style].items():
            if key.endswith(f".{owner}.weight"):
                more[key.removesuffix("weight") + "_extra_state"] = \
                    (t.shape[0] if ".experts.experts." in key else 1, is_none)
    return {**values, **more}


@pytest.fixture(scope="module")
def run_worker():
    with Forks("megatron_worker.py") as run:
        yield run


def rank_count(layout):
    tp, pp, ep, etp = map(int, layout.split("x"))
    return pp * max(tp, ep * etp)


@pytest.mark.parametrize("form", FORMS)
def test_megatron_loads_every_layout_from_any_other(ckpt, run_worker, golden, expected, tmp_path,
                                                     form):
    style, options, played, pairs = FORMS[form]
    ckpt("ckpt-shard", "--layout", "torch_dist", *options, golden, tmp_path / "out")
    folder = tmp_path / "out" / "release"
    out = run_worker("load", 1, expected[style], folder, *played)
    assert out.count(f"{folder}: Layout") == len(played)
    out = run_worker("load", 2, expected[style], folder, *pairs)
    assert out.count(f"{folder}: Layout") == 2 * len(pairs)


def test_megatron_misses_a_key_that_is_not_there(ckpt, run_worker, golden_b, tmp_path):
    """Strict means strict: without it a wrong name would train from noise."""
    values = megatron_values(golden_b, "v1")
    values["decoder.layers.0.self_attention.wq_a.weigth"] = torch.zeros(3)
    torch.save(values, tmp_path / "other.pt")
    ckpt("ckpt-shard", "--layout", "torch_dist", golden_b, tmp_path / "out")
    with pytest.raises(AssertionError, match="weigth"):
        run_worker("load", 1, tmp_path / "other.pt", tmp_path / "out" / "release", "1x1x1x1")


@pytest.mark.parametrize("style, options", [
    ("v1", ()), ("v1", ("--files", "rank", "--tp", "2", "--ep", "4")),
    ("v2", ("--key-style", "v2"))], ids=["v1", "v1-ranks", "v2"])
def test_strict_loaders_find_their_extra_state(ckpt, run_worker, golden, digest, tmp_path, style,
                                                options):
    torch.save(with_extra_state(megatron_values(golden, style), style), tmp_path / "all.pt")
    for name, more in (("with", ["--extra-state"]), ("without", [])):
        ckpt("ckpt-shard", "--layout", "torch_dist", *options, *more, golden, tmp_path / name)
    layouts = ["1x1x1x1", "2x2x4x1", "2x1x2x2"]
    out = run_worker("load", 1, tmp_path / "all.pt", tmp_path / "with" / "release", *layouts)
    assert out.count(": Layout") == len(layouts)
    run_worker("load", 2, tmp_path / "all.pt", tmp_path / "with" / "release", "1x1x2x1")
    with pytest.raises(AssertionError, match="_extra_state"):
        run_worker("load", 1, tmp_path / "all.pt", tmp_path / "without" / "release", "1x1x1x1")
    # For us they are nothing.
    assert digest(tmp_path / "with") == digest(tmp_path / "without")


def test_the_worker_sees_one_wrong_bit(ckpt, run_worker, golden_b, tmp_path):
    values = megatron_values(golden_b, "v1")
    bits(values["decoder.layers.4.mlp.experts.experts.linear_fc2.weight"])[-1, -1, -1] ^= 1
    torch.save(values, tmp_path / "other.pt")
    ckpt("ckpt-shard", "--layout", "torch_dist", golden_b, tmp_path / "out")
    with pytest.raises(AssertionError, match=r"layers\.4\.mlp\.experts\.experts\.linear_fc2"):
        run_worker("load", 1, tmp_path / "other.pt", tmp_path / "out" / "release", "1x1x1x1")


@pytest.mark.parametrize("layout, style", [("1x1x1x1", "v1"), ("2x1x1x2", "v1"),
                                           ("1x2x1x1", "v2")])
def test_what_megatron_saves_is_read(ckpt, run_worker, golden, digest, expected, tmp_path, layout,
                                      style):
    """And becomes the official files again: what a trainer hands back without having trained."""
    saved = tmp_path / "saved"
    inner = saved / "iter_0000005"
    inner.mkdir(parents=True)
    run_worker("save", rank_count(layout), expected[style], inner, layout)
    (saved / "latest_checkpointed_iteration.txt").write_text("5")
    (saved / "config.json").write_bytes((golden / "config.json").read_bytes())
    assert digest(saved, "main") == digest(golden, "main")
    ckpt("ckpt-shard", "--layout", "hf", "--like", golden, "--fill-from", golden, saved,
         tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(golden)
