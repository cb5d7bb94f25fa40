"""ckpt-verify certify --html and --self-test: a page that is valid, harmless and can be read."""
import html
import json
import re
import shutil
import subprocess

import html5lib
import numpy
import pytest
import safetensors.numpy

from corrupt.files import Model, Tensor, bf16, link_tree, with_byte

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SVG = "{http://www.w3.org/2000/svg}"
DATE = {"SOURCE_DATE_EPOCH": "1700000000"}
# What the page is like in a browser, as its title: the page itself has no script.
PROBE = """<script>addEventListener('load', () => { document.title = JSON.stringify({
width: innerWidth, scroll: document.documentElement.scrollWidth,
titles: [...document.querySelectorAll('h2')].map(h => h.textContent),
cells: document.querySelectorAll('svg rect').length,
verdict: document.querySelector('.verdict').getBoundingClientRect().top,
background: getComputedStyle(document.body).backgroundColor,
clicked: !!window.harmed}); });</script>"""


def certify(ckpt, out, *args, check=0, **how):
    """The page, as text, and the certificate's predicate."""
    page, certificate = out / "report.html", out / "cert.json"
    ckpt("ckpt-verify", "certify", "--out", certificate, "--html", page, *args, check=check,
         env=DATE, **how)
    return page.read_text(), json.loads(certificate.read_text())["predicate"]


def parse(text):
    """A tree; anything that is not HTML as the standard has it is an error."""
    return html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parse(text)


def texts(tree, tag):
    return ["".join(e.itertext()) for e in tree.iter(tag)]


def test_the_page_is_valid_and_alone(ckpt, golden, tmp_path):
    text, predicate = certify(ckpt, tmp_path, "--self-test", golden)
    tree = parse(text)
    assert texts(tree, "title") == [f"pass: {golden.name}"] and len(text) < 200_000
    used = {e.tag.rpartition("}")[2] for e in tree.iter() if isinstance(e.tag, str)}
    assert not used & {"script", "link", "img", "iframe", "object", "form", "a"}
    assert not re.search(r"url\(|@import|https?:|\bon\w+=", text)
    headings = texts(tree, "h2")
    assert headings[:2] == ["Checks", "Files and encodings"]
    assert headings[-2:] == ["Self-test", "Verify this yourself"]
    assert text.index('class="verdict"') < text.index("<h2>")
    assert "39 of 39 faults" in text
    told = {m["name"]: m for m in predicate["self_test"]["mutations"]}
    assert told["swap_experts"] == {"name": "swap_experts", "result": "caught", "by": "values"}
    assert predicate["self_test"]["caught"] == predicate["self_test"]["applicable"] == 39


def test_the_page_depends_on_nothing_but_its_input(ckpt, golden_a, tmp_path):
    pages = []
    for i, threads in enumerate((1, 4)):
        out = tmp_path / str(i)
        out.mkdir()
        pages.append(certify(ckpt, out, "--self-test", "--threads", threads, golden_a, cwd=out)[0]
                     .replace(str(out), ""))
    assert pages[0] == pages[1]


def test_faults_are_shown(ckpt, golden_a, tmp_path):
    name = "layers.2.ffn.experts.3.w1.weight"
    with_byte(golden_a, tmp_path / "bad", name, 100, lambda b: b ^ 1)
    text, _ = certify(ckpt, tmp_path, golden_a, tmp_path / "bad", check=1)
    tree = parse(text)
    assert texts(tree, "title") == ["FAIL: golden-a"]
    assert "Findings" in texts(tree, "h2")
    crossed = [t for t in texts(tree, SVG + "title") if "1 finding" in t]
    assert crossed == [t for t in crossed if t.startswith("layers.2 ffn.experts.*.w1.weight: 16")]
    assert len(crossed) == 1 and text.count('class="x"') == 1


def test_many_notes_are_folded_and_no_fault_is(ckpt, tmp_path):
    """All values of a sparse model are zero: a note for each tensor. NaN comes last."""
    ckpt("ckpt-synth", "--config", "tiny", "--sparse", tmp_path / "zero")
    model = Model(tmp_path / "zero")
    name = max(n for n in model.names() if model[n].dtype == "F32")
    model[name] = model[name].changed(3, 0x7F).changed(2, 0xC0)
    text, _ = certify(ckpt, tmp_path, model.write(tmp_path / "nan"), check=1)
    start, fold = text.index("<h2>Findings"), text.index(" more notes</summary>")
    end = text.index("</details>", fold)
    assert text[start:fold].count('<td class="note">') == 20
    assert text[fold:end].count('<td class="note">') == int(text[:fold].rsplit(">", 1)[1]) > 20
    assert name in text[start:fold] and '<td class="fail">' in text[start:fold]
    assert '<td class="fail">' not in text[fold:end]


def drawn(tree, heading):
    """The texts of the cells in the picture below a heading."""
    elements = list(tree.iter())
    at = next(i for i, e in enumerate(elements) if e.tag == "h2" and
              "".join(e.itertext()).startswith(heading))
    picture = next(e for e in elements[at:] if e.tag == SVG + "svg")
    return texts(picture, SVG + "title")


def test_differences_are_drawn_by_layer_and_kind(ckpt, golden_a, tmp_path):
    model = Model(golden_a)
    for expert in (1, 3):
        name = f"layers.2.ffn.experts.{expert}.w1.weight"
        model[name] = model[name].changed(100, model[name].data[100] ^ 1)
    model["layers.0.attn_norm.weight"] = model["layers.0.attn_norm.weight"].changed(0, 1)
    text, _ = certify(ckpt, tmp_path, golden_a, model.write(tmp_path / "bad"), check=1)
    cells = drawn(parse(text), "Differences of bad from golden-a")
    assert [c for c in cells if ": 0 of " not in c] == [
        "layers.0 attn_norm.weight: 1 of 1 differ",
        "layers.2 ffn.experts.*.w1.weight: 2 of 16 differ"]
    assert len(cells) > 100 and "on one side only" not in "".join(cells)
    assert drawn(parse(text), "Layers and kinds of bad")


def test_tensors_on_one_side_are_crossed(ckpt, golden_a, tmp_path):
    ckpt("ckpt-shard", "--layout", "torch_dist", golden_a, tmp_path / "dist")
    text, _ = certify(ckpt, tmp_path, golden_a, tmp_path / "dist")
    cells = drawn(parse(text), "Differences of dist")
    lone = [c for c in cells if "on one side only" in c]
    assert lone and all(c.startswith("mtp.") for c in lone)
    assert text.count('class="x"') == len(lone)
    text, _ = certify(ckpt, tmp_path, "--structure-only", golden_a, tmp_path / "dist")
    assert "names and shapes are compared" in text
    text, _ = certify(ckpt, tmp_path, golden_a, golden_a)
    assert "Differences of" not in text


def test_logits_are_drawn_with_their_first_difference(ckpt, golden_a, tmp_path):
    logits = numpy.random.default_rng(1).normal(size=(6, 32)).astype(numpy.float32)
    moved = logits.copy()
    moved[2, 3] += numpy.float32(1)
    args = []
    for name, values in {"a": logits, "b": moved}.items():
        safetensors.numpy.save_file({"tokens": numpy.arange(6, dtype=numpy.int32),
                                     "logits": values}, tmp_path / f"{name}.safetensors")
        args += ["--logits", tmp_path / f"{name}.safetensors"]
    text, _ = certify(ckpt, tmp_path, *args, golden_a, golden_a, check=1)
    tree = parse(text)
    assert "Logits" in texts(tree, "h3") and "First difference: position 2, token 3:" in text
    bars = next(e for e in tree.iter(SVG + "svg") if e.get("aria-label") == "KL by position")
    heights = [float(r.get("height")) for r in bars.iter(SVG + "rect")]
    assert len(heights) == 6 and max(heights) == heights[2] > min(heights) == heights[0]


def test_the_ledger_adds_up(ckpt, golden_a, tmp_path):
    model = Model(golden_a)
    model["layers.0.attn.wq_x.scale"] = Tensor("F8_E8M0", [1, 1], b"\x7f")
    text, predicate = certify(ckpt, tmp_path, "--lenient", model.write(tmp_path / "m"))
    ledger = predicate["checkpoints"][0]["ledger"]
    assert sum(ledger.values()) == predicate["checkpoints"][0]["stored_tensors"]
    assert ledger["scales"] > 100 and ledger["used"] > ledger["scales"] and ledger["dropped"] == 1
    cells = texts(parse(text), "td")
    for words, key in [("scales of a weight", "scales"), ("left out by a named rule", "dropped")]:
        assert cells[cells.index(words) + 1] == str(ledger[key])


def test_hostile_names_are_harmless(ckpt, tmp_path):
    names = ["<script>window.harmed=1</script>", "a\"onmouseover=\"harmed=1", "b'</title><b>",
             "c&amp;<!--", "layers.0.\u202eevil", "layers.1.]]>"]
    model = Model()
    model.files["model.safetensors"] = {n: bf16([4, 4]) for n in names}
    model["layers.2.nan"] = Tensor("F32", [1], b"\0\0\xc0\x7f")
    model.extras["<img src=x onerror=harmed=1>.json"] = b"{}"
    text, _ = certify(ckpt, tmp_path, model.write(tmp_path / "<i>m"), check=1)
    tree = parse(text)
    used = {e.tag.rpartition("}")[2] for e in tree.iter() if isinstance(e.tag, str)}
    assert not used & {"script", "b", "img", "i"} and "\u202e" not in text
    everything = "".join(tree.itertext())
    assert "<script>window.harmed=1</script>" in everything
    assert "<img src=x onerror=harmed=1>.json" in everything


def test_without_values(ckpt, tmp_path):
    ckpt("ckpt-synth", "--config", "flash", "--sparse", tmp_path / "flash")
    text, _ = certify(ckpt, tmp_path, "--structure-only", tmp_path / "flash")
    tree = parse(text)
    assert len(text) < 2_000_000 and "Values were not read" in text
    assert ">Pass, structure only<" in text
    assert len(texts(tree, SVG + "rect")) > 1000


def test_too_many_layers_are_no_picture(ckpt, tmp_path):
    model = Model()
    model.files["model.safetensors"] = {f"x.{i}.k{i}.weight": bf16([1]) for i in range(400)}
    text, _ = certify(ckpt, tmp_path, model.write(tmp_path / "m"))
    parse(text)
    assert "400 layers with 400 kinds of tensors are too many" in text


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [400, 1400])
@pytest.mark.parametrize("dark", [False, True])
def test_in_a_browser(ckpt, golden_a, tmp_path, width, dark):
    """By structure: nothing hangs over the edge, the verdict comes first, all is there."""
    model = Model(golden_a)
    model["<script>window.harmed=1</script>"] = bf16([2, 2])
    text, _ = certify(ckpt, tmp_path, "--lenient", "--self-test", model.write(tmp_path / "m"))
    page = tmp_path / "probe.html"
    page.write_text(text.replace("</body>", PROBE + "</body>"))
    done = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
         f"--window-size={width},2000", "--virtual-time-budget=5000", "--dump-dom",
         f"--user-data-dir={tmp_path / 'profile'}",
         *(["--blink-settings=preferredColorScheme=0"] if dark else []), page.as_uri()],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=120)
    seen = json.loads(html.unescape(re.search(r"<title>(.*?)</title>", done.stdout)[1]))
    assert seen["scroll"] <= seen["width"] <= max(width, 500) and not seen["clicked"]
    assert 0 <= seen["verdict"] < 100 and seen["cells"] > 150
    assert seen["titles"][0] == "Checks" and "Self-test" in seen["titles"]
    assert (seen["background"] == "rgb(255, 255, 255)") == (not dark)


# ---- the self-test of a certificate ----

def test_a_gate_that_looks_away_fails(ckpt, golden_a, tmp_path):
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"schema": "ckpt-policy/1", "roots": "any"}))
    text, _ = certify(ckpt, tmp_path, "--self-test", "--policy", policy, golden_a, check=1)
    assert ">MISSED<" in text and texts(parse(text), "title") == ["FAIL: golden-a"]


def test_values_are_judged(ckpt, golden_a, tmp_path):
    """A NaN that both have is no difference, and still no release."""
    name = "layers.1.attn_norm.weight"
    model = Model(golden_a)
    model[name] = model[name].changed(7, 0x7F).changed(6, 0xC0)
    path = model.write(tmp_path / "nan")
    link_tree(path, tmp_path / "copy")
    done = ckpt("ckpt-verify", "certify", "--json", "--out", tmp_path / "c.json", path,
                tmp_path / "copy", check=1).json
    failed = {(c["name"], c["verdict"]) for c in done["checks"]}
    assert ("values", "pass") in failed and ("findings", "fail") in failed
    policy = tmp_path / "policy.json"
    policy.write_text(json.dumps({"schema": "ckpt-policy/1", "findings_allowed": ["nan"]}))
    ckpt("ckpt-verify", "certify", "--policy", policy, "--out", tmp_path / "d.json", path,
         tmp_path / "copy")


def test_a_self_test_needs_values(ckpt, golden_a, tmp_path):
    done = ckpt("ckpt-verify", "certify", "--self-test", "--structure-only", "--out",
                tmp_path / "c.json", golden_a, check=2)
    assert "--self-test" in done.err
