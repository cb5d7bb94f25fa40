"""ckpt-delta: what changed between two checkpoints, applied to the same bytes or refused."""
import json
import re
import shutil

import numpy as np
import pytest

from cli.delta_models import drift, edit_config
from cli.trees import tree
from conftest import DATA
from corrupt.files import INDEX, Tensor, file_bytes
from interop.delta_reader import read_tensor, tensors_of, write, xxh3

GOLDEN = DATA / "delta"
NEW_V2_ROOT = "5011e419045587c0044d172d16c9821179d4bc5021dc446ac65da6369d1b9c94"
SIDE = "ckpt-delta.json"
STREAMS = ["slime-xor", "miles-overwrite"]


@pytest.fixture(scope="module")
def steps(golden_a, tmp_path_factory):
    """golden-a, and two steps of training after it."""
    folder = tmp_path_factory.mktemp("steps")
    first = drift(golden_a, folder / "first")
    edit_config(first, rope_theta=12345)
    second = drift(first, folder / "second", share=0.1, seed=2)
    return golden_a, first, second


@pytest.fixture(scope="module")
def deltas(ckpt, steps, tmp_path_factory):
    folder = tmp_path_factory.mktemp("deltas")
    for n in (1, 2):
        ckpt("ckpt-delta", "diff", steps[n - 1], steps[n], folder / f"weight_v{n:06d}")
    return folder


# ---- deltas of the real writers ----

@pytest.mark.parametrize("stream", STREAMS)
def test_a_chain_of_the_real_writers_gives_their_tensors(ckpt, tmp_path, stream):
    """All but the tensor that only the base has, and the one that only the new has."""
    ckpt("ckpt-delta", "apply", GOLDEN / "base", GOLDEN / stream, tmp_path / "out")
    got, expected = tensors_of(tmp_path / "out"), tensors_of(GOLDEN / "new-v2")
    assert got.keys() - expected.keys() == {"model.layers.1.removed.weight"}
    assert expected.keys() - got.keys() == {"model.layers.1.new.weight"}
    for name in got.keys() & expected.keys():
        assert read_tensor(got[name]) == read_tensor(expected[name]), name


@pytest.mark.parametrize("stream", STREAMS)
def test_what_others_do_not_tell_is_said(ckpt, stream):
    said = ckpt("ckpt-delta", "verify", "--json", GOLDEN / "base",
                GOLDEN / stream / "weight_v000001").json
    assert "ckpt-delta.json" in said["notes"][0]
    assert said["changed_tensors"] == 8


def test_strings_for_versions_and_adler32_are_read(ckpt):
    delta = GOLDEN / "modelexpress-style" / "v1"
    assert ckpt("ckpt-delta", "verify", "--json", GOLDEN / "base", delta).json["version"] == "v1"


def test_deltas_of_skyrl_are_read(ckpt, tmp_path):
    """All but the tensors that its writer cannot write, which stay what they were."""
    ckpt("ckpt-delta", "apply", GOLDEN / "base", GOLDEN / "skyrl", tmp_path / "out")
    got, new, old = (tensors_of(p) for p in (tmp_path / "out", GOLDEN / "new-v2", GOLDEN / "base"))
    named = {t["name"] for n in (1, 2) for t in json.loads(
        (GOLDEN / "skyrl" / f"delta-0000000{n}" / "manifest.json").read_text())["tensors"]}
    assert len(named) > 3
    for name, place in got.items():
        assert read_tensor(place) == read_tensor((new if name in named else old)[name]), name


def test_a_skyrl_delta_is_not_taken_for_a_checkpoint(ckpt):
    for tool in (["ckpt-inspect"], ["ckpt-verify", "digest"]):
        said = ckpt(*tool, GOLDEN / "skyrl" / "delta-00000001", check=2).err
        assert "is a weight delta" in said


def test_a_delta_of_another_protocol_is_named(ckpt, tmp_path):
    manifest = {"protocol_version": 4, "codec": "lz4-zstd", "frame_bytes": 65536, "tensors": []}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    said = ckpt("ckpt-delta", "inspect", tmp_path, check=2).err
    assert "gpu_delta, protocol 4" in said


def test_a_skyrl_delta_for_another_shape_is_refused(ckpt, tmp_path):
    shutil.copytree(GOLDEN / "skyrl" / "delta-00000001", tmp_path / "d")
    manifest = tmp_path / "d" / "manifest.json"
    text = json.loads(manifest.read_text())
    entry = next(t for t in text["tensors"] if t["dtype"] == "bfloat16")
    entry["shape"] = [entry["shape"][1], entry["shape"][0] * 2]
    entry["uncompressed_num_bytes"] *= 2
    manifest.write_text(json.dumps(text))
    said = ckpt("ckpt-delta", "verify", GOLDEN / "base", tmp_path / "d", check=2).err
    assert entry["name"] in said


def test_a_tensor_that_the_base_lacks_is_refused(ckpt, tmp_path):
    delta = GOLDEN / "slime-xor-newtensor" / "weight_v000001"
    said = ckpt("ckpt-delta", "apply", GOLDEN / "base", delta, tmp_path / "out", check=2).err
    assert "model.layers.1.new.weight" in said
    assert list(tmp_path.iterdir()) == []


# ---- ours ----

@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
@pytest.mark.parametrize("checksum", ["xxh3-128", "blake3", "adler32"])
def test_diff_and_apply_give_the_files_of_the_new(ckpt, tmp_path, encoding, checksum):
    delta = tmp_path / "weight_v000007"
    made = ckpt("ckpt-delta", "diff", "--json", "--encoding", encoding, "--checksum", checksum,
                GOLDEN / "new-v1", GOLDEN / "new-v2", delta).json
    assert made["version"] == "000007"
    assert made["result"]["root"] == NEW_V2_ROOT
    ckpt("ckpt-delta", "apply", GOLDEN / "new-v1", delta, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(GOLDEN / "new-v2")


def test_a_chain_of_two_gives_the_files_of_the_last(ckpt, steps, deltas, tmp_path):
    ckpt("ckpt-delta", "apply", steps[0], deltas, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(steps[2])


def test_config_is_carried_where_it_changed(deltas):
    first, second = (json.loads((deltas / f"weight_v00000{n}" / "ckpt-delta.json").read_text())
                     for n in (1, 2))
    assert [f["name"] for f in first["carried"]] == ["config.json"]
    assert second["carried"] == []


def test_unrelated_models_are_noted_once(ckpt, tmp_path):
    """Nearly every class of tensors differs: one note counts and names them."""
    models = [tmp_path / "1", tmp_path / "2"]
    for model in models:
        ckpt("ckpt-synth", "--config", "tiny", "--layers", 1, "--seed", model.name, model)
    notes = ckpt("ckpt-delta", "diff", "--measure", "--json", *models, tmp_path / "d").json["notes"]
    rule = [n for n in notes if "perhaps another rule of quantisation" in n]
    assert len(rule) == 1 and "experts, " in rule[0], notes
    counts = re.search(r" in (\d+) of (\d+) classes", rule[0])
    assert counts and 3 < int(counts[1]) <= int(counts[2]), rule


def test_bytes_do_not_depend_on_threads(ckpt, steps, deltas, tmp_path):
    for threads in (1, 3):
        out = tmp_path / str(threads) / "weight_v000002"
        out.parent.mkdir()
        ckpt("ckpt-delta", "diff", "--threads", threads, steps[1], steps[2], out)
        assert tree(out) == tree(deltas / "weight_v000002")


def test_an_encoded_checkpoint_is_diffed_as_its_base_is_encoded(ckpt, golden_a, tmp_path):
    """NEW in another layout, with other encodings: through the plan of OLD's."""
    new = drift(golden_a, tmp_path / "new", only=lambda name: "norm" in name or "embed" in name)
    ckpt("ckpt-shard", "--layout", "mp", "--mp", 2, new, tmp_path / "mp")
    for source, delta in ((new, tmp_path / "a"), (tmp_path / "mp", tmp_path / "b")):
        ckpt("ckpt-delta", "diff", golden_a, source, delta)
    for file in ("model-00000-of-00001.safetensors", INDEX):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_two_torch_dists_are_diffed_over_the_layout_that_is_asked_for(ckpt, golden_a, tmp_path,
                                                                      digest):
    """BF16 on both sides, and a Hugging Face directory of the first as the base."""
    ckpt("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", golden_a, tmp_path / "hf0")
    drift(tmp_path / "hf0", tmp_path / "hf1",
          only=lambda name: not name.startswith("mtp.") and "tid2eid" not in name)
    for n in (0, 1):
        ckpt("ckpt-shard", "--layout", "torch_dist", "--tp", 2, tmp_path / f"hf{n}",
             tmp_path / f"td{n}")
        ckpt("ckpt-convert", tmp_path / f"td{n}", tmp_path / f"plain{n}")
    ckpt("ckpt-delta", "diff", tmp_path / "td0", tmp_path / "td1", tmp_path / "weight_v000001")
    ckpt("ckpt-delta", "apply", tmp_path / "plain0", tmp_path / "weight_v000001",
         tmp_path / "out")
    assert digest(tmp_path / "out") == digest(tmp_path / "td1")
    got, expected = tensors_of(tmp_path / "out"), tensors_of(tmp_path / "plain1")
    assert {n: read_tensor(p) for n, p in got.items()} == \
           {n: read_tensor(p) for n, p in expected.items()}


@pytest.fixture(scope="module")
def trained(ckpt, golden_a, tmp_path_factory):
    """golden-a in BF16, and a step of training after it."""
    folder = tmp_path_factory.mktemp("trained")
    ckpt("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", golden_a, folder / "bf16")
    return folder / "bf16", drift(
        folder / "bf16", folder / "next",
        only=lambda name: not name.startswith("mtp.") and "tid2eid" not in name)


@pytest.mark.parametrize("options", [[], ["--sticky-scale"]])
def test_a_trained_checkpoint_is_quantised_and_diffed_against_the_served_one(
        ckpt, golden_a, trained, tmp_path, options):
    """The result is the folder that ckpt-convert would write."""
    rule = ["--quantize", "v4-release", *options, "--like", golden_a]
    ckpt("ckpt-convert", *rule, trained[1], tmp_path / "served")
    said = ckpt("ckpt-delta", "diff", "--json", *rule, golden_a, trained[1], tmp_path / "d").json
    assert said["quantised"]["rounded"] > 0
    assert json.loads((tmp_path / "d" / "ckpt-delta.json").read_text())["quantize"] == rule[1]
    ckpt("ckpt-delta", "apply", golden_a, tmp_path / "d", tmp_path / "out")
    got, expected = tree(tmp_path / "out"), tree(tmp_path / "served")
    expected.pop("manifest.json", None)
    assert {n: h for n, h in got.items() if n.endswith("safetensors")} == \
           {n: h for n, h in expected.items() if n.endswith("safetensors")}


def test_quantising_is_as_the_served_one_without_more_options(ckpt, golden_a, trained, tmp_path):
    for n, options in enumerate((["--like", golden_a], [])):
        ckpt("ckpt-delta", "diff", "--quantize", "v4-release", *options, golden_a, trained[1],
             tmp_path / f"{n}")
    assert tree(tmp_path / "0") == tree(tmp_path / "1")


def test_two_plain_checkpoints_are_quantised_both(ckpt, trained, tmp_path, digest):
    for n in (0, 1):
        ckpt("ckpt-convert", "--quantize", "v4-release", trained[n], tmp_path / f"q{n}")
    ckpt("ckpt-delta", "diff", "--quantize", "v4-release", *trained, tmp_path / "d")
    ckpt("ckpt-delta", "apply", tmp_path / "q0", tmp_path / "d", tmp_path / "out")
    assert digest(tmp_path / "out") == digest(tmp_path / "q1")


def test_more_loss_than_allowed_is_refused(ckpt, golden_a, trained, tmp_path):
    said = ckpt("ckpt-delta", "diff", "--quantize", "v4-release", "--max-relf", "1e-6", golden_a,
                trained[1], tmp_path / "d", check=2).err
    assert "more than --max-relf" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
@pytest.mark.parametrize("first", [0, 300000, -2])
def test_a_change_anywhere_in_many_tiles_has_the_hashes_of_both(ckpt, tmp_path, encoding, first):
    """Up to the first change both sides have one hash; tiles end inside the blocks of a frame."""
    shape = [1000, 901]
    old = np.random.default_rng(5).integers(0x3c00, 0x3f00, shape).astype("<u2").tobytes()
    new = bytearray(old)
    for at in {first, -2}:
        new[at] ^= 1 + (at != -2)
    new = bytes(new)
    for name, data in (("old", old), ("new", new)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(file_bytes(
            {"a.weight": Tensor("BF16", shape, data), "b.weight": Tensor("BF16", shape, old)}))
        (tmp_path / name / "config.json").write_text('{"model_type": "other"}')
    delta = tmp_path / "weight_v000001"
    ckpt("ckpt-delta", "diff", "--encoding", encoding, tmp_path / "old", tmp_path / "new", delta)
    [side] = json.loads((delta / SIDE).read_text())["tensors"]
    assert (side["name"], side["before"], side["after"]) == ("a.weight", xxh3(old), xxh3(new))
    ckpt("ckpt-delta", "apply", tmp_path / "old", delta, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(tmp_path / "new")


@pytest.fixture(scope="module")
def nvfp4(ckpt, tmp_path_factory):
    """An NVFP4 weight of several tiles, and one whose scale of the whole tensor, last codes and
    activation scale differ."""
    folder = tmp_path_factory.mktemp("nvfp4")
    draw = np.random.default_rng(3)
    values = draw.standard_normal((4096, 256)).astype("<f4").view("<u4") >> 16
    (folder / "plain").mkdir()
    (folder / "plain" / "model.safetensors").write_bytes(file_bytes(
        {"a.weight": Tensor("BF16", [4096, 256], values.astype("<u2").tobytes())}))
    (folder / "plain" / "config.json").write_text('{"model_type": "other"}')
    ckpt("ckpt-convert", "--no-manifest", "--quantize", "nvfp4", "--only", "*", folder / "plain",
         folder / "old")
    shutil.copytree(folder / "old", folder / "new")
    for name, (path, offset, size) in tensors_of(folder / "new").items():
        with open(path, "r+b") as file:
            file.seek(offset + size - 3)
            byte = file.read(1)[0]
            file.seek(offset + size - 3)
            file.write(bytes([byte ^ 1]))
    return folder / "old", folder / "new"


@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
def test_a_scale_of_a_whole_tensor_changes_once_in_many_tiles(ckpt, nvfp4, tmp_path, encoding,
                                                              digest):
    old, new = nvfp4
    said = ckpt("ckpt-delta", "diff", "--json", "--encoding", encoding, "--threads", 3, old, new,
                tmp_path / "d").json
    assert said["total"]["changed_tensors"] == len(tensors_of(old)) == 4
    assert said["total"]["changed_bytes"] == 4
    assert said["result"]["root"] == digest(new)
    ckpt("ckpt-delta", "apply", old, tmp_path / "d", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(new)
    ckpt("ckpt-delta", "reverse", old, tmp_path / "d", tmp_path / "back")
    shutil.copytree(new, tmp_path / "base")
    ckpt("ckpt-delta", "apply", "--in-place", tmp_path / "base", tmp_path / "back")
    assert tree(tmp_path / "base") == tree(old)


def test_measuring_keeps_nothing(ckpt, steps, tmp_path):
    said = ckpt("ckpt-delta", "diff", "--json", "--measure", steps[0], steps[1],
                tmp_path / "d").json
    assert said["total"]["changed_tensors"] > 0
    assert list(tmp_path.iterdir()) == []


def test_a_result_that_is_there_is_not_replaced_and_no_option_says_so(ckpt, steps, deltas,
                                                                        tmp_path):
    (tmp_path / "there").mkdir()
    delta = deltas / "weight_v000001"
    for words in (["diff", steps[0], steps[1]], ["apply", steps[0], delta],
                  ["squash", steps[0], delta], ["reverse", steps[0], delta]):
        said = ckpt("ckpt-delta", *words, tmp_path / "there", check=2).err
        assert "already exists: move it away" in said and "--overwrite" not in said
    assert not list((tmp_path / "there").iterdir())


def test_nothing_changed_is_an_empty_delta(ckpt, golden_a, tmp_path):
    delta = tmp_path / "weight_v000001"
    ckpt("ckpt-delta", "diff", golden_a, golden_a, delta)
    assert sorted(p.name for p in delta.iterdir()) == ["ckpt-delta.json", INDEX]
    ckpt("ckpt-delta", "apply", golden_a, delta, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(golden_a)


def test_inspect_tells_classes_and_roots(ckpt, steps, deltas, digest):
    said = ckpt("ckpt-delta", "inspect", "--json", deltas / "weight_v000001").json
    assert said["base"]["root"] == digest(steps[0])
    assert said["result"]["root"] == digest(steps[1])
    assert {"experts", "attention", "norms", "scales"} <= {c["class"] for c in said["classes"]}
    total = said["total"]
    assert total["changed_elements"] == sum(t["changed_elements"] for t in said["tensors"])
    assert "experts" in ckpt("ckpt-delta", "inspect", deltas / "weight_v000001").out
    none = ckpt("ckpt-delta", "inspect", "--tensors", "*", "--tensors", "nosuch*",
                deltas / "weight_v000001", check=2)
    assert "--tensors 'nosuch*' matches no tensor that" in none.err and none.out == ""


def differing_codes(before, after):
    """Of two byte strings: codes of 4 bits that differ."""
    bits = np.frombuffer(before, np.uint8) ^ np.frombuffer(after, np.uint8)
    return np.count_nonzero(bits & 15) + np.count_nonzero(bits >> 4)


@pytest.mark.parametrize("config, suffix, codes_in_element",
                         [("kimi-int4", ".weight_packed", 8), ("tiny", ".w1.weight", 2)])
def test_codes_of_four_bits_are_counted_singly(ckpt, tmp_path, config, suffix, codes_in_element):
    """U8 and I32 that contain several: of all elements at most all change."""
    for seed in ("1", "2"):
        ckpt("ckpt-synth", "--config", config, "--seed", seed, tmp_path / seed)
    made = ckpt("ckpt-delta", "diff", "--json", tmp_path / "1", tmp_path / "2",
                tmp_path / "delta").json
    said = ckpt("ckpt-delta", "inspect", "--json", tmp_path / "delta").json
    for c in made["classes"] + [made["total"]] + said["classes"] + [said["total"]]:
        assert c["changed_elements"] <= c["elements"], c["class"]
    before, after = (tensors_of(tmp_path / seed) for seed in ("1", "2"))
    told = {t["name"]: t for t in said["tensors"]}
    side = json.loads((tmp_path / "delta" / "ckpt-delta.json").read_text())
    shapes = {t["name"]: np.prod(t["shape"]) for t in side["tensors"]}
    packed = [name for name in told if ".experts." in name and name.endswith(suffix)]
    assert packed
    for name in packed:
        old, new = read_tensor(before[name]), read_tensor(after[name])
        assert told[name]["elements"] == 2 * len(old) == codes_in_element * shapes[name]
        assert told[name]["changed_elements"] == differing_codes(old, new)


@pytest.mark.parametrize("members, elements",
                         [({"elements": None}, 8), ({"elements": 10 ** 9}, None),
                          ({"changed_elements": 10 ** 9}, None)])
def test_counts_of_elements_are_told_or_plausible(ckpt, tmp_path, members, elements):
    """Deltas of before that member have 4-bit codes, too."""
    ckpt("ckpt-synth", "--config", "kimi-int4", tmp_path / "1")
    ckpt("ckpt-synth", "--config", "kimi-int4", "--seed", "2", tmp_path / "2")
    ckpt("ckpt-delta", "diff", tmp_path / "1", tmp_path / "2", tmp_path / "delta")
    path = tmp_path / "delta" / "ckpt-delta.json"
    side = json.loads(path.read_text())
    packed = next(t for t in side["tensors"] if t["name"].endswith(".weight_packed"))
    for key, value in members.items():
        packed[key] = value
        if value is None:
            del packed[key]
    path.write_text(json.dumps(side))
    run = ckpt("ckpt-delta", "inspect", "--json", tmp_path / "delta",
               check=0 if elements else 2)
    if elements:
        told = next(t for t in run.json["tensors"] if t["name"] == packed["name"])
        assert told["elements"] == elements * np.prod(packed["shape"])
    else:
        assert packed["name"] in run.err


@pytest.mark.parametrize("encoding", ["xor", "overwrite"])
def test_squash_does_what_the_deltas_do(ckpt, steps, deltas, tmp_path, encoding):
    ckpt("ckpt-delta", "squash", "--encoding", encoding, steps[0], deltas, tmp_path / "all")
    ckpt("ckpt-delta", "apply", steps[0], tmp_path / "all", tmp_path / "out")
    assert tree(tmp_path / "out") == tree(steps[2])


def test_squash_of_five_does_what_five_do(ckpt, golden_a, tmp_path):
    """Of some tensors only, which change again and again."""
    last = golden_a
    (tmp_path / "deltas").mkdir()
    for n in range(1, 6):
        new = drift(last, tmp_path / f"step{n}", share=0.02, seed=n,
                    only=lambda name: "layers.0." in name and "experts" not in name)
        ckpt("ckpt-delta", "diff", last, new, tmp_path / "deltas" / f"weight_v{n:06d}")
        last = new
    ckpt("ckpt-delta", "squash", golden_a, tmp_path / "deltas", tmp_path / "all")
    for delta, out in (("deltas", "five"), ("all", "one")):
        ckpt("ckpt-delta", "apply", golden_a, tmp_path / delta, tmp_path / out)
    assert tree(tmp_path / "five") == tree(tmp_path / "one") == tree(last)


def test_squash_is_the_diff_of_the_ends(ckpt, steps, deltas, tmp_path):
    ckpt("ckpt-delta", "squash", steps[0], deltas, tmp_path / "a")
    ckpt("ckpt-delta", "diff", steps[0], steps[2], tmp_path / "b")
    assert tree(tmp_path / "a") == tree(tmp_path / "b")


def test_reverse_leads_back_to_the_base(ckpt, steps, deltas, tmp_path):
    back = tmp_path / "weight_v000003"
    ckpt("ckpt-delta", "reverse", steps[0], deltas, back)
    ckpt("ckpt-delta", "apply", steps[2], back, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(steps[0])
    ckpt("ckpt-delta", "verify", steps[0], deltas, back)


def test_deltas_of_others_are_reversed_and_squashed(ckpt, tmp_path):
    base = GOLDEN / "base"
    ckpt("ckpt-delta", "squash", base, GOLDEN / "slime-xor", GOLDEN / "miles-overwrite",
         tmp_path / "x", check=2)
    ckpt("ckpt-delta", "squash", base, GOLDEN / "miles-overwrite", tmp_path / "all")
    ckpt("ckpt-delta", "reverse", base, GOLDEN / "slime-xor", tmp_path / "back")
    ckpt("ckpt-delta", "apply", base, tmp_path / "all", tmp_path / "out")
    ckpt("ckpt-delta", "apply", tmp_path / "out", tmp_path / "back", tmp_path / "again")
    assert tree(tmp_path / "again") == tree(base)


def test_squash_refuses_another_base(ckpt, steps, deltas, tmp_path):
    other = drift(steps[0], tmp_path / "other", only=lambda name: "embed" in name, seed=5)
    ckpt("ckpt-delta", "squash", other, deltas, tmp_path / "all", check=1)
    assert [p.name for p in tmp_path.iterdir()] == ["other"]


# ---- what does not fit ----

def test_the_wrong_base_is_named_with_its_tensor(ckpt, steps, deltas, tmp_path):
    said = ckpt("ckpt-delta", "apply", steps[0], deltas / "weight_v000002", tmp_path / "out",
                check=1).err
    assert "was not made from" in said and "expected" in said
    assert list(tmp_path.iterdir()) == []


def test_a_delta_that_is_applied_already_is_recognised(ckpt, steps, deltas, tmp_path):
    said = ckpt("ckpt-delta", "apply", steps[1], deltas / "weight_v000001", tmp_path / "out",
                check=1).err
    assert "already applied" in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("check", ["touched", "full"])
def test_a_base_that_differs_in_an_untouched_tensor_is_refused(ckpt, golden_a, tmp_path, check):
    """Known failure 7 of the readers that are there: every checksum of theirs passes."""
    new = drift(golden_a, tmp_path / "new", only=lambda name: "norm" in name)
    ckpt("ckpt-delta", "diff", golden_a, new, tmp_path / "d")
    other = drift(golden_a, tmp_path / "other", only=lambda name: name == "embed.weight")
    said = ckpt("ckpt-delta", "verify", "--base-check", check, other, tmp_path / "d", check=1).err
    assert "root" in said
    ckpt("ckpt-delta", "verify", "--base-check", "none", other, tmp_path / "d")


def test_versions_that_do_not_follow_each_other_are_refused(ckpt, steps, deltas, tmp_path):
    said = ckpt("ckpt-delta", "verify", steps[0], deltas / "weight_v000002",
                deltas / "weight_v000001", check=2).err
    assert "does not follow" in said
    shutil.copytree(deltas, tmp_path / "gap")
    (tmp_path / "gap" / "weight_v000002").rename(tmp_path / "gap" / "weight_v000003")
    assert "missing" in ckpt("ckpt-delta", "verify", steps[0], tmp_path / "gap", check=2).err


def test_a_whole_version_starts_the_chain_again(ckpt, steps, deltas, tmp_path):
    shutil.copytree(steps[1], tmp_path / "weight_v000001")
    shutil.copytree(deltas / "weight_v000002", tmp_path / "weight_v000002")
    ckpt("ckpt-delta", "apply", GOLDEN / "base", tmp_path, tmp_path / "out")
    assert tree(tmp_path / "out") == tree(steps[2])


def test_tensors_that_only_one_side_has_are_named(ckpt, tmp_path):
    said = ckpt("ckpt-delta", "diff", GOLDEN / "base", GOLDEN / "new-v1", tmp_path / "d",
                check=2).err
    assert "model.layers.1.removed.weight" in said
    assert list(tmp_path.iterdir()) == []


# ---- damaged and hostile deltas: refused by name, nothing written ----

def spoil_missing_index(delta):
    (delta / INDEX).unlink()
    return "is not a delta"


def spoil_missing_shard(delta):
    next(delta.glob("*.safetensors")).unlink()
    return "cannot open"


def edit_index(delta, edit):
    index = json.loads((delta / INDEX).read_text())
    edit(index)
    (delta / INDEX).write_text(json.dumps(index))


def spoil_encoding(delta):
    edit_index(delta, lambda i: i["metadata"].update(delta_encoding="xor+other"))
    return "xor+other"


def spoil_path(delta):
    edit_index(delta, lambda i: i["weight_map"].update(
        {next(iter(i["weight_map"])): "../x.safetensors"}))
    return "not mapped to a file name"


def spoil_listing(delta):
    edit_index(delta, lambda i: i["weight_map"].popitem())
    return "does not list"


@pytest.mark.parametrize("spoil", [spoil_missing_index, spoil_missing_shard, spoil_encoding,
                                   spoil_path, spoil_listing])
def test_damaged_bookkeeping_is_refused(ckpt, tmp_path, spoil):
    delta = tmp_path / "in" / "d"
    shutil.copytree(GOLDEN / "slime-xor" / "weight_v000001", delta)
    expected = spoil(delta)
    said = ckpt("ckpt-delta", "apply", GOLDEN / "base", delta, tmp_path / "out", check=2).err
    assert expected in said
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def flip(text):
    return text[:-1] + ("0" if text[-1] != "0" else "1")


FRAMES = {
    "bytes behind it": (lambda n, f, s: (f + bytes(7), s), "bytes behind its end", 2),
    "cut off": (lambda n, f, s: (f[:-3], s), "'", 2),
    "not a frame": (lambda n, f, s: (b"\0" + f[1:], s), "does not begin as one", 2),
    "upper-case checksum": (lambda n, f, s: (f, s.upper()), "lower-case", 2),
    "other checksum": (lambda n, f, s: (f, flip(s)), "expected", 1),
}


@pytest.mark.parametrize("name", FRAMES)
def test_a_spoiled_frame_is_refused(ckpt, golden_a, steps, tmp_path, name):
    change, expected, status = FRAMES[name]
    delta = write(steps[0], steps[1], tmp_path / "in" / "d", change=change)
    said = ckpt("ckpt-delta", "apply", golden_a, delta, tmp_path / "out", check=status).err
    assert expected in said
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def overwrite_with(count, positions, values):
    from interop.delta_reader import compress
    data = count.to_bytes(4, "little") + b"".join(p.to_bytes(4, "little") for p in positions)
    return compress(data + bytes(values))


HOSTILE = {
    "position past the end": (1, [1 << 30], [1]),
    "positions that descend": (2, [5, 4], [1, 2]),
    "a position twice": (2, [5, 5], [1, 2]),
    "fewer changes than counted": (3, [5], [1]),
    "more changes than bytes": ((1 << 32) - 1, [5], [1]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_positions_are_refused(ckpt, golden_a, steps, tmp_path, name):
    frame = overwrite_with(*HOSTILE[name])
    delta = write(steps[0], steps[1], tmp_path / "in" / "d", encoding="overwrite",
                  change=lambda n, f, s: (frame, s))
    ckpt("ckpt-delta", "apply", golden_a, delta, tmp_path / "out", check=2)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_bomb_is_refused_by_its_size(ckpt, golden_a, steps, tmp_path):
    from interop.delta_reader import compress
    bomb = compress(bytes(1 << 28), 1)
    delta = write(steps[0], steps[1], tmp_path / "d", change=lambda n, f, s: (bomb, s))
    said = ckpt("ckpt-delta", "verify", "--memory", "64MiB", golden_a, delta, check=2).err
    assert "268435456 bytes" in said


def test_damage_behind_the_side_file_is_found(ckpt, steps, deltas, tmp_path):
    delta = tmp_path / "d"
    shutil.copytree(deltas / "weight_v000001", delta)
    path = next(delta.glob("*.safetensors"))
    data = bytearray(path.read_bytes())
    data[-20] ^= 4
    path.write_bytes(data)
    assert "is damaged" in ckpt("ckpt-delta", "verify", steps[0], delta, check=2).err


@pytest.mark.parametrize("threads", [1, 4])
def test_nothing_appears_before_the_data_files_are_proven(ckpt, steps, deltas, tmp_path, threads):
    """All but the hash is right: the frames are, and so is what they make."""
    delta, base = tmp_path / "d", tmp_path / "base"
    shutil.copytree(deltas / "weight_v000001", delta)
    shutil.copytree(steps[0], base)
    side = json.loads((delta / SIDE).read_text())
    told = next(f for f in side["files"] if f["name"].endswith(".safetensors"))
    told["sha256"] = told["sha256"][::-1]
    (delta / SIDE).write_text(json.dumps(side))
    for action, *paths in (("apply", base, delta, tmp_path / "out"),
                           ("apply", "--dry-run", base, delta, tmp_path / "out"),
                           ("apply", "--in-place", base, delta), ("verify", base, delta),
                           ("reverse", base, delta, tmp_path / "out"), ("inspect", delta)):
        said = ckpt("ckpt-delta", action, *paths, "--threads", threads, check=2).err
        assert f"{told['name']}' is damaged: expected SHA-256 {told['sha256']}" in said, action
    assert sorted(p.name for p in tmp_path.iterdir()) == ["base", "d"]
    assert tree(base) == tree(steps[0])


def test_threads_share_one_large_tensor(ckpt, tmp_path):
    """They take turns: the same delta, the same result and the same refusals as one thread."""
    draw = np.random.default_rng(3)
    old = draw.integers(0, 0x3f80, (2048, 4096), np.uint16)
    new = old ^ (draw.random(old.shape, np.float32) < 0.01)
    for name, values in (("old", old), ("new", new)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(file_bytes(
            {"layer.weight": Tensor("BF16", list(old.shape), values.astype("<u2").tobytes())}))
    for n in (1, 8):
        (tmp_path / str(n)).mkdir()
        ckpt("ckpt-delta", "diff", "--threads", n, tmp_path / "old", tmp_path / "new",
             tmp_path / str(n) / "weight_v000001")
        ckpt("ckpt-delta", "apply", "--threads", n, tmp_path / "old",
             tmp_path / str(n) / "weight_v000001", tmp_path / str(n) / "out")
        said = ckpt("ckpt-delta", "verify", "--threads", n, tmp_path / "new",
                    tmp_path / str(n) / "weight_v000001", check=1).err
        assert "is already applied: tensor 'layer.weight'" in said
    assert tree(tmp_path / "1") == tree(tmp_path / "8")
    assert read_tensor(tensors_of(tmp_path / "8" / "out")["layer.weight"]) == \
        new.astype("<u2").tobytes()
