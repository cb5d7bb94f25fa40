"""ckpt-run: the same bits however it is asked, every form of input and output, every refusal."""
import json
import os
import re
import shutil
import signal
import struct
import subprocess

import pytest

from corrupt.files import read_header

PROFILES = ["exact", "deploy"]


def parse(path):
    """A safetensors file -> {name: (dtype, shape, bytes)}, metadata."""
    raw = path.read_bytes()
    length, = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + length])
    metadata = header.pop("__metadata__")
    data = raw[8 + length:]
    return {name: (e["dtype"], e["shape"], data[slice(*e["data_offsets"])])
            for name, e in header.items()}, metadata


def numbers(entry):
    dtype, shape, data = entry
    return list(struct.unpack(f"<{len(data) // 4}{'i' if dtype == 'I32' else 'f'}", data))


@pytest.fixture
def logits(ckpt, data, tmp_path):
    """logits(model, *options, tokens=...) -> the bytes of the result."""
    def get(model, *options, tokens=None, name="out"):
        tokens = tokens or data / f"{model.name}.safetensors"
        ckpt("ckpt-run", "--tokens", tokens, "--out", tmp_path / name, *options, model)
        return (tmp_path / name).read_bytes()
    return get


@pytest.fixture(scope="module")
def whole(ckpt, data, golden, tmp_path_factory):
    """The plain run in each profile."""
    folder = tmp_path_factory.mktemp("whole")
    for profile in PROFILES:
        ckpt("ckpt-run", "--numerics", profile, "--mtp", "--out", folder / profile, "--tokens",
             data / f"{golden.name}.safetensors", golden)
    return {profile: (folder / profile).read_bytes() for profile in PROFILES}


WAYS = [["--chunk", "1"], ["--chunk", "7"], ["--chunk", "64"], ["--chunk", "4096"],
        ["--feed", "1"], ["--feed", "129", "--chunk", "50"], ["--threads", "1"],
        ["--threads", "2"], ["--threads", "8", "--chunk", "400"], ["--trace", "trace"]]


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_chunks_steps_threads_and_trace_change_no_bit(logits, golden, whole, profile, way,
                                                      tmp_path):
    way = [str(tmp_path / w) if w == "trace" else w for w in way]
    assert logits(golden, "--numerics", profile, "--mtp", *way) == whole[profile]


def test_the_least_memory_that_is_asked_for_is_enough_and_changes_no_bit(ckpt, data, golden,
                                                                         whole, tmp_path):
    args = ["--mtp", "--numerics", "exact", "--tokens", data / f"{golden.name}.safetensors",
            "--out", tmp_path / "out", golden]
    limit = "1MiB"
    for _ in range(6):
        said = ckpt("ckpt-run", "--memory", limit, *args, check=(0, 2))
        if said.status == 0:
            break
        limit = re.search(r"need (\d+)", said.err).group(1)
    assert (tmp_path / "out").read_bytes() == whole["exact"]
    assert int(limit) < 64 << 20


@pytest.mark.parametrize("profile", PROFILES)
def test_kernels_change_no_bit(ckpt, data, golden, whole, profile, tmp_path):
    ckpt("ckpt-run", "--numerics", profile, "--mtp", "--out", tmp_path / "out", "--tokens",
         data / f"{golden.name}.safetensors", golden, env={"CKPT_KERNELS": "scalar"})
    assert (tmp_path / "out").read_bytes() == whole[profile]


ENCODINGS = {"bf16": ["--dtype", "bf16"], "fp8": ["--dtype", "fp8"],
             "f32-scales": ["--dtype", "fp8", "--scale-dtype", "f32"],
             "sglang": ["--names", "sglang", "--force-names"],
             "stacked": ["--dtype", "bf16", "--names", "transformers"]}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings_and_names_change_no_bit(ckpt, logits, golden, whole, encoding, profile,
                                           data, tmp_path):
    ckpt("ckpt-convert", *ENCODINGS[encoding], "--no-manifest", golden, tmp_path / "model")
    result = logits(tmp_path / "model", "--numerics", profile, "--mtp",
                    tokens=data / f"{golden.name}.safetensors")
    assert result == whole[profile]


def test_a_changed_weight_changes_the_logits(ckpt, data, golden_a, logits, tmp_path):
    before = logits(golden_a, "--numerics", "exact")
    model = damaged(golden_a, tmp_path, "layers.3.attn.indexer.weights_proj.weight",
                    struct.pack("<H", 0x4000))
    after = logits(model, "--numerics", "exact", tokens=data / "golden-a.safetensors")
    assert before != after and len(before) == len(after)


# ---- forms of input ----

def npy(values, dtype, shape):
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    code = {"<i8": "q", "<i4": "i", "<u2": "H"}[dtype]
    return (b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
            + struct.pack(f"<{len(values)}{code}", *values))


def tensor_file(values, shape, dtype="I64"):
    code = {"I64": "q", "I32": "i"}[dtype]
    body = struct.pack(f"<{len(values)}{code}", *values)
    header = json.dumps({"tokens": {"dtype": dtype, "shape": shape,
                                    "data_offsets": [0, len(body)]}}).encode()
    return struct.pack("<Q", len(header)) + header + body


ONE = [5, 17, 42, 300, 1, 0]
TWO = [[5, 17, 42], [300, 1]]
FORMS = {
    "text": (b"5 17,42\n\n300 1\n", TWO),
    "text-one": (b" 5 17 42 300 1 0", [ONE]),
    "json-one": (json.dumps(ONE).encode(), [ONE]),
    "json": (json.dumps(TWO).encode(), TWO),
    "json-object": (json.dumps({"tokens": TWO}, indent=1).encode(), TWO),
    "jsonl": (b"".join(json.dumps({"prompt": "x", "tokens": t}).encode() + b"\n" for t in TWO),
              TWO),
    "npy-one": (npy(ONE, "<i8", "(6,)"), [ONE]),
    "npy": (npy([5, 17, 42, 300, 1, -1], "<i4", "(2, 3)"), TWO),
    "npy-unsigned": (npy(ONE, "<u2", "(1, 6)"), [ONE]),
    "safetensors": (tensor_file([5, 17, 42, 300, 1, -1], [2, 3]), TWO),
    "safetensors-one": (tensor_file(ONE, [6], "I32"), [ONE]),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_tokens_is_read(ckpt, golden_a, tmp_path, form):
    text, prompts = FORMS[form]
    (tmp_path / "tokens").write_bytes(text)
    ckpt("ckpt-run", "--tokens", tmp_path / "tokens", "--out", tmp_path / "out", golden_a)
    result, _ = parse(tmp_path / "out")
    for i, prompt in enumerate(prompts):
        end = f".{i}" if len(prompts) > 1 else ""
        assert numbers(result["tokens" + end]) == prompt
        assert result["logits" + end][1] == [len(prompt), 512]


def test_tokens_come_from_standard_input(ckpt, golden_a):
    shown = ckpt("ckpt-run", "--tokens", "-", golden_a, input="5 17 42\n300 1\n").out
    assert len(shown.split()) == 2


def test_prompts_together_give_what_each_gives_alone(ckpt, golden_a, tmp_path):
    prompts = [[7] * 3, list(range(140)), [9, 8, 7, 6, 5]]
    (tmp_path / "all").write_text(json.dumps(prompts))
    ckpt("ckpt-run", "--tokens", tmp_path / "all", "--out", tmp_path / "out", golden_a)
    together, _ = parse(tmp_path / "out")
    for i, prompt in enumerate(prompts):
        (tmp_path / "one").write_text(json.dumps(prompt))
        ckpt("ckpt-run", "--tokens", tmp_path / "one", "--out", tmp_path / "alone", golden_a)
        assert parse(tmp_path / "alone")[0]["logits"] == together[f"logits.{i}"]


# ---- forms of output ----

def test_positions_pick_rows_of_the_full_result(ckpt, data, golden_a, whole_a, tmp_path):
    full = numbers(whole_a["logits"])
    ckpt("ckpt-run", "--tokens", data / "golden-a.safetensors", "--positions", "0,5,17-20,299",
         "--out", tmp_path / "out", golden_a)
    result, _ = parse(tmp_path / "out")
    picked = [0, 5, 17, 18, 19, 20, 299]
    assert numbers(result["positions"]) == picked
    assert numbers(result["logits"]) == [x for p in picked for x in full[p * 512:(p + 1) * 512]]


@pytest.fixture(scope="module")
def whole_a(ckpt, data, tmp_path_factory):
    out = tmp_path_factory.mktemp("a") / "out"
    ckpt("ckpt-run", "--tokens", data / "golden-a.safetensors", "--out", out, data / "golden-a")
    return parse(out)[0]


def test_top_holds_the_largest_logits_and_logsumexp(ckpt, data, golden_a, whole_a, tmp_path):
    from math import exp, log
    full = numbers(whole_a["logits"])
    ckpt("ckpt-run", "--tokens", data / "golden-a.safetensors", "--top", "64", "--out",
         tmp_path / "out", golden_a)
    result, _ = parse(tmp_path / "out")
    ids, values, sums = (numbers(result[k]) for k in ("top_ids", "top_logits", "logsumexp"))
    for p in range(300):
        row = full[p * 512:(p + 1) * 512]
        best = sorted(range(512), key=lambda v: (-row[v], v))[:64]
        assert ids[p * 64:(p + 1) * 64] == best
        assert values[p * 64:(p + 1) * 64] == [row[v] for v in best]
        assert abs(sums[p] - log(sum(map(exp, row)))) < 1e-5


def test_jsonl_holds_the_same_values(ckpt, data, golden_a, whole_a, tmp_path):
    ckpt("ckpt-run", "--tokens", data / "golden-a.safetensors", "--format", "jsonl", "--out",
         tmp_path / "out", golden_a)
    line, = map(json.loads, (tmp_path / "out").read_text().splitlines())
    rows = [struct.unpack("<f", struct.pack("<f", x))[0] for row in line["logits"] for x in row]
    assert line["tokens"] == numbers(whole_a["tokens"]) and rows == numbers(whole_a["logits"])


def test_the_header_says_what_made_it(ckpt, golden_a, digest, tmp_path):
    ckpt("ckpt-run", "--tokens", "-", "--digest", "--numerics", "exact", "--out",
         tmp_path / "out", golden_a, input="1 2 3")
    metadata = parse(tmp_path / "out")[1]
    assert metadata["model_root"] == digest(golden_a)
    assert metadata["model_root_source"] == "computed"
    assert (metadata["numerics"], metadata["backend"]) == ("exact", "cpu")
    assert len(metadata["config_digest"]) == 64 and metadata["version"]


def test_the_root_comes_from_the_manifest(ckpt, golden_a, digest, tmp_path):
    ckpt("ckpt-convert", "--dtype", "bf16", golden_a, tmp_path / "model")
    ckpt("ckpt-run", "--tokens", "-", "--out", tmp_path / "out", tmp_path / "model", input="1")
    metadata = parse(tmp_path / "out")[1]
    assert metadata["model_root"] == digest(golden_a)
    assert metadata["model_root_source"] == "manifest"


# ---- generation ----

@pytest.mark.parametrize("options", [[], ["--temperature", "0.8", "--seed", "3"]], ids=str)
def test_generated_tokens_are_those_that_their_logits_give(ckpt, golden_a, tmp_path, options):
    prompt = list(range(2, 30))
    made = ckpt("ckpt-run", "--json", "--tokens", "-", "--generate", "12", *options, golden_a,
                input=json.dumps(prompt)).json["prompts"][0]["generated"]
    assert 1 <= len(made) <= 12 and (len(made) == 12 or made[-1] == 1)
    for n in range(len(made)):
        again = ckpt("ckpt-run", "--json", "--tokens", "-", "--generate", "1", *options,
                     golden_a, input=json.dumps(prompt + made[:n])).json
        assert again["prompts"][0]["generated"] == [made[n]]


def test_seeds_give_other_draws(ckpt, golden_a):
    made = {ckpt("ckpt-run", "--tokens", "-", "--generate", "8", "--temperature", "2", "--seed",
                 seed, golden_a, input="5 6 7").out for seed in range(4)}
    assert len(made) == 4


# ---- refusals ----

def damaged(model, folder, tensor, patch, at=0):
    """A copy of a checkpoint with bytes of one tensor overwritten."""
    copy = folder / "damaged"
    shutil.copytree(model, copy)
    for path in copy.glob("*.safetensors"):
        header, _, begin = read_header(path)
        if tensor in header:
            with open(path, "r+b") as f:
                f.seek(begin + header[tensor]["data_offsets"][0] + at)
                f.write(patch)
            return copy
    raise AssertionError(tensor)


def with_config(model, folder, **changes):
    copy = folder / "model"
    shutil.copytree(model, copy)
    config = json.loads((copy / "config.json").read_text()) | changes
    (copy / "config.json").write_text(json.dumps(config))
    return copy


@pytest.mark.parametrize("tokens, says", [
    ("512", "512"), ("", "no prompt"), ("1 2 x", "token ids"), ("[[1], []]", "empty"),
    ("[1.5]", "whole number"), ("[-1]", "whole number"), ('{"ids": [1]}', "tokens"),
    ("99999999999", "token id"), ("[1, 2", "standard input")])
def test_bad_tokens_are_refused(ckpt, golden_a, tokens, says):
    assert says in ckpt("ckpt-run", "--tokens", "-", golden_a, input=tokens, check=2).err


@pytest.mark.parametrize("options, says", [
    (["--positions", "3"], "--positions: position 3"),
    (["--positions", "2,1"], "--positions: '2,1': expected a list of ascending"),
    (["--positions", "x"], "list"), (["--temperature", "-1"], "temperature"),
    (["--chunk", "5000"], "4096"), (["--top", "513"], "513"), (["--feed", "0"], "feed"),
    (["--memory", "1MiB"], "memory"), (["--config", "/nowhere"], "/nowhere")])
def test_bad_options_are_refused(ckpt, golden_a, options, says, tmp_path):
    out = tmp_path / "out"
    for more in [], ["--dry-run"]:
        said = ckpt("ckpt-run", "--tokens", "-", "--out", out, *more, *options, golden_a,
                    input="1 2 3", check=2).err
        assert says in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize("options, needs", [
    (["--format", "jsonl"], "--out"), (["--top", "4"], "--out"), (["--mtp"], "--out or --trace"),
    (["--positions", "last"], "--out or --trace"), (["--digest"], "--out or --json"),
    (["--against", "b"], "--out"), (["--against-tensor", "x"], "--against"),
    (["--max-kl", "0.1"], "--against"), (["--min-top5=1"], "--against"),
    (["--seed", "3"], "--temperature"), (["--trace-positions", "1"], "--trace"),
    (["--mode", "raw"], "--prompt, --messages, --prompts or --chat"),
    (["--instructions", "x"], "--prompt, --prompts or --chat"),
    (["--tokenizer", "x"], "--prompt, --messages, --prompts or --chat")])
def test_an_option_that_would_be_ignored_is_refused(ckpt, golden_a, options, needs):
    """Above all a limit without --against: a gate that cannot fail."""
    said = ckpt("ckpt-run", "--tokens", "-", *options, golden_a, input="1 2 3", check=2).err
    assert f"{options[0].split('=')[0]} needs {needs};" in said


@pytest.mark.parametrize("options, says", [
    (["--temperature", "0", "--seed", "3"], "--temperature above 0"),
    (["--temperature", "1", "--seed", "x"], "--seed 'x'"),
    (["--temperature", "1", "--out", "OUT"], "--generate or --json")])
def test_options_that_would_draw_nothing_are_refused(ckpt, golden_a, tmp_path, options, says):
    out = tmp_path / "out"
    said = ckpt("ckpt-run", "--tokens", "-", *[out if w == "OUT" else w for w in options],
                golden_a, input="1 2 3", check=2).err
    assert says in said and not list(tmp_path.iterdir())
    if out.name.upper() in options:
        drawn = ckpt("ckpt-run", "--tokens", "-", "--temperature", "1", "--json", "--out", out,
                     golden_a, input="1 2 3").json
        assert "next" in drawn["prompts"][0] and out.exists()


def test_mtp_of_last_positions_alone_is_refused(ckpt, golden_a, tmp_path):
    """It takes the token after a position, too: nothing of it would be written."""
    for tokens, more in ("1 2 3", ["--positions", "last"]), ("1", []):
        said = ckpt("ckpt-run", "--tokens", "-", "--mtp", "--out", tmp_path / "o", *more, golden_a,
                    input=tokens, check=2).err
        assert "--mtp needs a position before the last" in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["--out", "--trace"])
def test_a_result_never_replaces_what_is_read(ckpt, golden_a, tmp_path, option):
    model = shutil.copytree(golden_a, tmp_path / "model")
    tokens, config = tmp_path / "tokens", tmp_path / "config.json"
    tokens.write_text("1 2 3")
    shutil.copy(golden_a / "config.json", config)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    for place in (tokens, config, next(model.glob("*.safetensors")), model / "config.json"):
        said = ckpt("ckpt-run", "--tokens", tokens, "--config", config, option, place, model,
                    check=2).err
        assert str(place) in said
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize("options, says", [
    (["--out", "."], "directory"), (["--out", "-"], "standard output"),
    (["--out", ""], "expected FILE, got ''"), (["--trace", ""], "expected FILE, got ''"),
    (["--trace", "-"], "standard output"), (["--out", "no/such"], "no"),
    (["--out", "/dev/null"], "device"), (["--out", "x", "--trace", "x"], "same")])
def test_a_place_that_cannot_take_the_result_is_refused_at_once(ckpt, golden_a, tmp_path, options,
                                                                says):
    """Before the model is opened: this one would not do."""
    said = ckpt("ckpt-run", "--tokens", "-", *options, golden_a / "config.json", input="1 2 3",
                check=2, cwd=tmp_path).err
    assert says in said and not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", ["safetensors", "jsonl"])
def test_a_result_replaces_the_old_one_only_when_it_is_whole(ckpt, golden_a, tmp_path, fault,
                                                             form):
    out = tmp_path / "results" / "out"
    out.parent.mkdir()
    run = "ckpt-run", "--tokens", "-", "--format", form, "--out", out, golden_a
    ckpt(*run, input="1 2 3")
    old = out.read_bytes()
    ckpt(*run, input="3 2 1", check=2, env=fault.env("rename:EIO:1", "out"))
    assert fault.injected and out.read_bytes() == old and os.listdir(out.parent) == ["out"]
    ckpt(*run, input="3 2 1")
    assert out.read_bytes() != old and os.listdir(out.parent) == ["out"]


@pytest.mark.parametrize("option", ["--out", "--trace"])
def test_a_file_that_was_not_a_result_is_not_replaced(ckpt, golden_a, tmp_path, option):
    """Another text, other tensors, the other kind of output."""
    ckpt("ckpt-run", "--tokens", "-", "--out", tmp_path / "--trace", "--trace",
         tmp_path / "--out", golden_a, input="1 2 3")
    (tmp_path / "notes.txt").write_text("hours of work\n")
    shutil.copy(next(golden_a.glob("*.safetensors")), tmp_path / "tensors")
    for name in ("notes.txt", "tensors", option):
        before = (tmp_path / name).read_bytes()
        said = ckpt("ckpt-run", "--tokens", "-", option, tmp_path / name, golden_a, input="1 2 3",
                    check=2).err
        assert "already exists and is not" in said and (tmp_path / name).read_bytes() == before
    (tmp_path / "empty").touch()
    ckpt("ckpt-run", "--tokens", "-", option, tmp_path / "empty", golden_a, input="1 2 3")
    assert (tmp_path / "empty").stat().st_size > 0


def test_a_refusal_costs_no_earlier_trace_and_leaves_no_new_one(ckpt, golden_a, tmp_path):
    """What the weights lack shows late."""
    model = next(golden_a.glob("model-00001-*"))
    ckpt("ckpt-run", "--tokens", "-", "--trace", tmp_path / "old", golden_a, input="3 2 1")
    old = (tmp_path / "old").read_text()
    for name in "old", "new":
        said = ckpt("ckpt-run", "--tokens", "-", "--config", golden_a / "config.json", "--trace",
                    tmp_path / name, model, input="1 2 3", check=2).err
        assert "no tensor" in said
    assert (tmp_path / "old").read_text() == old
    assert not (tmp_path / "new").exists()
    ckpt("ckpt-run", "--tokens", "-", "--trace", tmp_path / "old", golden_a, input="1 2 3")
    ckpt("ckpt-run", "--tokens", "-", "--trace", tmp_path / "new", golden_a, input="1 2 3")
    assert (tmp_path / "old").read_text() == (tmp_path / "new").read_text() != ""


def test_a_run_is_stopped_between_layers_and_leaves_nothing(ckpt, build, golden_a, tmp_path,
                                                            fault):
    """All prompts go through the model at once, which takes hours for a real one."""
    folder = tmp_path / "results"
    folder.mkdir()
    process = subprocess.Popen(
        [build / "bin" / "ckpt-run", "--tokens", "-", "--out", folder / "out", golden_a],
        env={**os.environ, **fault.env("pread:stop:40", "model-")}, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdin.write("1 2 3")
    process.stdin.close()
    while os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT).si_code != \
            os.CLD_STOPPED:
        assert process.poll() is None
    assert os.listdir(folder) != []
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    said = process.stderr.read()
    assert process.wait() == -signal.SIGTERM and re.fullmatch(
        r"ckpt-run: interrupted before layer \d\n", said), said
    assert os.listdir(folder) == []


@pytest.mark.parametrize("changes, says", [
    ({"routed_scaling_factor": 1e38}, "routed_scaling_factor"),
    ({"routed_scaling_factor": 0}, "routed_scaling_factor"),
    ({"rms_norm_eps": -1e-6}, "rms_norm_eps"), ({"rms_norm_eps": 1e30}, "rms_norm_eps"),
    ({"hc_eps": 1e38}, "hc_eps"), ({"rope_theta": 1e300}, "rope_theta"),
    ({"rope_theta": 0}, "rope_theta"), ({"swiglu_limit": 1e-30}, "swiglu_limit"),
    ({"rope_scaling": {"factor": 0}}, "factor"), ({"rope_scaling": {"beta_fast": 1e30}}, "beta"),
    ({"rope_scaling": {"original_max_position_embeddings": 0}}, "original_max_position")])
def test_a_config_that_makes_every_logit_0_or_nan_is_refused(ckpt, golden_a, tmp_path, changes,
                                                             says):
    config = json.loads((golden_a / "config.json").read_text())
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(value, dict) else value
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = ckpt("ckpt-run", "--tokens", "-", "--config", tmp_path / "config.json", golden_a,
                input="1 2 3", check=2).err
    assert says in said


@pytest.mark.parametrize("option", ["--top", "--feed", "--chunk"])
def test_a_count_of_0_is_refused(ckpt, golden_a, option, tmp_path):
    said = ckpt("ckpt-run", "--tokens", "-", "--out", tmp_path / "out", option, "0", golden_a,
                input="1 2 3", check=2).err
    assert "at least 1" in said and option in said


@pytest.mark.parametrize("changes, says", [
    ({"compress_ratios": [0, 4, 128]}, "compress_ratios"), ({"head_dim": 127}, "odd"),
    ({"compress_ratios": [0, 4, 128, 8, 0]}, "compress_ratios"),
    ({"scoring_func": "softmax"}, "scoring_func"), ({"o_groups": 3}, "groups"),
    ({"num_experts_per_tok": 17}, "experts"), ({"q_lora_rank": None}, "q_lora_rank"),
    ({"q_lora_rank": 64}, "wq_a"), ({"rope_theta": "x"}, "rope_theta"),
    ({"qk_rope_head_dim": 130}, "rotary"), ({"max_position_embeddings": 2}, "2 positions")])
def test_contradictory_configs_are_refused(ckpt, golden_a, tmp_path, changes, says):
    config = json.loads((golden_a / "config.json").read_text()) | changes
    (tmp_path / "config.json").write_text(json.dumps(config))
    said = ckpt("ckpt-run", "--tokens", "-", "--config", tmp_path / "config.json", golden_a,
                input="1 2 3", check=2).err
    assert says in said


@pytest.mark.parametrize("tensor, patch, says", [
    ("layers.0.attn_norm.weight", b"\xc0\x7f", "NaN"),
    ("layers.1.attn.wq_b.weight", b"\x7f", "NaN"),
    ("layers.1.attn.wq_b.scale", b"\xff", "NaN"),
    ("layers.1.attn.wq_b.scale", b"\xfe", "x scale 1.70141183e+38 (0xFE) is beyond"),
    ("layers.2.hc_attn_fn", b"\x00\x00\x80\x7f", "infinity"),
    ("embed.weight", b"\x80\x7f", "NaN"),
    ("layers.0.ffn.gate.tid2eid", struct.pack("<qq", 3, 3), "twice"),
    ("layers.0.ffn.gate.tid2eid", struct.pack("<q", 16), "expert 16"),
    ("layers.0.ffn.gate.tid2eid", struct.pack("<q", -1), "-1")])
def test_bad_weights_are_refused(ckpt, golden_a, tmp_path, tensor, patch, says):
    model = damaged(golden_a, tmp_path, tensor, patch)
    said = ckpt("ckpt-run", "--tokens", "-", model, input="0 1 2", check=2).err
    assert says in said and tensor.removesuffix("scale") in said


def test_the_smallest_scale_byte_is_a_scale(ckpt, golden_a, tmp_path):
    model = damaged(golden_a, tmp_path, "layers.1.attn.wq_b.scale", b"\x00")
    ckpt("ckpt-run", "--tokens", "-", "--out", tmp_path / "out", model, input="0 1 2")
    assert numbers(parse(tmp_path / "out")[0]["logits"])


def test_a_missing_tensor_is_refused_before_anything_runs(ckpt, golden_a, tmp_path):
    said = ckpt("ckpt-run", "--tokens", "-", "--config", golden_a / "config.json",
                next(golden_a.glob("model-00001-*")), input="1", check=2).err
    assert "no tensor 'head.weight'" in said


@pytest.mark.parametrize("way", [[], ["--feed", "5"], ["--mtp"]])
def test_the_trace_ends_with_the_heads_input_and_logits(ckpt, data, golden_a, tmp_path, way):
    ckpt("ckpt-run", *way, "--tokens", data / "golden-a.safetensors", "--positions", "3,7,299",
         "--out", tmp_path / "out", "--trace", tmp_path / "trace", "--trace-positions", "3,7",
         golden_a)
    points = {line["point"]: line for line in
              map(json.loads, (tmp_path / "trace").read_text().splitlines())
              if line["layer"] == 4 and "values" in line}
    logits = numbers(parse(tmp_path / "out")[0]["logits"])
    assert points["logits"]["shape"] == [3, 512] and points["h"]["shape"] == [3, 256]
    assert points["logits"]["values"]["3"] + points["logits"]["values"]["7"] == logits[:1024]
    assert ("mtp.logits" in points) == ("--mtp" in way)


@pytest.mark.parametrize("option", [["--devices", "0,1"], ["--device-memory", "1GiB"]])
def test_devices_are_refused_where_there_are_none(ckpt, golden_a, option):
    said = ckpt("ckpt-run", "--tokens", "-", *option, golden_a, input="1", check=2)
    assert option[0] in said.err and "'cpu'" in said.err


def test_cuda_without_a_gpu_is_refused(ckpt, golden_a):
    if shutil.which("nvidia-smi"):
        pytest.skip("this machine has a GPU")
    assert "cuda" in ckpt("ckpt-run", "--tokens", "-", "--backend", "cuda", golden_a, input="1",
                          check=2).err.lower()


def test_the_inference_form_of_the_config_says_the_same(ckpt, golden_a, tmp_path):
    root = json.loads((golden_a / "config.json").read_text())
    names = {"hidden_size": "dim", "num_hidden_layers": "n_layers", "num_hash_layers":
             "n_hash_layers", "num_attention_heads": "n_heads", "qk_rope_head_dim":
             "rope_head_dim", "sliding_window": "window_size", "num_experts_per_tok":
             "n_activated_experts", "moe_intermediate_size": "moe_inter_dim", "scoring_func":
             "score_func", "routed_scaling_factor": "route_scale"}
    same = ["vocab_size", "head_dim", "q_lora_rank", "o_groups", "o_lora_rank",
            "n_routed_experts", "n_shared_experts", "swiglu_limit", "rope_theta",
            "compress_rope_theta", "index_n_heads", "index_head_dim", "index_topk", "hc_mult",
            "hc_sinkhorn_iters", "hc_eps", "compress_ratios"]
    inference = {names.get(k, k): root[k] for k in [*names, *same]}
    inference |= {"original_seq_len": 65536, "rope_factor": 16, "beta_fast": 32, "beta_slow": 1,
                  "dtype": "fp8", "scale_fmt": "ue8m0", "expert_dtype": "fp4"}
    (tmp_path / "config.json").write_text(json.dumps(inference))
    results = [ckpt("ckpt-run", "--json", "--tokens", "-", *more, golden_a, input="1 2 3").json
               for more in ([], ["--config", tmp_path / "config.json"])]
    times = [r.pop("layers") for r in results if r.pop("speed")]
    assert results[0] == results[1]
    assert [t["layer"] for t in times[0]] == list(range(root["num_hidden_layers"]))
    assert [t["weight_bytes"] for t in times[0]] == [t["weight_bytes"] for t in times[1]]
    assert all(t["seconds"] > 0 and t["weight_bytes"] > 0 for t in times[0])


# ---- what a config says and nobody here does ----

def run_with(ckpt, model, folder, config, *options, **how):
    (folder / "config.json").write_text(json.dumps(config))
    return ckpt("ckpt-run", "--tokens", "-", "--config", folder / "config.json", *options, model,
                input="1 2 3", **how)


@pytest.mark.parametrize("member, value, neutral", [
    ("final_logit_softcapping", 30.0, None), ("attn_logit_softcapping", 50, 0.0),
    ("attention_bias", True, False), ("qkv_bias", True, False), ("n_group", 8, 1),
    ("first_k_dense_replace", 1, 0), ("logit_scale", 0.0625, 1.0), ("hidden_act", "gelu", "silu"),
    ("logit_scale", "x", 1)])
def test_what_changes_the_forward_pass_is_refused_unless_it_does_nothing(
        ckpt, golden_a, tmp_path, member, value, neutral):
    config = json.loads((golden_a / "config.json").read_text())
    said = run_with(ckpt, golden_a, tmp_path, config | {member: value}, check=2).err
    assert f"'{member}' is not" in said
    right = ckpt("ckpt-run", "--tokens", "-", golden_a, input="1 2 3")
    assert run_with(ckpt, golden_a, tmp_path, config | {member: neutral}) == right


def test_a_member_that_is_not_known_is_told(ckpt, golden_a, tmp_path):
    config = json.loads((golden_a / "config.json").read_text())
    config |= {"novel_gate": True, "novel_block": {"size": 4}, "novel_but_null": None,
               "transformers_version": "9", "use_cache": False, "torchscript": False,
               "dim_of_novelty": 3}
    said = run_with(ckpt, golden_a, tmp_path, config)
    told = [re.search(r"config.json has '(\w+)', which is not known", line)[1]
            for line in said.err.splitlines()]
    assert told == ["novel_gate", "novel_block", "dim_of_novelty"]
    shown = run_with(ckpt, golden_a, tmp_path, config, "--json", "--quiet")
    assert shown.err == "" and [f"note: {n}" for n in shown.json["notes"]] == said.err.splitlines()


def test_rotation_parameters_outside_of_their_two_tables_are_refused(ckpt, golden_a, tmp_path):
    config = json.loads((golden_a / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "yarn", "factor": 40}
    said = run_with(ckpt, golden_a, tmp_path, config, check=2).err
    assert "'rope_parameters' has 'rope_type'" in said


@pytest.mark.parametrize("name", ["flash", "pro"])
def test_configs_of_releases_run_without_a_note(ckpt, data, tmp_path, name):
    """As released, and as transformers saves it."""
    model = tmp_path / "model"
    ckpt("ckpt-synth", "--config", name, "--layers", 4, "--sparse", model)
    saved = json.loads((data / "v4-transformers-5.23.json").read_text())["configs"][name]
    four = {"num_hidden_layers": 4, "layer_types": saved["layer_types"][:4],
            "mlp_layer_types": saved["mlp_layer_types"][:4]}
    configs = [json.loads((model / "config.json").read_text()), saved | four]
    for config in configs:
        for more in [], ["--json"]:
            said = run_with(ckpt, model, tmp_path, config, "--dry-run", "--memory", "8GiB", *more)
            assert said.err == ""
        assert said.json["notes"] == []


def test_the_config_of_mp_shards_runs_without_a_note(ckpt, golden, tmp_path):
    """In the spelling of DeepSeek's own code."""
    ckpt("ckpt-shard", "--layout", "mp", "--mp", 2, golden, tmp_path / "mp")
    path = tmp_path / "mp/inference/config.json"
    assert "dim" in json.loads(path.read_text())
    said = ckpt("ckpt-run", "--tokens", "-", "--json", "--config", path, tmp_path / "mp",
                input="1 2 3")
    assert said.err == "" and said.json["notes"] == []


def test_a_dry_run_names_its_outputs_and_writes_none(ckpt, golden_a, tmp_path):
    words = ["ckpt-run", "--tokens", "-", "--dry-run", "--out", tmp_path / "o", "--trace",
             tmp_path / "t", golden_a]
    said = ckpt(*words, input="1 2 3").out
    assert f"'{tmp_path / 'o'}', which is not written" in said and f"'{tmp_path / 't'}'" in said
    shown = ckpt(*words, "--json", input="1 2 3").json
    assert (shown["out"], shown["trace"]) == (str(tmp_path / "o"), str(tmp_path / "t"))
    assert not list(tmp_path.iterdir())


def test_a_dry_run_reads_no_weights(ckpt, golden_a, tmp_path):
    model = damaged(golden_a, tmp_path, "layers.0.attn_norm.weight", b"\xc0\x7f")
    shown = ckpt("ckpt-run", "--tokens", "-", "--dry-run", "--json", model, input="1 2 3").json
    assert shown["need_bytes"] > 0 and shown["prompts"][0]["tokens"] == 3
