"""What shapes alone do not tell: ids of no expert, tensors narrower than the family's."""
import struct

import pytest

from corrupt.files import Model, Tensor

TABLE = "layers.0.ffn.gate.tid2eid"
EXPERTS = 16


def notes(ckpt, path, command=("ckpt-inspect",), check=0):
    return ckpt(*command, "--json", path, check=check).json["notes"]


def with_ids(golden, path, ids):
    """A copy of a golden checkpoint with other ids, {(row, column): id}, in its first table."""
    model = Model(golden)
    t = model[TABLE]
    data = bytearray(t.data)
    for (row, col), value in ids.items():
        struct.pack_into("<q", data, 8 * (row * t.shape[1] + col), value)
    model[TABLE] = Tensor(t.dtype, t.shape, bytes(data))
    return model.write(path), t.shape


@pytest.fixture
def manifest(ckpt, tmp_path):
    """The digest of a checkpoint, as a manifest to check it against."""
    def run(path):
        (tmp_path / "m").write_text(ckpt("ckpt-verify", "digest", "--json", path).out)
        return ("ckpt-verify", "check", "--manifest", tmp_path / "m")
    return run


@pytest.mark.parametrize("bad", [EXPERTS, -1, 1 << 40, -1 << 63])
def test_ids_of_no_expert_are_told(ckpt, golden_a, manifest, tmp_path, bad):
    assert Model(golden_a).config["n_routed_experts"] == EXPERTS
    rows, cols = Model(golden_a)[TABLE].shape
    path, _ = with_ids(golden_a, tmp_path / "in", {(rows - 1, cols - 1): bad, (2, 1): bad})
    says = f"tensor '{TABLE}' has 2 ids outside of 0 .. {EXPERTS - 1}, the first is {bad} in row " \
           "2, column 1"
    assert says in notes(ckpt, path)
    assert says in notes(ckpt, path, manifest(path))


def test_the_last_expert_is_one(ckpt, golden_a, tmp_path):
    path, _ = with_ids(golden_a, tmp_path / "in", {(0, 0): EXPERTS - 1, (1, 0): 0})
    assert notes(ckpt, path) == []


def test_they_are_told_in_every_layout(ckpt, golden_a, tmp_path):
    path, _ = with_ids(golden_a, tmp_path / "in", {(0, 0): EXPERTS})
    ckpt("ckpt-shard", "--layout", "torch_dist", path, tmp_path / "dist")
    assert any("id outside" in n for n in notes(ckpt, tmp_path / "dist"))


@pytest.mark.parametrize("bad", [EXPERTS, -1, 1 << 40])
@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_gguf_with_an_id_of_no_expert_is_refused_first(ckpt, golden_a, tmp_path, bad, more):
    path, _ = with_ids(golden_a, tmp_path / "in", {(2, 1): bad})
    err = ckpt("ckpt-shard", "--layout", "gguf", "--without-tokenizer", *more, path,
               tmp_path / "out", check=2).err
    assert f"tensor '{TABLE}' has 1 id outside of 0 .. {EXPERTS - 1}, the first is {bad} in" in err
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("options", [[], ["--allow-lossy"], ["--dry-run"], ["--part", "2/2"]])
def test_an_id_beyond_the_layouts_integers_is_refused_first(ckpt, golden_a, tmp_path, options):
    """torch_dist has I32; no rounding makes an id fit, and no part of the job is of use."""
    path, _ = with_ids(golden_a, tmp_path / "in", {(3, 1): 1 << 40})
    err = ckpt("ckpt-shard", "--layout", "torch_dist", *options, path, tmp_path / "out",
               check=2).err
    assert f"'{TABLE}', row 3, column 1" in err and "beyond the range of I32" in err
    assert "--allow-lossy" not in err and not list(tmp_path.glob("out*"))


def narrowed(golden, path, names):
    model = Model(golden)
    for name in names:
        t = model[name]
        assert t.dtype == "F32"
        model[name] = Tensor("BF16", t.shape, b"".join(
            t.data[i + 2:i + 4] for i in range(0, len(t.data), 4)))
    return model.write(path)


def test_narrower_tensors_are_told(ckpt, golden_a, manifest, tmp_path):
    names = [n for n in Model(golden_a).names()
             if n.endswith("ffn.gate.bias") or ".hc_" in n or n.startswith("hc_")]
    path = narrowed(golden_a, tmp_path / "in", names)
    says = f"{len(names)} tensors are BF16, narrower than the F32 of family deepseek_v4; the first"
    assert [n for n in notes(ckpt, path) if n.startswith(says)]
    assert [n for n in notes(ckpt, path, manifest(path)) if n.startswith(says)]


def test_a_conversion_tells_it_too(ckpt, golden_a, tmp_path):
    name = next(n for n in Model(golden_a).names() if n.endswith("ffn.gate.bias"))
    path = narrowed(golden_a, tmp_path / "in", [name])
    done = ckpt("ckpt-convert", "--json", "--dtype", "bf16", path, tmp_path / "out").json
    assert any(f"'{name}'" in n and "narrower" in n for n in done["notes"])


def test_nothing_is_said_of_the_official_form_and_its_casts(ckpt, golden, tmp_path):
    assert notes(ckpt, golden) == []
    ckpt("ckpt-convert", "--dtype", "bf16", golden, tmp_path / "out")
    assert notes(ckpt, tmp_path / "out") == []
