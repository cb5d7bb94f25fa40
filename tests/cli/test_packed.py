"""Packed checkpoints: one file, the same bytes, read by every command like the folder."""
import fcntl
import json
import shutil
import signal
import struct
import subprocess

import pytest

from cli import chats
from cli.delta_models import drift, edit_config
from cli.trees import start_tool, tree, wait_until_stopped

FOOTER = 48


def pack(ckpt, source, target, *options):
    return ckpt("ckpt-delta", "diff", "--base", "none", *options, source, target)


def unpack(ckpt, source, target):
    return ckpt("ckpt-delta", "apply", "--base", "none", source, target)


@pytest.fixture(scope="module")
def packed(ckpt, golden_a, tmp_path_factory):
    target = tmp_path_factory.mktemp("packed") / "a.ckpt"
    pack(ckpt, golden_a, target)
    return target


def index_of(path):
    """(position of the index, its JSON, [(bytes, packed bytes, kind)] of the chunks)."""
    data = path.read_bytes()
    offset, size = struct.unpack("<QQ", data[-FOOTER + 8:-FOOTER + 24])
    body = data[offset + 8:offset + size]
    text_bytes, count = struct.unpack("<QQ", body[:16])
    records = [struct.unpack("<IIIIQQ", body[16 + text_bytes + 32 * i:][:32]) for i in range(count)]
    return offset, json.loads(body[16:16 + text_bytes]), [r[:3] for r in records]


def test_the_files_come_back(ckpt, golden, tmp_path, digest):
    said = pack(ckpt, golden, tmp_path / "p.ckpt", "--json").json
    assert said["root"] == digest(golden) == digest(tmp_path / "p.ckpt")
    assert said["packed_bytes"] == (tmp_path / "p.ckpt").stat().st_size < said["bytes"]
    unpack(ckpt, tmp_path / "p.ckpt", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(golden)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "p.ckpt"]


@pytest.mark.parametrize("layout", [["mp", "--mp", 2], ["torch_dist", "--tp", 2],
                                    ["gguf", "--without-tokenizer"]])
def test_other_layouts_come_back(ckpt, golden_a, tmp_path, digest, layout):
    ckpt("ckpt-shard", "--layout", *layout, golden_a, tmp_path / "in")
    pack(ckpt, tmp_path / "in", tmp_path / "p.ckpt")
    assert digest(tmp_path / "p.ckpt") == digest(tmp_path / "in")
    said = ckpt("ckpt-inspect", "--json", tmp_path / "p.ckpt").json
    assert said["layout"] == layout[0]
    unpack(ckpt, tmp_path / "p.ckpt", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "in")


def test_one_file_is_packed_alone(ckpt, golden_a, tmp_path, digest):
    source = golden_a / "model-00001-of-00005.safetensors"
    pack(ckpt, source, tmp_path / "p.ckpt")
    assert digest(tmp_path / "p.ckpt") == digest(source)
    unpack(ckpt, tmp_path / "p.ckpt", tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == [source.name]
    assert (tmp_path / "out" / source.name).read_bytes() == source.read_bytes()


def test_bytes_do_not_depend_on_threads(ckpt, golden_a, packed, tmp_path):
    for threads in (1, 5):
        pack(ckpt, golden_a, tmp_path / f"{threads}", "--threads", threads)
        assert (tmp_path / f"{threads}").read_bytes() == packed.read_bytes()


def test_a_level_is_smaller_or_equal(ckpt, golden_a, packed, tmp_path):
    pack(ckpt, golden_a, tmp_path / "p.ckpt", "--level", 9)
    assert tmp_path.joinpath("p.ckpt").stat().st_size <= packed.stat().st_size
    assert "expected 1 to 19" in ckpt("ckpt-delta", "diff", "--base", "none", "--level", 20,
                                      golden_a, tmp_path / "q", check=2).err


def test_zstd_reads_all_of_its_frames(packed):
    if shutil.which("zstd") is None:
        pytest.skip("there is no zstd command here")
    subprocess.run(["zstd", "-t", "-q", packed], check=True)


def test_chunks_are_small_and_divided_by_dtype(packed):
    _, text, chunks = index_of(packed)
    assert text["schema"] == "ckpt-packed/1"
    assert all(0 < c[0] <= 4 << 20 for c in chunks)
    assert {c[2] for c in chunks} >= {0, 4, 5}             # as they are, BF16, F32
    assert sum(f["chunks"] for f in text["files"]) == len(chunks)


# ---- as a source ----

def test_converting_it_is_converting_the_folder(ckpt, golden_a, packed, tmp_path):
    for name, source in (("a", golden_a), ("b", packed)):
        ckpt("ckpt-convert", "--no-manifest", "--dtype", "bf16", "--experts", "bf16", source,
             tmp_path / name)
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_it_is_compared_and_checked(ckpt, golden_a, packed):
    assert ckpt("ckpt-verify", "compare", "--json", golden_a, packed).json["same"] is True
    assert ckpt("ckpt-verify", "compare", "--json", packed, golden_a).json["same"] is True


def test_the_model_runs_from_it(ckpt, golden_a, packed, tmp_path):
    tokens = tmp_path / "tokens.txt"
    tokens.write_text("1 2 3 4\n")
    logits = []
    for n, source in enumerate((golden_a, packed)):
        ckpt("ckpt-run", "--tokens", tokens, "--out", tmp_path / f"{n}.safetensors", source)
        logits.append((tmp_path / f"{n}.safetensors").read_bytes())
    assert logits[0] == logits[1]


def test_deltas_between_packed_checkpoints(ckpt, golden_a, packed, tmp_path):
    new = drift(golden_a, tmp_path / "new")
    edit_config(new, rope_theta=9)
    pack(ckpt, new, tmp_path / "new.ckpt")
    ckpt("ckpt-delta", "diff", golden_a, new, tmp_path / "a")
    ckpt("ckpt-delta", "diff", packed, tmp_path / "new.ckpt", tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")
    ckpt("ckpt-delta", "apply", packed, tmp_path / "a", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(new)


def test_it_is_read_in_little_memory(ckpt, packed, golden_a, digest):
    said = ckpt("ckpt-verify", "digest", "--json", "--memory", "32MiB", "--threads", 4, packed)
    assert said.json["root"] == digest(golden_a)


# ---- what is refused ----

def test_a_result_that_is_there_is_not_replaced(ckpt, golden_a, packed, tmp_path):
    (tmp_path / "there").write_text("x")
    said = ckpt("ckpt-delta", "diff", "--base", "none", golden_a, tmp_path / "there", check=2).err
    assert "already exists" in said
    (tmp_path / "out").mkdir()
    said = ckpt("ckpt-delta", "apply", "--base", "none", packed, tmp_path / "out", check=2).err
    assert "already exists" in said
    said = ckpt("ckpt-delta", "apply", "--base", "none", golden_a, tmp_path / "new", check=2).err
    assert "is not a packed checkpoint" in said


def test_it_is_not_changed_in_place_and_is_no_delta(ckpt, golden_a, packed, tmp_path):
    new = drift(golden_a, tmp_path / "new", only=lambda name: "norm" in name)
    ckpt("ckpt-delta", "diff", golden_a, new, tmp_path / "d")
    before = packed.read_bytes()
    said = ckpt("ckpt-delta", "apply", "--in-place", packed, tmp_path / "d", check=2).err
    assert "cannot be changed" in said and packed.read_bytes() == before
    assert "is a packed checkpoint" in ckpt("ckpt-delta", "inspect", packed, check=2).err


def test_a_dry_run_writes_nothing(ckpt, golden_a, packed, tmp_path):
    ckpt("ckpt-delta", "diff", "--base", "none", "--dry-run", golden_a, tmp_path / "p")
    ckpt("ckpt-delta", "apply", "--base", "none", "--dry-run", packed, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_options_of_other_deltas_are_refused(ckpt, golden_a, tmp_path):
    for option in (["--encoding", "xor"], ["--like", golden_a], ["--measure"]):
        ckpt("ckpt-delta", "diff", "--base", "none", *option, golden_a, tmp_path / "p", check=2)
    said = ckpt("ckpt-delta", "diff", golden_a, tmp_path / "p", check=2).err
    assert "--base none" in said


@pytest.mark.parametrize("place", [0, 10, 30, 5000, -1, -20, -45, -60, -200])
def test_a_changed_byte_is_found(ckpt, packed, tmp_path, place):
    data = bytearray(packed.read_bytes())
    data[place] ^= 0x10
    bad = tmp_path / "bad.ckpt"
    bad.write_bytes(data)
    ckpt("ckpt-verify", "digest", bad, check=2)
    ckpt("ckpt-delta", "apply", "--base", "none", bad, tmp_path / "out", check=2)
    assert [p.name for p in tmp_path.iterdir()] == ["bad.ckpt"]


def test_every_byte_of_a_chunk_is_checked(ckpt, packed, tmp_path):
    """Wherever a frame is changed; those of a frame's own header, too."""
    data = packed.read_bytes()
    offset, _, _ = index_of(packed)
    for place in range(24, offset, offset // 40):
        bad = bytearray(data)
        bad[place] ^= 1
        (tmp_path / "bad.ckpt").write_bytes(bad)
        said = ckpt("ckpt-delta", "apply", "--base", "none", tmp_path / "bad.ckpt",
                    tmp_path / "out", check=2).err
        assert "is damaged: the frame at byte" in said


def test_a_file_that_is_cut_is_refused(ckpt, packed, tmp_path):
    data = packed.read_bytes()
    for size in (24, 71, 72, 1000, len(data) // 2, len(data) - 48, len(data) - 1):
        (tmp_path / "cut.ckpt").write_bytes(data[:size])
        said = ckpt("ckpt-inspect", tmp_path / "cut.ckpt", check=2).err
        assert "not a complete packed checkpoint" in said, size


def with_index(packed, change):
    """The packed file with another JSON text, sealed again by a true hash."""
    from interop.value_digest import xxhash
    data = packed.read_bytes()
    offset, size = struct.unpack("<QQ", data[-FOOTER + 8:-FOOTER + 24])
    body = data[offset + 8:offset + size]
    text_bytes, count = struct.unpack("<QQ", body[:16])
    text = json.loads(body[16:16 + text_bytes])
    change(text)
    raw = json.dumps(text).encode()
    body = struct.pack("<QQ", len(raw), count) + raw + body[16 + text_bytes:]
    frame = data[offset:offset + 4] + struct.pack("<I", len(body)) + body
    h = xxhash.XXH3_128bits_withSeed(frame, len(frame), 0)
    return data[:offset] + frame + data[-FOOTER:-FOOTER + 8] + struct.pack(
        "<QQQQ", offset, len(frame), h.low, h.high) + data[-8:]


HOSTILE = {
    "a path": lambda t: t["files"][0].update(name="../config.json"),
    "an absolute path": lambda t: t["files"][0].update(name="/config.json"),
    "a name twice": lambda t: t["files"][1].update(name=t["files"][0]["name"]),
    "too many chunks": lambda t: t["files"][-1].update(chunks=1 << 40),
    "fewer chunks": lambda t: t["files"].pop(),
    "a hidden path": lambda t: t["files"][0].update(name="../.metadata"),
    "another size": lambda t: t["files"][0].update(bytes=t["files"][0]["bytes"] + 1),
    "another schema": lambda t: t.update(schema="ckpt-packed/2"),
    "a root that is none": lambda t: t.update(root="\x1b[31mhi\nline2"),
    "a root in capitals": lambda t: t.update(root="F" * 64),
    "a root that is a number": lambda t: t.update(root=1),
    "a main root that is short": lambda t: t.update(main="0" * 63),
    "a name with control characters": lambda t: t["files"][-1].update(name="z\x1b[31m"),
    "a file that is a folder": lambda t: t["files"][-1].update(
        name=t["files"][-2]["name"] + "/x"),
    "a file that is a folder far away": lambda t: t["files"][-1].update(
        name=t["files"][0]["name"] + "/x") or t["files"].insert(1, t["files"].pop()),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_indexes_are_refused(ckpt, packed, tmp_path, name):
    (tmp_path / "bad.ckpt").write_bytes(with_index(packed, HOSTILE[name]))
    said = ckpt("ckpt-delta", "apply", "--base", "none", tmp_path / "bad.ckpt", tmp_path / "out",
                check=2).err
    assert "ckpt-packed/" in said
    assert [p.name for p in tmp_path.iterdir()] == ["bad.ckpt"]


def test_the_index_that_is_not_changed_is_accepted(ckpt, packed, golden_a, tmp_path, digest):
    (tmp_path / "same.ckpt").write_bytes(with_index(packed, lambda t: None))
    assert digest(tmp_path / "same.ckpt") == digest(golden_a)


def test_a_failed_write_leaves_nothing(ckpt, fault, golden_a, tmp_path):
    (tmp_path / "out").mkdir()
    ckpt("ckpt-delta", "diff", "--base", "none", golden_a, tmp_path / "out" / "p.ckpt", check=2,
         env=fault.env("write:ENOSPC:4", tmp_path / "out"))
    assert fault.injected
    assert list((tmp_path / "out").iterdir()) == []


def test_a_killed_unpack_goes_on(ckpt, fault, packed, golden_a, tmp_path):
    target = tmp_path / "run" / "out"
    target.parent.mkdir()
    ckpt("ckpt-delta", "apply", "--base", "none", packed, target, check=-signal.SIGKILL,
         env=fault.env("write:kill:6", target.parent))
    assert fault.injected
    unpack(ckpt, packed, target)
    assert tree(target) == tree(golden_a)
    assert [p.name for p in target.parent.iterdir()] == ["out"]


def test_a_killed_unpack_of_other_content_is_refused(ckpt, fault, packed, golden_a, tmp_path):
    """Also under the same name: the files of two checkpoints must not meet in one folder."""
    source = shutil.copy(packed, tmp_path / "p.ckpt")
    target = tmp_path / "run" / "out"
    target.parent.mkdir()
    command = "ckpt-delta", "apply", "--base", "none", source, target
    ckpt(*command, check=-signal.SIGKILL, env=fault.env("write:kill:6", target.parent))
    source.unlink()
    pack(ckpt, golden_a / "model-00001-of-00005.safetensors", source)
    assert "its source has changed" in ckpt(*command, check=2).err
    assert not target.exists()
    ckpt(*command, "--restart")
    assert [p.name for p in target.iterdir()] == ["model-00001-of-00005.safetensors"]


def test_a_file_that_changes_while_it_is_packed_is_refused(golden_a, fault, tmp_path):
    copy = shutil.copytree(golden_a, tmp_path / "in")
    (copy / "card.md").write_text("old\n" * 1000)
    process = start_tool("ckpt-delta", "diff", "--base", "none", copy, tmp_path / "p.ckpt",
                         env=fault.env("write:stop:3", "p.ckpt"))
    assert wait_until_stopped(process)
    (copy / "card.md").write_text("new\n" * 2000)
    process.send_signal(signal.SIGCONT)
    _, said = process.communicate()
    assert process.returncode == 2 and "card.md" in said and fault.injected
    assert not (tmp_path / "p.ckpt").exists()


def test_a_name_that_cannot_be_shown_is_not_packed(ckpt, golden_a, tmp_path):
    copy = shutil.copytree(golden_a, tmp_path / "in")
    (copy / "z\x1b[31m").write_text("x")
    assert "rename the file" in ckpt("ckpt-delta", "diff", "--base", "none", copy,
                                     tmp_path / "p.ckpt", check=2).err
    assert not (tmp_path / "p.ckpt").exists()


def test_it_is_not_overwritten_by_a_folder(ckpt, golden_a, packed, tmp_path):
    target = shutil.copy(packed, tmp_path / "p.ckpt")
    said = ckpt("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", "--overwrite", golden_a,
                target, check=2).err
    assert "is a packed checkpoint, which is not replaced" in said
    assert target.read_bytes() == packed.read_bytes()


def test_a_root_that_is_not_of_the_values_is_told(ckpt, packed, golden_a, tmp_path, digest):
    found = ckpt("ckpt-verify", "check", "--json", packed).json
    assert found["same"] and found["stored_root"] == found["root"] == digest(golden_a)
    path = tmp_path / "p.ckpt"
    path.write_bytes(with_index(packed, lambda t: t.update(root="f" * 64)))
    found = ckpt("ckpt-verify", "check", "--json", path, check=1).json
    assert [(d["name"], d["kind"]) for d in found["differing"]] == [("root", "root")]
    assert "NOT as the key root says" in ckpt("ckpt-verify", "check", path, check=1).out
    told = ckpt("ckpt-verify", "digest", "--json", path, check=1).json
    assert told["root"] == digest(golden_a) and "its key root says ffff" in told["notes"][0]
    ckpt("ckpt-verify", "certify", "--out", tmp_path / "c.json", path, check=1)
    assert "the values changed after it was written" in (tmp_path / "c.json").read_text()


def test_there_are_no_sums_for_its_files(ckpt, packed, tmp_path):
    said = ckpt("ckpt-verify", "certify", "--out", tmp_path / "c.json", "--sha256sums",
                tmp_path / "sums", packed, check=2).err
    assert "is a packed checkpoint" in said
    assert list(tmp_path.iterdir()) == []


def test_hidden_files_are_left_out_and_told(ckpt, golden_a, packed, tmp_path):
    copy = shutil.copytree(golden_a, tmp_path / "in")
    (copy / ".git" / "objects").mkdir(parents=True)
    (copy / ".git" / "objects" / "1").write_text("x")
    (copy / ".gitattributes").write_text("x")
    (copy / "empty").mkdir()
    note = "hidden files are left out: 2, the first is '.git/objects/1'"
    assert pack(ckpt, copy, tmp_path / "p.ckpt", "--json").json["notes"] == [note]
    assert (tmp_path / "p.ckpt").read_bytes() == packed.read_bytes()
    assert note in pack(ckpt, copy, tmp_path / "q.ckpt").out
    assert pack(ckpt, golden_a, tmp_path / "r.ckpt", "--json").json["notes"] == []


def test_unpacking_tells_no_root_that_it_did_not_compute(ckpt, packed, tmp_path):
    (tmp_path / "p.ckpt").write_bytes(with_index(packed, lambda t: t.update(root="f" * 64)))
    said = ckpt("ckpt-delta", "apply", "--base", "none", "--json", tmp_path / "p.ckpt",
                tmp_path / "out")
    assert said.json["root"] is None and "ffff" not in said.out + said.err


def test_the_tokenizer_in_it_is_used(ckpt, golden_a, tmp_path):
    copy = shutil.copytree(golden_a, tmp_path / "in")
    chats.tokenizer(copy / "tokenizer.json")
    pack(ckpt, copy, tmp_path / "p.ckpt")
    ask = "ckpt-run", "--prompt=x", "--dry-run", "--json"
    told = [ckpt(*ask, path).json for path in (copy, tmp_path / "p.ckpt")]
    assert told[0]["prompts"] == told[1]["prompts"]


# ---- the disk ----

def test_a_disk_too_small_for_the_files_is_refused_before_any_is_written(ckpt, packed, small_disk):
    disk = small_disk(8)
    words = ["ckpt-delta", "apply", "--base", "none"]
    said = ckpt(*words, packed, disk / "out", check=2).err
    assert "not enough disk space" in said and "--no-space-check" in said
    assert list(disk.iterdir()) == []
    said = ckpt(*words, "--no-space-check", packed, disk / "out", check=2).err
    assert "No space left" in said


def test_what_a_killed_run_leaves_is_used_by_the_next(ckpt, fault, golden_a, packed, tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    target = folder / "p.ckpt"
    for n in (1, 5):
        ckpt("ckpt-delta", "diff", "--base", "none", golden_a, target, check=-signal.SIGKILL,
             env=fault.env(f"write:kill:{n}", folder / "p.ckpt.partial"))
        assert fault.injected
        assert [p.name for p in folder.iterdir()] == ["p.ckpt.partial"]
    pack(ckpt, golden_a, target)
    assert [p.name for p in folder.iterdir()] == ["p.ckpt"]
    assert target.read_bytes() == packed.read_bytes()


def test_a_file_of_the_user_in_the_way_is_kept(ckpt, golden_a, tmp_path):
    mine = tmp_path / "p.ckpt.partial"
    mine.write_text("of the user")
    said = ckpt("ckpt-delta", "diff", "--base", "none", golden_a, tmp_path / "p.ckpt", check=2).err
    assert "is in the way" in said
    assert mine.read_text() == "of the user" and len(list(tmp_path.iterdir())) == 1


def test_a_name_of_a_folder_is_refused(ckpt, golden_a, tmp_path):
    for options in ([], ["--dry-run"]):
        said = ckpt("ckpt-delta", "diff", "--base", "none", *options, golden_a,
                    f"{tmp_path}/new/", check=2).err
        assert "new/': expected a file, got the name of a folder" in said and "partial" not in said
    assert list(tmp_path.iterdir()) == []


def test_two_runs_do_not_write_one_file(ckpt, golden_a, tmp_path):
    with open(tmp_path / "p.ckpt.partial", "w") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        said = ckpt("ckpt-delta", "diff", "--base", "none", golden_a, tmp_path / "p.ckpt",
                    check=2).err
        assert "another process is writing it" in said
