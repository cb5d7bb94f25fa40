"""libckpt as it is installed: short programs that know only ckpt.h and pkg-config."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess

import numpy as np
import pytest

from cli.trees import tree
from corrupt.files import Model
from interop.numpy_codes import decoded

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
VERSION = re.search(r'CKPT_VERSION "(.*)"', (ROOT / "libckpt/ckpt.h").read_text())[1]
PREFIX = "/opt/ckpt"
DIGEST = "cc556e3e991d7856f8e68505f775672a6c3f969b7ed0a33a33fa047d0928ce76"


@pytest.fixture(scope="module")
def installed(build, tmp_path_factory):
    """DESTDIR of an installation, by the script that `make install` runs."""
    destination = tmp_path_factory.mktemp("dest")
    subprocess.run([ROOT / "scripts/install", build, PREFIX, destination, VERSION], check=True,
                   cwd=ROOT)
    return destination


def flags(installed, *options):
    """What pkg-config says, for the staging directory."""
    env = {**os.environ, "PKG_CONFIG_SYSROOT_DIR": str(installed), "PKG_CONFIG_PATH":
           str(installed) + PREFIX + "/lib/pkgconfig"}
    done = subprocess.run(["pkg-config", *options, "ckpt"], env=env, check=True, text=True,
                          stdout=subprocess.PIPE)
    # The sysroot is put before the system's own paths as well; those are not in it.
    return [f if PREFIX in f or not f.startswith(("-I", "-L")) else
            f.replace(str(installed), "") for f in done.stdout.split()]


def compile_program(installed, name, how, out):
    """Program `name`, linked as `how` says; no compiler warns, also of C11 without extensions."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    assert compiler, "no C compiler"
    if how == "shared":
        libs = flags(installed, "--cflags", "--libs")
    else:
        libs = [f for f in flags(installed, "--cflags", "--libs", "--static") if f != "-lckpt"]
        libs.insert(0, str(installed) + PREFIX + "/lib/libckpt.a")
    subprocess.run([compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-o", out,
                    HERE / f"{name}.c", *libs, "-lm"], check=True)


@pytest.fixture(scope="module", params=["shared", "static"])
def program(request, installed, tmp_path_factory):
    """Runs a program of this folder that was built against the installed library."""
    folder = tmp_path_factory.mktemp(request.param)
    env = {**os.environ, "LD_LIBRARY_PATH": str(installed) + PREFIX + "/lib"}

    def run(name, *args, check=0):
        if not (folder / name).exists():
            compile_program(installed, name, request.param, folder / name)
        done = subprocess.run([folder / name, *args], env=env, check=False, text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert done.returncode == check, done.stderr
        return done.stderr if check == 2 else done.stdout
    return run


@pytest.mark.parametrize("path", sorted(HERE.glob("*.c")), ids=lambda p: p.stem)
def test_it_is_at_most_sixty_lines(path):
    assert len(path.read_text().splitlines()) <= 60


def test_list(program, golden_a):
    *lines, last = program("list", golden_a).splitlines()
    model = Model(golden_a)
    names = [n for n in model.names() if not n.endswith(".scale") or "hc_" in n]
    listed = {line.split("\t")[0]: line.split("\t")[1:] for line in lines}
    assert sorted(listed) == sorted(n for n in names if not n.endswith("_scale") or "hc_" in n)
    assert listed["embed.weight"] == ["BF16", ",".join(map(str, model["embed.weight"].shape))]
    assert listed["layers.0.attn.wq_a.weight"][0] == "F8_E4M3 128x128 F8_E8M0"
    assert listed["layers.0.ffn.experts.0.w1.weight"][0] == "F4 1x32 F8_E8M0"
    assert last == f"libckpt {VERSION}: hf, deepseek_v4"


@pytest.mark.parametrize("name", ["layers.0.attn.wq_a.weight", "layers.0.ffn.experts.0.w1.weight",
                                  "embed.weight"])
def test_histogram(program, golden_a, name):
    lines = program("histogram", golden_a, name).splitlines()
    values = decoded(Model(golden_a), name)
    exponents = np.frexp(values)[1]
    exponents = np.where((values == 0) | (exponents <= -30), -999, exponents)
    expected = dict(zip(*map(np.ndarray.tolist, np.unique(exponents, return_counts=True))))
    assert {int(b): int(n) for b, n in (line.split("\t") for line in lines)} == expected


def test_digest_with_progress(program, golden_a):
    root, progress = program("digest", golden_a).split("\t")
    done, total = (int(n) for n in re.findall(r"\d+", progress))
    assert root == DIGEST
    assert done == total > 1 << 20


def test_a_digest_can_be_cancelled(program, golden_a):
    assert program("digest", golden_a, "100000", check=2) == "interrupted\n"


def test_compare(program, golden_a, tmp_path):
    assert program("compare", golden_a, golden_a).endswith(" compared\n")
    model = Model(golden_a)
    norm = model["norm.weight"]
    model["norm.weight"] = norm.changed(2, norm.data[2] ^ 0x80)
    model.write(tmp_path / "other")
    config = json.loads((golden_a / "config.json").read_text())
    config["rope_theta"] = 999
    (tmp_path / "other/config.json").write_text(json.dumps(config))
    lines = program("compare", golden_a, tmp_path / "other", check=1).splitlines()
    assert [line.split("\t")[:2] for line in lines[:-1]] == [["norm.weight", "values"],
                                                             ["rope_theta", "config"]]
    assert lines[0].endswith("\t1")


@pytest.mark.parametrize("layout", ["hf", "mp", "torch_dist"])
def test_convert(program, golden_a, tmp_path, ckpt, layout):
    root = program("convert", layout, golden_a, tmp_path / "api").splitlines()[-1]
    assert root == DIGEST or layout == "torch_dist"          # which has no MTP block
    assert program("digest", tmp_path / "api").split("\t")[0] == root
    how = {"hf": [], "mp": ["--mp", "2"], "torch_dist": []}[layout]
    ckpt("ckpt-shard", "--layout", layout, *how, "--dtype", "bf16", "--no-manifest", golden_a,
         tmp_path / "tool")
    assert tree(tmp_path / "api") == tree(tmp_path / "tool")


def test_a_conversion_is_refused_by_name(program, golden_a, tmp_path):
    assert program("convert", "tar", golden_a, tmp_path / "x", check=2) == \
        "--layout tar: expected one of torch_dist mp hf gguf\n"
    assert not (tmp_path / "x").exists()


def test_a_source_of_the_callers_own(program):
    torch = pytest.importorskip("torch")
    from interop import value_digest
    ramp = (torch.arange(300)[:, None] * 7 + torch.arange(2000)).to(torch.float32) / 8
    assert program("custom") == f"{value_digest.tensor_line('ramp', ramp)[3]}\t{ramp[-1, -1]:g}\n"


def test_an_error_is_one_line(program, golden_a, tmp_path):
    assert program("list", tmp_path / "missing", check=2) == \
        f"'{tmp_path / 'missing'}' does not exist\n"
    assert program("histogram", golden_a, "layers.0.ffn.gate.tid2eid", check=2).startswith(
        "tensor 'layers.0.ffn.gate.tid2eid' holds integers (")


def test_the_header_is_cpp_too(installed, tmp_path):
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    (tmp_path / "x.cc").write_text("#include <ckpt.h>\nint main() { return CKPT_OK; }\n")
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", "-pedantic",
                    *flags(installed, "--cflags"), tmp_path / "x.cc", "-o", tmp_path / "x"],
                   check=True)


def global_names(*command):
    symbols = subprocess.run(["nm", "--defined-only", *command], check=True, text=True,
                             stdout=subprocess.PIPE).stdout
    return {re.sub(r"@.*", "", line.split()[-1]) for line in symbols.splitlines()
            if line[17:18] in "TDBR" and line[17:18]}


def test_only_the_interface_is_exported(installed):
    lib = pathlib.Path(str(installed) + PREFIX + "/lib")
    header = (ROOT / "libckpt/ckpt.h").read_text()
    declared = set(re.findall(r"^[a-z].*?\b(ckpt_\w+)\(", header, re.M))
    assert len(declared) > 30
    assert global_names("-D", next(lib.glob("libckpt.so.*.*"))) == declared
    assert global_names("--extern-only", lib / "libckpt.a") == declared


def test_make_install_runs_the_script(tmp_path):
    """`make install DESTDIR=... PREFIX=...` is that script with those arguments."""
    said = subprocess.run(["make", "-n", "install", "DESTDIR=/stage", "PREFIX=/opt/ckpt"],
                          cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout
    assert re.search(r"scripts/install build '/opt/ckpt' '/stage' \d+\.\d+\.\d+", said)


def test_the_scripts_folder_may_be_in_path(installed, build, tmp_path):
    """prepare-megatron is there; so is this script, which has the name of install(1)."""
    process = subprocess.Popen(
        [ROOT / "scripts/install", build, PREFIX, tmp_path / "dest", VERSION], cwd=ROOT,
        env={**os.environ, "PATH": f"{ROOT / 'scripts'}:{os.environ['PATH']}"},
        start_new_session=True)
    try:
        assert process.wait(60) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert sorted(p.name for p in (tmp_path / "dest").rglob("*")) == \
        sorted(p.name for p in installed.rglob("*"))


def test_uninstall_leaves_nothing(installed, build, tmp_path):
    shutil.copytree(str(installed) + PREFIX, tmp_path / "dest" / PREFIX[1:], symlinks=True)
    subprocess.run([ROOT / "scripts/install", "--remove", PREFIX, tmp_path / "dest"], check=True,
                   cwd=ROOT)
    assert [p for p in (tmp_path / "dest").rglob("*") if not p.is_dir()] == []


def test_man_pages_and_completion_come_along(installed, build):
    prefix = pathlib.Path(str(installed) + PREFIX)
    for tool in (build / "bin").glob("ckpt-*"):
        assert (prefix / "bin" / tool.name).exists()
        assert (prefix / f"share/man/man1/{tool.name}.1").read_text().startswith(".TH")
        assert tool.name in (prefix / "share/bash-completion/completions" / tool.name).read_text()
