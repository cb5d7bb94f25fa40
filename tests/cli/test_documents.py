"""README.md and FAQ.md are right: examples are run, messages looked up in the code."""
import os
import re
import subprocess

import pytest

from conftest import BUILD, RELEASE, ROOT

README = (ROOT / "README.md").read_text()
FAQ = (ROOT / "FAQ.md").read_text()
ROOMS = ("libckpt", "kernels", "formats", "verify", "reference-runner", "tools")


def examples():
    """(command, lines that it prints) of every console block, in the order of the page."""
    found = []
    for block in re.findall(r"^```console\n(.*?)^```$", README, re.M | re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            else:
                found[-1][1].append(line)
    return found


def without_times(line):
    return re.sub(r"\bin [0-9.:]+ s, \S+ [kMG]?B/s|\bmade at \S+", "(time)", line.rstrip())


def pattern(line):
    """Matches a line like this one of the README, in which "..." stands for any text."""
    return re.compile(re.escape(without_times(line)).replace(re.escape("..."), ".*"))


def check_output(command, expected, streams):
    """Every line of the README is printed, in its order on standard output or standard error; the
    line "..." stands for lines that the README leaves out."""
    waiting = [[without_times(line) for line in s.splitlines() if line.strip()] for s in streams]
    leaves_out = "..." in expected
    for line in expected:
        if line == "...":
            continue
        want = pattern(line)
        for lines in waiting:
            at = next((i for i, got in enumerate(lines) if want.fullmatch(got)), None)
            if at is not None and (at == 0 or leaves_out):
                del lines[:at + 1]
                break
        else:
            pytest.fail(f"{command}: expected {line!r}, got {waiting}")
    assert leaves_out or waiting == [[], []], f"{command}: the README lacks {waiting}"


@pytest.fixture
def shell(tmp_path):
    """shell(command) -> what it did, in a folder of its own where the commands are installed."""
    installed = tmp_path / "bin"
    installed.mkdir()
    for tool in (BUILD / "bin").glob("ckpt-*"):
        (installed / tool.name).symlink_to(tool.resolve())
    # A copy in a folder of its own: it would prefer tools that lie beside it to those in PATH.
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "prepare-megatron").write_bytes((ROOT / "scripts/prepare-megatron").read_bytes())
    (scripts / "prepare-megatron").chmod(0o755)
    clean = {k: v for k, v in os.environ.items()
             if not k.startswith(("MILES_", "SLURM_", "OMPI_", "PMI_")) and k != "BIN"}
    work = tmp_path / "work"
    work.mkdir()

    def run(command, status=0):
        done = subprocess.run(command, shell=True, cwd=work, text=True, capture_output=True,
                              env={**clean, "PATH": f"{installed}:{scripts}:{os.environ['PATH']}"})
        assert done.returncode == status, f"{command}: {done.stdout}{done.stderr}"
        return done
    return run


def test_the_examples_of_the_readme_print_what_it_says(shell):
    shell("ckpt-synth --quiet --config tiny V4")
    shell("openssl genpkey -algorithm ed25519 -out key.pem && "
          "openssl pkey -in key.pem -pubout -out pub.pem")
    commands = examples()
    assert len(commands) == 12
    for command, expected in commands:
        done = shell(command, status=1 if expected[:1] and expected[0].startswith("different")
                     else 0)
        check_output(command, expected, (done.stdout, done.stderr))


def test_a_line_that_is_not_printed_is_noticed():
    """The test above can fail."""
    for expected, streams in ((["a"], ("b\n", "")), (["a"], ("a\nb\n", "")),
                              (["a", "b"], ("a\n", "")), (["b", "...", "a"], ("a\nb\n", "")),
                              (["a 1.0 MB"], ("a 2.0 MB\n", ""))):
        with pytest.raises((AssertionError, pytest.fail.Exception)):
            check_output("x", expected, streams)
    check_output("x", ["a 1...", "in 0.3 s, 5.0 MB/s"], ("a 123\n", "in 1.5 s, 77.1 MB/s\n"))


@pytest.mark.release
@pytest.mark.parametrize("config", ["flash", "pro"] if RELEASE else ["flash"])
def test_the_sizes_of_the_releases_are_those_of_a_dry_run(config, shell):
    row = re.search(rf"^\| DeepSeek-V4-{config}(.*)\|$", README, re.M | re.I)[1]
    sizes = [cell.strip() for cell in row.split("|")[1:]]
    shell(f"ckpt-synth --quiet --sparse --config {config} model")
    plans = [shell(f"{command} --dry-run --no-space-check model out").stdout.splitlines()[0]
             for command in ("ckpt-convert --dtype bf16", "ckpt-convert --experts fp8",
                             "ckpt-shard --layout torch_dist",
                             "ckpt-shard --layout gguf --without-tokenizer")]
    assert re.search(r"all .* (\S+ [GT]B)$", shell("ckpt-inspect --summary model").stdout,
                     re.M)[1] == sizes[0]
    assert [re.search(r", (\S+ [GT]B) \(", plan)[1] for plan in plans] == sizes[1:]


def test_the_commands_of_the_readme_are_those_that_are_built():
    table = README[README.index("## Commands"):]
    assert set(re.findall(r"^\| `(ckpt-[a-z]+)", table, re.M)) == \
        {p.stem for p in (ROOT / "tools").glob("ckpt-*.c")}
    for _, names in re.findall(r"^\| `(ckpt-verify|ckpt-delta) ([a-z\\|]+)`", table, re.M):
        for name in names.split("\\|"):
            assert any(f'.name = "{name}"' in p.read_text() for p in (ROOT / "tools").glob("*.c"))


@pytest.fixture(scope="module")
def fixed_texts():
    """What the string literals of the code and the maps say, without conversions, in lines."""
    found = {p.read_text() for p in (ROOT / "formats/maps").glob("*.map")}
    literal = r'"(?:\\.|[^"\\\n])*"'
    for room in ROOMS:
        for source in (*(ROOT / room).rglob("*.c"), *(ROOT / room).rglob("*.h")):
            code = re.sub(r'"\s*PRI\w+\s*"', "u", source.read_text())
            for run in re.findall(rf"{literal}(?:\s*{literal})*", code):
                text = "".join(p[1:-1] for p in re.findall(literal, run))
                found.update(re.split(r"%[-+#0-9.*]*(?:ll|z|h)?[a-zA-Z]|\\n", text))
    return "\n".join(found)


def is_made_of(words, texts):
    """Are these words, in their order, runs of two or more words that are in the texts? An option
    may be an example."""
    ends = {0}
    for end in range(1, len(words) + 1):
        if any(begin in ends and " ".join(words[begin:end]) in texts
               for begin in range(end - 1)) or \
                end - 1 in ends and (words[end - 1].startswith("--") or len(words) == 1):
            ends.add(end)
    return len(words) in ends


def are_in_the_code(quote, texts):
    """The parts of a message between its examples: names in quotes or of files, shapes, numbers."""
    parts = re.split(r"'[^']*'|\[[^]]*\]|\S*\d\S*|\w+\.json|[:;] ", quote)
    parts = [part.strip(" :,;()").split() for part in parts]
    return any(len(part) > 1 for part in parts) and \
        all(len(part) < 2 or is_made_of(part, texts) for part in parts)


@pytest.mark.parametrize("quote", re.findall(r"^> (.*)$", FAQ, re.M))
def test_a_message_of_the_faq_is_still_in_the_code(quote, fixed_texts):
    assert are_in_the_code(quote, fixed_texts)


def test_a_message_that_has_changed_is_noticed(fixed_texts):
    for quote in re.findall(r"^> (.*)$", FAQ, re.M):
        words = [w for w in quote.split() if re.fullmatch("[a-z]{3,}", w)]
        changed = [quote.replace(f" {w} ", " zebra ", 1) for w in words if f" {w} " in quote]
        # A word between two examples is not looked up.
        noticed = [c for c in changed if not are_in_the_code(c, fixed_texts)]
        assert changed and len(noticed) >= len(changed) / 2, quote
