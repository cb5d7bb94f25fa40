"""The root that a GGUF file holds: who compares it with the values, and who says that none did."""
import json

import pytest

from cli.test_gguf import BARE, made, roots    # noqa: F401 (made is a fixture)
from cli.trees import tree
from corrupt.gguf_files import Parsed, key


def test_a_file_is_checked_by_the_root_that_it_holds(ckpt, made, golden_a):
    found = ckpt("ckpt-verify", "check", "--json", made / "model.gguf").json
    assert found["same"] and found["checked"] == "values"
    assert found["stored_root"] == found["root"] == roots(ckpt, golden_a)[0]


def changed_values(source, path):
    """The file with other values, as a program would leave it that knows nothing of its root."""
    parsed = Parsed(source)
    name, ne, kind, data = parsed.tensors[0]
    parsed.tensors[0] = (name, ne, kind, bytes([data[0] ^ 1]) + data[1:])
    return parsed.write(path)


def test_values_that_are_not_of_the_stored_root_are_told(ckpt, made, golden_a, tmp_path):
    path = changed_values(made / "model.gguf", tmp_path / "model.gguf")
    found = ckpt("ckpt-verify", "check", "--json", path, check=1).json
    assert not found["same"] and found["stored_root"] == roots(ckpt, golden_a)[0]
    assert [(d["name"], d["kind"]) for d in found["differing"]] == [("ckpt.value_root", "root")]
    out = ckpt("ckpt-verify", "check", path, check=1).out
    assert f"expected {found['stored_root']}, got {found['root']}" in out
    ckpt("ckpt-verify", "check", "--structure-only", path)
    told = ckpt("ckpt-verify", "digest", "--json", path, check=1).json
    assert told["root"] == found["root"]
    assert any(f"ckpt.value_root says {found['stored_root']}" in n for n in told["notes"])
    assert f"'{path}': its key ckpt.value_root says" in \
        ckpt("ckpt-verify", "digest", "--quiet", path, check=1).err
    listed = tmp_path / "list"
    listed.write_text(ckpt("ckpt-verify", "digest", path, check=1).out)
    done = ckpt("ckpt-verify", "digest", "-c", listed, check=1)
    assert done.out.count(": FAILED") == 2 and "ckpt.value_root says" in done.err
    manifest = tmp_path / "m.json"
    manifest.write_text(json.dumps(told))
    found = ckpt("ckpt-verify", "check", "--json", "--manifest", manifest, path, check=1).json
    assert [d["kind"] for d in found["differing"]] == ["root"]


@pytest.mark.parametrize("command", [["ckpt-convert", "--dtype", "bf16", "--experts", "bf16"],
                                     ["ckpt-shard", "--layout", "hf"], ["ckpt-shard", *BARE]])
def test_values_that_are_not_of_the_stored_root_are_not_converted(ckpt, made, tmp_path, command):
    """Or the result would hold a root of its own, that of the damaged values."""
    path = changed_values(made / "model.gguf", tmp_path / "x.gguf")
    stored, now = roots(ckpt, made)[0], tmp_path / "now"
    err = ckpt(*command, path, tmp_path / "out", check=2).err
    assert f"'{path}': its key ckpt.value_root says {stored}, but its values have the root " in err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.gguf"]
    ckpt(*command, "--dry-run", path, now)
    ckpt(*command, "--no-digest", path, now)
    other = ckpt("ckpt-verify", "digest", "--json", now, check=None).json["root"]
    assert f"have the root {other}: they changed" in err


def test_the_stored_root_is_compared_without_what_fills(ckpt, golden_a, tmp_path):
    """It is of the file's own tensors, not of those that --fill-from adds."""
    without = tmp_path / "without"
    ckpt("ckpt-shard", *BARE[:-1], golden_a, without)
    fill = ["ckpt-shard", "--layout", "hf", "--like", golden_a, "--fill-from", golden_a]
    ckpt(*fill, without, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(golden_a)
    changed_values(without / "model.gguf", without / "model.gguf")
    assert "ckpt.value_root says" in ckpt(*fill, "--allow-lossy", without, tmp_path / "out",
                                          check=2).err


def noted(found):
    return [n for n in found.json["notes"] if "ckpt.value_root" in n and "is not compared" in n]


def test_readers_that_compare_no_stored_root_say_so(ckpt, made, golden_a, tmp_path):
    """Of --fill-from only some tensors are read; compare and --stat make no digest."""
    path = changed_values(made / "model.gguf", tmp_path / "x.gguf")
    without = tmp_path / "without"
    ckpt("ckpt-shard", *BARE[:-1], golden_a, without)
    note, = noted(ckpt("ckpt-shard", "--json", "--layout", "hf", "--fill-from", path, without,
                       tmp_path / "out"))
    assert f"'{path}'" in note and "of the 383 tensors that it counts 77" in note
    found = ckpt("ckpt-verify", "compare", "--json", path, path).json
    assert all("ckpt.value_root" in str(found[side]["notes"]) for side in "ab")
    assert noted(ckpt("ckpt-inspect", "--json", "--stat", path))
    assert not noted(ckpt("ckpt-inspect", "--json", path))


def test_faults_are_not_made_in_damaged_values(ckpt, made, tmp_path):
    path = changed_values(made / "model.gguf", tmp_path / "x.gguf")
    mutate = ["ckpt-verify", "mutate", "--kind", "drop_tensor"]
    err = ckpt(*mutate, path, check=2).err
    assert f"'{path}': its key ckpt.value_root says" in err and "mutations of damaged" in err
    ckpt(*mutate, made / "model.gguf")


def test_a_run_without_a_digest_says_so(ckpt, made, tmp_path):
    command = ["ckpt-run", "--tokens", "-", made / "model.gguf"]
    note = f"the root in the key ckpt.value_root of '{made / 'model.gguf'}' is not compared: "
    assert note in ckpt(*command, input="1 2 3").err
    out = ["--digest", "--out", tmp_path / "out"]
    assert "not compared" not in ckpt(*command, *out, input="1 2 3").err


def test_a_delta_of_damaged_files_is_refused(ckpt, golden_a, tmp_path):
    """Its roots would be those of the damage. Also of files that are converted on the way."""
    ckpt("ckpt-convert", "--dtype", "bf16", golden_a, tmp_path / "bf16")
    ckpt("ckpt-shard", *BARE, tmp_path / "bf16", tmp_path / "whole")
    path = changed_values(tmp_path / "whole" / "model.gguf", tmp_path / "x.gguf")
    like = ["--like", tmp_path / "bf16", tmp_path / "bf16"]
    for sides in ([path, tmp_path / "whole"], [tmp_path / "whole", path], [*like, path]):
        err = ckpt("ckpt-delta", "diff", *sides, tmp_path / "delta", check=2).err
        assert f"'{path}': its key ckpt.value_root says" in err
        assert not (tmp_path / "delta").exists()
    ckpt("ckpt-delta", "diff", *like, tmp_path / "whole", tmp_path / "delta")


def test_damaged_files_do_not_run_with_a_digest(ckpt, made, tmp_path):
    """The digest in the header of the logits would be that of the damage."""
    path = changed_values(made / "model.gguf", tmp_path / "x.gguf")
    (tmp_path / "t.json").write_text("[0, 1, 2]")
    run = ["--tokens", tmp_path / "t.json", "--out", tmp_path / "o.safetensors"]
    err = ckpt("ckpt-run", "--digest", *run, path, check=2).err
    assert "its key ckpt.value_root says" in err and not (tmp_path / "o.safetensors").exists()
    ckpt("ckpt-run", "--digest", *run, made / "model.gguf")


def test_damaged_files_are_packed_as_they_are_with_a_note(ckpt, made, tmp_path):
    """The key is in the packed file, too, whose readers compare it."""
    path = changed_values(made / "model.gguf", tmp_path / "x.gguf")
    notes = ckpt("ckpt-delta", "diff", "--json", "--base", "none", path,
                 tmp_path / "x.ckpt").json["notes"]
    assert any("ckpt.value_root" in n and "the values changed" in n for n in notes)
    ckpt("ckpt-verify", "check", tmp_path / "x.ckpt", check=1)


def test_a_stored_root_of_more_tensors_is_noted(ckpt, made, tmp_path):
    """It counts the next-token block, which torch_dist leaves out."""
    path = changed_values(made / "model.gguf", tmp_path / "x.gguf")
    notes = ckpt("ckpt-shard", "--json", "--layout", "torch_dist", path,
                 tmp_path / "out").json["notes"]
    assert any("ckpt.value_root" in n and "is not compared: it counts" in n for n in notes)


@pytest.mark.parametrize("option", ["--u8-scales", "--keep-copies"])
def test_a_stored_root_of_other_readings_is_noted(ckpt, made, tmp_path, option):
    path = changed_values(made / "model.gguf", tmp_path / "x.gguf")
    done = ckpt("ckpt-shard", "--json", "--layout", "hf", option, path, tmp_path / "out").json
    assert [n for n in done["notes"] if "ckpt.value_root" in n and "is not compared" in n]


@pytest.mark.parametrize("kind, value", [("string", ""), ("string", "ab" * 30), ("u32", 7),
                                         ("string", "x" * 64), ("string", "0" * 65)])
def test_a_stored_root_that_is_none_is_noted(ckpt, made, tmp_path, kind, value):
    parsed = Parsed(changed_values(made / "model.gguf", tmp_path / "x.gguf"))
    parsed = parsed.without("ckpt.value_root")
    parsed.keys.append(("ckpt.value_root", value, key("ckpt.value_root", kind, value)))
    path = parsed.write(tmp_path / "x.gguf")
    notes = ckpt("ckpt-verify", "digest", "--json", path).json["notes"]
    assert [n for n in notes if "ckpt.value_root" in n and "holds no root" in n]
    assert "no manifest" in ckpt("ckpt-verify", "check", path, check=2).err


def test_certify_fails_for_another_root_than_the_stored(ckpt, made, tmp_path):
    path = changed_values(made / "model.gguf", tmp_path / "x.gguf")
    found = ckpt("ckpt-verify", "certify", "--json", "--out", tmp_path / "c.json", path,
                 check=1).json
    assert ("structure", "root") in {(f["check"], f["kind"]) for f in found["findings"]}
