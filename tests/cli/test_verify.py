"""ckpt-verify: digests, manifests and comparisons of real directories."""
import hashlib
import json
import random
import re
import shutil
import struct
import subprocess

import numpy
import pytest

from corrupt.files import Model, Tensor, all_files, with_byte

# Made by an independent implementation of the digest, from the golden checkpoints.
ROOTS = {
    "golden-a": ("cc556e3e991d7856f8e68505f775672a6c3f969b7ed0a33a33fa047d0928ce76",
                 "6cdc7520ca1a88e738ba8b221a99d1d59518f38f1b6b77a411d30bc03641206f"),
    "golden-b": ("a820911368b7954165faf1041cc7ca311c3be1e52c6a19e26a4865e165a641f6",
                 "81c40dc58877f889532cc9714b79f76600451bd0bb5774e1ee937631e9b4d74d"),
}
EXPERT = "layers.1.ffn.experts.2.w1.weight"
NORM = "layers.1.attn_norm.weight"


def bf16(code):
    return struct.unpack("<f", struct.pack("<I", code << 16))[0]


def copy_of(golden, path, change=lambda c: None, **options):
    """The golden checkpoint after change(checkpoint)."""
    c = Model(golden)
    change(c)
    return c.write(path, **options)


def without_mtp(c):
    for name in [n for n in c.names() if n.startswith("mtp.")]:
        del c[name]
    c.files = {f: tensors for f, tensors in c.files.items() if tensors}


@pytest.fixture
def manifest(ckpt, golden, tmp_path):
    path = tmp_path / "manifest.json"
    path.write_text(ckpt("ckpt-verify", "digest", "--json", golden).out)
    return path


# ---- digest ----

def test_the_digest_is_the_pinned_one(ckpt, golden):
    root, main = ROOTS[golden.name]
    out = ckpt("ckpt-verify", "digest", golden).out
    assert out == f"{root}  {golden}\n{main}  {golden} (main)\n"


@pytest.mark.parametrize("options", [["--threads", "1"], ["--threads", "7"],
                                     ["--memory", "16MiB"]])
def test_the_digest_does_not_depend_on_threads_and_memory(ckpt, golden, options):
    out = ckpt("ckpt-verify", "digest", "--json", *options, golden).json
    assert (out["root"], out["main"]) == ROOTS[golden.name]


def test_the_roots_follow_from_the_tensors_of_the_document(ckpt, golden):
    out = ckpt("ckpt-verify", "digest", "--json", golden).json
    assert set(out) == {"schema", "root", "main", "family", "layout", "config", "companions",
                        "notes", "tensors"}
    names = [t["name"] for t in out["tensors"]]
    assert names == sorted(names, key=str.encode)
    for key, tensors in [("root", out["tensors"]),
                         ("main", [t for t in out["tensors"] if t["name"][:4] != "mtp."])]:
        lines = "".join(f"{t['name']}\t{t['class']}\t{','.join(map(str, t['shape']))}\t"
                        f"{t['value']}\n" for t in tensors)
        assert hashlib.sha256(lines.encode()).hexdigest() == out[key]


def test_tensors_are_listed_with_their_digests(ckpt, golden):
    tensors = ckpt("ckpt-verify", "digest", "--json", golden).json["tensors"]
    lines = ckpt("ckpt-verify", "digest", "--tensors", "*", golden).out.splitlines()
    assert lines[2:] == [f"{t['value']}  {t['name']}" for t in tensors]


def test_too_little_memory_is_refused(ckpt, golden):
    assert "memory limit" in ckpt("ckpt-verify", "digest", "--memory", "100000", golden,
                                  check=2).err


@pytest.mark.parametrize("words", [[], ["digest"], ["digest", "a", "b"], ["compare", "a"],
                                   ["prove", "a"], ["check", "--bits", "a"]])
def test_wrong_command_lines_are_refused(ckpt, words):
    ckpt("ckpt-verify", *words, check=2)


@pytest.mark.parametrize("words", [["--help"], ["digest", "--help"], ["check", "--help"],
                                   ["compare", "--help"], ["--version"]])
def test_help_is_printed(ckpt, words):
    assert "ckpt-verify" in ckpt("ckpt-verify", *words).out


def test_a_full_output_device_is_an_error(build, golden):
    for options in [], ["--json"]:
        with open("/dev/full", "w") as full:
            done = subprocess.run([build / "bin" / "ckpt-verify", "digest", *options, golden],
                                  stdout=full, stderr=subprocess.PIPE)
        assert done.returncode == 2 and b"standard output" in done.stderr


# ---- check ----

def test_a_check_without_a_manifest_is_refused_unless_structure_is_enough(ckpt, golden):
    """`check && publish` must not pass when no value was looked at."""
    assert "--structure-only" in ckpt("ckpt-verify", "check", golden, check=2).err
    out = ckpt("ckpt-verify", "check", "--structure-only", golden).out
    assert "structure is right" in out and "values were not checked" in out
    doc = ckpt("ckpt-verify", "check", "--json", "--structure-only", golden).json
    assert doc["checked"] == "structure" and doc["same"] is None and doc["root"] is None


def test_structure_only_does_not_look_at_a_manifest(ckpt, golden, manifest, tmp_path):
    with_byte(golden, tmp_path / "c", NORM, 4, lambda b: b ^ 1)
    (tmp_path / "c" / "ckpt-manifest.json").write_bytes(manifest.read_bytes())
    ckpt("ckpt-verify", "check", "--structure-only", tmp_path / "c")
    ckpt("ckpt-verify", "check", tmp_path / "c", check=1)
    for more in ("--manifest", manifest), ("--main",):
        assert "exclude" in ckpt("ckpt-verify", "check", "--structure-only", *more,
                                 tmp_path / "c", check=2).err


def test_a_checkpoint_is_as_in_its_manifest(ckpt, golden, manifest):
    doc = ckpt("ckpt-verify", "check", "--json", "--manifest", manifest, golden).json
    assert doc["checked"] == "values" and doc["same"] is True and doc["differing"] == []
    assert doc["root"] == doc["expected_root"] == ROOTS[golden.name][0]
    assert "values are as in" in ckpt("ckpt-verify", "check", "--manifest", manifest, golden).out


@pytest.mark.parametrize("name", ["ckpt-manifest.json", "ckpt-manifest.json.zst"])
def test_a_manifest_in_the_checkpoint_is_used(ckpt, golden, manifest, tmp_path, name):
    path = copy_of(golden, tmp_path / "c")
    (path / name).write_bytes(manifest.read_bytes())
    if name.endswith(".zst"):
        if shutil.which("zstd") is None:
            pytest.skip("no zstd command to compress with")
        subprocess.run(["zstd", "-qf", manifest, "-o", path / name], check=True)
    doc = ckpt("ckpt-verify", "check", "--json", path).json
    assert doc["checked"] == "values" and doc["manifest"] == str(path / name)


def test_the_tensor_that_changed_is_named(ckpt, golden, manifest, tmp_path):
    with_byte(golden, tmp_path / "c", NORM, 4, lambda b: b ^ 1)
    doc = ckpt("ckpt-verify", "check", "--json", "--manifest", manifest, tmp_path / "c",
               check=1).json
    assert [d["name"] for d in doc["differing"]] == [NORM]
    assert doc["differing"][0]["kind"] == "value" and doc["same"] is False
    out = ckpt("ckpt-verify", "check", "--manifest", manifest, tmp_path / "c", check=1).out
    assert "NOT as in" in out and NORM in out


def test_missing_and_extra_tensors_are_named(ckpt, golden, manifest, tmp_path):
    path = copy_of(golden, tmp_path / "c", lambda c: c.rename("hc_head_base", "hc_head_bass"))
    doc = ckpt("ckpt-verify", "check", "--json", "--lenient", "--manifest", manifest, path,
               check=1).json
    assert [(d["name"], d["kind"]) for d in doc["differing"]] == [
        ("hc_head_base", "missing"), ("hc_head_bass", "extra")]


def test_main_does_not_ask_for_mtp(ckpt, golden, manifest, tmp_path):
    path = copy_of(golden, tmp_path / "c", without_mtp)
    ckpt("ckpt-verify", "check", "--lenient", "--manifest", manifest, path, check=1)
    doc = ckpt("ckpt-verify", "check", "--json", "--lenient", "--main", "--manifest", manifest,
               path).json
    assert doc["main"] == doc["expected_main"] == ROOTS[golden.name][1]
    assert doc["root"] != doc["expected_root"]


@pytest.mark.parametrize("damage", [
    lambda text: text.replace('"value":"', '"value":"0', 1),
    lambda text: text[:-20],
    lambda text: "{}",
    lambda text: "",
    lambda text: json.dumps({"root": "0" * 64, "main": "0" * 64, "tensors": []}),
])
def test_a_damaged_manifest_is_refused(ckpt, golden, manifest, damage):
    manifest.write_text(damage(manifest.read_text()))
    assert "manifest.json" in ckpt("ckpt-verify", "check", "--manifest", manifest, golden,
                                   check=2).err


def test_a_manifest_of_nothing_here_is_refused(ckpt, golden, tmp_path):
    empty = hashlib.sha256(b"x\tint\t1\t" + b"0" * 32 + b"\n").hexdigest()
    path = tmp_path / "m.json"
    path.write_text(json.dumps({"root": empty, "main": empty, "tensors": [
        {"name": "x", "class": "int", "shape": [1], "value": "0" * 32, "encoding": "I8"}]}))
    assert "nothing to check" in ckpt("ckpt-verify", "check", "--manifest", path, golden,
                                      check=2).err


def test_broken_structure_is_refused(ckpt, golden, tmp_path):
    path = copy_of(golden, tmp_path / "c")
    file = next(path.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    ckpt("ckpt-verify", "check", "--structure-only", path, check=2)


# ---- check: checksums that files keep ----

@pytest.fixture(scope="module")
def dist(ckpt, golden_b, tmp_path_factory):
    """A torch_dist without a manifest: its checksums are all there is."""
    path = tmp_path_factory.mktemp("dist") / "dist"
    ckpt("ckpt-shard", "--layout", "torch_dist", "--no-manifest", golden_b, path)
    return path


def payloads(raw):
    """(begin, end) of the tensors in a .distcp file of ours: sizes stand in the local headers."""
    for name in re.finditer(b"archive/data/0", raw):
        at = name.start() - 30
        if raw[at:at + 4] == b"PK\3\4":
            size, _, extra = struct.unpack("<IHH", raw[at + 22:at + 30])
            yield name.end() + extra, name.end() + extra + size


@pytest.fixture
def damaged(dist, tmp_path):
    """damaged(file, at, flip) -> a copy of which one byte differs."""
    def make(name, at, flip):
        path = tmp_path / f"damaged-{at}-{flip}"
        shutil.copytree(dist, path)
        raw = bytearray((path / "release" / name).read_bytes())
        raw[at] ^= flip
        (path / "release" / name).write_bytes(raw)
        return path
    return make


@pytest.mark.parametrize("options", [(), ("--threads", "1"), ("--threads", "5"),
                                     ("--memory", "16MiB")], ids=" ".join)
def test_checksums_of_a_torch_dist_are_checked(ckpt, dist, options):
    doc = ckpt("ckpt-verify", "check", "--json", "--structure-only", *options, dist).json
    items = ckpt("ckpt-shard", "--layout", "torch_dist", "--dry-run", "--json", dist,
                 dist.parent / "again").json["pieces"]
    assert doc["checksums"] == items > 100
    assert doc["without_checksum"] == 0 and doc["differing"] == [] and doc["same"] is None
    said = ckpt("ckpt-verify", "check", "--structure-only", dist).out
    assert "checksums of stored tensors match" in said


def test_a_flipped_bit_is_found_and_placed(ckpt, golden_b, dist, damaged):
    data = Model(golden_b)["norm.weight"].data
    path = damaged("__0_0.distcp", (dist / "release" / "__0_0.distcp").read_bytes().index(data), 1)
    doc = ckpt("ckpt-verify", "check", "--json", "--structure-only", path, check=1).json
    found, = doc["differing"]
    assert found["kind"] == "checksum" and found["file"] == "__0_0.distcp"
    assert found["name"].startswith("decoder.final_layernorm.weight")
    assert found["expected"] != found["got"] and doc["same"] is False
    said = ckpt("ckpt-verify", "check", "--structure-only", path, check=1).out
    assert "'__0_0.distcp'" in said and "decoder.final_layernorm.weight" in said


def test_every_flipped_bit_of_every_item_is_found(ckpt, dist, damaged):
    """In whole rows of the reader, in the rest behind them, in the last byte."""
    rng, name = random.Random(5), "__3_0.distcp"
    places = sorted(payloads((dist / "release" / name).read_bytes()), key=lambda p: p[0] - p[1])
    assert places[0][1] - places[0][0] > 100000 and len(places) > 30
    for begin, end in places[:3] + rng.sample(places, 5):
        for at in (begin, end - 1, rng.randrange(begin, end)):
            path = damaged(name, at, 1 << rng.randrange(8))
            doc = ckpt("ckpt-verify", "check", "--json", "--structure-only", path, check=1).json
            assert [(d["kind"], d["file"]) for d in doc["differing"]] == [("checksum", name)]


def test_the_sign_of_a_zero_is_no_value_but_a_bit(ckpt, dist, damaged, tmp_path):
    """The manifest cannot see it, the checksum does."""
    manifest, name = tmp_path / "manifest.json", "__1_0.distcp"
    manifest.write_text(ckpt("ckpt-verify", "digest", "--json", dist).out)
    raw = (dist / "release" / name).read_bytes()
    expert_bytes = 256 * 384 * 2                    # w1, w2 and w3, of which zero is a code
    zero = next(i for begin, end in payloads(raw) if end - begin == expert_bytes
                for i in range(begin, end, 2) if raw[i:i + 2] == b"\0\0")
    doc = ckpt("ckpt-verify", "check", "--json", "--manifest", manifest,
               damaged(name, zero + 1, 0x80), check=1).json
    assert [d["kind"] for d in doc["differing"]] == ["checksum"]
    assert doc["root"] == doc["expected_root"]


# ---- compare ----

def test_a_checkpoint_is_the_same_as_itself(ckpt, golden):
    doc = ckpt("ckpt-verify", "compare", "--json", golden, golden).json
    tensors = ckpt("ckpt-verify", "digest", "--json", golden).json["tensors"]
    assert doc["same"] is True and doc["compared"] == len(tensors)
    assert doc["elements"] == sum(int(numpy.prod(t["shape"])) for t in tensors)
    assert doc["first_difference"] is None
    assert doc["differing"] == doc["missing_in_a"] == doc["missing_in_b"] == []
    assert ckpt("ckpt-verify", "compare", golden, golden).out.startswith("same: ")


@pytest.mark.parametrize("threads", [1, 5])
def test_the_changed_element_is_named_with_both_values(ckpt, golden, tmp_path, threads):
    old, new = with_byte(golden, tmp_path / "c", NORM, 2 * 77, lambda b: b ^ 3)
    doc = ckpt("ckpt-verify", "compare", "--json", "--threads", threads, golden, tmp_path / "c",
               check=1).json
    high = Model(golden)[NORM].data[2 * 77 + 1] << 8
    first = doc["first_difference"]
    assert doc["differing"] == [first]
    assert (first["name"], first["row"], first["col"], first["count"]) == (NORM, 0, 77, 1)
    assert numpy.float32(first["a"]) == numpy.float32(bf16(high | old))
    assert numpy.float32(first["b"]) == numpy.float32(bf16(high | new))
    out = ckpt("ckpt-verify", "compare", golden, tmp_path / "c", check=1).out
    assert f"differ  {NORM}  row 0 column 77: " in out


def test_a_changed_scale_changes_its_group(ckpt, golden, tmp_path):
    scale = EXPERT.replace("weight", "scale")
    with_byte(golden, tmp_path / "c", scale, 0, lambda b: b - 1)
    doc = ckpt("ckpt-verify", "compare", "--json", golden, tmp_path / "c", check=1).json
    first = doc["first_difference"]
    assert first["name"] == EXPERT and first["row"] == 0 and first["col"] < 32
    assert 0 < first["count"] <= 32
    assert numpy.float32(first["a"]) == 2 * numpy.float32(first["b"])


def test_the_sign_of_a_zero_is_no_value(ckpt, golden, tmp_path):
    def zero(c, code):
        c[NORM] = c[NORM].changed(10, 0).changed(11, code)
    a = copy_of(golden, tmp_path / "a", lambda c: zero(c, 0))
    b = copy_of(golden, tmp_path / "b", lambda c: zero(c, 0x80))
    doc = ckpt("ckpt-verify", "compare", "--json", a, b).json
    assert doc["same"] is True and doc["re_encoded"] == [NORM]
    doc = ckpt("ckpt-verify", "compare", "--json", "--bits", a, b, check=1).json
    assert doc["first_difference"] == {"name": NORM, "kind": "bits", "row": 0, "col": 5,
                                       "a": None, "b": None, "count": 1}
    assert "equal values" in ckpt("ckpt-verify", "compare", "--bits", a, b, check=1).out
    roots = {ckpt("ckpt-verify", "digest", "--json", p).json["root"] for p in (a, b)}
    assert len(roots) == 1


def test_files_make_no_difference(ckpt, golden, tmp_path):
    def one_file(c):
        c.files = {"model.safetensors": {n: t for f in c.files.values() for n, t in f.items()}}
    path = copy_of(golden, tmp_path / "c", one_file, index=False)
    assert ckpt("ckpt-verify", "compare", "--json", golden, path).json["same"] is True


def test_missing_tensors_are_listed(ckpt, golden, tmp_path):
    path = copy_of(golden, tmp_path / "c", without_mtp)
    mtp = sorted(t["name"] for t in
                 ckpt("ckpt-verify", "digest", "--json", golden).json["tensors"]
                 if t["name"].startswith("mtp."))
    doc = ckpt("ckpt-verify", "compare", "--json", "--lenient", golden, path, check=1).json
    assert doc["missing_in_b"] == mtp and doc["missing_in_a"] == [] and mtp
    doc = ckpt("ckpt-verify", "compare", "--json", "--lenient", path, golden, check=1).json
    assert doc["missing_in_a"] == mtp and doc["missing_in_b"] == []
    doc = ckpt("ckpt-verify", "compare", "--json", "--lenient", "--main", golden, path).json
    assert doc["same"] is True


def test_different_models_differ_in_shapes(ckpt, golden_a, golden_b):
    doc = ckpt("ckpt-verify", "compare", "--json", golden_a, golden_b, check=1).json
    first = doc["first_difference"]
    assert first == {"name": "embed.weight", "kind": "shape", "row": None, "col": None,
                     "a": [512, 256], "b": [384, 384], "count": None}


def test_tensors_without_elements_are_not_the_same(ckpt, tmp_path):
    for name in "ab":
        c = Model()
        c.files["model.safetensors"] = {"x": Tensor("BF16", [0, 4], b"")}
        c.write(tmp_path / name, index=False)
    assert "nothing to compare" in ckpt("ckpt-verify", "compare", tmp_path / "a", tmp_path / "b",
                                        check=2).err


@pytest.mark.parametrize("option", ["--main", "--weights-only"])
def test_what_leaves_out_a_part_of_no_comparison_is_refused(ckpt, golden_a, tmp_path, option):
    said = ckpt("ckpt-verify", "check", "--values", option, golden_a, check=2)
    assert f"{option} leaves out a part" in said.err and said.out == ""
    manifest = tmp_path / "m.json"
    manifest.write_text(ckpt("ckpt-verify", "digest", "--json", golden_a).out)
    ckpt("ckpt-verify", "check", "--values", option, "--manifest", manifest, golden_a)


def test_nothing_in_common_is_not_the_same(ckpt, golden, tmp_path):
    c = Model()
    c.files["model.safetensors"] = {"a": Tensor("BF16", [2], bytes(4))}
    path = c.write(tmp_path / "c", index=False)
    assert "nothing to compare" in ckpt("ckpt-verify", "compare", golden, path, check=2).err


def test_a_checkpoint_that_is_not_there_cannot_be_compared(ckpt, golden, tmp_path):
    for pair in (golden, tmp_path / "no"), (tmp_path / "no", golden):
        assert str(tmp_path / "no") in ckpt("ckpt-verify", "compare", *pair, check=2).err


def test_sources_are_not_touched(ckpt, golden, tmp_path, manifest):
    path = copy_of(golden, tmp_path / "c")
    before = all_files(path)
    ckpt("ckpt-verify", "compare", path, golden)
    ckpt("ckpt-verify", "check", "--manifest", manifest, path)
    assert all_files(path) == before
