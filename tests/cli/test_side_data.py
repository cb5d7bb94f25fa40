"""fp4_scales.zst, what FP4 -> FP8 loses: checked on the way back, and told when it cannot be."""
import ctypes
import ctypes.util
import shutil
import struct

import pytest

from corrupt.files import Model, tensor_files, with_byte

SIDE = "fp4_scales.zst"
BACK = "--experts", "fp4"


def unpack(data):
    """The text of a zstd file, by the library that the tools are linked with."""
    zstd = ctypes.CDLL(ctypes.util.find_library("zstd"))
    zstd.ZSTD_decompress.restype = ctypes.c_size_t
    zstd.ZSTD_decompress.argtypes = [ctypes.c_char_p, ctypes.c_size_t] * 2
    out = ctypes.create_string_buffer(1 << 22)
    size = zstd.ZSTD_decompress(out, len(out), data, len(data))
    assert size < len(out)
    return out.raw[:size].decode()


def pack(text):
    """A zstd frame of stored blocks."""
    data = text.encode()
    blocks = [data[i:i + 65536] for i in range(0, len(data), 65536)] or [b""]
    frame = b"\x28\xb5\x2f\xfd\xa0" + struct.pack("<I", len(data))
    for i, block in enumerate(blocks):
        frame += struct.pack("<I", (i + 1 == len(blocks)) | len(block) << 3)[:3] + block
    return frame


@pytest.fixture(scope="module")
def fp8(ckpt, golden_a, tmp_path_factory):
    folder = tmp_path_factory.mktemp("side") / "fp8"
    ckpt("ckpt-convert", "--dtype", "fp8", golden_a, folder)
    return folder


@pytest.fixture
def changed(fp8, tmp_path):
    """changed(function of the lines) -> fp8 with other side data."""
    def make(change):
        path = tmp_path / "changed"
        shutil.copytree(fp8, path)
        lines = change(unpack((fp8 / SIDE).read_bytes()).splitlines())
        (path / SIDE).write_bytes(pack("".join(line + "\n" for line in lines)))
        return path
    return make


def convert(ckpt, source, target, *options, **how):
    return ckpt("ckpt-convert", *BACK, *options, source, target, **how)


def test_the_head_says_whose_they_are_and_how_many(ckpt, fp8, golden_a):
    head, *lines = unpack((fp8 / SIDE).read_bytes()).splitlines()
    said = ckpt("ckpt-verify", "digest", "--json", golden_a).json
    entries = sum(line[0].isdigit() for line in lines)
    assert entries > 0
    assert head == f"ckpt-fp4-scales 2 {said['root']} {said['main']} {entries}"


def test_the_way_back_is_silent_when_it_is_exact(ckpt, fp8, golden_a, tmp_path, changed):
    """Also with a file that another program compressed."""
    for name, source in ("a", fp8), ("b", changed(lambda lines: lines)):
        done = convert(ckpt, source, tmp_path / name)
        assert "note" not in done.out and SIDE not in done.out
        assert tensor_files(tmp_path / name) == tensor_files(golden_a)


def test_removed_entries_are_noticed(ckpt, tmp_path, changed):
    """Whole tensors or one group: the bytes would be others, the values the same."""
    def last_tensor_goes(lines):
        at = max(i for i, line in enumerate(lines) if line.startswith("tensor "))
        return lines[:at]
    err = convert(ckpt, changed(last_tensor_goes), tmp_path / "out", check=2).err
    assert SIDE in err and "its first line states" in err
    assert not (tmp_path / "out").exists()


def another_root(lines):
    words = lines[0].split()
    words[2] = words[2][:-1] + ("0" if words[2][-1] != "0" else "1")
    return [" ".join(words), *lines[1:]]


def test_side_data_of_other_values_are_refused(ckpt, tmp_path, changed):
    err = convert(ckpt, changed(another_root), tmp_path / "out", check=2).err
    assert SIDE in err and "made for values with the digest" in err
    assert not list(tmp_path.glob("out*"))      # nothing that a better file would go on from


def test_values_that_changed_are_noticed(ckpt, fp8, tmp_path):
    """A weight that has no side data of its own, in a checkpoint that was trained on."""
    with_byte(fp8, tmp_path / "in", "layers.1.attn.wq_b.weight", 5, lambda b: b ^ 1)
    err = convert(ckpt, tmp_path / "in", tmp_path / "out", check=2).err
    assert SIDE in err and "the values have changed" in err
    (tmp_path / "in" / SIDE).unlink()
    convert(ckpt, tmp_path / "in", tmp_path / "again", "--verify")


def test_a_kept_scale_is_not_forced_on_changed_values(ckpt, fp8, tmp_path):
    """Not even with --allow-lossy."""
    lines = unpack((fp8 / SIDE).read_bytes()).splitlines()
    name = lines[1].split('"')[1]
    group = int(lines[2].split()[0])
    model = Model(fp8)
    t = model[name]
    model[name] = t.changed(32 * group, 0x7E)                 # 448
    source = model.write(tmp_path / "in")
    for options in (), ("--allow-lossy",), ("--allow-lossy", "--no-digest"):
        err = convert(ckpt, source, tmp_path / "out", *options, check=2).err
        assert f"'{name}'" in err
        assert f"row {32 * group // t.shape[1]}" in err and "have changed" in err
        shutil.rmtree(tmp_path / "out.partial", ignore_errors=True)


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_a_missing_file_is_told(ckpt, fp8, digest, golden_a, tmp_path, dry):
    source = tmp_path / "in"
    shutil.copytree(fp8, source, ignore=shutil.ignore_patterns(SIDE))
    done = convert(ckpt, source, tmp_path / "out", *dry)
    assert f"has no '{SIDE}': FP4 scales are chosen by rule" in done.out
    if not dry:
        assert digest(tmp_path / "out") == digest(golden_a)
        assert tensor_files(tmp_path / "out") != tensor_files(golden_a)


def test_a_single_file_does_not_look_for_it(ckpt, fp8, tmp_path):
    done = convert(ckpt, fp8 / "model-00002-of-00005.safetensors", tmp_path / "out")
    assert f"'{SIDE}' is not used" in done.out


def test_what_is_not_checked_is_told(ckpt, fp8, golden_a, tmp_path, changed):
    done = convert(ckpt, fp8, tmp_path / "out", "--no-digest")
    assert f"'{SIDE}' is used but not verified against the values: --no-digest" in done.out
    assert tensor_files(tmp_path / "out") == tensor_files(golden_a)
    ckpt("ckpt-convert", "--dtype", "fp8", "--no-digest", golden_a, tmp_path / "fp8")
    done = convert(ckpt, tmp_path / "fp8", tmp_path / "back")
    assert "not verified against the values: it has no digest of them" in done.out
    assert tensor_files(tmp_path / "back") == tensor_files(golden_a)


def test_the_exact_model_to_follow_needs_no_side_data(ckpt, fp8, golden_a, tmp_path):
    source = tmp_path / "in"
    shutil.copytree(fp8, source, ignore=shutil.ignore_patterns(SIDE))
    done = ckpt("ckpt-convert", "--like", golden_a, source, tmp_path / "out")
    assert SIDE not in done.out


@pytest.mark.parametrize("fill", [True, False])
def test_side_data_pass_a_layout_without_mtp_blocks(ckpt, fp8, golden_a, tmp_path, fill):
    """torch_dist drops them; their entries are left over, or wait for --fill-from."""
    ckpt("ckpt-shard", "--layout", "torch_dist", fp8, tmp_path / "dist")
    assert (tmp_path / "dist" / SIDE).exists()
    options = ("--fill-from", fp8) if fill else ()
    done = ckpt("ckpt-shard", "--layout", "hf", *BACK, *options, tmp_path / "dist",
                tmp_path / "out")
    assert SIDE not in done.out
    back, original = (Model(p) for p in (tmp_path / "out", golden_a))
    names = back.names()
    assert any(n.startswith("mtp.") for n in names) == fill
    assert all(back[n] == original[n] for n in names if ".experts." in n)


def test_a_run_of_shares_checks_too(ckpt, tmp_path, changed, fp8, golden_a):
    for i in 1, 2:
        convert(ckpt, fp8, tmp_path / "good", "--part", f"{i}/2")
    assert tensor_files(tmp_path / "good") == tensor_files(golden_a)
    source = changed(another_root)
    convert(ckpt, source, tmp_path / "out", "--part", "1/2")
    assert SIDE in convert(ckpt, source, tmp_path / "out", "--part", "2/2", check=2).err
    assert not list(tmp_path.glob("out*"))
