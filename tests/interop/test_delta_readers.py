"""Weight deltas between our tool and a reader and a writer after those of slime and SGLang."""
import pytest

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


@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
@pytest.mark.parametrize("checksum", ["xxh3-128", "adler32"])
def test_our_reader_applies_their_delta(ckpt, pair, tmp_path, encoding, checksum):
    delta = delta_reader.write(*pair, tmp_path / "weight_v000001", encoding, checksum)
    ckpt("ckpt-delta", "apply", pair[0], delta, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(pair[1])
