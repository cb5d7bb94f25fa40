"""The completion scripts, in the shells that they are for: options, subcommands and values."""
import os
import pty
import select
import shutil
import subprocess
import time

import pytest

from conftest import BUILD, ROOT

TOOLS = sorted(p.stem for p in (ROOT / "tools").glob("ckpt-*.c"))
SHELLS = ("bash", "zsh", "fish")

# A line as it was typed, and words that completing it must offer; "": there is nothing to offer.
OFFERED = {
    "ckpt-shard --layout ": "hf mp torch_dist gguf",
    "ckpt-shard --preset flash-": "flash-convert flash-h200 flash-gb300",
    "ckpt-convert --experts ": "bf16 f32 fp8 fp4 keep",
    "ckpt-convert --quantize v": "v4-release v4-vllm-fp8 v3-release",
    "ckpt-convert --names ": "native sglang transformers",
    "ckpt-synth --config ": "flash pro tiny v3 kimi-k2",
    "ckpt-inspect --for ": "vllm sglang transformers megatron",
    "ckpt-verify ": "digest check compare logits certify certificate mutate",
    "ckpt-verify check --config fl": "flash",
    "ckpt-verify compare --config fl": "flash",
    "ckpt-verify compare --sort ": "error max cosine changed name",
    "ckpt-verify compare --up-to-rule fp8-": "fp8-ue8m0",
    "ckpt-verify certify --require ": "config tokenizer values",
    "ckpt-verify mutate --kind swap_": "swap_experts",
    "ckpt-delta diff --checksum ": "xxh3-128 blake3 adler32",
    "ckpt-delta a": "apply",
    "ckpt-download --hub ": "hf modelscope",
    "ckpt-run --mode ": "chat think think-max raw",
    "ckpt-convert --threads ": "",
}


@pytest.fixture(scope="module")
def scripts(tmp_path_factory):
    """A folder with the scripts of all commands, by the names that the shells look for."""
    folder = tmp_path_factory.mktemp("completion")
    for tool in TOOLS:
        for shell in SHELLS:
            text = subprocess.run([BUILD / "bin" / tool, f"--help={shell}"], check=True,
                                  capture_output=True).stdout
            (folder / {"bash": tool, "zsh": "_" + tool, "fish": tool + ".fish"}[shell]) \
                .write_bytes(text)
    return folder


def need(shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed; scripts/setup --tests installs it")


def complete_in_bash(scripts, line, _want, folder):
    words = line.split(" ")
    function = "_" + words[0].replace("-", "_")
    done = subprocess.run(
        ["bash", "-c", 'source "$1"; shift; f=$1; shift; COMP_WORDS=("$@"); '
         'COMP_CWORD=$(($# - 1)); "$f"; printf "%s\\n" "${COMPREPLY[@]}"', "bash",
         scripts / words[0], function, *words], cwd=folder, text=True, capture_output=True)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout.split()


def complete_in_fish(scripts, line, _want, folder):
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"source {scripts}/{line.split(' ')[0]}.fish; "
         f"complete -C '{line}'"], cwd=folder, text=True, capture_output=True,
        env={**os.environ, "HOME": str(folder)})
    assert done.returncode == 0 and not done.stderr, done.stderr
    return [shown.split("\t")[0] for shown in done.stdout.splitlines()]


def read_until(terminal, is_there, seconds=60):
    """What a terminal prints until it is_there, which must be soon."""
    seen, end = b"", time.monotonic() + seconds
    while not is_there(seen.decode(errors="replace")):
        left = end - time.monotonic()
        assert left > 0, seen
        if select.select([terminal], [], [], left)[0]:
            seen += os.read(terminal, 65536)
    return seen.decode(errors="replace")


def complete_in_zsh(scripts, line, want, folder):
    """zsh completes for its line editor only: that needs a terminal."""
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(folder)
        os.environ.update(TERM="dumb", HOME=str(folder), PROMPT_EOL_MARK="")
        os.execvp("zsh", ["zsh", "-f", "-i"])
    try:
        os.write(terminal, f"stty columns 150; PROMPT=; fpath=({scripts} $fpath); "
                 "autoload -U compinit; compinit -u -D; echo rea''dy\n".encode())
        read_until(terminal, lambda seen: "ready\r\n" in seen)
        # The first tab inserts what all words begin with, the second lists them.
        os.write(terminal, line.encode() + b"\t\t")
        seen = read_until(terminal, lambda seen: all(w in seen.split() for w in want)
                          if len(want) > 1 else line in seen and want[0] in seen)
    finally:
        os.close(terminal)
        os.waitpid(child, 0)
    return seen.split()


# A terminal shows nothing when nothing is offered: no line to wait for in zsh.
@pytest.mark.parametrize("shell, line", [(shell, line) for line in OFFERED for shell in SHELLS
                                         if shell != "zsh" or OFFERED[line]])
def test_a_shell_offers_the_words_of(shell, line, scripts, tmp_path):
    need(shell)
    want = OFFERED[line].split()
    complete = {"bash": complete_in_bash, "zsh": complete_in_zsh, "fish": complete_in_fish}[shell]
    offered = complete(scripts, line, want, tmp_path)
    if shell == "zsh":
        return                                  # it waited for the words
    assert set(want) <= set(offered), offered
    assert want or not offered


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize("tool", TOOLS)
def test_scripts_parse(tool, shell, scripts):
    need(shell)
    name = {"bash": tool, "zsh": "_" + tool, "fish": tool + ".fish"}[shell]
    done = subprocess.run([shell, "-n", scripts / name], text=True, capture_output=True)
    assert done.returncode == 0 and not done.stderr, done.stderr


def test_every_option_is_completed(scripts):
    """Options of a subcommand, too, in all three."""
    for tool in TOOLS:
        page = subprocess.run([BUILD / "bin" / tool, "--help=man"], check=True, text=True,
                              capture_output=True).stdout
        options = {line.split("\\-\\-")[-1].split("\\fR")[0].replace("\\-", "-")
                   for line in page.splitlines() if line.startswith("\\fB")}
        assert "help" in options
        for shell in SHELLS:
            name = {"bash": tool, "zsh": "_" + tool, "fish": tool + ".fish"}[shell]
            text = (scripts / name).read_text()
            mark = "-l {}" if shell == "fish" else "--{}"
            missing = {o for o in options if mark.format(o) not in text}
            assert not missing, f"{tool}, {shell}: {missing}"
