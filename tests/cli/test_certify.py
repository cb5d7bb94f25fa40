"""ckpt-verify certify and certificate: what a certificate says, and what it catches."""
import base64
import hashlib
import json
import os
import random
import shutil
import subprocess
import xml.etree.ElementTree

import numpy
import pytest
import safetensors.numpy

from conftest import DATA, RELEASE, run_tool
from corrupt.files import all_files

EPOCH = {"SOURCE_DATE_EPOCH": "1700000000"}
ROOTS = {"golden-a": "cc556e3e991d7856f8e68505f775672a6c3f969b7ed0a33a33fa047d0928ce76",
         "golden-b": "a820911368b7954165faf1041cc7ca311c3be1e52c6a19e26a4865e165a641f6"}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    """Private and public keys by kind, made by openssl."""
    folder = tmp_path_factory.mktemp("keys")
    made = {}
    for kind, args in {"ed25519": ["-algorithm", "ed25519"],
                       "p256": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"],
                       "p384": ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-384"]}.items():
        private, public = folder / f"{kind}.pem", folder / f"{kind}.pub"
        subprocess.run(["openssl", "genpkey", *args, "-out", private], check=True,
                       capture_output=True)
        subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
        made[kind] = private, public
    return made


@pytest.fixture(scope="module", params=["golden-a", "golden-b"])
def forms(request, tmp_path_factory):
    """A golden checkpoint with files beside its weights, and its forms."""
    folder = tmp_path_factory.mktemp("forms")
    source = folder / request.param
    shutil.copytree(DATA / request.param, source)
    add_companions(source)
    run_tool("ckpt-shard", "--layout", "mp", "--mp", 2, source, folder / "mp")
    run_tool("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", source, folder / "bf16")
    run_tool("ckpt-convert", "--experts", "fp8", source, folder / "fp8")
    run_tool("ckpt-shard", "--layout", "torch_dist", source, folder / "dist")
    return folder, source


@pytest.fixture
def small(tmp_path):
    """A copy of golden-a that a test may change."""
    shutil.copytree(DATA / "golden-a", tmp_path / "ref")
    shutil.copytree(DATA / "golden-a", tmp_path / "copy")
    add_companions(tmp_path / "ref")
    add_companions(tmp_path / "copy")
    return tmp_path / "ref", tmp_path / "copy"


def add_companions(folder):
    files = {"tokenizer.json": {"model": {"type": "BPE"}, "added_tokens": []},
             "tokenizer_config.json": {"bos_token": "<s>", "chat_template": "{{ a }}"},
             "generation_config.json": {"temperature": 1.0, "top_p": 0.95}}
    for name, value in files.items():
        (folder / name).write_text(json.dumps(value))
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "encoding").mkdir()
    (folder / "encoding" / "encoding.py").write_text("print(1)\n")


def certify(out, *args, check=0, env=EPOCH):
    return run_tool("ckpt-verify", "certify", "--json", "--out", out, *args, check=check, env=env)


def certificate(*args, check=0):
    return run_tool("ckpt-verify", "certificate", *args, check=check)


def verdicts(result, label):
    return {c["name"]: c["verdict"] for c in result["checks"] if c["checkpoint"] == label}


def edit(path, change):
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def failed(result):
    return {c["name"] for c in result["checks"] if c["verdict"] == "fail"}


# ---- what it says ----

def test_every_form_of_a_release_passes_with_one_root(forms, tmp_path):
    folder, source = forms
    result = certify(tmp_path / "c.json", source, folder / "mp", folder / "fp8", folder / "bf16",
                     folder / "dist").json
    assert result["same"] and result["root"] == ROOTS[source.name]
    for label in ("mp", "fp8", "bf16"):
        assert verdicts(result, label) == {
            name: "pass" for name in ("structure", "values", "config", "generation_config",
                                      "tokenizer", "template", "encoding", "encodings",
                                      "findings")}
    dist = next(c for c in result["checks"] if c["checkpoint"] == "dist" and c["name"] == "values")
    assert dist["verdict"] == "pass" and "carries no MTP" in dist["text"]
    statement = json.loads((tmp_path / "c.json").read_text())
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    roots = {s["name"]: s["digest"]["ckptRoot"] for s in statement["subject"]
             if "ckptRoot" in s["digest"]}
    assert {roots[name] for name in (source.name, "mp", "fp8", "bf16")} == {result["root"]}


def test_subjects_are_all_files_with_their_hashes(small, tmp_path):
    ref, _ = small
    certify(tmp_path / "c.json", ref)
    subjects = {s["name"]: s for s in json.loads((tmp_path / "c.json").read_text())["subject"]}
    sums = subprocess.run(["sha256sum", *sorted(p for p in ref.rglob("*") if p.is_file())],
                          capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(subjects) == len(sums) + 1
    for line in sums:
        digest, path = line.split("  ")
        subject = subjects[f"ref/{os.path.relpath(path, ref)}"]
        assert subject["digest"] == {"sha256": digest}
        assert subject["annotations"] == {"size": os.path.getsize(path)}


def test_bytes_do_not_depend_on_threads_memory_or_place(small, tmp_path):
    ref, copy = small
    certify(tmp_path / "1.json", "--threads", 1, ref, copy)
    (tmp_path / "deeper").mkdir()
    for folder in (ref, copy):
        shutil.copytree(folder, tmp_path / "deeper" / folder.name)
    certify(tmp_path / "2.json", "--threads", 3, "--memory", "64MiB",
            f"{tmp_path}/deeper/ref/", tmp_path / "deeper" / "copy")
    assert (tmp_path / "1.json").read_bytes() == (tmp_path / "2.json").read_bytes()


def test_options_that_change_what_is_certified_are_in_it(small, tmp_path):
    ref, _ = small
    options = {"lenient": False, "u8_scales": False, "keep_copies": False, "map_sha256": None,
               "require": []}
    certify(tmp_path / "c.json", ref)
    assert json.loads((tmp_path / "c.json").read_text())["predicate"]["options"] == options
    certify(tmp_path / "c.json", "--lenient", "--keep-copies", "--require", "tokenizer", ref)
    assert json.loads((tmp_path / "c.json").read_text())["predicate"]["options"] == {
        **options, "lenient": True, "keep_copies": True, "require": ["tokenizer"]}


def test_a_certificate_inside_the_folder_is_not_a_part_of_it(small):
    ref, _ = small
    certify(ref / "cert.json", ref)
    first = (ref / "cert.json").read_bytes()
    certify(ref / "cert.json", ref)
    assert (ref / "cert.json").read_bytes() == first
    certificate("--files", ref / "cert.json", ref)


@pytest.fixture
def many_tensors(tmp_path):
    """A generic checkpoint whose list of tensors takes more than 1 MB."""
    folder = tmp_path / "many"
    folder.mkdir()
    tensors = {f"layers.{i:05}.a_rather_long_name_of_a_tensor.weight": numpy.float32([i])
               for i in range(9000)}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return folder


def test_long_lists_of_tensors_lie_beside_it(many_tensors, tmp_path):
    certify(tmp_path / "c.json", many_tensors)
    beside = tmp_path / "c.tensors.json.zst"
    recorded = json.loads((tmp_path / "c.json").read_text())["predicate"]["tensors"]
    assert recorded["file"] == beside.name and recorded["count"] == 9000
    assert recorded["sha256"] == hashlib.sha256(beside.read_bytes()).hexdigest()
    run_tool("ckpt-verify", "check", "--manifest", beside, many_tensors)
    change_a_weight(many_tensors)
    assert "layers." in certificate(tmp_path / "c.json", many_tensors, check=1).out
    beside.unlink()
    assert "expected root" in certificate(tmp_path / "c.json", many_tensors, check=1).out
    beside.write_text("other")
    certificate(tmp_path / "c.json", many_tensors, check=1)


# ---- what makes it fail ----

CHANGES = {
    "config": lambda f: edit(f / "config.json", lambda c: c.update(rope_theta=12345.0)),
    "tokenizer": lambda f: edit(f / "tokenizer.json", lambda c: c["model"].update(type="Word")),
    "template": lambda f: (f / "chat_template.jinja").write_text("{{ other }}"),
    "encoding": lambda f: (f / "encoding" / "encoding.py").write_text("print(2)\n"),
}


@pytest.mark.parametrize("check", CHANGES)
def test_a_change_beside_the_weights_fails_by_name(check, small, tmp_path):
    ref, copy = small
    certify(tmp_path / "before.json", ref)
    CHANGES[check](copy)
    assert failed(certify(tmp_path / "c.json", ref, copy, check=1).json) == {check}
    assert check in certificate(tmp_path / "before.json", copy, check=1).out


def test_a_config_that_does_not_fit_its_own_tensors_fails(small, tmp_path):
    ref, copy = small
    edit(copy / "config.json", lambda c: c.update(expert_dtype="fp8"))
    result = certify(tmp_path / "c.json", ref, copy, check=1).json
    assert failed(result) == {"encodings"}
    assert any("expert_dtype" in f["text"] for f in result["findings"]
               if f["check"] == "encodings")


def test_the_member_that_changed_is_named(small, tmp_path):
    ref, copy = small
    edit(copy / "tokenizer_config.json", lambda c: c.update(bos_token="<b>"))
    findings = certify(tmp_path / "c.json", ref, copy, check=1).json["findings"]
    assert [(f["check"], f["subject"], f["place"]) for f in findings] == \
        [("tokenizer", "tokenizer_config.json", "member bos_token")]


def test_rewritten_json_and_a_missing_tokenizer_are_notes(small, tmp_path):
    ref, copy = small
    (copy / "tokenizer.json").write_text(
        json.dumps(json.loads((copy / "tokenizer.json").read_text()), indent=3))
    (copy / "chat_template.jinja").unlink()
    result = certify(tmp_path / "c.json", ref, copy).json
    assert verdicts(result, "copy")["template"] == "note"
    assert {f["kind"] for f in result["findings"]} == {"rewritten", "missing"}
    certify(tmp_path / "c.json", "--require", "template", ref, copy, check=1)


def test_a_changed_generation_config_is_a_note(small, tmp_path):
    ref, copy = small
    edit(copy / "generation_config.json", lambda c: c.update(top_p=0.5))
    assert verdicts(certify(tmp_path / "c.json", ref, copy).json, "copy")["generation_config"] == \
        "note"


def change_a_weight(folder):
    """Flip one bit of the last tensor's data."""
    path = sorted(folder.glob("*.safetensors"))[0]
    data = bytearray(path.read_bytes())
    data[-1] ^= 0x20
    path.write_bytes(data)


def test_a_changed_weight_fails_and_is_named(small, tmp_path):
    ref, copy = small
    certify(tmp_path / "before.json", ref)
    change_a_weight(copy)
    result = certify(tmp_path / "c.json", ref, copy, check=1).json
    assert failed(result) == {"values"}
    assert [f["kind"] for f in result["findings"]] == ["value"]
    assert result["findings"][0]["subject"] in \
        certificate(tmp_path / "before.json", copy, check=1).out


# ---- compare reports the same ----

@pytest.mark.parametrize("check", ["tokenizer", "template", "encoding"])
def test_compare_sees_what_lies_beside_the_weights(check, small):
    ref, copy = small
    run_tool("ckpt-verify", "compare", ref, copy)
    CHANGES[check](copy)
    result = run_tool("ckpt-verify", "compare", "--json", ref, copy, check=1).json
    assert [d["kind"] for d in result["companions"]["differing"]] == ["changed"]
    assert result["differing"] == [] and not result["same"]
    run_tool("ckpt-verify", "compare", "--weights-only", ref, copy)


def test_compare_notes_what_is_on_one_side_only(small):
    ref, copy = small
    (copy / "tokenizer.json").unlink()
    edit(copy / "generation_config.json", lambda c: c.update(top_k=3))
    out = run_tool("ckpt-verify", "compare", ref, copy).out
    assert "note  tokenizer.json is only in A" in out
    assert "note  generation_config.json: member top_k" in out


# ---- check reports it against a manifest ----

@pytest.fixture(params=["digest --json", "ckpt-convert"])
def recorded(request, small, tmp_path):
    """A checkpoint whose manifest has the files beside its weights, and the arguments to check it
    with."""
    ref, copy = small
    if request.param == "ckpt-convert":
        run_tool("ckpt-convert", "--experts", "fp8", ref, tmp_path / "fp8")
        return tmp_path / "fp8", []
    (tmp_path / "m.json").write_text(run_tool("ckpt-verify", "digest", "--json", ref).out)
    return copy, ["--manifest", tmp_path / "m.json"]


@pytest.mark.parametrize("change", ["tokenizer", "template", "encoding"])
def test_check_sees_what_lies_beside_the_weights(change, recorded):
    folder, args = recorded
    run_tool("ckpt-verify", "check", *args, folder)
    CHANGES[change](folder)
    result = run_tool("ckpt-verify", "check", "--json", *args, folder, check=1).json
    assert [d["kind"] for d in result["companions"]["differing"]] == ["changed"]
    assert result["differing"] == [] and result["root"] == result["expected_root"]
    name = result["companions"]["differing"][0]["file"]
    assert f"differ  {name}: another content" in run_tool("ckpt-verify", "check", *args, folder,
                                                          check=1).out
    run_tool("ckpt-verify", "check", "--weights-only", *args, folder)


def test_check_notes_what_is_on_one_side_only(recorded):
    folder, args = recorded
    (folder / "tokenizer.json").unlink()
    (folder / "merges.txt").write_text("a b")
    edit(folder / "generation_config.json", lambda c: c.update(top_k=3))
    out = run_tool("ckpt-verify", "check", *args, folder).out
    assert "note  tokenizer.json is only in the manifest" in out
    assert "note  merges.txt is only in the checkpoint" in out
    assert "note  generation_config.json: another content" in out


def test_a_manifest_without_a_record_of_them_is_told(recorded, tmp_path):
    folder, args = recorded
    path = args[1] if args else folder / "ckpt-manifest.json"
    edit(path, lambda m: m.pop("companions"))
    CHANGES["tokenizer"](folder)
    assert "note  tokenizer, chat template and prompt encoding were not compared" in \
        run_tool("ckpt-verify", "check", *args, folder).out


def test_a_manifest_may_not_lie_about_them(recorded):
    folder, args = recorded
    path = args[1] if args else folder / "ckpt-manifest.json"
    edit(path, lambda m: m["companions"][0].update(size="many"))
    assert "name, role, size" in run_tool("ckpt-verify", "check", *args, folder, check=2).err


def test_a_certificate_is_not_a_manifest(small, tmp_path):
    certify(tmp_path / "c.json", small[0])
    assert "ckpt-verify certificate" in run_tool(
        "ckpt-verify", "check", "--manifest", tmp_path / "c.json", small[1], check=2).err


# ---- policies ----

def policy(folder, **members):
    path = folder / "policy.json"
    path.write_text(json.dumps({"schema": "ckpt-policy/1", **members}))
    return path


def test_a_policy_needs_a_schema(small, tmp_path):
    (tmp_path / "policy.json").write_text("{}")
    result = certify(tmp_path / "c.json", "--policy", tmp_path / "policy.json", small[0], check=2)
    assert 'has no member "schema"' in result.err


def test_a_policy_may_forbid_that_mtp_is_gone(forms, tmp_path):
    folder, source = forms
    result = certify(tmp_path / "c.json", "--policy", policy(tmp_path, roots="equal"), source,
                     folder / "dist", check=1).json
    assert failed(result) == {"values"}
    assert all(f["subject"].startswith("mtp.") for f in result["findings"]
               if f["check"] == "values")
    certify(tmp_path / "c.json", "--require", "mtp", source, folder / "dist", check=1)


def test_a_policy_may_let_members_of_the_config_differ(small, tmp_path):
    ref, copy = small
    CHANGES["config"](copy)
    certify(tmp_path / "c.json", "--policy", policy(tmp_path, config_except=["rope_theta"]), ref,
            copy)
    certify(tmp_path / "c.json", "--policy", policy(tmp_path, config="any"), ref, copy)
    assert json.loads((tmp_path / "c.json").read_text())["predicate"]["policy"]["config"] == "any"


@pytest.mark.parametrize("members, said", [
    ({"rots": "equal"}, "'rots'"), ({"roots": "sometimes"}, "default, equal, main or any"),
    ({"schema": "other/1"}, "'schema' is wrong"), ({"logits": {"max-kl": "x"}}, "max-kl"),
    ({"require": ["luck"]}, "'luck'"), ({"config_except": "rope_theta"}, "a list of names"),
    ({"config_except": ["rope_tetha"]}, "'rope_tetha', a member that no config.json has"),
    ({"findings_allowed": ["nan", "infinty"]}, "has 'infinty', which is no kind")])
def test_a_policy_with_an_unknown_word_is_refused(members, said, small, tmp_path):
    result = certify(tmp_path / "c.json", "--policy", policy(tmp_path, **members), small[0],
                     check=2)
    assert said in result.err
    assert not (tmp_path / "c.json").exists()


@pytest.mark.parametrize("what", ["candidate", "origin", "logits", "tokenizer"])
def test_what_is_required_and_not_there_fails(what, tmp_path):
    args = [DATA / "golden-a"] if what != "logits" else [DATA / "golden-a", DATA / "golden-a"]
    assert failed(certify(tmp_path / "c.json", "--require", what, *args, check=1).json) == \
        {"required"}


def test_logits_are_a_gate(small, tmp_path):
    logits = numpy.random.default_rng(1).normal(size=(4, 32)).astype(numpy.float32)
    tokens = numpy.arange(4, dtype=numpy.int32)
    for name, add in {"a": 0, "same": 0, "near": 1e-6, "far": 1}.items():
        moved = logits.copy()
        moved[2, 3] += numpy.float32(add)
        safetensors.numpy.save_file({"tokens": tokens, "logits": moved},
                                    tmp_path / f"{name}.safetensors")

    def run(other, *args, check):
        return certify(tmp_path / "c.json", "--logits", tmp_path / "a.safetensors", "--logits",
                       tmp_path / f"{other}.safetensors", *args, *small, check=check).json

    assert verdicts(run("same", check=0), "copy")["logits"] == "pass"
    assert failed(run("near", check=1)) == {"logits"}
    limits = ["--policy", policy(tmp_path, logits={"max-kl": 1e-6})]
    passed = run("near", *limits, check=0)
    assert next(c for c in passed["checks"] if c["name"] == "logits")["figures"]["kl_max"] < 1e-6
    assert failed(run("far", *limits, check=1)) == {"logits"}


def test_nothing_to_check_is_not_a_pass(small, tmp_path):
    ref, copy = small
    assert "nothing to check" in certificate(tmp_path / "none.json", check=2).err
    certify(tmp_path / "s.json", "--structure-only", ref)
    assert "--structure-only" in certificate(tmp_path / "s.json", copy, check=2).err
    assert "candidate to compare" in certify(tmp_path / "c.json", "--logits", "x", ref,
                                             check=2).err
    limits = policy(tmp_path, logits={"max-kl": 1e-6})
    assert "limits logits: give --logits" in certify(tmp_path / "c.json", "--policy", limits, ref,
                                                     copy, check=2).err
    assert not (tmp_path / "c.json").exists()


# ---- signatures ----

@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_a_signed_certificate_is_right_with_its_key_alone(kind, keys, small, tmp_path):
    ref, copy = small
    private, public = keys[kind]
    certify(tmp_path / "c.json", "--sign", private, ref)
    certificate(tmp_path / "c.json", "--key", public)
    certificate(tmp_path / "c.json", "--key", public, copy)
    other = keys["p256" if kind == "ed25519" else "ed25519"][1]
    assert "not signed with this key" in \
        certificate(tmp_path / "c.json", "--key", other, check=1).err
    envelope = json.loads((tmp_path / "c.json").read_text())
    assert envelope["payloadType"] == "application/vnd.in-toto+json"


def test_an_unsigned_certificate_has_no_key(keys, small, tmp_path):
    certify(tmp_path / "c.json", small[0])
    assert "not signed" in certificate(tmp_path / "c.json", "--key", keys["p256"][1], check=1).err


def test_keys_of_other_kinds_are_refused(keys, small, tmp_path):
    result = certify(tmp_path / "c.json", "--sign", keys["p384"][0], small[0], check=2)
    assert "Ed25519" in result.err and not (tmp_path / "c.json").exists()
    certify(tmp_path / "c.json", "--sign", keys["p256"][1], small[0], check=2)


# Random changes, by default always the same ones.
FLIPS = 1000 if RELEASE else 100
SEED = int(os.environ.get("CKPT_SEED", "13"))


def flip(data, bit):
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@pytest.mark.release
@pytest.mark.parametrize("kind", ["ed25519", "p256"])
def test_every_bit_of_payload_and_signature_counts(kind, keys, tmp_path):
    private, public = keys[kind]
    certify(tmp_path / "c.json", "--structure-only", "--sign", private, DATA / "golden-a")
    envelope = json.loads((tmp_path / "c.json").read_text())
    choose = random.Random(SEED)
    for member in ("payload", "sig"):
        holder = envelope if member == "payload" else envelope["signatures"][0]
        whole = base64.b64decode(holder[member])
        for _ in range(FLIPS // 2):
            holder[member] = base64.b64encode(
                flip(whole, choose.randrange(8 * len(whole)))).decode()
            (tmp_path / "t.json").write_text(json.dumps(envelope))
            certificate(tmp_path / "t.json", "--key", public, check=1)
        holder[member] = base64.b64encode(whole).decode()
    (tmp_path / "t.json").write_text(json.dumps(envelope))
    certificate(tmp_path / "t.json", "--key", public)


def test_base64_has_one_spelling(keys, tmp_path):
    certify(tmp_path / "c.json", "--structure-only", "--sign", keys["ed25519"][0],
            DATA / "golden-a")
    whole = (tmp_path / "c.json").read_text()
    sig = json.loads(whole)["signatures"][0]["sig"]
    assert sig.endswith("==")
    for other in (sig[:-3] + chr(ord(sig[-3]) + 1) + "==", sig.rstrip("="), sig + "====",
                  sig[:8] + "\\n" + sig[8:], sig.replace("A", "-", 1)):
        if other == sig:
            continue
        (tmp_path / "t.json").write_text(whole.replace(sig, other))
        certificate("--key", keys["ed25519"][1], tmp_path / "t.json", check=(1, 2))


def test_a_document_that_contradicts_itself_is_refused(small, tmp_path):
    certify(tmp_path / "c.json", small[0])
    edit(tmp_path / "c.json",
         lambda c: c["predicate"]["tensors"][3].update(value="0" * 32))
    assert "inconsistent" in certificate(tmp_path / "c.json", small[0], check=2).err


# ---- the very files ----

def test_files_demands_the_bytes_and_values_do_not(forms, tmp_path):
    folder, source = forms
    certify(tmp_path / "c.json", source)
    certificate(tmp_path / "c.json", folder / "fp8")
    assert "changed" in certificate("--files", tmp_path / "c.json", folder / "fp8", check=1).out
    certificate("--files", tmp_path / "c.json", source)


def test_any_layout_and_encoding_is_checked_by_values(forms, tmp_path):
    folder, source = forms
    certify(tmp_path / "c.json", "--threads", 1, source)
    for form in ("mp", "bf16", "fp8", "dist"):
        out = certificate("--threads", 3, tmp_path / "c.json", folder / form).out
        assert f"pass     values  {form}: equal" in out
        assert ("carries no MTP" in out) == (form == "dist")


def flipped_files(paths, seed):
    """Flip a bit somewhere in the files, FLIPS times; it is back before the next."""
    choose = random.Random(seed)
    sizes = [p.stat().st_size for p in paths]
    for _ in range(FLIPS):
        path = choose.choices(paths, weights=sizes)[0]
        whole = path.read_bytes()
        path.write_bytes(flip(whole, choose.randrange(8 * len(whole))))
        yield path
        path.write_bytes(whole)


@pytest.mark.release
def test_every_bit_of_a_file_counts_with_files(small, tmp_path):
    ref, copy = small
    certify(tmp_path / "c.json", ref)
    for _ in flipped_files(sorted(p for p in copy.rglob("*") if p.is_file()), SEED):
        certificate("--files", tmp_path / "c.json", copy, check=(1, 2))
    certificate("--files", tmp_path / "c.json", copy)


@pytest.mark.release
def test_every_bit_that_changes_a_value_counts(small, tmp_path):
    ref, copy = small
    certify(tmp_path / "c.json", ref)
    for path in flipped_files(sorted(copy.glob("*.safetensors")), SEED):
        digest = run_tool("ckpt-verify", "digest", copy, check=(0, 2))
        is_same = digest.status == 0 and digest.out.startswith(ROOTS["golden-a"])
        certificate(tmp_path / "c.json", copy, check=0 if is_same else (1, 2))


@pytest.mark.release
def test_every_bit_of_the_tokenizer_counts_by_values_too(small, tmp_path):
    ref, copy = small
    certify(tmp_path / "c.json", ref)
    for path in flipped_files([copy / "tokenizer.json"], SEED):
        assert "FAIL     tokenizer" in certificate(tmp_path / "c.json", copy, check=1).out


@pytest.mark.release
def test_every_digit_of_rope_theta_counts_by_values_too(small, tmp_path):
    ref, copy = small
    certify(tmp_path / "c.json", ref)
    whole = json.loads((copy / "config.json").read_text())
    choose = random.Random(SEED)
    for _ in range(FLIPS):
        theta = whole["rope_theta"] * (1 + choose.choice((-1, 1)) * 2.0 ** -choose.randrange(1, 40))
        (copy / "config.json").write_text(json.dumps({**whole, "rope_theta": theta}))
        assert "FAIL     config" in certificate(tmp_path / "c.json", copy, check=1).out


def test_extra_weights_are_caught_and_other_files_are_not(small, tmp_path):
    ref, copy = small
    certify(tmp_path / "c.json", ref)
    (copy / "NOTES.txt").write_text("x")
    certificate("--files", tmp_path / "c.json", copy)
    (copy / "merges.txt").write_text("a b")
    assert "extra" in certificate("--files", tmp_path / "c.json", copy, check=1).out


# ---- what is written beside it ----

def test_sha256sum_reads_the_list(small, tmp_path):
    ref, copy = small
    certify(tmp_path / "c.json", "--sha256sums", tmp_path / "sums", ref)
    done = subprocess.run(["sha256sum", "-c", tmp_path / "sums"], cwd=copy, capture_output=True,
                          text=True)
    assert done.returncode == 0 and done.stdout.count(": OK") == len(
        [p for p in ref.rglob("*") if p.is_file()])


def test_megatron_integrity_json(forms, tmp_path):
    """{"algorithm": "sha256", "files": {...}} of the folder with .metadata: Megatron-LM's words."""
    folder, source = forms
    certify(tmp_path / "c.json", "--integrity", tmp_path / "integrity.json", source,
            folder / "dist")
    made = json.loads((tmp_path / "integrity.json").read_text())
    assert made["algorithm"] == "sha256"
    inner = next((folder / "dist").rglob(".metadata")).parent
    assert set(made["files"]) == {p.name for p in inner.iterdir()}
    for name, digest in made["files"].items():
        said = subprocess.run(["sha256sum", inner / name], capture_output=True, text=True).stdout
        assert said.split()[0] == digest
    for more in ((), ("--dry-run",)):        # before a value is read, and before a file is written
        said = certify(tmp_path / "none.json", "--sha256sums", tmp_path / "sums", "--integrity",
                       tmp_path / "i.json", *more, source, check=2).err
        assert "i.json' is for a checkpoint of Megatron (torch_dist)" in said
    assert not (tmp_path / "sums").exists() and not (tmp_path / "none.json").exists()


def test_the_digests_beside_a_certificate_are_an_output_too(small, tmp_path):
    said = certify(tmp_path / "c.json", "--html", tmp_path / "c.tensors.json.zst", small[0],
                   check=2).err
    assert "c.tensors.json.zst' is named for another output" in said


def test_junit_summary_and_cyclonedx(small, tmp_path):
    ref, copy = small
    CHANGES["config"](copy)
    certify(tmp_path / "c.json", "--junit", tmp_path / "j.xml", "--summary", tmp_path / "s.md",
            "--cyclonedx", tmp_path / "b.json", ref, copy, check=1)
    suites = xml.etree.ElementTree.parse(tmp_path / "j.xml").getroot()
    assert [s.get("failures") for s in suites] == ["0", "1"]
    failure = suites.find(".//failure")
    assert "rope" in failure.text
    assert "FAIL" in (tmp_path / "s.md").read_text()
    bom = json.loads((tmp_path / "b.json").read_text())
    properties = {p["name"]: p["value"] for p in bom["components"][0]["properties"]}
    assert properties["ckpt:root"] == ROOTS["golden-a"]
    assert len(bom["components"][0]["components"]) == len(list(ref.rglob("*.*")))


def test_two_outputs_of_one_name_are_refused(small, tmp_path):
    certify(tmp_path / "c.json", "--junit", tmp_path / "c.json", small[0], check=2)


def test_a_path_that_is_not_utf8_leaves_junit_and_html_readable(small, tmp_path):
    ref, copy = small
    odd = os.fsdecode(b"odd\xff<\x01>")
    moved = copy.rename(copy.with_name(odd))
    certify(tmp_path / "c.json", "--junit", tmp_path / "j.xml", "--html", tmp_path / "h.html",
            ref, moved)
    suites = xml.etree.ElementTree.parse(tmp_path / "j.xml").getroot()
    assert "odd\ufffd<\ufffd>" in suites[1].get("name")
    assert "odd\ufffd&lt;\ufffd&gt;" in \
        (tmp_path / "h.html").read_text().replace("&#xFFFD;", "\ufffd")


def test_hostile_names_stay_on_their_line(small, tmp_path):
    ref, copy = small
    for folder in small:
        (folder / "tokenizer\n|<script>.json").write_text("{}")
    (copy / "tokenizer\n|<script>.json").write_text('{"a": 1}')
    certify(tmp_path / "c.json", "--junit", tmp_path / "j.xml", "--summary", tmp_path / "s.md",
            "--sha256sums", tmp_path / "sums", ref, copy, check=1)
    xml.etree.ElementTree.parse(tmp_path / "j.xml")
    assert "<script>" not in (tmp_path / "s.md").read_text()
    assert subprocess.run(["sha256sum", "--quiet", "-c", tmp_path / "sums"],
                          cwd=copy).returncode == 0


# ---- where it writes ----

@pytest.mark.parametrize("option", ["--out", "--html", "--junit", "--summary", "--sha256sums",
                                    "--cyclonedx"])
def test_no_output_replaces_what_is_read(golden_a, tmp_path, option):
    """Weights, config, a tokenizer that it only hashes; policy, key; also by another name."""
    model = shutil.copytree(golden_a, tmp_path / "model")
    (model / "README.md").write_text("about")
    policy, key = tmp_path / "policy.json", tmp_path / "key.pem"
    naming = tmp_path / "names.map"
    policy.write_text("{}")
    key.write_bytes(b"key")
    naming.write_text("map deepseek_v4 mine")
    (tmp_path / "second.md").hardlink_to(model / "README.md")
    before = all_files(tmp_path)
    for place in (model / "config.json", next(model.glob("*.safetensors")), model / "README.md",
                  tmp_path / "second.md", policy, key, naming):
        out = [] if option == "--out" else ["--out", tmp_path / "c.json"]
        failed = run_tool("ckpt-verify", "certify", *out, option, place, "--policy", policy,
                          "--sign", key, "--map", naming, model, check=2)
        assert f"'{place}' is a file of the input" in failed.err
    assert all_files(tmp_path) == before


def test_an_earlier_certificate_beside_the_weights_is_replaced(golden_a, tmp_path):
    model = shutil.copytree(golden_a, tmp_path / "model")
    outputs = {"--out": "c.json", "--html": "c.html", "--junit": "c.xml", "--summary": "c.md",
               "--sha256sums": "SUMS", "--cyclonedx": "bom.json"}
    words = [w for option, name in outputs.items() for w in (option, model / name)]
    run_tool("ckpt-verify", "certify", *words, model, env=EPOCH)
    first = {name: (model / name).read_bytes() for name in outputs.values()}
    run_tool("ckpt-verify", "certify", *words, model, env=EPOCH)
    assert {name: (model / name).read_bytes() for name in first} == first
    failed = run_tool("ckpt-verify", "certify", "--out", model / "c.html", model, check=2)
    assert "is a file of the input" in failed.err        # that is a page, not a certificate


@pytest.mark.parametrize("option", ["--out", "--html", "--junit", "--summary", "--sha256sums",
                                    "--cyclonedx"])
def test_no_output_replaces_a_file_of_another_kind(golden_a, tmp_path, option):
    (tmp_path / "notes.txt").write_text("hours of work\n")
    out = [] if option == "--out" else ["--out", tmp_path / "c.json"]
    failed = run_tool("ckpt-verify", "certify", *out, option, tmp_path / "notes.txt", golden_a,
                      check=2)
    assert "already exists and is not" in failed.err
    assert all_files(tmp_path) == {"notes.txt": b"hours of work\n"}


def test_an_output_needs_a_name(golden_a, tmp_path):
    for option in "--out", "--html":
        out = [] if option == "--out" else ["--out", tmp_path / "c"]
        failed = run_tool("ckpt-verify", "certify", *out, option, "", golden_a, check=2)
        assert "expected FILE, got ''" in failed.err and not list(tmp_path.iterdir())


def test_an_output_named_twice_is_refused_by_any_name(golden_a, tmp_path):
    (tmp_path / "a").write_text("")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    for other in "a", "b":
        failed = run_tool("ckpt-verify", "certify", "--out", tmp_path / "a", "--html",
                          tmp_path / other, golden_a, check=2)
        assert "named for two outputs" in failed.err
