"""tools/json-documents.tsv says what the commands print as JSON, no more and no less."""
import json
import re
import subprocess

import pytest

from client import Client, one
from conftest import Fault, ROOT, run_tool
from mock_hub import Hub


class Table:
    """Documents and groups: {name: {member: (type, may be absent)}}."""

    def __init__(self, path):
        self.documents, self.groups, self.seen = {}, {}, set()
        for line in path.read_text().splitlines():
            fields = line.split("\t")
            if not line or line[0] == "#":
                continue
            if re.fullmatch(r"ckpt-[a-z-]+/\d+", fields[0]):
                assert len(fields) == 3 and fields[0] not in self.documents, line
                now = self.documents[fields[0]] = {"schema": ("text", False)}
            elif fields[0][0] == "@":
                assert len(fields) == 2 and fields[0] not in self.groups, line
                now = self.groups[fields[0]] = {}
            elif fields[0][0] == "=":
                now[fields[0]] = ("", True)
            else:
                name, kind, meaning = fields
                assert meaning and name.removesuffix("?") not in now, line
                now[name.removesuffix("?")] = (kind, name.endswith("?"))

    def members(self, name):
        """All of a document or group, those of "= @GROUP" included."""
        found = {}
        for member, what in (self.documents | self.groups)[name].items():
            found |= self.members(member[2:]) if member[0] == "=" else {member: what}
        return found

    def owner(self, name, member):
        """The entry of the table that a member of a document or group is in."""
        here = (self.documents | self.groups)[name]
        if member in here:
            return name
        return next(self.owner(m[2:], member) for m in here
                    if m[0] == "=" and member in self.members(m[2:]))

    def check(self, kind, value, where):
        """Is the value of this type? Marks what it has as seen."""
        if kind[0] != "{" and "|" in kind:
            if value is None and kind.endswith("|null"):
                return
            kind = kind.removesuffix("|null")
        if kind == "any":
            return
        if kind.endswith("[]"):
            assert isinstance(value, list), where
            for i, item in enumerate(value):
                self.check(kind[:-2], item, f"{where}[{i}]")
        elif kind[0] == "{":
            assert isinstance(value, dict), where
            for key, item in value.items():
                self.check(kind[1:-1], item, f"{where}.{key}")
        elif kind[0] == "@":
            self.check_members(kind, value, where)
        else:
            assert isinstance(value, {"text": str, "bool": bool, "number": (int, float)}[kind]) \
                and (kind == "bool" or not isinstance(value, bool)), f"{where}: {value!r}"

    def check_members(self, name, value, where):
        assert isinstance(value, dict), where
        members = self.members(name)
        assert set(value) <= set(members), f"{where}: {set(value) - set(members)} not in the table"
        absent = {m for m, (_, optional) in members.items() if not optional} - set(value)
        assert not absent, f"{where}: the table has {absent}"
        for member, item in value.items():
            self.seen.add((self.owner(name, member), member))
            self.check(members[member][0], item, f"{where}.{member}")

    def check_document(self, value):
        assert next(iter(value)) == "schema" and value["schema"] in self.documents, value
        self.check_members(value["schema"], value, value["schema"])


@pytest.fixture(scope="module")
def table():
    return Table(ROOT / "tools" / "json-documents.tsv")


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Two checkpoints of the same model, and one in BF16 with its report."""
    folder = tmp_path_factory.mktemp("json")
    for name, seed in ("a", 1), ("b", 2):
        run_tool("ckpt-synth", "--config", "tiny", "--layers", "1", "--seed", seed, folder / name)
        (folder / name / "tokenizer.json").write_text("{}")
    (folder / "a" / "chat_template.jinja").write_text("x")
    run_tool("ckpt-convert", "--dtype", "bf16", folder / "a", folder / "bf16")
    (folder / "tokens.json").write_text("[[1, 2, 3, 4]]")
    return folder


def lines(result):
    return [json.loads(line) for line in result.out.splitlines()]


def inspected(m, tmp):
    for words in ([], ["--logical"], ["--summary"], ["--stat", "--histogram"], ["--for", "vllm"],
                  ["--for", "megatron"], ["--values", "0", "--tensors", "norm.weight"]):
        yield run_tool("ckpt-inspect", "--json", *words, m / "a", check=None).json
    yield run_tool("ckpt-inspect", "--json", "--for", "transformers", m / "bf16", check=None).json
    run_tool("ckpt-convert", "--quantize", "experts=nvfp4-exact,rest=keep", m / "a", tmp / "nvfp4")
    yield run_tool("ckpt-inspect", "--json", "--values", "0", "--tensors",
                   "layers.0.ffn.experts.0.w1.weight", tmp / "nvfp4").json
    yield from lines(run_tool("ckpt-inspect", "--jsonl", m / "a"))[:3]
    yield run_tool("ckpt-inspect", "--json", m / "gone", check=2).json


def verified(m, tmp):
    yield run_tool("ckpt-verify", "digest", "--json", m / "a").json
    yield run_tool("ckpt-verify", "digest", "--json", m / "a", m / "b").json
    yield run_tool("ckpt-verify", "digest", "--json", m / "a", m / "none", check=2).json
    yield from lines(run_tool("ckpt-verify", "digest", "--jsonl", m / "a"))
    roots = run_tool("ckpt-verify", "digest", m / "a").out
    yield run_tool("ckpt-verify", "digest", "--json", "-c", "-", input=roots).json
    yield run_tool("ckpt-verify", "check", "--json", m / "bf16").json
    yield run_tool("ckpt-verify", "check", "--json", "--structure-only", m / "a").json
    yield run_tool("ckpt-verify", "check", "--json", "--values", m / "a", check=None).json
    yield run_tool("ckpt-verify", "check", "--json", "--manifest",
                   m / "bf16" / "ckpt-manifest.json", m / "b", check=1).json
    yield json.loads((m / "bf16" / "ckpt-manifest.json").read_text())


def compared(m, tmp):
    for words in ([], ["--bits"], ["--stat", "--group", "kind"], ["--stat", "--tolerance", "9"],
                  ["--as", "bf16"]):
        yield run_tool("ckpt-verify", "compare", "--json", *words, m / "a", m / "b",
                       check=None).json
    yield run_tool("ckpt-verify", "compare", "--json", "--up-to-rule", "fp8-b128-ue8m0",
                   m / "bf16", m / "a", check=None).json


def certified(m, tmp):
    yield run_tool("ckpt-verify", "certify", "--json", "--out", tmp / "c.json", m / "a").json
    run_tool("ckpt-delta", "diff", m / "a", m / "b", tmp / "d")
    yield run_tool("ckpt-verify", "certify", "--json", "--dry-run", "--out", tmp / "d.json",
                   "--delta", tmp / "d", m / "a").json
    yield run_tool("ckpt-verify", "certify", "--json", "--out", tmp / "d.json", m / "a", m / "b",
                   "--self-test", check=1).json
    yield run_tool("ckpt-verify", "certificate", "--json", tmp / "c.json", m / "a").json
    yield run_tool("ckpt-verify", "mutate", "--json", m / "a", check=None).json


def converted(m, tmp):
    def report(name, *words):
        yield run_tool("ckpt-convert", "--json", "--report", tmp / f"{name}.json", *words,
                       tmp / name).json
        yield json.loads((tmp / f"{name}.json").read_text())

    yield from report("x", "--dtype", "bf16", m / "a")
    yield from report("q", "--quantize", "v4-release", m / "bf16")
    yield from report("l", "--like", m / "a", m / "bf16")
    run_tool("ckpt-shard", "--layout", "torch_dist", "--report", tmp / "dist.json", m / "a",
             tmp / "dist")
    yield json.loads((tmp / "dist.json").read_text())
    yield from report("again", "--like", m / "a", "--fill-from", m / "a", tmp / "dist")
    yield run_tool("ckpt-convert", "--json", "--dry-run", "--quantize", "v4-release", m / "bf16",
                   tmp / "none").json
    yield run_tool("ckpt-convert", "--json", "--part", "1/2", m / "a", tmp / "parts").json
    yield run_tool("ckpt-shard", "--json", "--layout", "mp", "--mp", "2", m / "a", tmp / "mp").json
    yield run_tool("ckpt-synth", "--json", "--config", "tiny", tmp / "s").json


def ran(m, tmp):
    out = tmp / "l.safetensors"
    for words in ([], ["--dry-run"], ["--digest"], ["--generate", "2"]):
        yield run_tool("ckpt-run", "--json", "--tokens", m / "tokens.json", "--out", out, *words,
                       m / "a", check=None).json
    other = tmp / "m.safetensors"
    yield run_tool("ckpt-run", "--json", "--tokens", m / "tokens.json", "--out", other,
                   "--against", out, m / "a", check=None).json
    yield run_tool("ckpt-verify", "logits", "--json", out, other, check=None).json


def changed(m, tmp):
    delta = tmp / "weight_v000001"
    yield run_tool("ckpt-delta", "diff", "--json", m / "a", m / "b", delta).json
    yield run_tool("ckpt-delta", "inspect", "--json", delta).json
    yield run_tool("ckpt-delta", "verify", "--json", m / "a", delta).json
    yield run_tool("ckpt-delta", "apply", "--json", m / "a", delta, tmp / "out").json
    yield run_tool("ckpt-delta", "diff", "--json", "--measure", m / "a", m / "b", tmp / "n").json
    yield run_tool("ckpt-delta", "diff", "--json", "--quantize", "v4-release", m / "a", m / "bf16",
                   tmp / "q").json
    yield run_tool("ckpt-delta", "apply", "--json", "--dry-run", m / "a", delta, tmp / "m").json
    for more in ["--dry-run"], []:
        yield run_tool("ckpt-delta", "diff", "--json", "--base", "none", *more, m / "a",
                       tmp / "p").json


def downloaded(m, tmp):
    with Hub([one(1 << 20)]) as hub:
        client = Client(run_tool, hub, tmp)
        yield client("--dry-run", "--json").json
        yield client("--json").json
        failing = Fault(tmp / "fault.log").env("pwrite:ENOSPC:1")
        yield client("--json", "--force-download", check=2, **failing).json
        next(client.folder.glob("*.bin")).write_bytes(b"other")
        yield run_tool("ckpt-verify", "check", "--json", client.folder, check=1).json
    yield client("--json", "--tries", 1, check=2).json


MAKERS = [inspected, verified, compared, certified, converted, ran, changed, downloaded]


def test_every_document_is_in_the_table_and_the_table_in_a_document(table, models, tmp_path):
    for maker in MAKERS:
        (tmp_path / maker.__name__).mkdir()
        for document in maker(models, tmp_path / maker.__name__):
            table.check_document(document)
    known = {(name, member) for name, members in (table.documents | table.groups).items()
             for member in members if member[0] != "="}
    assert known - table.seen == {
        # these take copies that differ, a tokenizer, tensors without use, a run that was killed
        ("@difference", "side"), ("@difference", "file"), ("@prompt", "ids"), ("@prompt", "text"),
        ("@prompt", "prompt"), ("@prompt", "message"),
        ("@source_tensor", "reason"), ("@target_tensor", "kept")}


def test_the_groups_are_those_that_are_used(table):
    used = set()
    for members in (table.documents | table.groups).values():
        for member, (kind, _) in members.items():
            used |= set(re.findall(r"@[a-z_]+", f"{kind} {member}"))
    assert used == set(table.groups)


def test_the_man_page_has_every_document_and_member(table):
    page = subprocess.run([ROOT / "scripts" / "json-man", "1.2.3"], check=True, text=True,
                          capture_output=True).stdout
    plain = re.sub(r"\\f.", "", page).replace("\\-", "-")
    assert ".TH CKPT-JSON 5" in plain and "ckpt 1.2.3" in plain and "\t" not in plain
    for document in table.documents:
        assert f".SS {document}\n" in plain
    for members in (table.documents | table.groups).values():
        for member in members:
            assert member[0] == "=" or f"\n.B {member}\n" in plain, member
