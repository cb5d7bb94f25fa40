"""The man pages: sections, references, what they say of digests and manifests, mandoc's opinion."""
import re
import shutil
import subprocess

import pytest
import torch
from safetensors.torch import save_file

from conftest import BUILD, ROOT
from interop import value_digest

MAN = ROOT / "tools/man"
TOOLS = sorted(p.stem for p in (ROOT / "tools").glob("ckpt-*.c"))
NAMES = [f"{tool}.1" for tool in TOOLS] + ["ckpt-json.5", "prepare-megatron.1"] + \
    sorted(p.name for p in MAN.glob("*.[57]"))


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """All pages, as `make install` installs them: {"ckpt-run.1": its path}."""
    folder = tmp_path_factory.mktemp("pages")
    subprocess.run([ROOT / "scripts/install", BUILD, "/usr", folder, "1.2.3"], check=True, cwd=ROOT)
    found = {p.name: p for p in (folder / "usr/share/man").glob("man*/*")}
    assert sorted(found) == sorted(NAMES)
    return found


def sections(text):
    """{"SEE ALSO": its text}, without the marks of troff that stand in words."""
    parts = re.split(r"^\.SH (.*)\n", text.replace("\\-", "-").replace("\\&", ""), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


@pytest.mark.parametrize("name", NAMES)
def test_a_page_has_a_date_and_the_sections_that_readers_look_for(name, pages):
    text = pages[name].read_text()
    title = re.search(r'^\.TH \S+ (\d) "(\d{4}-\d\d-\d\d)" ', text, re.M)
    assert title and title[1] == name[-1]
    want = {"NAME", "ENVIRONMENT", "FILES", "SEE ALSO"}
    want |= {"SYNOPSIS", "OPTIONS", "EXIT STATUS"} if name[:-2] in TOOLS else {"DESCRIPTION"}
    assert want <= set(sections(text))


@pytest.mark.parametrize("name", NAMES)
def test_pages_refer_to_pages_that_are_there(name, pages):
    named = set(re.findall(r"\b(ckpt(?:-[a-z]+)?) \(([1-8])\)",
                           pages[name].read_text().replace("\\-", "-")))
    assert {f"{page}.{section}" for page, section in named} <= set(pages)
    assert re.search(r"ckpt(-[a-z]+)? \(\d\)", sections(pages[name].read_text())["SEE ALSO"])


@pytest.mark.parametrize("name", NAMES)
def test_mandoc_has_nothing_to_say_of(name, pages):
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed; scripts/setup --tests installs it")
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", pages[name]], text=True,
                          capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_environment_variables_of_the_code_are_in_a_page(pages):
    """Except those that belong to the system: PATH, HOME, COLUMNS."""
    read = set()
    for folder in ("libckpt", "kernels", "formats", "verify", "reference-runner", "tools"):
        for source in (ROOT / folder).rglob("*.c"):
            text = source.read_text()
            if "getenv" in text:
                read |= set(re.findall(r'"([A-Z][A-Z0-9]*_[A-Z_0-9]+)"', text))
    read -= {"HF_HUB_USER_AGENT_ORIGIN"}      # a part of the User-Agent, for programs that call us
    assert {"HF_TOKEN", "CKPT_MEMORY", "SLURM_PROCID"} <= read
    text = "".join(p.read_text() for p in pages.values())
    missing = {name for name in read if not re.search(rf"\b{name}\b", text)}
    assert not missing


def test_members_of_a_manifest_are_those_of_the_table():
    lines = (ROOT / "tools/json-documents.tsv").read_text().splitlines()
    members = []
    for begin in ("ckpt-manifest/1\t", "@digested\t"):
        at = next(i for i, line in enumerate(lines) if line.startswith(begin)) + 1
        while lines[at].count("\t") == 2 and not lines[at].startswith("ckpt-"):
            members.append(lines[at].split("\t")[0].rstrip("?"))
            at += 1
    text = sections((MAN / "ckpt-manifest.5").read_text())["MEMBERS"]
    assert re.findall(r"^\.TP\n\.B (\S+)$", text, re.M) == ["schema"] + members


def test_the_example_of_the_digest_is_right(ckpt, tmp_path):
    """By the tools, and by the implementation that knows only the page."""
    example = sections((MAN / "ckpt-digest.7").read_text())["EXAMPLE"]
    tensors = {"a": torch.tensor([[1.0, -0.0, float("nan")], [0.5, 2.0, -3.0]],
                                 dtype=torch.bfloat16),
               "b": torch.tensor([0.1]), "c": torch.tensor([7, -1], dtype=torch.int32),
               "mtp.0.d": torch.tensor(2.0)}
    units = re.findall(r"^ +row (\d) +([0-9a-f]+) +([0-9a-f]{32})$", example, re.M)
    lines = re.findall(r"^([a-d]|mtp\.0\.d) +(float|int) +([0-9,]*) +([0-9a-f]{32})$", example,
                       re.M)
    root, main = (re.search(rf"^{w} +([0-9a-f]{{64}})$", example, re.M)[1]
                  for w in ("root", "main"))
    got_root, got = value_digest.digest(tensors)
    assert (root, lines) == (got_root, [(n, k, ",".join(map(str, s)), v) for n, k, s, v in got])
    assert main == value_digest.digest({n: t for n, t in tensors.items() if n < "mtp"})[0]
    assert [data for _, data, _ in units] == [
        data.hex() for n, t in tensors.items()
        for _, data in value_digest.units(t, "int" if n == "c" else "float")]
    sums = [int(h, 16) for _, _, h in units]
    assert [f"{s % (1 << 128):032x}" for s in (sums[0] + sums[1], *sums[2:])] == \
        [v for *_, v in lines]
    save_file(tensors, tmp_path / "x.safetensors")
    out = ckpt("ckpt-verify", "digest", "--tensors", "*", tmp_path / "x.safetensors", check=0)
    assert [line.split()[0] for line in out.out.splitlines()] == \
        [root, main, *(v for *_, v in lines)]


def test_what_is_installed_can_be_removed(tmp_path):
    subprocess.run([ROOT / "scripts/install", BUILD, "/usr", tmp_path, "1.2.3"], check=True,
                   cwd=ROOT)
    assert (tmp_path / "usr/share/man/man7/ckpt-digest.7").exists()
    assert (tmp_path / "usr/share/zsh/site-functions/_ckpt-run").exists()
    assert (tmp_path / "usr/share/fish/vendor_completions.d/ckpt-run.fish").exists()
    subprocess.run([ROOT / "scripts/install", "--remove", "/usr", tmp_path], check=True, cwd=ROOT)
    assert [p for p in tmp_path.rglob("*") if not p.is_dir()] == []


def test_pages_become_html_whose_links_lead_to_pages(tmp_path):
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed; scripts/setup --tests installs it")
    (tmp_path / "bin").symlink_to(BUILD / "bin")
    (tmp_path / "install").symlink_to(BUILD / "install")
    (tmp_path / "libckpt.so").symlink_to(BUILD / "libckpt.so")
    subprocess.run([ROOT / "scripts/doc", tmp_path, "1.2.3"], check=True, cwd=ROOT)
    made = {p.name: p.read_text() for p in (tmp_path / "doc").glob("*.html")}
    assert set(made) == {"index.html"} | {f"{name}.html" for name in NAMES}
    assert set(re.findall(r'<a href="([^"#]+)"', made["index.html"])) == \
        {f"{name}.html" for name in NAMES}
    for name, text in made.items():
        ours = {link for link in re.findall(r'href="(ckpt[^"#]*)"', text)}
        assert ours <= set(made), name


def test_the_overview_has_every_rounding_rule_and_preset():
    """By the tables of the code: a rule that a page does not name is found by nobody."""
    rules = re.findall(r'{ "([^"]+)", (?:"([^"]+)"|NULL),',
                       (ROOT / "libckpt/quantise_rules.c").read_text())
    presets = re.findall(r'{ "(v\d-[^"]+)", "([^"]+)"',
                         (ROOT / "libckpt/class_rules.c").read_text())
    assert len(rules) > 10 and len(presets) > 3
    text = sections((MAN / "ckpt.7").read_text())["ROUNDING RULES"]
    rows = [line.split("\t") for line in text.splitlines() if "\t" in line]
    assert {tuple(r[:2]) for r in rows if len(r) == 4} == {("rule", "short"), *rules}
    assert {r[0]: r[1].split(",")[0] for r in rows if len(r) == 2} == \
        {name: of.split(",")[0] for name, of in presets}
