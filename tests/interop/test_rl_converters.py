"""The converters of miles and slime read torch_dist in a way of their own: a storage reader that
unpickles `.metadata` itself and writes into its storage_meta, and a planner that makes the tensors
it finds there. This is that way, on what we write."""
import pickle
import shutil

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
import torch.distributed.checkpoint as dcp                                   # noqa: E402
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner  # noqa: E402
from torch.distributed.checkpoint.metadata import TensorStorageMetadata      # noqa: E402
from torch.distributed.checkpoint.state_dict_loader import _load_state_dict  # noqa: E402

from interop.v4_values import differing, megatron_values                     # noqa: E402

FORMS = {"v1": (), "v1-extra": ("--extra-state",),
         "v1-ranks": ("--files", "rank", "--tp", "2", "--ep", "2", "--etp", "2"),
         "v2": ("--key-style", "v2")}


class Anything:
    """What those converters put in the place of classes that they cannot import."""
    def __init__(self, *_, **__):
        pass


class Unpickler(pickle.Unpickler):
    def find_class(self, module, name):
        return Anything if module.startswith("megatron") else super().find_class(module, name)


class Reader(dcp.FileSystemReader):
    """Expects an object in storage_meta: theirs would look for its class where torch has none."""
    def read_metadata(self):
        with self.fs.create_stream(self.fs.concat_path(self.path, ".metadata"), "rb") as f:
            metadata = Unpickler(f).load()
        metadata.storage_meta.load_id = self.load_id
        if metadata.planner_data is None:
            metadata.planner_data = {}
        return metadata


class Planner(DefaultLoadPlanner):
    """Every tensor that is no optimiser's and no module's extra state, all of it."""
    def set_up_planner(self, state_dict, metadata=None, is_coordinator=False):
        for key, entry in metadata.state_dict_metadata.items():
            if "optimizer" in key or "_state" in key:
                continue
            assert isinstance(entry, TensorStorageMetadata), key
            state_dict[key] = torch.empty(entry.size, dtype=entry.properties.dtype)
        super().set_up_planner(state_dict, metadata, is_coordinator)


def load(folder):
    state = {}
    _load_state_dict(state, storage_reader=Reader(folder), planner=Planner(), no_dist=True)
    return state


@pytest.mark.parametrize("form", FORMS)
def test_every_tensor_arrives(ckpt, golden, tmp_path, form):
    ckpt("ckpt-shard", "--layout", "torch_dist", *FORMS[form], golden, tmp_path / "out")
    folder = tmp_path / "out" / "release"
    state = load(folder)
    assert differing(state, megatron_values(golden, form[:2])) == []
    args = torch.load(folder / "common.pt", weights_only=False)["args"]
    layers = {key.split(".")[2] for key in state if key.startswith("decoder.layers.")}
    assert layers == {str(i) for i in range(args.num_layers)}
    stacked = [t for key, t in state.items() if ".experts.experts." in key]
    assert stacked and all(t.shape[0] == args.num_experts for t in stacked)
    assert state["embedding.word_embeddings.weight"].shape[0] == args.vocab_size


def test_metadata_without_the_object_would_be_noticed(ckpt, golden_a, tmp_path):
    """That way of reading dies on None, which is why the object is written."""
    ckpt("ckpt-shard", "--layout", "torch_dist", golden_a, tmp_path / "out")
    folder = tmp_path / "out" / "release"
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    assert metadata.storage_meta.modules == []
    metadata.storage_meta = None
    shutil.copytree(folder, tmp_path / "none")
    (tmp_path / "none" / ".metadata").write_bytes(pickle.dumps(metadata))
    with pytest.raises(BaseException, match="'NoneType' object has no attribute 'load_id'"):
        load(tmp_path / "none")
