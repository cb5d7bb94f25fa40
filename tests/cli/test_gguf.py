"""GGUF files of DeepSeek-V4: written, read, and back to the release, byte for byte."""
import json
import shutil
import struct

import numpy
import pytest

from cli.trees import tree
from corrupt.files import Model, Tensor, bf16, with_byte
from corrupt.gguf_files import Parsed, array, key, model, size_of

BARE = ["--layout", "gguf", "--without-tokenizer", "--mtp"]


@pytest.fixture(scope="module")
def made(ckpt, golden_a, tmp_path_factory):
    """golden-a as GGUF, without a tokenizer."""
    path = tmp_path_factory.mktemp("made") / "gguf"
    ckpt("ckpt-shard", *BARE, golden_a, path)
    return path


def roots(ckpt, path, *options):
    found = ckpt("ckpt-verify", "digest", "--json", *options, path).json
    return found["root"], found["main"]


def edited(source, tmp_path, change):
    """A copy of a checkpoint after change(model)."""
    copy = Model(source)
    change(copy)
    return copy.write(tmp_path / "edited")


# ---- the same values ----

def test_one_root_on_the_way_to_gguf_and_back(ckpt, golden, tmp_path):
    ckpt("ckpt-shard", *BARE, golden, tmp_path / "gguf")
    for path in (tmp_path / "gguf", tmp_path / "gguf" / "model.gguf"):
        assert roots(ckpt, path) == roots(ckpt, golden)
        assert ckpt("ckpt-verify", "compare", "--json", golden, path).json["same"]
    ckpt("ckpt-verify", "check", tmp_path / "gguf")


@pytest.mark.parametrize("what", ["folder", "file"])
def test_back_like_the_original_is_the_original(ckpt, golden, tmp_path, what):
    """Experts byte for byte, FP8 by the original's scales, ids widened, config and index too."""
    ckpt("ckpt-shard", *BARE, golden, tmp_path / "gguf")
    source = tmp_path / "gguf" / ("model.gguf" if what == "file" else "")
    ckpt("ckpt-shard", "--layout", "hf", "--like", golden, source, tmp_path / "back")
    assert tree(tmp_path / "back") == tree(golden)


def test_without_the_original_the_values_are_the_same(ckpt, made, golden_a, tmp_path):
    ckpt("ckpt-shard", "--layout", "hf", made / "model.gguf", tmp_path / "hf")
    assert roots(ckpt, tmp_path / "hf") == roots(ckpt, golden_a)
    ids = ckpt("ckpt-inspect", "--json", "--tensors", "*tid2eid", tmp_path / "hf").json["tensors"]
    assert {t["dtype"] for t in ids} == {"I64"}


def test_experts_alone_are_proved(ckpt, made, golden_a):
    found = ckpt("ckpt-verify", "compare", "--json", "--tensors", "*experts.*", golden_a,
                 made / "model.gguf").json
    assert found["same"] and found["compared"] == 5 * (16 + 1) * 3


def test_a_changed_nibble_is_found_by_its_tensor(ckpt, made, golden_a, tmp_path):
    path = tmp_path / "model.gguf"
    parsed = Parsed(made / "model.gguf")
    name, ne, kind, data = next(t for t in parsed.tensors if t[0] == "blk.2.ffn_down_exps.weight")
    assert kind == "MXFP4" and ne == [128, 256, 16]
    row_bytes = ne[0] // 32 * 17
    at = 3 * ne[1] * row_bytes + 5 * row_bytes + 17 + 1 + 2      # expert 3, row 5, block 1, byte 2
    data = data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1:]
    parsed.tensors = [t if t[0] != name else (name, ne, kind, data) for t in parsed.tensors]
    parsed.write(path)
    found = ckpt("ckpt-verify", "compare", "--json", golden_a, path, check=1).json
    assert [t["name"] for t in found["differing"]] == ["layers.2.ffn.experts.3.w2.weight"]
    assert found["first_difference"]["row"] == 5
    assert found["first_difference"]["col"] == 32 + 16 + 2     # the high nibble of byte 2


def test_the_model_runs_from_a_gguf_file(ckpt, made, golden_a, tmp_path):
    (tmp_path / "tokens").write_text("1 2 3 4 5 6 7 8")
    for path, out in ((golden_a, "a"), (made / "model.gguf", "b")):
        ckpt("ckpt-run", "--tokens", tmp_path / "tokens", "--out", tmp_path / out, path)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


# ---- the same bytes ----

@pytest.mark.parametrize("options", [["--threads", "1"], ["--threads", "7"],
                                     ["--memory", "24MiB"], ["--no-manifest"]])
def test_output_does_not_depend_on_how_it_is_made(ckpt, made, golden_a, tmp_path, options):
    ckpt("ckpt-shard", *BARE, *options, golden_a, tmp_path / "again")
    assert (tmp_path / "again" / "model.gguf").read_bytes() == (made / "model.gguf").read_bytes()


def test_output_does_not_depend_on_the_source_layout(ckpt, made, golden_a, tmp_path):
    ckpt("ckpt-shard", "--layout", "mp", "--mp", "2", golden_a, tmp_path / "mp")
    ckpt("ckpt-shard", *BARE, tmp_path / "mp", tmp_path / "again")
    assert (tmp_path / "again" / "model.gguf").read_bytes() == (made / "model.gguf").read_bytes()


def test_gguf_to_gguf_changes_nothing(ckpt, made, tmp_path):
    ckpt("ckpt-shard", *BARE, made / "model.gguf", tmp_path / "again")
    assert (tmp_path / "again" / "model.gguf").read_bytes() == (made / "model.gguf").read_bytes()


def test_a_run_that_was_killed_ends_with_the_same_bytes(ckpt, made, golden_a, fault, tmp_path):
    out = tmp_path / "out"
    ckpt("ckpt-shard", *BARE, golden_a, out, check=None,
         env=fault.env("write:kill:30", f"{out}.partial"))
    assert fault.injected and not out.exists()
    ckpt("ckpt-shard", *BARE, golden_a, out)
    assert (out / "model.gguf").read_bytes() == (made / "model.gguf").read_bytes()


def test_several_processes_make_the_same_file(ckpt, made, golden_a, tmp_path):
    for part in ("1/2", "2/2"):
        ckpt("ckpt-shard", *BARE, "--part", part, golden_a, tmp_path / "out")
    assert (tmp_path / "out" / "model.gguf").read_bytes() == (made / "model.gguf").read_bytes()


# ---- files ----

def test_a_model_is_split_by_whole_blocks(ckpt, golden_a, tmp_path):
    ckpt("ckpt-shard", *BARE, "--max-shard-size", "5MB", golden_a, tmp_path / "out")
    paths = sorted((tmp_path / "out").glob("*.gguf"))
    parts = [Parsed(p) for p in paths]
    assert [p.name for p in paths] == \
        [f"model-{i:05}-of-{len(paths):05}.gguf" for i in range(1, len(paths) + 1)]
    assert len(paths) > 2 and all(p.stat().st_size < 5.2e6 for p in paths)
    total = sum(len(p.tensors) for p in parts)
    for i, part in enumerate(parts):
        split = {k: v for k, v in part.values.items() if k.startswith("split.")}
        assert split == {"split.no": i, "split.count": len(parts), "split.tensors.count": total}
        assert (len(part.keys) == 3) == (i > 0)
    blocks = [{t[0].split(".")[1] for t in p.tensors if t[0].startswith("blk.")} for p in parts]
    assert sum(map(len, blocks)) == len(set().union(*blocks)) == 5
    assert roots(ckpt, tmp_path / "out") == roots(ckpt, golden_a)
    assert roots(ckpt, paths[1]) == roots(ckpt, golden_a)


def test_the_first_key_is_the_digest(ckpt, made, golden_a, tmp_path):
    values = Parsed(made / "model.gguf").values
    assert values["ckpt.value_root"] == roots(ckpt, golden_a)[0]
    ckpt("ckpt-shard", *BARE, "--no-digest", golden_a, tmp_path / "out")
    assert "ckpt.value_root" not in Parsed(tmp_path / "out" / "model.gguf").values


def test_without_next_token_blocks_only_main_is_the_same(ckpt, golden_a, tmp_path):
    def drop(copy):
        for name in [n for n in copy.names() if n.startswith("mtp.")]:
            del copy[name]

    path = edited(golden_a, tmp_path, drop)
    assert "no next-token block" in ckpt("ckpt-shard", *BARE, path, tmp_path / "out", check=2).err
    ckpt("ckpt-shard", *BARE[:-1], path, tmp_path / "out")
    values = Parsed(tmp_path / "out" / "model.gguf").values
    assert values["deepseek4.block_count"] == 4
    assert values["deepseek4.nextn_predict_layers"] == 0
    assert len(values["deepseek4.attention.compress_ratios"]) == 4
    assert roots(ckpt, tmp_path / "out" / "model.gguf")[1] == roots(ckpt, golden_a)[1]
    ckpt("ckpt-shard", "--layout", "hf", "--like", golden_a, "--fill-from", golden_a, "--config",
         golden_a / "config.json", tmp_path / "out" / "model.gguf", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(golden_a)


def test_next_token_blocks_are_left_out_unless_asked_for(ckpt, golden_a, tmp_path):
    """llama.cpp refuses a file with more tensors than it asks for, as their head would be."""
    done = ckpt("ckpt-shard", *BARE[:-1], golden_a, tmp_path / "out")
    assert "left out: 77 tensors" in done.out and "--mtp writes it" in done.out
    values = Parsed(tmp_path / "out" / "model.gguf").values
    assert values["deepseek4.block_count"] == 4
    assert values["deepseek4.nextn_predict_layers"] == 0
    for path in (tmp_path / "out", tmp_path / "out" / "model.gguf"):
        assert roots(ckpt, path)[1] == roots(ckpt, golden_a)[1]
        ckpt("ckpt-verify", "compare", "--main", golden_a, path)
    ckpt("ckpt-shard", "--layout", "hf", "--like", golden_a, "--fill-from", golden_a,
         tmp_path / "out", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(golden_a)


def test_a_config_beside_it_may_count_no_other_layers(ckpt, golden_a, tmp_path):
    """Blocks that the file leaves out are no contradiction, others are."""
    ckpt("ckpt-shard", *BARE[:-1], golden_a, tmp_path / "out")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    for member, value in (("num_hidden_layers", 5), ("compress_ratios", [0, 4, 128, 4, 4])):
        (tmp_path / "out" / "config.json").write_text(json.dumps({**config, member: value}))
        err = ckpt("ckpt-verify", "digest", tmp_path / "out", check=2).err
        assert "the keys of the file say" in err and member in err


def test_the_full_model_has_the_tensors_and_bytes_of_the_sheet(ckpt, tmp_path):
    ckpt("ckpt-synth", "--config", "flash", "--sparse", tmp_path / "flash")
    for options, count, size in ((BARE, 1359, 165_623_768_704),
                                 (BARE[:-1], 1328, 161_864_271_936)):
        plan = ckpt("ckpt-shard", *options, "--dry-run", "--no-space-check", "--json",
                    tmp_path / "flash", tmp_path / "out").json
        assert plan["keys"] == count and 0 < plan["out_bytes"] - size < 200_000
        assert all(f["bytes"] < 50e9 for f in plan["files"])


# ---- tokenizer ----

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"


def tokenizer(merges, vocab=None, added=None):
    return {"version": "1.0", "added_tokens": added or [
        {"id": 0, "content": "<｜begin▁of▁sentence｜>", "special": True},
        {"id": 1, "content": "<｜end▁of▁sentence｜>", "special": True},
        {"id": 500, "content": "<think>", "special": False}],
        "model": {"type": "BPE", "vocab": vocab or {"a": 2, "b": 3, "ab": 4, "Ġ\"\\é": 5,
                                                   "<think>": 500}, "merges": merges}}


def with_tokenizer(source, path, text, settings=None, **files):
    shutil.copytree(source, path)
    (path / "tokenizer.json").write_text(json.dumps(text))
    if settings is not None:
        (path / "tokenizer_config.json").write_text(json.dumps(settings))
    for name, content in files.items():
        (path / name.replace("__", ".")).write_text(content)
    return path


@pytest.mark.parametrize("merges", [["a b", "ab a"], [["a", "b"], ["ab", "a"]]])
def test_the_tokenizer_is_in_the_header(ckpt, golden_a, tmp_path, merges):
    settings = {"add_bos_token": True, "add_eos_token": False,
                "bos_token": {"content": "<｜begin▁of▁sentence｜>"},
                "eos_token": "<｜end▁of▁sentence｜>", "pad_token": "<think>"}
    path = with_tokenizer(golden_a, tmp_path / "in", tokenizer(merges), settings,
                          chat_template__jinja=TEMPLATE)
    ckpt("ckpt-shard", "--layout", "gguf", "--mtp", path, tmp_path / "out")
    values = Parsed(tmp_path / "out" / "model.gguf").values
    tokens, types = values["tokenizer.ggml.tokens"], values["tokenizer.ggml.token_type"]
    assert len(tokens) == len(types) == 512
    assert tokens[:7] == ["<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "a", "b", "ab",
                          "Ġ\"\\é", "[PAD6]"]
    assert types[:7] == [3, 3, 1, 1, 1, 1, 5] and (tokens[500], types[500]) == ("<think>", 4)
    assert values["tokenizer.ggml.merges"] == ["a b", "ab a"]
    assert (values["tokenizer.ggml.model"], values["tokenizer.ggml.pre"]) == ("gpt2", "joyai-llm")
    assert [values[f"tokenizer.ggml.{k}_token_id"] for k in ("bos", "eos", "padding")] == \
        [0, 1, 500]
    assert values["tokenizer.ggml.add_bos_token"] == 1
    assert values["tokenizer.ggml.add_eos_token"] == 0
    assert values["tokenizer.chat_template"] == TEMPLATE
    assert roots(ckpt, tmp_path / "out" / "model.gguf") == roots(ckpt, golden_a)
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == \
        (path / "tokenizer.json").read_bytes()
    ckpt("ckpt-shard", "--layout", "hf", "--like", path, tmp_path / "out", tmp_path / "back")
    assert tree(tmp_path / "back") == tree(path)


def test_a_model_without_a_tokenizer_is_refused(ckpt, golden_a, tmp_path):
    err = ckpt("ckpt-shard", "--layout", "gguf", golden_a, tmp_path / "out", check=2).err
    assert "no tokenizer.json" in err and "--without-tokenizer" in err
    assert list(tmp_path.iterdir()) == []


BAD_TOKENIZERS = {
    "a token behind the vocabulary": ({"vocab": {"a": 512}}, "token 512, but vocab_size"),
    "two tokens of one number": ({"vocab": {"a": 7, "b": 7}}, "two tokens 7"),
    "a token without a number": ({"vocab": {"a": "7"}}, "has no number"),
    "a merge of three": ({"merges": [["a", "b", "c"]]}, "not two strings"),
    "a merge of one": ({"merges": [["a"]]}, "not two strings"),
    "an added token without a number": ({"added": [{"content": "x"}]}, "lacks id or content"),
    "an added token that is another": ({"added": [{"id": 2, "content": "x"}]}, "two tokens 2"),
}


@pytest.mark.parametrize("name", BAD_TOKENIZERS)
def test_tokenizers_that_are_wrong_are_refused(ckpt, golden_a, tmp_path, name):
    change, says = BAD_TOKENIZERS[name]
    text = tokenizer(**{"merges": [], **change})
    path = with_tokenizer(golden_a, tmp_path / "in", text)
    assert says in ckpt("ckpt-shard", "--layout", "gguf", path, tmp_path / "out", check=2).err
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("text", ["[]", "{}", '{"model": 1}', '{"model": {"vocab": []}}', "{",
                                  '{"model": {"type": "BPE"}}'])
def test_what_is_no_tokenizer_is_refused(ckpt, golden_a, tmp_path, text):
    path = with_tokenizer(golden_a, tmp_path / "in", {})
    (path / "tokenizer.json").write_text(text)
    err = ckpt("ckpt-shard", "--layout", "gguf", path, tmp_path / "out", check=2).err
    assert "tokenizer.json'" in err


# ---- what GGUF cannot hold ----

def refused(ckpt, path, tmp_path, *options):
    err = ckpt("ckpt-shard", *BARE, *options, path, tmp_path / "out", check=2).err
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()
    return err


def test_experts_in_fp8_are_refused_by_name(ckpt, golden_a, tmp_path):
    ckpt("ckpt-convert", "--experts", "fp8", "--scale-dtype", "e8m0", golden_a, tmp_path / "fp8")
    err = refused(ckpt, tmp_path / "fp8", tmp_path)
    assert ".ffn.experts.0.w1.weight' is F8_E4M3" in err and "GGUF cannot hold" in err
    ckpt("ckpt-shard", *BARE, "--experts", "bf16", tmp_path / "fp8", tmp_path / "out")
    assert roots(ckpt, tmp_path / "out") == roots(ckpt, golden_a)
    assert Parsed(tmp_path / "out" / "model.gguf").values["general.file_type"] == 32


def test_scales_that_bf16_cannot_follow_are_refused(ckpt, golden_a, tmp_path):
    def change(copy):
        scale = copy["layers.1.attn.wq_a.scale"]
        copy["layers.1.attn.wq_a.scale"] = Tensor(
            "F32", scale.shape, struct.pack("<f", 0.3) * len(scale.data))

    err = refused(ckpt, edited(golden_a, tmp_path, change), tmp_path)
    assert "layers.1.attn.wq_a.weight" in err and "not exact" in err


def test_products_that_are_infinite_are_refused(ckpt, golden_a, tmp_path):
    with_byte(golden_a, tmp_path / "in", "layers.0.ffn.experts.1.w1.scale", 5, 254)
    err = refused(ckpt, tmp_path / "in", tmp_path)
    assert "layers.0.ffn.experts.1.w1.weight" in err


@pytest.mark.parametrize("value", [16, -1, 1 << 40])
def test_ids_of_experts_that_are_not_there_are_refused(ckpt, golden_a, tmp_path, value):
    def change(copy):
        table = copy["layers.1.ffn.gate.tid2eid"]
        copy["layers.1.ffn.gate.tid2eid"] = Tensor(
            table.dtype, table.shape, table.data[:64] + struct.pack("<q", value) + table.data[72:])

    err = refused(ckpt, edited(golden_a, tmp_path, change), tmp_path)
    assert "layers.1.ffn.gate.tid2eid" in err and str(value) in err


def test_a_model_of_no_family_is_refused(ckpt, tmp_path):
    copy = Model()
    copy.files["model.safetensors"] = {"a.weight": bf16([4, 4])}
    copy.write(tmp_path / "in", index=False)
    assert "generic" in refused(ckpt, tmp_path / "in", tmp_path)


@pytest.mark.parametrize("member, value", [("scoring_func", "sigmoid"), ("q_lora_rank", None),
                                           ("swiglu_limit", "ten")])
def test_configs_that_keys_cannot_tell_are_refused(ckpt, golden_a, tmp_path, member, value):
    def change(copy):
        copy.config[member] = value

    err = ckpt("ckpt-shard", *BARE, edited(golden_a, tmp_path, change), tmp_path / "out",
               check=2).err
    assert f"'{member}'" in err


def test_options_of_other_layouts_are_refused(ckpt, golden_a, tmp_path):
    for options in (["--layout", "hf", "--without-tokenizer"], [*BARE, "--names", "native"],
                    [*BARE, "--like", golden_a], [*BARE, "--mp", "2"], [*BARE, "--tp", "2"]):
        ckpt("ckpt-shard", *options, golden_a, tmp_path / "out", check=2)
    assert list(tmp_path.iterdir()) == []


# ---- dialects ----

def test_the_dialect_of_llama_cpp_is_the_default(ckpt, made, golden_a, tmp_path):
    ckpt("ckpt-shard", *BARE, "--gguf-dialect", "llama.cpp", golden_a, tmp_path / "out")
    assert (tmp_path / "out" / "model.gguf").read_bytes() == (made / "model.gguf").read_bytes()


def test_what_ds4_wants_is_refused_by_name(ckpt, golden_a, tmp_path):
    err = refused(ckpt, golden_a, tmp_path, "--gguf-dialect", "ds4")
    assert "ds4 loads routed experts as IQ2_XXS, Q2_K or Q4_K alone" in err
    err = refused(ckpt, golden_a, tmp_path, "--gguf-dialect", "ollama")
    assert "llama.cpp" in err and "ds4" in err
    err = ckpt("ckpt-shard", "--layout", "hf", "--gguf-dialect", "llama.cpp", golden_a,
               tmp_path / "out", check=2).err
    assert "--gguf-dialect needs --layout gguf" in err and list(tmp_path.iterdir()) == []


def test_names_without_endings_are_read(ckpt, made, golden_a, tmp_path):
    bare = Parsed(made / "model.gguf").renamed(
        lambda n: n.removesuffix(".weight").removesuffix(".bias")).write(tmp_path / "x.gguf")
    assert roots(ckpt, bare) == roots(ckpt, golden_a)


def test_projections_that_are_kept_apart_are_read(ckpt, made, golden_a, tmp_path):
    parsed = Parsed(made / "model.gguf")
    name, ne, kind, data = next(t for t in parsed.tensors if "eh_proj" in t[0])
    row = 2 * ne[0]
    halves = {"e": b"".join(data[i:i + row // 2] for i in range(0, len(data), row)),
              "h": b"".join(data[i + row // 2:i + row] for i in range(0, len(data), row))}
    parsed.renamed(lambda n: None if n == name else n)
    parsed.tensors += [(name.replace("eh_proj", f"{x}_proj"), [ne[0] // 2, ne[1]], kind, halves[x])
                       for x in "eh"]
    assert roots(ckpt, parsed.write(tmp_path / "x.gguf")) == roots(ckpt, golden_a)


def test_a_key_that_a_tensor_tells_may_be_missing(ckpt, made, golden_a, tmp_path):
    path = Parsed(made / "model.gguf").without("deepseek4.vocab_size").write(tmp_path / "x.gguf")
    assert roots(ckpt, path) == roots(ckpt, golden_a)


def test_a_config_stands_for_keys_that_are_missing(ckpt, made, golden_a, tmp_path):
    path = Parsed(made / "model.gguf").without("deepseek4.hash_layer_count").write(
        tmp_path / "x.gguf")
    found = ckpt("ckpt-inspect", "--json", "--logical", path).json
    assert found["family"] == "generic"
    assert any("'deepseek4.hash_layer_count' is missing" in n for n in found["notes"])
    ckpt("ckpt-shard", "--layout", "hf", "--config", golden_a / "config.json", path,
         tmp_path / "back")
    assert roots(ckpt, tmp_path / "back") == roots(ckpt, golden_a)


@pytest.mark.parametrize("name, kind, value", [
    ("deepseek4.expert_gating_func", "u32", 2), ("deepseek4.block_count", "string", "five"),
    ("deepseek4.block_count", "u32", 1 << 31), ("deepseek4.nextn_predict_layers", "u32", 9),
    ("deepseek4.rope.freq_base", "f32", float("nan")), ("deepseek4.head_count", "bool", 1),
    ("deepseek4.attention.head_count", "i32", -1),
    ("deepseek4.attention.compress_ratios", "u32", 4),
])
def test_keys_with_other_values_are_refused(ckpt, made, tmp_path, name, kind, value):
    parsed = Parsed(made / "model.gguf").without(name)
    parsed.keys.append((name, value, key(name, kind, value)))
    path = parsed.write(tmp_path / "x.gguf")
    if name == "deepseek4.head_count":             # nobody asks for it
        ckpt("ckpt-inspect", path)
    else:
        assert f"'{name}'" in ckpt("ckpt-inspect", path, check=2).err


def test_codes_that_are_not_decoded_are_named_and_kept(ckpt, tmp_path):
    (tmp_path / "x.gguf").write_bytes(model([], [
        ("a.weight", [256, 3], "Q4_K", bytes(range(144)) * 3),
        ("b.weight", [4], "F32", bytes(16))]))
    found = ckpt("ckpt-inspect", "--json", tmp_path / "x.gguf").json
    assert [(t["dtype"], t["bytes"]) for t in found["tensors"]] == [("Q4_K", 432), ("F32", 16)]
    assert any("blocks of Q4_K" in n for n in found["notes"])
    ckpt("ckpt-verify", "digest", tmp_path / "x.gguf")
    err = ckpt("ckpt-convert", "--dtype", "bf16", tmp_path / "x.gguf", tmp_path / "out",
               check=2).err
    assert "a.weight" in err and "Q4_K" in err


@pytest.mark.parametrize("kind", ["Q4_K", "MXFP4", "Q8_0"])
def test_a_scale_beside_other_blocks_is_a_tensor_of_its_own(ckpt, tmp_path, kind):
    """As of BitNet: nobody has said that it is a factor, but it counts in every digest."""
    for number in (1, 2):
        (tmp_path / f"{number}.gguf").write_bytes(model([], [
            ("a.weight", [256, 3], kind, bytes(size_of(kind, [256, 3]))),
            ("a.scale", [1], "F32", struct.pack("<f", number))]))
    found = ckpt("ckpt-verify", "compare", "--json", tmp_path / "1.gguf", tmp_path / "2.gguf",
                 check=1).json
    assert [t["name"] for t in found["differing"]] == ["a.scale"]


def test_codes_that_are_not_decoded_stay_in_gguf(ckpt, tmp_path):
    rows = ("a.weight", [256, 3], "Q4_K", bytes(432))
    (tmp_path / "x.gguf").write_bytes(model([], [rows]))
    err = ckpt("ckpt-shard", "--layout", "hf", tmp_path / "x.gguf", tmp_path / "out", check=2).err
    assert "'a.weight' is Q4_K" in err and not (tmp_path / "out").exists()


def test_q8_0_is_decoded_and_its_loss_is_told(ckpt, made, golden_a, tmp_path):
    """As upstream's converter has dense weights: a half, then 32 signed bytes."""
    parsed = Parsed(made / "model.gguf")
    name = "blk.1.attn_q_b.weight"
    _, ne, _, data = next(t for t in parsed.tensors if t[0] == name)
    values = numpy.frombuffer(data, "<u2").astype("<u4") << 16
    blocks = values.view("<f4").reshape(-1, 32)
    scales = (numpy.abs(blocks).max(axis=1) / 127).astype("<f2")
    with numpy.errstate(divide="ignore", invalid="ignore"):
        codes = numpy.nan_to_num(numpy.rint(blocks / scales.astype("f4")[:, None])).astype("i1")
    packed = b"".join(s.tobytes() + c.tobytes() for s, c in zip(scales, codes))
    parsed.tensors = [t if t[0] != name else (name, ne, "Q8_0", packed) for t in parsed.tensors]
    path = parsed.write(tmp_path / "x.gguf")
    listed = ckpt("ckpt-inspect", "--json", "--tensors", name, path).json["tensors"][0]
    assert (listed["dtype"], listed["shape"], listed["bytes"]) == ("Q8_0", ne[::-1], len(packed))
    want = (codes.astype("f4") * scales.astype("f4")[:, None]).reshape(ne[::-1])
    native = "layers.1.attn.wq_b.weight"
    got = ckpt("ckpt-inspect", "--json", "--logical", "--values", f"0-{ne[1] - 1}", "--tensors",
               native, path).json["tensors"][0]["values"]
    assert numpy.array_equal(numpy.array(got, "f4"), want)
    found = ckpt("ckpt-verify", "compare", "--json", "--stat", golden_a, path, check=1).json
    assert [t["name"] for t in found["differing"]] == [native]
    exact = blocks.reshape(want.shape).astype("f8")
    loss = numpy.sqrt(((want - exact) ** 2).sum() / (exact ** 2).sum())
    told = [g for g in found["tensors"] if g["name"] == native][0]["relative_error"]
    assert 0.001 < loss < 0.02 and abs(told - loss) < 1e-6 * loss


def nvfp4_values(data, cols):
    """By ggml's definition: four scales without sign, 0x7F as 0, then four groups in halves."""
    magnitudes = numpy.array([0, .5, 1, 1.5, 2, 3, 4, 6])
    blocks = numpy.frombuffer(data, "u1").reshape(-1, 36)
    e, m = (blocks[:, :4] & 0x7F) >> 3, blocks[:, :4] & 7
    scales = numpy.where(e == 0, m / 512, (1 + m / 8) * 2.0 ** (e.astype(int) - 7))
    scales[(blocks[:, :4] & 0x7F) == 0x7F] = 0
    groups = blocks[:, 4:].reshape(-1, 4, 8)
    codes = numpy.concatenate([groups & 15, groups >> 4], axis=2)
    values = magnitudes[codes & 7] * numpy.where(codes & 8, -1, 1) * scales[:, :, None]
    return values.reshape(-1, cols).astype("f4")


def test_nvfp4_is_decoded_as_ggml_does(ckpt, tmp_path):
    """Every scale byte, with the sign that ggml ignores and the code that it takes for 0."""
    codes = numpy.random.default_rng(3).integers(0, 256, (64, 32)).astype("u1")
    scales = numpy.arange(256, dtype="u1").reshape(64, 4)
    data = numpy.concatenate([scales, codes], axis=1).tobytes()
    (tmp_path / "x.gguf").write_bytes(model([], [("a.weight", [128, 32], "NVFP4", data)]))
    found = ckpt("ckpt-inspect", "--json", "--values", "0-31", "--tensors", "a.weight",
                 tmp_path / "x.gguf").json
    assert [t["shape"] for t in found["tensors"]] == [[32, 128]]
    assert numpy.array_equal(numpy.array(found["tensors"][0]["values"], "f4"),
                             nvfp4_values(data, 128))
    values = nvfp4_values(data, 128).tobytes()
    (tmp_path / "y.gguf").write_bytes(model([], [("a.weight", [128, 32], "F32", values)]))
    ckpt("ckpt-verify", "compare", tmp_path / "x.gguf", tmp_path / "y.gguf")


@pytest.mark.parametrize("name", ["b.scale", "b.weight.scale"])
def test_the_scale_of_another_tensor_is_none_of_nvfp4(ckpt, tmp_path, name):
    (tmp_path / "x.gguf").write_bytes(model([], [
        ("a.weight", [64, 2], "NVFP4", bytes(72)), (name, [1], "F32", bytes(4))]))
    found = ckpt("ckpt-inspect", "--json", "--logical", tmp_path / "x.gguf").json
    assert {t["name"]: t["encoding"] for t in found["tensors"]} == \
        {"a.weight": "F4 1x16 F8_E4M3", name: "F32"}


def test_a_requantised_tensor_is_told_by_name(ckpt, made, golden_a, tmp_path):
    """Most published files: experts as released, dense weights rounded to something else."""
    parsed = Parsed(made / "model.gguf")
    name = "blk.1.attn_q_b.weight"
    ne = next(t[1] for t in parsed.tensors if t[0] == name)
    parsed.renamed(lambda n: None if n == name else n)
    parsed.tensors.append((name, [256, ne[0] * ne[1] // 256], "Q4_K",
                           bytes(144 * ne[0] * ne[1] // 256)))
    path = parsed.write(tmp_path / "x.gguf")
    found = ckpt("ckpt-verify", "compare", "--json", golden_a, path, check=1).json
    assert [t["name"] for t in found["differing"]] == ["layers.1.attn.wq_b.weight"]
    ckpt("ckpt-verify", "compare", "--tensors", "*experts*", golden_a, path)


# ---- keys and config.json ----

def test_keys_that_contradict_config_json_are_refused(ckpt, golden_a, made, tmp_path):
    """llama.cpp reads the keys alone: a comparison of config.json would not be of that model."""
    copy = tmp_path / "copy"
    shutil.copytree(made, copy)
    data = bytearray((copy / "model.gguf").read_bytes())
    name = b"deepseek4.attention.sliding_window"
    at = data.index(name) + len(name) + 4                    # behind the type of the value
    data[at:at + 4] = struct.pack("<I", 17)
    (copy / "model.gguf").write_bytes(data)
    err = ckpt("ckpt-verify", "compare", golden_a, copy, check=2).err
    assert "sliding_window is 17" in err and "config.json" in err
    assert ckpt("ckpt-verify", "compare", golden_a, copy / "model.gguf", check=1).out


# ---- a tokenizer in keys, compared ----

SETTINGS = {"bos_token": "<｜begin▁of▁sentence｜>", "eos_token": "<｜end▁of▁sentence｜>"}


@pytest.fixture(scope="module")
def spoken(ckpt, golden_a, tmp_path_factory):
    """golden-a with a tokenizer, and as GGUF with its tokenizer in the keys alone."""
    folder = tmp_path_factory.mktemp("spoken")
    path = with_tokenizer(golden_a, folder / "hf", tokenizer(["a b", "ab a"]), SETTINGS,
                          chat_template__jinja=TEMPLATE)
    ckpt("ckpt-shard", "--layout", "gguf", "--mtp", path, folder / "gguf")
    return path, folder / "gguf" / "model.gguf"


def companions(ckpt, a, b, check=0):
    return ckpt("ckpt-verify", "compare", "--json", a, b, check=check).json["companions"]


def test_a_tokenizer_in_keys_is_that_of_the_files(ckpt, spoken):
    path, gguf = spoken
    for a, b in ((path, gguf), (gguf, path), (gguf, gguf), (path, gguf.parent)):
        found = companions(ckpt, a, b)
        assert found["compared"] >= 2 and found["note"] is None
        assert [d for d in found["differing"] if d["kind"] == "changed"] == []


CHANGED_KEYS = {
    "a token": ("tokenizer.ggml.tokens", "array",
                lambda v: array("string", [*v[:4], "changed", *v[5:]]), "4"),
    "a token less": ("tokenizer.ggml.tokens", "array",
                     lambda v: array("string", [*v[:500], "[PAD500]", *v[501:]]), "500"),
    "merges in another order": ("tokenizer.ggml.merges", "array",
                                lambda v: array("string", v[::-1]), "0"),
    "a merge more": ("tokenizer.ggml.merges", "array",
                     lambda v: array("string", [*v, "b a"]), "2"),
    "another end": ("tokenizer.ggml.eos_token_id", "u32", lambda v: v + 1, None),
    "another template": ("tokenizer.chat_template", "string", lambda v: v + " ", None),
}


@pytest.mark.parametrize("what", CHANGED_KEYS)
def test_a_changed_key_of_the_tokenizer_is_a_difference(ckpt, spoken, tmp_path, what):
    name, kind, change, member = CHANGED_KEYS[what]
    path, gguf = spoken
    parsed = Parsed(gguf)
    new = key(name, kind, change(parsed.values[name]))
    parsed.keys = [k if k[0] != name else (name, None, new) for k in parsed.keys]
    other = parsed.write(tmp_path / "x.gguf")
    for a, b in ((path, other), (other, gguf)):
        assert companions(ckpt, a, b, check=1)["differing"] == [
            {"file": name, "kind": "changed", "member": member}]
    ckpt("ckpt-verify", "compare", "--weights-only", path, other)
    if member is not None:
        assert f"differ  {name}: member {member}\n" in ckpt("ckpt-verify", "compare", path, other,
                                                            check=1).out


@pytest.mark.parametrize("side", ["a", "b"])
def test_a_tokenizer_on_one_side_is_noted(ckpt, spoken, made, golden_a, side):
    path, gguf = spoken
    for told, with_one, without in (("tokenizer.ggml.tokens", gguf, golden_a),
                                    ("tokenizer.json", path, made / "model.gguf"),
                                    ("tokenizer.ggml.tokens", gguf, made)):
        pair = (with_one, without) if side == "a" else (without, with_one)
        out = ckpt("ckpt-verify", "compare", *pair).out
        assert out.count(f"note  {told} is only in {side.upper()}\n") == 1


def test_a_tokenizer_of_another_kind_is_not_compared_but_noted(ckpt, spoken, golden_a, tmp_path):
    path = with_tokenizer(golden_a, tmp_path / "in", {"model": {"type": "Unigram", "vocab": []}})
    found = companions(ckpt, path, spoken[1])
    assert "not compared" in found["note"] and "form BPE" in found["note"]
    assert "note  the tokenizers were not compared" in ckpt("ckpt-verify", "compare", path,
                                                            spoken[1]).out


def test_a_vocabulary_keeps_the_limit_of_memory(ckpt, spoken, tmp_path):
    parsed = Parsed(spoken[1])
    many = struct.pack("<IQ", 8, 1 << 21) + struct.pack("<Q1s", 1, b"x") * (1 << 21)
    parsed.keys = [k if k[0] != "tokenizer.ggml.tokens" else (k[0], None, key(k[0], "array", many))
                   for k in parsed.keys]
    path = parsed.write(tmp_path / "x.gguf")
    words = ["ckpt-verify", "compare", "--tensors", "*norm*"]
    assert "memory" in ckpt(*words, "--memory", "24MiB", spoken[0], path, check=2).err
    ckpt(*words, "--memory", "200MiB", spoken[0], path, check=1)


def test_certify_judges_the_tokenizer_in_keys(ckpt, spoken, tmp_path):
    path, gguf = spoken
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"schema": "ckpt-policy/1", "tokenizer": "required",
                                  "template": "required"}))
    words = ["certify", "--json", "--policy", policy, "--require", "tokenizer", path]
    good = ckpt("ckpt-verify", *words, gguf, "--out", tmp_path / "good.json").json
    checks = {c["name"]: c["verdict"] for c in good["checks"] if c["checkpoint"] != "hf"}
    assert (checks["tokenizer"], checks["template"], checks["required"]) == ("pass",) * 3
    parsed = Parsed(gguf)
    parsed.keys = [k if k[0] != "tokenizer.ggml.merges" else
                   (k[0], None, key(k[0], "array", array("string", ["ab a", "a b"])))
                   for k in parsed.keys]
    bad = ckpt("ckpt-verify", *words, parsed.write(tmp_path / "x.gguf"), "--out",
               tmp_path / "bad.json", check=1).json
    assert [(f["check"], f["subject"], f["place"]) for f in bad["findings"] if f["fails"]] == [
        ("tokenizer", "tokenizer.ggml.merges", "member 0")]


def test_a_tokenizer_that_is_left_behind_is_noted(ckpt, spoken, tmp_path):
    notes = ckpt("ckpt-shard", "--json", "--layout", "hf", spoken[1], tmp_path / "a").json["notes"]
    assert sum("tokenizer" in n and "is not written" in n for n in notes) == 1
    notes = ckpt("ckpt-shard", "--json", "--layout", "hf", spoken[1].parent,
                 tmp_path / "b").json["notes"]
    assert not any("tokenizer" in n for n in notes)
    assert (tmp_path / "b" / "tokenizer.json").exists()


# ---- without next-token blocks ----

def test_a_file_without_next_token_blocks_is_told_how_to_compare(ckpt, golden_a, tmp_path):
    ckpt("ckpt-shard", *BARE[:-1], golden_a, tmp_path / "gguf")
    note = "only tensors mtp.* are missing: --main compares without them"
    assert note in ckpt("ckpt-verify", "compare", golden_a, tmp_path / "gguf", check=1).out
    assert note not in ckpt("ckpt-verify", "compare", "--main", golden_a, tmp_path / "gguf").out


def test_a_file_alone_is_compared_without_what_configs_say_of_next_token_blocks(
        ckpt, golden_a, tmp_path):
    without = tmp_path / "without"
    ckpt("ckpt-shard", *BARE[:-1], golden_a, without)
    ckpt("ckpt-verify", "compare", "--main", golden_a, without / "model.gguf")
    done = ckpt("ckpt-verify", "compare", golden_a, without / "model.gguf", check=1)
    assert "num_nextn_predict_layers" in done.out
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"schema": "ckpt-policy/1", "roots": "main"}))
    ckpt("ckpt-verify", "certify", "--policy", policy, "--out", tmp_path / "c.json", golden_a,
         without / "model.gguf")
