"""ckpt-convert: one value in every encoding, and the way back to the same bytes."""
import itertools
import json
import pathlib

import pytest

from cli.kernels import needs_kernels
from corrupt.files import INDEX, all_files, read_header, tensor_files

# Made by an independent implementation of the digest, from the golden checkpoints.
ROOTS = {
    "golden-a": "cc556e3e991d7856f8e68505f775672a6c3f969b7ed0a33a33fa047d0928ce76",
    "golden-b": "a820911368b7954165faf1041cc7ca311c3be1e52c6a19e26a4865e165a641f6",
}
ENCODINGS = {
    "native": ["--dtype", "fp8", "--experts", "fp4"],
    "fp8": ["--dtype", "fp8"],
    "bf16": ["--dtype", "bf16"],
}
PAIRS = list(itertools.permutations(ENCODINGS, 2))
NAMES = ["native", "sglang", "transformers"]


@pytest.fixture(scope="module")
def encoded(ckpt, golden, tmp_path_factory):
    """encoded("bf16") -> the golden checkpoint in this encoding, made once."""
    folder = tmp_path_factory.mktemp(golden.name)
    made = {"native": golden}

    def get(name, *options):
        key = " ".join([name, *options])
        if key not in made:
            made[key] = folder / key.replace(" ", "_").replace("/", "_")
            ckpt("ckpt-convert", *ENCODINGS[name], *options, golden, made[key])
        return made[key]
    return get


def dtypes(path):
    """{tensor: dtype} of a directory."""
    return {name: h["dtype"] for p in pathlib.Path(path).glob("*.safetensors")
            for name, h in read_header(p)[0].items()}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_every_encoding_has_the_pinned_digest(encoded, digest, golden, encoding):
    assert digest(encoded(encoding)) == ROOTS[golden.name]


def test_encodings_are_what_was_asked_for(encoded):
    native, fp8, bf16 = (dtypes(encoded(e)) for e in ENCODINGS)
    assert {"I8", "F8_E4M3", "F8_E8M0"} <= set(native.values())
    assert native.keys() == fp8.keys()
    to = {"I8": "F8_E4M3", "F8_E8M0": "F32"}
    for name, dtype in fp8.items():
        assert dtype == to.get(native[name], native[name]), name
    assert bf16.keys() == {n for n in native if not n.endswith(".scale")}
    for name, dtype in bf16.items():
        assert dtype == ("BF16" if native[name] in ("I8", "F8_E4M3") else native[name]), name


@pytest.mark.parametrize("source,target", PAIRS, ids=["-".join(p) for p in PAIRS])
def test_every_pair_keeps_values(ckpt, encoded, digest, golden, tmp_path, source, target):
    out = tmp_path / "out"
    ckpt("ckpt-convert", *ENCODINGS[target], "--verify", encoded(source), out)
    assert digest(out) == ROOTS[golden.name]
    assert dtypes(out) == dtypes(encoded(target))


@pytest.mark.parametrize("source,target", PAIRS, ids=["-".join(p) for p in PAIRS])
def test_every_pair_compares_the_same(ckpt, encoded, source, target):
    result = ckpt("ckpt-verify", "compare", "--json", encoded(source), encoded(target)).json
    assert result["same"] is True
    assert result["compared"] == sum(not n.endswith(".scale") for n in dtypes(encoded("native")))
    assert result["differing"] == result["missing_in_a"] == result["missing_in_b"] == []


def test_fp8_and_back_gives_the_original_files(ckpt, encoded, golden, tmp_path):
    fp8 = encoded("fp8")
    assert (fp8 / "fp4_scales.zst").exists(), "the golden data needs no side data: a weak test"
    ckpt("ckpt-convert", "--experts", "fp4", fp8, tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(golden)
    assert not (tmp_path / "back" / "fp4_scales.zst").exists()


def test_the_side_data_matter(ckpt, encoded, golden, tmp_path):
    fp8 = tmp_path / "fp8"
    fp8.mkdir()
    for name, data in all_files(encoded("fp8")).items():
        if name != "fp4_scales.zst":
            (fp8 / name).write_bytes(data)
    ckpt("ckpt-convert", "--experts", "fp4", fp8, tmp_path / "back")
    assert tensor_files(tmp_path / "back") != tensor_files(golden)


@pytest.mark.parametrize("encoding", ["bf16", "fp8"])
def test_like_gives_the_whole_original_tree(ckpt, encoded, golden, tmp_path, encoding):
    ckpt("ckpt-convert", "--like", golden, encoded(encoding), tmp_path / "back")
    assert all_files(tmp_path / "back") == all_files(golden)


def test_like_follows_a_cast_as_well(ckpt, encoded, golden, tmp_path):
    ckpt("ckpt-convert", "--like", encoded("bf16"), golden, tmp_path / "cast")
    mine = all_files(encoded("bf16"))
    mine.pop("ckpt-manifest.json", None)
    assert all_files(tmp_path / "cast") == mine


def test_keep_copies_the_tensor_files(ckpt, golden, tmp_path):
    ckpt("ckpt-convert", golden, tmp_path / "same")
    assert tensor_files(tmp_path / "same") == tensor_files(golden)
    assert (tmp_path / "same" / "config.json").read_bytes() == \
        (golden / "config.json").read_bytes()


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("names", ["sglang", "transformers"])
def test_names_go_there_and_back(ckpt, encoded, digest, golden, tmp_path, names, encoding):
    there = encoded(encoding, "--names", names, "--force-names")
    assert digest(there) == ROOTS[golden.name]
    ckpt("ckpt-convert", "--names", "native", there, tmp_path / "back")
    assert tensor_files(tmp_path / "back") == tensor_files(encoded(encoding))


def test_names_go_between_foreign_styles(ckpt, encoded, tmp_path):
    ckpt("ckpt-convert", "--names", "transformers", encoded("bf16", "--names", "sglang"),
         tmp_path / "out")
    assert tensor_files(tmp_path / "out") == \
        tensor_files(encoded("bf16", "--names", "transformers"))


def test_sglang_names_are_sglangs(encoded):
    names = dtypes(encoded("native", "--names", "sglang", "--force-names"))
    assert {"model.embed_tokens.weight", "lm_head.weight", "model.norm.weight",
            "model.hc_head_fn", "model.layers.0.self_attn.wq_a.weight_scale_inv",
            "model.layers.0.mlp.topk.tid2eid", "model.layers.0.mlp.experts.3.down_proj.weight",
            "model.layers.3.mlp.gate.e_score_correction_bias"} <= names.keys()


def scale_dtypes(path):
    return {dtype for name, dtype in dtypes(path).items()
            if name.endswith(".scale") and ".hc_" not in name and not name.startswith("hc_")}


@pytest.mark.parametrize("options", [["--experts", "fp8"], ["--dtype", "fp8"]])
@pytest.mark.parametrize("source", ["native", "bf16"])
def test_experts_that_become_fp8_bring_f32_scales_for_all(ckpt, encoded, digest, golden, tmp_path,
                                                          source, options):
    """vLLM takes E8M0 scales beside FP8 experts for numbers."""
    if source == "bf16" and options == ["--experts", "fp8"]:
        options = ["--dtype", "fp8", *options]
    done = ckpt("ckpt-convert", *options, encoded(source), tmp_path / "out")
    assert scale_dtypes(tmp_path / "out") == {"F32"} and "vLLM" not in done.out
    assert json.loads((tmp_path / "out" / "config.json").read_text())["expert_dtype"] == "fp8"
    assert digest(tmp_path / "out") == ROOTS[golden.name]


def test_e8m0_scales_beside_fp8_experts_are_there_on_request_and_warned_of(ckpt, encoded,
                                                                          tmp_path):
    done = ckpt("ckpt-convert", "--experts", "fp8", "--scale-dtype", "e8m0", encoded("native"),
                tmp_path / "e8m0")
    assert scale_dtypes(tmp_path / "e8m0") == {"F8_E8M0"} and "vLLM" in done.out
    done = ckpt("ckpt-convert", "--experts", "fp8", tmp_path / "e8m0", tmp_path / "kept")
    assert scale_dtypes(tmp_path / "kept") == {"F8_E8M0"} and "vLLM" in done.out


def test_experts_that_become_fp4_bring_e8m0_scales_for_all(ckpt, encoded, tmp_path):
    for source in ("fp8", "bf16"):
        out = tmp_path / source
        ckpt("ckpt-convert", "--dtype", "fp8", "--experts", "fp4", encoded(source), out)
        assert scale_dtypes(out) == {"F8_E8M0"}


def test_an_mp_folder_keeps_e8m0_scales(ckpt, encoded, tmp_path):
    ckpt("ckpt-shard", "--layout", "mp", "--mp", 2, "--experts", "fp8", encoded("native"),
         tmp_path / "mp")
    assert scale_dtypes(tmp_path / "mp") == {"F8_E8M0"}


@pytest.mark.parametrize("names,culprit", [("sglang", ".wo_a.weight"),
                                           ("transformers", ".experts.")])
@pytest.mark.parametrize("encoding", ["native", "fp8"])
def test_names_whose_readers_misread_the_encoding_are_refused(ckpt, encoded, golden, tmp_path,
                                                              names, culprit, encoding):
    out = tmp_path / "out"
    err = ckpt("ckpt-convert", *ENCODINGS[encoding], "--names", names, golden, out, check=2).err
    assert culprit in err and names in err and "--force-names" in err and not out.exists()
    forced = encoded(encoding, "--names", names, "--force-names")
    ckpt("ckpt-convert", forced, out)              # a copy is not asked
    assert tensor_files(out) == tensor_files(forced)
    ckpt("ckpt-convert", "--dtype", "bf16", "--names", names, golden, tmp_path / "bf16")


def test_names_that_stay_are_no_way_around(ckpt, encoded, tmp_path):
    bf16 = encoded("bf16", "--names", "sglang")
    err = ckpt("ckpt-convert", "--dtype", "fp8", bf16, tmp_path / "out", check=2).err
    assert "wo_a" in err and "--force-names" in err


def test_scales_become_f32_and_e8m0_again(ckpt, encoded, digest, golden, tmp_path):
    f32 = encoded("fp8", "--scale-dtype", "f32")
    native = dtypes(golden)
    for name, dtype in dtypes(f32).items():
        if name.endswith(".scale"):
            assert dtype == "F32", name
    assert set(native.values()) >= {"F8_E8M0"}
    assert digest(f32) == ROOTS[golden.name]
    ckpt("ckpt-convert", "--scale-dtype", "e8m0", f32, tmp_path / "e8m0")
    assert tensor_files(tmp_path / "e8m0") == \
        tensor_files(encoded("fp8", "--scale-dtype", "e8m0"))


def test_f32_scales_stay_f32_unless_told(ckpt, encoded, tmp_path):
    f32 = encoded("fp8", "--scale-dtype", "f32")
    ckpt("ckpt-convert", "--dtype", "fp8", f32, tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(f32)


def test_f32_scales_go_back_to_native_bytes(ckpt, encoded, golden, tmp_path):
    ckpt("ckpt-convert", "--experts", "fp4", "--scale-dtype", "e8m0",
         encoded("fp8", "--scale-dtype", "f32"), tmp_path / "out")
    assert tensor_files(tmp_path / "out") == tensor_files(golden)


def codes(path, name):
    for p in pathlib.Path(path).glob("*.safetensors"):
        header, _, offset = read_header(p)
        if name in header:
            begin, end = header[name]["data_offsets"]
            return p.read_bytes()[offset + begin:offset + end]
    raise KeyError(name)


def test_match_reference_drops_the_sign_of_zero_and_nothing_else(encoded, digest, golden):
    exact, reference = encoded("fp8"), encoded("fp8", "--match-reference")
    negative_zeros = 0
    for name, dtype in dtypes(golden).items():
        a, b = codes(exact, name), codes(reference, name)
        if dtype == "I8":
            negative_zeros += a.count(0x80)
            assert b == a.replace(b"\x80", b"\0"), name
        else:
            assert a == b, name
    assert negative_zeros > 0, "the golden data has no -0: a weak test"
    assert digest(reference) == ROOTS[golden.name]


@pytest.mark.parametrize("options", [["--threads", "1"], ["--threads", "7"],
                                     ["--memory", "24MiB", "--threads", "1"]])
def test_output_depends_on_neither_threads_nor_memory(ckpt, encoded, golden, tmp_path, options):
    ckpt("ckpt-convert", "--dtype", "fp8", *options, golden, tmp_path / "out")
    assert all_files(tmp_path / "out") == all_files(encoded("fp8"))


@pytest.mark.parametrize("kernels", ["scalar", "avx2"])
def test_output_does_not_depend_on_the_kernels(ckpt, encoded, golden, tmp_path, kernels):
    needs_kernels(kernels)
    env = {"CKPT_KERNELS": kernels}
    for encoding in ("fp8", "bf16"):
        out = tmp_path / encoding
        ckpt("ckpt-convert", "--dtype", encoding, golden, out, env=env)
        assert all_files(out) == all_files(encoded(encoding))


def test_one_file_is_a_checkpoint_too(ckpt, golden, tmp_path):
    one = golden / sorted(tensor_files(golden))[1]
    ckpt("ckpt-convert", one, tmp_path / "same")
    assert tensor_files(tmp_path / "same") == {one.name: one.read_bytes()}


def test_a_directory_without_index_is_read(ckpt, digest, golden, tmp_path):
    bare = tmp_path / "bare"
    bare.mkdir()
    for name, data in all_files(golden).items():
        if name != INDEX:
            (bare / name).write_bytes(data)
    assert digest(bare) == ROOTS[golden.name]


def test_symbolic_links_are_followed(ckpt, digest, golden, tmp_path):
    """As in the cache of huggingface_hub."""
    links = tmp_path / "links"
    links.mkdir()
    for p in golden.iterdir():
        (links / p.name).symlink_to(p)
    assert digest(links) == ROOTS[golden.name]
