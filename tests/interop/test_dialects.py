"""torch_dist of models with sparse attention: miles, slime and Megatron-Bridge store the indexer
each in its own way, and two of them under the same keys."""
import json

import pytest

torch = pytest.importorskip("torch")
safetensors_torch = pytest.importorskip("safetensors.torch")
import torch.distributed.checkpoint as dcp                                   # noqa: E402

HEADS, HEAD = 3, 128
CONFIG = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
          "num_key_value_heads": 4, "intermediate_size": 40, "dtype": "bfloat16",
          "moe_intermediate_size": 24, "n_routed_experts": 4, "n_shared_experts": 1,
          "q_lora_rank": 20, "kv_lora_rank": 12, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8,
          "v_head_dim": 16, "first_k_dense_replace": 1, "num_nextn_predict_layers": 1,
          "index_n_heads": HEADS, "index_head_dim": HEAD, "index_topk": 64}
PLAIN = {f"self_attention.{key}": key for key in
         ("wq_b.weight", "wk.weight", "k_norm.weight", "k_norm.bias", "weights_proj.weight")}
BRIDGE = "self_attention.core_attention.indexer."
UPSTREAM = {BRIDGE + "linear_wq_b.weight": "wq_b.weight", BRIDGE + "linear_wk.weight": "wk.weight",
            BRIDGE + "k_norm.weight": "k_norm.weight", BRIDGE + "k_norm.bias": "k_norm.bias",
            BRIDGE + "linear_weights_proj.weight": "weights_proj.weight"}
# What is written, by dialect and by whether config.json asks for interleaved halves.
CASES = [("miles", False, PLAIN, False), ("miles", True, PLAIN, True),
         ("slime", False, PLAIN, True), ("slime", True, PLAIN, True),
         ("bridge", False, UPSTREAM, False), ("bridge", True, UPSTREAM, False)]
TWO = "keys that slime or miles write with other values"


@pytest.fixture(scope="module", params=["deepseek_v32", "glm_moe_dsa"])
def family(request):
    return request.param


@pytest.fixture(scope="module")
def model(ckpt, family, tmp_path_factory):
    """A checkpoint whose norms BF16 can hold, as trainers want them; codes where it has them."""
    folder = tmp_path_factory.mktemp(family)
    (folder / "config.json").write_text(json.dumps({**CONFIG, "model_type": family}))
    ckpt("ckpt-synth", "--config", folder / "config.json", folder / "model")
    for path in (folder / "model").glob("*.safetensors"):
        tensors = safetensors_torch.load_file(path)
        safetensors_torch.save_file(
            {name: t.bfloat16().to(t.dtype) if "norm" in name else t
             for name, t in tensors.items()}, path)
    return folder / "model"


@pytest.fixture
def source(model, tmp_path, request):
    """The same with indexer_rope_interleave in its config."""
    folder = tmp_path / "source"
    folder.mkdir()
    for path in model.iterdir():
        (folder / path.name).symlink_to(path)
    set_member(folder, getattr(request, "param", False))
    return folder


def set_member(folder, value):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps({**config, "indexer_rope_interleave": value}))


def exchange(tensor, key):
    """The halves of every head of the indexer exchanged."""
    if "weights_proj" in key:
        return tensor
    heads = tensor.reshape(-1, HEAD, *tensor.shape[1:])
    return torch.roll(heads, HEAD // 2, dims=1).reshape(tensor.shape)


def indexer(ckpt, source, folder, layer=1):
    """The indexer's tensors in BF16, under the last components of their names."""
    ckpt("ckpt-convert", "--dtype", "bf16", source, folder)
    tensors = {name: t for path in folder.glob("*.safetensors")
               for name, t in safetensors_torch.load_file(path).items()}
    head = f"model.layers.{layer}.self_attn.indexer."
    return {name.removeprefix(head): t.bfloat16() for name, t in tensors.items()
            if name.startswith(head)}


@pytest.mark.parametrize("dialect, asks, keys, is_exchanged", CASES)
@pytest.mark.parametrize("ranks", [(), ("--files", "rank", "--tp", "2", "--pp", "2")])
def test_each_dialect_stores_the_indexer_as_it_does(ckpt, source, tmp_path, dialect, asks, keys,
                                                    is_exchanged, ranks):
    set_member(source, asks)
    want = indexer(ckpt, source, tmp_path / "bf16")
    ckpt("ckpt-shard", "--layout", "torch_dist", "--dialect", dialect, *ranks, source,
         tmp_path / "dist")
    state = {f"decoder.layers.1.{key}": torch.zeros_like(want[name]) for key, name in keys.items()}
    dcp.load(state, checkpoint_id=tmp_path / "dist/release")
    for key, name in keys.items():
        tensor = exchange(want[name], key) if is_exchanged else want[name]
        assert torch.equal(state[f"decoder.layers.1.{key}"], tensor), key
    ckpt("ckpt-verify", "compare", "--main", "--dialect", dialect, source, tmp_path / "dist")
    if ranks == ():
        ckpt("ckpt-shard", "--layout", "hf", "--dialect", dialect, "--like", source,
             "--fill-from", source, tmp_path / "dist", tmp_path / "back")
        for path in source.glob("*.safetensors"):
            assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def digest(ckpt, *args, check=0):
    return ckpt("ckpt-verify", "digest", *args, check=check)


def test_miles_is_known_by_its_argument_and_slime_must_be_told(ckpt, source, tmp_path):
    for dialect in "miles", "slime", "bridge":
        ckpt("ckpt-shard", "--layout", "torch_dist", "--dialect", dialect, source,
             tmp_path / dialect)
    root = digest(ckpt, tmp_path / "miles").out.split()[0]
    assert digest(ckpt, tmp_path / "bridge").out.split()[0] == root
    assert digest(ckpt, "--dialect", "slime", tmp_path / "slime").out.split()[0] == root
    assert TWO in digest(ckpt, tmp_path / "slime", check=2).err
    error = ckpt("ckpt-shard", "--layout", "hf", tmp_path / "slime", tmp_path / "no", check=2).err
    assert TWO in error and "--dialect" in error and not (tmp_path / "no").exists()
    # What is known by itself is read as it is, whatever the other one is.
    ckpt("ckpt-verify", "compare", "--dialect", "slime", tmp_path / "slime", tmp_path / "miles")
    ckpt("ckpt-verify", "compare", "--dialect", "slime", tmp_path / "bridge", tmp_path / "slime")
    ckpt("ckpt-shard", "--layout", "torch_dist", "--dialect", "slime", tmp_path / "miles",
         tmp_path / "again")
    assert digest(ckpt, "--dialect", "slime", tmp_path / "again").out.split()[0] == root
    # A wrong word is a wrong model, and it is the user's.
    assert digest(ckpt, "--dialect", "miles", tmp_path / "slime").out.split()[0] != root
    assert "does not have the keys" in digest(ckpt, "--dialect", "bridge", tmp_path / "slime",
                                              check=2).err


@pytest.mark.parametrize("source", [True], indirect=True)
def test_nothing_is_asked_where_values_do_not_depend_on_it(ckpt, source, tmp_path):
    ckpt("ckpt-shard", "--layout", "torch_dist", "--dialect", "slime", source, tmp_path / "slime")
    ckpt("ckpt-verify", "compare", "--main", source, tmp_path / "slime")


def test_the_argument_must_be_that_of_the_config(ckpt, source, tmp_path):
    ckpt("ckpt-shard", "--layout", "torch_dist", source, tmp_path / "dist")
    set_member(tmp_path / "dist", True)
    error = digest(ckpt, tmp_path / "dist", check=2).err
    assert "arguments of the run have indexer_rope_interleave 0" in error
    assert "config.json has 1" in error


def test_the_argument_is_found_where_newer_checkpoints_have_it(ckpt, source, tmp_path):
    """In a byte entry instead of common.pt."""
    ckpt("ckpt-shard", "--layout", "torch_dist", source, tmp_path / "dist")
    folder = tmp_path / "dist/release"
    stored = dcp.FileSystemReader(folder).read_metadata().state_dict_metadata
    state = {key: torch.zeros(entry.size, dtype=entry.properties.dtype)
             for key, entry in stored.items()}
    dcp.load(state, checkpoint_id=folder)
    common = torch.load(folder / "common.pt", weights_only=False)
    saved = tmp_path / "saved"
    saved.mkdir()
    dcp.save(state, checkpoint_id=saved / "release", no_dist=True)
    for name in "config.json", "latest_checkpointed_iteration.txt":
        (saved / name).write_bytes((tmp_path / "dist" / name).read_bytes())
    assert TWO in digest(ckpt, saved, check=2).err
    dcp.save({**state, "common_state/shard_0_1": [common]}, checkpoint_id=saved / "release",
             no_dist=True, planner=dcp.DefaultSavePlanner(flatten_state_dict=False))
    ckpt("ckpt-verify", "compare", "--main", source, saved)


def test_a_dialect_is_of_torch_dist_alone(ckpt, source, tmp_path):
    error = ckpt("ckpt-convert", "--dialect", "slime", source, tmp_path / "no", check=2).err
    assert "--dialect is about torch_dist" in error
    for options in ("--layer-keys", "stacked"), ("--dialect", "bridge", "--layer-keys", "stacked"):
        error = ckpt("ckpt-shard", "--layout", "torch_dist", *options, source, tmp_path / "no",
                     check=2).err
        assert "stacked: torch_dist has no such form of" in error
    error = ckpt("ckpt-shard", "--layout", "hf", "--layer-keys", "stacked", source, tmp_path / "no",
                 check=2).err
    assert "--layer-keys needs --layout torch_dist" in error
