"""Certificates that cover deltas: what they say, and what checking against them catches."""
import hashlib
import json
import shutil

import pytest

from cli.delta_models import drift, edit_config
from cli.test_certify import certificate, certify, keys, verdicts  # noqa: F401
from conftest import run_tool
from corrupt.files import INDEX, Tensor, file_bytes
from interop import delta_reader


@pytest.fixture(scope="module")
def steps(golden_a, tmp_path_factory):
    """Three checkpoints and the two deltas between them; config.json changes in the second."""
    folder = tmp_path_factory.mktemp("steps")
    models = [folder / "release"]
    shutil.copytree(golden_a, models[0])
    (models[0] / "tokenizer.json").write_text(json.dumps({"model": {"type": "BPE"}}))
    for i in (1, 2):
        models.append(drift(models[-1], folder / f"step-{i}", seed=i))
    edit_config(models[2], rope_theta=4321)
    (folder / "deltas").mkdir()
    for i in (1, 2):
        run_tool("ckpt-delta", "diff", models[i - 1], models[i],
                 folder / "deltas" / f"weight_v00000{i}")
    return models, folder / "deltas"


@pytest.fixture(scope="module")
def covered(steps, tmp_path_factory, keys):  # noqa: F811
    """A signed certificate of the release and both deltas, its key, and its predicate."""
    models, deltas = steps
    path = tmp_path_factory.mktemp("certificate") / "c.json"
    certify(path, "--delta", deltas, models[0])
    signed = path.with_name("signed.json")
    private, public = keys["ed25519"]
    certify(signed, "--sign", private, "--delta", deltas, models[0])
    return signed, public, json.loads(path.read_text())


def test_a_delta_is_covered_by_files_and_both_roots(steps, covered, digest):
    models, deltas = steps
    statement = covered[2]
    roots = [digest(m) for m in models]
    recorded = statement["predicate"]["deltas"]
    assert [d["label"] for d in recorded] == ["weight_v000001", "weight_v000002"]
    assert [(d["base"]["root"], d["result"]["root"]) for d in recorded] == list(
        zip(roots, roots[1:]))
    subjects = {s["name"]: s["digest"] for s in statement["subject"]}
    for i, d in enumerate(recorded):
        assert subjects[d["label"]] == {"ckptBaseRoot": roots[i], "ckptRoot": roots[i + 1]}
        folder = deltas / d["label"]
        expected = {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest()
                    for f in folder.rglob("*") if f.is_file()}
        assert {f["name"]: f["sha256"] for f in d["files"]} == expected
        assert all(subjects[f"{d['label']}/{name}"] == {"sha256": hex}
                   for name, hex in expected.items())


def test_the_deltas_and_what_they_make_are_right_with_the_key_alone(steps, covered):
    models, deltas = steps
    signed, public, _ = covered
    for path in (deltas / "weight_v000001", deltas / "weight_v000002", *models):
        certificate("--key", public, signed, path)


def test_a_delta_with_other_files_is_refused_by_name(steps, covered, tmp_path):
    models, deltas = steps
    other = tmp_path / "weight_v000001"
    shutil.copytree(deltas / "weight_v000001", other)
    (other / "model-00001-of-00002.safetensors").write_bytes(b"more")
    said = certificate(covered[0], other, check=1).out
    assert "files  weight_v000001: extra  model-00001-of-00002.safetensors" in said
    shutil.rmtree(other)
    run_tool("ckpt-delta", "diff", models[0], models[2], other)
    result = json.loads(certificate("--json", covered[0], other, check=1).out)
    assert verdicts(result, "weight_v000001")["files"] == "fail"
    assert any("expected root" in c["text"] for c in result["checks"] if c["verdict"] == "fail")


def test_a_result_with_the_config_of_its_base_is_refused(steps, covered, tmp_path):
    """The second delta changes config.json: its values with the old one are another model."""
    models, _ = steps
    shutil.copytree(models[2], tmp_path / "mixed")
    shutil.copy(models[0] / "config.json", tmp_path / "mixed" / "config.json")
    result = json.loads(certificate("--json", covered[0], tmp_path / "mixed", check=1).out)
    assert {c["name"] for c in result["checks"] if c["verdict"] == "fail"} == {"config"}
    assert "rope_theta" in {f["subject"] for f in result["findings"]}


def test_a_checkpoint_that_no_delta_makes_is_refused(steps, covered, tmp_path):
    models, _ = steps
    other = drift(models[2], tmp_path / "other", seed=9)
    result = json.loads(certificate("--json", covered[0], other, check=1).out)
    assert verdicts(result, "other")["values"] == "fail"


def test_a_delta_of_another_base_fails(steps, tmp_path):
    models, deltas = steps
    result = certify(tmp_path / "c.json", "--delta", deltas / "weight_v000002", models[0],
                     check=1).json
    assert verdicts(result, "release")["delta"] == "fail"
    assert json.loads((tmp_path / "c.json").read_text())["predicate"]["verdict"] == "fail"


@pytest.mark.parametrize("words, says", [
    (["ckpt-convert", "--dtype", "bf16"], "which '{0}' lacks"),
    (["ckpt-convert", "--experts", "fp8"], "was made for another"),
    (["ckpt-shard", "--layout", "mp", "--mp", "1"], "has the layout mp"),
    (None, "delta/model-00000-of-00001")], ids=["tensors", "forms", "layout", "damage"])
def test_a_delta_that_cannot_fit_is_refused_before_values_are_read(ckpt, steps, fault, tmp_path,
                                                                   words, says):
    models, deltas = steps
    base = models[0]
    delta = shutil.copytree(deltas / "weight_v000001", tmp_path / "delta")
    if words is None:
        frames = next(delta.glob("*.safetensors"))
        frames.write_bytes(frames.read_bytes()[:-1] + b"!")
    else:
        base = tmp_path / "base"
        ckpt(*words, models[0], base)
    largest = max(base.glob("*.safetensors"), key=lambda path: path.stat().st_size)
    blind = fault.env("pread:EIO:5+", largest)    # the header is read twice, in two pieces
    for more in (), ("--dry-run",):
        said = ckpt("ckpt-verify", "certify", *more, "--out", tmp_path / "c.json", "--delta", delta,
                    base, check=2, env=blind).err
        assert says.format(base) in said
    assert not fault.injected and not (tmp_path / "c.json").exists()
    ckpt("ckpt-verify", "digest", base, check=2, env=blind)
    assert fault.injected


@pytest.mark.parametrize("kind", ["root", "main"])
def test_a_root_between_two_deltas_is_proven(steps, tmp_path, digest, kind):
    """Both sides of a link name the root of another model: the end of the chain is right."""
    models, deltas = steps
    other = digest(drift(models[2], tmp_path / "other", seed=9))
    links = []
    for number, whose in ((1, "result"), (2, "base")):
        link = tmp_path / f"weight_v00000{number}"
        shutil.copytree(deltas / link.name, link)
        side = json.loads((link / "ckpt-delta.json").read_text())
        side[whose][kind] = other
        (link / "ckpt-delta.json").write_text(json.dumps(side))
        links += ["--delta", link]
    said = certify(tmp_path / "c.json", *links, models[0], check=2).err
    assert f"wrong {'main ' if kind == 'main' else ''}root" in said
    assert not (tmp_path / "c.json").exists()


def test_the_base_of_a_structural_delta_is_proven(ckpt, tmp_path, digest):
    """Its base has tensors that the pass over the result does not read."""
    kept = {"kept.weight": Tensor("F32", [2, 2], bytes(16))}
    for name, own in (("old", "gone.weight"), ("new", "added.weight")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text('{"model_type": "none"}')
        (tmp_path / name / "model.safetensors").write_bytes(
            file_bytes({**kept, own: Tensor("F32", [3], bytes(12))}))
    delta = tmp_path / "weight_v000001"
    ckpt("ckpt-delta", "diff", "--structural", tmp_path / "old", tmp_path / "new", delta)
    certify(tmp_path / "c.json", "--delta", delta, tmp_path / "old")
    recorded = json.loads((tmp_path / "c.json").read_text())["predicate"]["deltas"][0]
    assert recorded["base"]["root"] == digest(tmp_path / "old")
    assert recorded["result"]["root"] == digest(tmp_path / "new")
    side = json.loads((delta / "ckpt-delta.json").read_text())
    side["base"]["root"] = "0" * 64
    (delta / "ckpt-delta.json").write_text(json.dumps(side))
    result = certify(tmp_path / "d.json", "--delta", delta, tmp_path / "old", check=1).json
    assert verdicts(result, "old")["delta"] == "fail"


def test_roots_of_a_foreign_delta_are_computed(steps, tmp_path, digest):
    """slime's deltas tell none."""
    models, _ = steps
    delta = delta_reader.write(models[0], models[1], tmp_path / "weight_v000001")
    certify(tmp_path / "c.json", "--delta", delta, models[0])
    recorded = json.loads((tmp_path / "c.json").read_text())["predicate"]["deltas"][0]
    assert recorded["base"]["root"] == digest(models[0])
    assert recorded["result"]["root"] == digest(models[1])
    certificate(tmp_path / "c.json", models[1])


def test_what_a_delta_cannot_be_checked_with_is_refused(steps, tmp_path):
    models, deltas = steps
    certify(tmp_path / "c.json", models[0])
    said = certificate(tmp_path / "c.json", deltas / "weight_v000001", check=2).err
    assert "covers none" in said
    said = certify(tmp_path / "d.json", "--delta", models[1], models[0], check=2).err
    assert "whole checkpoint" in said
    out = deltas / "weight_v000001" / INDEX
    said = certify(out, "--delta", deltas / "weight_v000001", models[0], check=2).err
    assert INDEX in said
