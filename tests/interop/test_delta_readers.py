"""Weight deltas between our tool and a reader and a writer after those of slime and SGLang."""
import json

import numpy as np
import pytest
import safetensors.numpy

from cli.delta_models import drift
from cli.trees import tree
from interop import delta_reader


@pytest.fixture(scope="module")
def pair(golden_a, tmp_path_factory):
    return golden_a, drift(golden_a, tmp_path_factory.mktemp("new") / "new")


@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
@pytest.mark.parametrize("checksum", ["xxh3-128", "adler32"])
def test_their_reader_applies_our_delta(ckpt, pair, tmp_path, encoding, checksum):
    delta = tmp_path / "weight_v000001"
    ckpt("ckpt-delta", "diff", "--encoding", encoding, "--checksum", checksum,
         "--max-shard-size", "20kB", *pair, delta)
    assert len(list(delta.glob("*.safetensors"))) > 1
    delta_reader.apply(pair[0], delta, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(pair[1])


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Tensors of more than a zstd block, of which few elements change, or many, or one."""
    folder = tmp_path_factory.mktemp("large")
    draw = np.random.default_rng(3)
    shares = {"few": 0.01, "tenth": 0.1, "rare": 0.0001, "all": 1, "last": 0}
    old = {name: draw.integers(0, 1 << 16, (301, 1024), np.uint16) for name in shares}
    new = {name: x ^ ((draw.random(x.shape) < shares[name]) <<
                      draw.integers(0, 10, x.shape)).astype(np.uint16) for name, x in old.items()}
    new["last"][300, 1023] ^= 0x300
    for name, tensors in (("old", old), ("new", new)):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps({"model_type": "none"}))
        safetensors.numpy.save_file(tensors, folder / name / "model.safetensors",
                                    {"format": "pt"})
    return folder / "old", folder / "new"


def test_frames_of_many_blocks_are_theirs_and_small(ckpt, large, tmp_path):
    ours = tmp_path / "weight_v000001"
    ckpt("ckpt-delta", "diff", "--threads", 1, *large, ours)
    delta_reader.apply(large[0], ours, tmp_path / "theirs")
    ckpt("ckpt-delta", "apply", large[0], ours, tmp_path / "out")
    assert tree(tmp_path / "theirs") == tree(tmp_path / "out") == tree(large[1])
    ckpt("ckpt-delta", "diff", "--threads", 3, "--delta-version", 1, *large, tmp_path / "three")
    assert tree(tmp_path / "three") == tree(ours)
    theirs = delta_reader.write(*large, tmp_path / "weight_v000002", "xor", "xxh3-128")
    size, their_size = ({name: place[2] for name, place in delta_reader.tensors_of(d).items()}
                        for d in (ours, theirs))
    assert size["few"] < 0.75 * their_size["few"] and size["tenth"] < 0.8 * their_size["tenth"]
    assert size["all"] == their_size["all"]


@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
@pytest.mark.parametrize("checksum", ["xxh3-128", "adler32"])
def test_our_reader_applies_their_delta(ckpt, pair, tmp_path, encoding, checksum):
    delta = delta_reader.write(*pair, tmp_path / "weight_v000001", encoding, checksum)
    ckpt("ckpt-delta", "apply", pair[0], delta, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(pair[1])


@pytest.fixture(scope="module")
def plain(golden_a, tmp_path_factory):
    """A step that changes no scales: SkyRL has no name for their dtype."""
    return golden_a, drift(golden_a, tmp_path_factory.mktemp("plain") / "new",
                           only=lambda name: not name.endswith("scale"))


def test_the_reader_of_skyrl_applies_our_delta(ckpt, plain, tmp_path):
    delta = tmp_path / "delta-00000004"
    ckpt("ckpt-delta", "diff", "--format", "skyrl", "--max-shard-size", "20kB", *plain, delta)
    manifest = delta_reader.apply_skyrl(plain[0], delta, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(plain[1])
    assert (manifest["version"], manifest["base_version"]) == (4, 3)
    assert len(manifest["payload_files"]) > 1


def test_a_delta_for_skyrl_is_applied_and_reversed_with_its_side_file(ckpt, plain, tmp_path):
    delta, back = tmp_path / "delta-00000001", tmp_path / "delta-00000002"
    ckpt("ckpt-delta", "diff", "--format", "skyrl", *plain, delta)
    ckpt("ckpt-delta", "reverse", "--format", "skyrl", plain[0], delta, back)
    said = ckpt("ckpt-delta", "apply", "--json", "--base-check", "full", plain[1], back,
                tmp_path / "out").json
    assert said["notes"] == [] and said["version"] == "000002"
    assert tree(tmp_path / "out") == tree(plain[0])


def test_what_skyrl_cannot_read_is_refused(ckpt, pair, tmp_path):
    said = ckpt("ckpt-delta", "diff", "--format", "skyrl", *pair, tmp_path / "d", check=2).err
    assert "is F8_E8M0, which SkyRL cannot read" in said
    said = ckpt("ckpt-delta", "diff", "--format", "skyrl", "--encoding", "overwrite", *pair,
                tmp_path / "d", check=2).err
    assert "--format skyrl has the encoding xor" in said
    assert list(tmp_path.iterdir()) == []
