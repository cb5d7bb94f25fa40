"""--dry-run refuses, in the same words, what the run would refuse before its first byte."""
import fcntl
import os
import re
import shutil
import signal
import subprocess

import pytest

from cli.delta_models import drift
from cli.trees import journal, partial, tree
from conftest import BUILD, run_tool

# Of each command: words of which {out} is the target, and others that make another job of it.
COMMANDS = {
    "convert": ("ckpt-convert --dtype bf16 {a} {out}", "--experts fp8"),
    "shard": ("ckpt-shard --layout mp --mp 2 {a} {out}", "--dtype bf16"),
    "synth": ("ckpt-synth --config tiny --layers 2 {out}", "--seed 9"),
    "diff": ("ckpt-delta diff {a} {b} {out}", "--level 3"),
    "squash": ("ckpt-delta squash {a} {d} {out}", "--level 3"),
    "reverse": ("ckpt-delta reverse {a} {d} {out}", "--level 3"),
    "apply": ("ckpt-delta apply {a} {d} {out}", None),
    "unpack": ("ckpt-delta apply --base none {p} {out}", None),
}
OTHER_SOURCE = {"apply": "ckpt-delta apply {b} {back} {out}",
                "unpack": "ckpt-delta apply --base none {q} {out}"}
# and that replace what stands there
REPLACING = [(name, "--overwrite") for name in ("convert", "shard", "synth")] + \
            [(name, "--restart") for name in COMMANDS]


@pytest.fixture(scope="module")
def inputs(ckpt, golden_a, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    new = drift(golden_a, folder / "b", only=lambda name: "layers.1" in name and "norm" in name)
    ckpt("ckpt-delta", "diff", golden_a, new, folder / "d")
    ckpt("ckpt-delta", "diff", new, golden_a, folder / "back")
    ckpt("ckpt-delta", "diff", "--base", "none", golden_a, folder / "p")
    ckpt("ckpt-delta", "diff", "--base", "none", new, folder / "q")
    return {"a": golden_a, **{name: folder / name for name in ("b", "d", "back", "p", "q")}}


def words_of(text, inputs, out, *more):
    tool, *rest = [word.format(**inputs, out=out) for word in text.split()]
    at = 1 if tool == "ckpt-delta" else 0
    return [tool, *rest[:at], *more, *rest[at:]]


def everything(folder):
    """All below it, with modes and times of folders, so that a folder made and removed shows."""
    return {str(p): (s.st_mode, s.st_size, s.st_mtime_ns) for p in (folder, *folder.rglob("*"))
            for s in [os.lstat(p)]}


def both(words):
    """The words of the dry run, and those of the run."""
    at = 2 if words[0] in ("ckpt-delta", "ckpt-verify") else 1
    return [*words[:at], "--dry-run", *words[at:]], words


def without_bytes(said):
    """The run has written headers before it looks at the room."""
    return re.sub(r"\d+ (more bytes|free)", r"\1", said)


def refuse_alike(folder, *words, says):
    """The dry run, then the run: each is refused, in the same words, and leaves nothing."""
    before = everything(folder)
    dry, real = both(words)
    said = run_tool(*dry, check=2).err
    assert everything(folder) == before
    assert any(text in said for text in says.split("|")), said
    assert without_bytes(run_tool(*real, check=2).err) == without_bytes(said)
    after = everything(folder)
    assert {k: v[0] for k, v in after.items()} == {k: v[0] for k, v in before.items()}


@pytest.fixture
def begun(fault, inputs, tmp_path):
    """begun(name) -> OUT of a run that was killed before its end."""
    def begin(text, *more):
        out = tmp_path / "out"
        words = words_of(text, inputs, out, *more)
        run_tool(*words, check=-signal.SIGKILL, env=fault.env("fsync:kill:3", "out.partial"))
        assert fault.injected and journal(out).exists()
        fault.log.unlink()
        return out
    return begin


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unfinished_run_of_another_job(name, inputs, begun, tmp_path):
    text, other = COMMANDS[name]
    out = begun(OTHER_SOURCE.get(name, text), *(other.split() if other else []))
    refuse_alike(tmp_path, *words_of(text, inputs, out),
                 says="is an unfinished run with different options")


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unfinished_run_that_would_be_resumed_is_a_plan(name, inputs, begun, ckpt):
    text, _ = COMMANDS[name]
    out = begun(text)
    before = tree(partial(out))
    ckpt(*words_of(text, inputs, out, "--dry-run"))
    assert tree(partial(out)) == before and not out.exists()


@pytest.mark.parametrize("other", ["made otherwise", "of its other part"])
def test_a_part_looks_at_what_is_there(inputs, ckpt, tmp_path, other):
    """The result of all parts is fine, whose values a run would compare; other files are in the
    way."""
    out = tmp_path / "out"
    words = ["ckpt-convert", "--no-manifest", "--dtype", "bf16", "--part", "1/2", inputs["a"], out]
    if other == "of its other part":
        ckpt(*words)
        ckpt(*words[:5], "2/2", *words[6:])
        assert out.is_dir()
        for more in (["--dry-run"], []):
            ckpt(words[0], *more, *words[1:])
        return
    ckpt("ckpt-convert", "--no-manifest", "--experts", "fp8", inputs["a"], out)
    refuse_alike(tmp_path, *words, says="already exists")


@pytest.mark.parametrize("words", ["ckpt-convert --dtype bf16", "ckpt-shard --layout mp --mp 2",
                                   "ckpt-shard --layout gguf --without-tokenizer"])
def test_a_part_looks_at_config_and_headers_of_what_is_there(words, ckpt, golden_a, tmp_path):
    """Values of the same weights are the same, also with another config.json."""
    other = shutil.copytree(golden_a, tmp_path / "in")
    config = (other / "config.json").read_text()
    changed = re.sub(r'"rms_norm_eps": [0-9.e-]+', '"rms_norm_eps": 0.5', config)
    assert changed != config
    (other / "config.json").write_text(changed)
    out = tmp_path / "out"
    ckpt(*words.split(), other, out)
    ckpt(*words.split(), "--part", "1/2", other, out)
    refuse_alike(tmp_path, *words.split(), "--part", "1/2", golden_a, out, says="already exists")


@pytest.mark.parametrize("words, damaged", [
    ("ckpt-convert --dtype bf16", "model.safetensors.index.json"),
    ("ckpt-convert --dtype bf16", "tokenizer_config.json"),
    ("ckpt-shard --layout mp --mp 2", "tokenizer_config.json"),
    ("ckpt-shard --layout torch_dist", "release/.metadata"),
])
@pytest.mark.parametrize("text", [None, '{"a": 1}'])
def test_a_part_looks_at_the_small_files_of_what_is_there(words, damaged, text, ckpt, golden_a,
                                                          tmp_path):
    source = shutil.copytree(golden_a, tmp_path / "in")
    (source / "tokenizer_config.json").write_text("{}")
    out = tmp_path / "out"
    ckpt(*words.split(), source, out)
    ckpt(*words.split(), "--part", "1/2", source, out)
    (out / damaged).unlink()
    if text is not None:
        (out / damaged).write_text(text)
    refuse_alike(tmp_path, *words.split(), "--part", "1/2", source, out, says="already exists")


def test_a_part_says_that_it_has_not_compared_values(inputs, ckpt, tmp_path):
    out = tmp_path / "out"
    words = ["ckpt-convert", "--dtype", "bf16", "--part", "1/2", inputs["a"], out]
    assert "not checked" not in ckpt(*both(words)[0]).out
    assert ckpt(*both([*words, "--json"])[0]).json["may_be_there"] is False
    ckpt("ckpt-convert", "--dtype", "bf16", inputs["b"], out)
    assert ckpt(*both(words)[0]).out.endswith(
        f"\nnot checked: '{out}' has files of these sizes; the run compares their values, and is "
        "refused if they differ\n")
    assert ckpt(*both([*words, "--json"])[0]).json["may_be_there"] is True
    assert f"'{out}' already exists" in ckpt(*words, check=2).err


@pytest.mark.parametrize("name, option", REPLACING)
def test_an_unfinished_run_that_would_be_discarded(name, option, inputs, begun, ckpt, tmp_path):
    text, other = COMMANDS[name]
    out = begun(OTHER_SOURCE.get(name, text), *(other.split() if other else []))
    words = words_of(text, inputs, out, option)
    before = tree(partial(out))
    ckpt(*words_of(text, inputs, out, option, "--dry-run"))
    assert tree(partial(out)) == before
    (partial(out) / "thesis").write_text("years")
    refuse_alike(tmp_path, *words, says="'thesis' in it does not belong to a checkpoint")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_that_is_at_it(name, inputs, begun, tmp_path):
    text, _ = COMMANDS[name]
    out = begun(text)
    with open(journal(out)) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        refuse_alike(tmp_path, *words_of(text, inputs, out), says="another process is writing")


def folder_of_somebody(out):
    partial(out).mkdir()
    (partial(out) / "thesis").write_text("years")


def a_link(out):
    (out.parent / "elsewhere").mkdir()
    partial(out).symlink_to("elsewhere")


def a_file(out):
    partial(out).write_text("years")


def a_target(out):
    out.mkdir()
    (out / "thesis").write_text("years")


PLACES = {
    "a folder that is not ours": (folder_of_somebody, "has files but no journal"),
    "a link": (a_link, "is a link: move it away"),
    "a file": (a_file, "cannot make directory"),
    "a target": (a_target, "already exists"),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", COMMANDS)
def test_what_stands_in_the_way(name, place, inputs, tmp_path):
    make, says = PLACES[place]
    out = tmp_path / "out"
    make(out)
    refuse_alike(tmp_path, *words_of(COMMANDS[name][0], inputs, out), says=says)


@pytest.mark.parametrize("name", ["convert", "shard", "synth"])
def test_a_folder_that_is_not_replaced(name, inputs, tmp_path):
    out = tmp_path / "out"
    a_target(out)
    refuse_alike(tmp_path, *words_of(COMMANDS[name][0], inputs, out, "--overwrite"),
                 says="is not replaced: 'thesis' in it")


@pytest.mark.parametrize("target, says", [
    ("absent/out", "'{0}/absent': No such file"), ("file/out", "is not a directory"),
    ("in/out", "is inside the input"), ("in", "already exists|are the same"),
    ("", "expected the name of a new folder|would replace|already exists"),
])
@pytest.mark.parametrize("name", ["convert", "shard", "apply", "diff"])
def test_a_target_that_cannot_be(name, target, says, inputs, tmp_path):
    shutil.copytree(inputs["a"], tmp_path / "in")
    (tmp_path / "file").touch()
    words = words_of(COMMANDS[name][0], {**inputs, "a": tmp_path / "in"}, tmp_path / target)
    refuse_alike(tmp_path, *words, says=says.format(tmp_path))


@pytest.mark.parametrize("bytes_, says", [(248, "248 bytes, expected at most 247"),
                                          (256, "256 bytes, expected at most 247")])
@pytest.mark.parametrize("name", [*COMMANDS, "pack"])
def test_a_name_that_leaves_no_room_for_the_unfinished(name, bytes_, says, inputs, tmp_path):
    text = COMMANDS.get(name, ("ckpt-delta diff --base none {a} {out}", None))[0]
    refuse_alike(tmp_path, *words_of(text, inputs, tmp_path / ("n" * bytes_)), says=says)


@pytest.mark.parametrize("name", ["convert", "shard", "synth"])
def test_a_name_that_leaves_no_room_for_what_is_replaced(name, inputs, tmp_path, ckpt):
    """The old one is moved away at the end, when all work is done."""
    longest = tmp_path / ("n" * 241)
    ckpt(*words_of(COMMANDS[name][0], inputs, longest))
    ckpt(*words_of(COMMANDS[name][0], inputs, longest, "--overwrite"))
    longest.rename(other := tmp_path / ("n" * 242))
    refuse_alike(tmp_path, *words_of(COMMANDS[name][0], inputs, other, "--overwrite"),
                 says="its name has 242 bytes, expected at most 241")


@pytest.mark.parametrize("words", ["ckpt-convert --report {f} {a} {out}",
                                   "ckpt-convert --manifest {f} {a} {out}",
                                   "ckpt-run --tokens {t} --out {f} {a}",
                                   "ckpt-run --tokens {t} --trace {f} {a}"])
def test_a_name_that_no_file_can_have(words, inputs, tmp_path):
    (tmp_path / "t").write_text("[[1, 2]]")
    said = {**inputs, "f": tmp_path / ("n" * 256), "t": tmp_path / "t"}
    refuse_alike(tmp_path, *words_of(words, said, tmp_path / "out"),
                 says="its name has 256 bytes, expected at most 255")


@pytest.mark.parametrize("name", ["convert", "shard", "synth", "apply", "unpack"])
def test_a_disk_that_is_too_small(name, inputs, small_disk, ckpt):
    disk = small_disk(1)
    words = words_of(COMMANDS[name][0], inputs, disk / "out")
    refuse_alike(disk, *words, says="not enough disk space for")
    ckpt(*words_of(COMMANDS[name][0], inputs, disk / "out", "--dry-run", "--no-space-check"))


@pytest.mark.parametrize("name", ["convert", "synth", "diff", "apply", "unpack"])
def test_a_folder_that_nobody_may_write_to(name, inputs, tmp_path):
    (tmp_path / "closed").mkdir(mode=0o500)
    words = words_of(COMMANDS[name][0], inputs, tmp_path / "closed" / "out")
    drop = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    said = [subprocess.run([*drop, BUILD / "bin" / each[0], *each[1:]], capture_output=True,
                           text=True) for each in both(words)]
    if "setpriv" in said[0].stderr:
        pytest.skip("this test gives up the right to write everywhere: " + said[0].stderr)
    assert [done.returncode for done in said] == [2, 2]
    assert said[0].stderr == said[1].stderr
    assert f"'{tmp_path / 'closed'}': Permission denied" in said[0].stderr


@pytest.mark.parametrize("leftover", ["thesis", "another run"])
def test_packing_to_a_name_that_is_taken(leftover, inputs, tmp_path):
    (tmp_path / "out.partial").write_text(leftover)
    refuse_alike(tmp_path, "ckpt-delta", "diff", "--base", "none", str(inputs["a"]),
                 str(tmp_path / "out"), says="is in the way")


def test_a_base_that_another_change_has_left_half_done(ckpt, fault, inputs, golden_a, tmp_path):
    base = shutil.copytree(golden_a, tmp_path / "base")
    other = drift(golden_a, tmp_path / "other", only=lambda name: "layers.2" in name)
    ckpt("ckpt-delta", "diff", golden_a, other, tmp_path / "d")
    ckpt("ckpt-delta", "apply", "--in-place", base, tmp_path / "d", check=-signal.SIGKILL,
         env=fault.env("pwrite:kill:2", "base/model"))
    assert fault.injected
    fault.log.unlink()
    refuse_alike(tmp_path, "ckpt-delta", "apply", "--in-place", str(base), str(inputs["d"]),
                 says="is of another change that was interrupted")
    ckpt("ckpt-delta", "apply", "--in-place", "--dry-run", base, tmp_path / "d")


# ---- ckpt-verify certify, which writes a certificate ----

def test_a_plan_of_a_certificate_reads_no_values(ckpt, inputs, fault, tmp_path):
    page = tmp_path / "page.html"
    words = ["ckpt-verify", "certify", "--out", tmp_path / "c.json", "--html", page, "--delta",
             inputs["d"], inputs["a"], inputs["b"]]
    before = everything(tmp_path)
    blind = fault.env("pread:EIO:4+", "/b/model-00003")    # behind the headers
    said = ckpt(*both(words)[0], env=blind)
    lines = said.out.splitlines()
    assert re.match(rf"{inputs['a']}: \d+ tensors, stored as \d+ in hf, family deepseek_v4, ",
                    lines[0])
    assert lines[2] == f"{inputs['d']}: a delta, or a folder of them"
    assert lines[3].endswith("are read, the first checkpoint once more for each delta")
    assert lines[4:] == [f"a certificate goes to '{tmp_path / 'c.json'}', which is not written now",
                         f"a page goes to '{page}', which is not written now"]
    assert everything(tmp_path) == before and said.err == "" and not fault.injected
    ckpt(*words, check=2, env=blind)
    assert fault.injected


@pytest.mark.parametrize("more, says", [
    (["--delta", "{gone}"], "gone' does not exist"), (["--delta", "{b}"], "is a whole checkpoint"),
    (["--delta", "-"], "expected a delta on disk"),
    (["--logits", "{gone}", "--logits", "{gone}"], "gone' does not exist"),
    (["--out", "{gone}/c"], "is not a directory"), (["--out", "{a}/config.json"], "is a file of"),
    (["--sign", "{gone}"], "gone'"), (["--policy", "{gone}"], "gone'"),
    (["--out", "{long}"], "expected at most 255"), (["--require", "wisdom"], "cannot require")])
def test_a_certificate_that_cannot_be(more, says, inputs, tmp_path):
    """Refused before any value is read, which takes hours."""
    names = {**inputs, "gone": tmp_path / "gone", "long": tmp_path / ("n" * 240)}
    words = [word.format(**names) for word in more]
    refuse_alike(tmp_path, "ckpt-verify", "certify", "--out", str(tmp_path / "c.json"), *words,
                 str(inputs["a"]), str(inputs["b"]), says=says)
