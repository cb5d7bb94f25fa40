"""compare and check: configs that make another model of the same weights."""
import json
import shutil

import pytest

from corrupt.files import Model, Tensor

CHANGES = {
    "rope_theta": 999, "compress_rope_theta": 1000, "rms_norm_eps": 1e-5, "hc_eps": 1e-5,
    "routed_scaling_factor": 2.5, "sliding_window": 32,
    "index_topk": 4, "swiglu_limit": 7.0, "hc_sinkhorn_iters": 19, "norm_topk_prob": False,
    "scoring_func": "softmax", "tie_word_embeddings": True, "hidden_act": "gelu",
    "rope_scaling": {"type": "yarn", "factor": 8, "beta_fast": 32, "beta_slow": 1,
                     "original_max_position_embeddings": 65536},
    "a_member_of_tomorrow": None,
}


def read(path):
    return json.loads((path / "config.json").read_text())


def with_config(model, path, change):
    shutil.copytree(model, path)
    config = read(path)
    (path / "config.json").write_text(json.dumps(change(config) or config))
    return path


def compare(ckpt, a, b, status, *options):
    return ckpt("ckpt-verify", "compare", "--json", *options, a, b, check=status).json["config"]


@pytest.mark.parametrize("name", CHANGES)
def test_a_member_that_changes_the_forward_pass_is_a_difference(ckpt, golden_a, tmp_path, name):
    if name == "a_member_of_tomorrow":
        a = with_config(golden_a, tmp_path / "a", lambda c: c.update({name: 1}))
        b = with_config(golden_a, tmp_path / "b", lambda c: c.update({name: 2}))
    else:
        a = golden_a
        b = with_config(a, tmp_path / "b", lambda c: c.update({name: CHANGES[name]}))
    found, = compare(ckpt, a, b, 1)["differing"]
    if name == "rope_scaling":
        assert found == {"name": "rope_scaling.factor", "a": 16, "b": 8}
    else:
        assert found == {"name": name, "a": read(a)[name], "b": read(b)[name]}
    said = ckpt("ckpt-verify", "compare", a, b, check=1).out
    assert said.startswith("different") and found["name"] in said
    assert compare(ckpt, a, b, 0, "--weights-only") is None


def test_ratios_are_compared_layer_by_layer(ckpt, golden_a, tmp_path):
    b = with_config(golden_a, tmp_path / "b", lambda c: c)
    config = read(b)
    config["compress_ratios"][4] = 4                 # of the MTP block, whose tensors lack it
    (b / "config.json").write_text(json.dumps(config))
    found, = compare(ckpt, golden_a, b, 1, "--lenient")["differing"]
    assert found == {"name": "compress_ratios", "a": [0, 4, 128, 4, 0], "b": [0, 4, 128, 4, 4]}


def encodings(c):
    del c["quantization_config"], c["expert_dtype"]
    c.update(torch_dtype="float32", dtype="float32", transformers_version="9", use_cache=False)


def spelled(c):
    c.update(rope_theta=10000.0, rms_norm_eps=0.000001, mlp_bias=False)
    return dict(reversed(c.items()))


@pytest.mark.parametrize("change", [encodings, spelled])
def test_what_means_the_same_is_the_same(ckpt, golden_a, tmp_path, change):
    b = with_config(golden_a, tmp_path / "b", change)
    result = compare(ckpt, golden_a, b, 0)
    assert result["differing"] == [] and result["compared"] > 35 and result["note"] is None


@pytest.fixture
def checked(ckpt, golden_a, tmp_path):
    ckpt("ckpt-convert", "--dtype", "bf16", golden_a, tmp_path / "out")
    return tmp_path / "out"


def edit(path, change):
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def test_check_compares_the_config_with_the_manifest(ckpt, checked):
    assert ckpt("ckpt-verify", "check", "--json", checked).json["config"]["differing"] == []
    edit(checked / "config.json", lambda c: c.update(rope_theta=999))
    doc = ckpt("ckpt-verify", "check", "--json", checked, check=1).json
    assert doc["same"] is False and doc["differing"] == [] and doc["root"] == doc["expected_root"]
    assert doc["config"]["differing"] == [{"name": "rope_theta", "expected": 10000, "got": 999}]
    said = ckpt("ckpt-verify", "check", checked, check=1).out
    assert "rope_theta" in said and "10000" in said and "999" in said
    assert ckpt("ckpt-verify", "check", "--json", "--weights-only", checked).json["config"] is None


def test_the_manifest_of_an_earlier_version_is_told_and_not_failed(ckpt, checked):
    edit(checked / "ckpt-manifest.json", lambda m: m.pop("config"))
    edit(checked / "config.json", lambda c: c.update(rope_theta=999))
    doc = ckpt("ckpt-verify", "check", "--json", checked).json
    assert doc["same"] is True and "no record" in doc["config"]["note"]
    assert any("no record" in note for note in doc["notes"])
    assert "no record" in ckpt("ckpt-verify", "check", checked).out


def test_a_config_that_is_gone_is_a_difference(ckpt, checked, golden_a, tmp_path):
    """It was recorded; a layout without a place for it has not lost it."""
    (checked / "config.json").unlink()
    doc = ckpt("ckpt-verify", "check", "--json", checked, check=1).json
    assert doc["same"] is False and doc["root"] == doc["expected_root"]
    assert doc["differing"] == [{"name": "config.json", "kind": "config"}]
    said = ckpt("ckpt-verify", "check", checked, check=1).out
    assert "config    config.json" in said and "values are as in" in said
    ckpt("ckpt-verify", "check", "--weights-only", checked)
    other = tmp_path / "digest.json"
    other.write_text(ckpt("ckpt-verify", "digest", "--json", golden_a).out)
    ckpt("ckpt-verify", "check", "--manifest", other, checked, check=1)
    ckpt("ckpt-convert", "--max-shard-size", "1GB", checked, tmp_path / "all")
    one, = (tmp_path / "all").glob("*.safetensors")
    doc = ckpt("ckpt-verify", "check", "--json", "--main", "--manifest", other, one).json
    assert doc["same"] is True and any("the layout has none" in note for note in doc["notes"])


def test_a_member_that_only_one_spelling_has_is_told(ckpt, checked, golden_a, tmp_path):
    a = with_config(golden_a, tmp_path / "a", lambda c: c.update(tomorrow=1))
    assert compare(ckpt, a, golden_a, 1)["differing"] == [{"name": "tomorrow", "a": 1, "b": None}]
    edit(checked / "config.json", lambda c: c.update(tomorrow=1))
    doc = ckpt("ckpt-verify", "check", "--json", checked, check=1).json
    assert doc["config"]["differing"] == [{"name": "tomorrow", "expected": None, "got": 1}]
    edit(checked / "ckpt-manifest.json", lambda m: m["config"].pop("@spelling"))
    doc = ckpt("ckpt-verify", "check", "--json", checked).json       # of an earlier version
    assert "not compared" in doc["config"]["note"] and "tomorrow" in doc["config"]["note"]
    assert any("tomorrow" in note for note in doc["notes"])
    assert "tomorrow" in ckpt("ckpt-verify", "check", checked).out


@pytest.mark.parametrize("record", ["x", {"rope_theta": {"a": 1}}, [1]])
def test_a_record_that_is_none_is_refused(ckpt, checked, record):
    edit(checked / "ckpt-manifest.json", lambda m: m.update(config=record))
    assert "record of config.json" in ckpt("ckpt-verify", "check", checked, check=2).err


def test_a_checkpoint_that_carries_no_config_is_told(ckpt, golden_a, tmp_path):
    one = tmp_path / "one.safetensors"
    shutil.copy(next(golden_a.glob("model-00001-*")), one)
    doc = ckpt("ckpt-verify", "compare", "--json", one, one).json
    assert "neither A nor B has one" in doc["config"]["note"] and doc["same"] is True
    assert "neither A nor B has one" in ckpt("ckpt-verify", "compare", one, one).out


def test_the_document_names_what_was_compared(ckpt, golden_a, tmp_path):
    b = shutil.copytree(golden_a, tmp_path / "b")
    doc = ckpt("ckpt-verify", "compare", "--json", golden_a, b).json
    assert [doc[side]["path"] for side in "ab"] == [str(golden_a), str(b)]
    assert doc["a"]["layout"] == "hf" and doc["b"]["notes"] == [] and doc["version"]


def test_any_other_config_counts_by_all_its_members(ckpt, tmp_path, golden_a):
    """Of a family that is not known here; nested ones, too."""
    def model(path, **members):
        path.mkdir()
        shutil.copy(next(golden_a.glob("model-00001-*")), path / "model.safetensors")
        config = {"model_type": "llama", "torch_dtype": "bfloat16", "rope_theta": 10000,
                  "text_config": {"rms_norm_eps": 1e-6, "dtype": "bfloat16", "sizes": [1, 2]}}
        (path / "config.json").write_text(json.dumps({**config, **members}))
        return path
    a, b = model(tmp_path / "a"), model(tmp_path / "b", torch_dtype="float32")
    assert compare(ckpt, a, b, 0)["differing"] == []
    c = model(tmp_path / "c", rope_theta=999, text_config={"rms_norm_eps": 1e-5, "sizes": [1, 3]})
    found = compare(ckpt, a, c, 1)["differing"]
    assert [d["name"] for d in found] == ["rope_theta", "text_config.rms_norm_eps",
                                          "text_config.sizes"]


# ---- notes: what a checkpoint that can be read may not be ----

def notes_of(ckpt, path, *options):
    return ckpt("ckpt-inspect", "--json", "--summary", *options, path).json["notes"]


def note(notes, words):
    found = [n for n in notes if words in n]
    assert len(found) == 1, notes
    return found[0]


def test_one_file_of_several_is_told_everywhere(ckpt, golden_a, tmp_path):
    part = next(golden_a.glob("model-00002-*"))
    words = "this is file 2 of 5"
    note(notes_of(ckpt, part), words)
    report = tmp_path / "report.json"
    done = ckpt("ckpt-convert", "--json", "--report", report, part, tmp_path / "out").json
    note(done["notes"], words)
    note(json.loads(report.read_text())["notes"], words)
    assert words in ckpt("ckpt-convert", part, tmp_path / "again").out
    assert words in ckpt("ckpt-verify", "compare", part, part).out
    digest = ckpt("ckpt-verify", "digest", part)
    assert words in digest.err and words not in digest.out
    assert ckpt("ckpt-verify", "digest", "--quiet", part).err == ""
    note(ckpt("ckpt-verify", "digest", "--json", part).json["notes"], words)
    whole = shutil.copy(part, tmp_path / "model.safetensors")
    assert not any("this is" in n for n in notes_of(ckpt, whole))


def test_one_rank_is_told(ckpt, golden_a, tmp_path):
    ckpt("ckpt-shard", "--layout", "mp", "--mp", "2", golden_a, tmp_path / "mp")
    rank = tmp_path / "mp" / "model1-mp2.safetensors"
    note(notes_of(ckpt, rank), "one rank of 2")
    note(ckpt("ckpt-verify", "digest", "--json", rank).json["notes"], "one rank of 2")
    assert not any("rank" in n for n in notes_of(ckpt, tmp_path / "mp"))


def test_an_adapter_is_told(ckpt, golden_a, tmp_path):
    (tmp_path / "lora").mkdir()
    part = next(golden_a.glob("model-00002-*"))
    shutil.copy(part, tmp_path / "lora" / "adapter_model.safetensors")
    (tmp_path / "lora" / "adapter_config.json").write_text("{}")
    note(notes_of(ckpt, tmp_path / "lora"), "LoRA")
    done = ckpt("ckpt-convert", "--json", tmp_path / "lora", tmp_path / "out").json
    note(done["notes"], "LoRA")


@pytest.mark.parametrize("total, is_told", [("tensors", False), ("files", False), (1, True),
                                            (None, False)])
def test_a_total_size_that_is_wrong_is_told(ckpt, golden_a, tmp_path, total, is_told):
    """Writers take the bytes of the tensors, or of the files with their headers."""
    model = shutil.copytree(golden_a, tmp_path / "model")
    index = model / "model.safetensors.index.json"
    document = json.loads(index.read_text())
    right = ckpt("ckpt-inspect", "--json", "--summary", model).json["totals"]["all"]["bytes"]
    sums = {"tensors": right, "files": sum(p.stat().st_size for p in model.glob("*.safetensors"))}
    document["metadata"] = {"total_size": sums.get(total, total), "other": {"total_size": 5}}
    if total is None:
        document["metadata"].pop("total_size")
    index.write_text(json.dumps(document))
    found = [n for n in notes_of(ckpt, model) if "total_size" in n]
    assert len(found) == is_told and all(f"{right} bytes" in n for n in found)


def test_f16_that_stays_f16_is_told(ckpt, tmp_path):
    c = Model()
    c.files["model.safetensors"] = {"a.weight": Tensor("F16", [2, 4], bytes(16)),
                                    "b.weight": Tensor("BF16", [2, 4], bytes(16))}
    path = c.write(tmp_path / "c", index=False)
    done = ckpt("ckpt-convert", "--json", "--dtype", "bf16", path, tmp_path / "o").json
    assert "1 tensor is F16" in note(done["notes"], "is not converted")
    assert done["tensor_count"] == 2
    assert ckpt("ckpt-convert", "--json", path, tmp_path / "p").json["notes"] == []


def test_what_fill_from_supplied_is_told(ckpt, golden_a, tmp_path):
    ckpt("ckpt-shard", "--layout", "torch_dist", golden_a, tmp_path / "dist")
    back = ("ckpt-shard", "--json", "--layout", "hf", "--names", "native")
    lacking = ckpt(*back, tmp_path / "dist", tmp_path / "lacking").json
    note(lacking["notes"], "no MTP block")
    done = ckpt(*back, "--fill-from", golden_a, tmp_path / "dist", tmp_path / "filled").json
    assert "the first is 'mtp." in note(done["notes"], f"tensors come from '{golden_a}'")
    assert not any("no MTP block" in n for n in done["notes"])
    unused = ckpt("ckpt-convert", "--json", "--fill-from", golden_a, golden_a, tmp_path / "u").json
    note(unused["notes"], "nothing was taken from")
