"""libckpt as it is installed: a program of thirty lines that knows only ckpt.h and pkg-config."""
import os
import pathlib
import re
import shutil
import subprocess

import pytest

from corrupt.files import Model

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
OUTSIDE = HERE / "outside.c"
PREFIX = "/opt/ckpt"
DIGEST = "cc556e3e991d7856f8e68505f775672a6c3f969b7ed0a33a33fa047d0928ce76"


@pytest.fixture(scope="module")
def installed(build, tmp_path_factory):
    """DESTDIR of an installation, by the script that `make install` runs."""
    destination = tmp_path_factory.mktemp("dest")
    version = re.search(r'CKPT_VERSION "(.*)"', (ROOT / "libckpt/ckpt.h").read_text())[1]
    subprocess.run([ROOT / "scripts/install", build, PREFIX, destination, version], check=True,
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


def compile_outside(installed, out, *more):
    compiler = shutil.which(os.environ.get("CC", "cc"))
    assert compiler, "no C compiler"
    subprocess.run([compiler, "-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-o", out,
                    OUTSIDE, *more], check=True)


def check_output(program, golden_a, **env):
    done = subprocess.run([program, golden_a], env={**os.environ, **env}, check=True, text=True,
                          stdout=subprocess.PIPE).stdout.splitlines()
    model = Model(golden_a)
    names = [n for n in model.names() if not n.endswith(".scale") or "hc_" in n]
    listed = dict(line.split("\t") for line in done[:-2])
    assert sorted(listed) == sorted(n for n in names if not n.endswith("_scale") or "hc_" in n)
    assert listed["embed.weight"] == "BF16"
    assert listed["layers.0.attn.wq_a.weight"] == "F8_E4M3 128x128 F8_E8M0"
    assert listed["layers.0.ffn.experts.0.w1.weight"] == "F4 1x32 F8_E8M0"
    embed = model["embed.weight"]
    row = 3 * embed.shape[1] * 2
    assert done[-2] == embed.data[row:row + 2].hex()
    assert done[-1] == DIGEST


def test_it_is_thirty_lines():
    assert len(OUTSIDE.read_text().splitlines()) <= 30


def test_against_the_shared_library(installed, golden_a, tmp_path):
    compile_outside(installed, tmp_path / "outside", *flags(installed, "--cflags", "--libs"))
    check_output(tmp_path / "outside", golden_a,
                 LD_LIBRARY_PATH=str(installed) + PREFIX + "/lib")


def test_against_the_archive(installed, golden_a, tmp_path):
    libs = [f for f in flags(installed, "--cflags", "--libs", "--static") if f != "-lckpt"]
    compile_outside(installed, tmp_path / "outside",
                    str(installed) + PREFIX + "/lib/libckpt.a", *libs)
    check_output(tmp_path / "outside", golden_a)


def test_an_error_is_one_line(installed, tmp_path):
    compile_outside(installed, tmp_path / "outside", *flags(installed, "--cflags", "--libs"))
    done = subprocess.run([tmp_path / "outside", tmp_path / "missing"], text=True, check=False,
                          stderr=subprocess.PIPE, env={
                              **os.environ,
                              "LD_LIBRARY_PATH": str(installed) + PREFIX + "/lib"})
    assert done.returncode == 2
    assert done.stderr == f"'{tmp_path / 'missing'}' does not exist\n"


def test_the_header_is_cpp_too(installed, tmp_path):
    compiler = shutil.which("c++") or shutil.which("g++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    (tmp_path / "x.cc").write_text("#include <ckpt.h>\nint main() { return CKPT_OK; }\n")
    subprocess.run([compiler, "-Wall", "-Wextra", "-Werror", "-pedantic",
                    *flags(installed, "--cflags"), tmp_path / "x.cc", "-o", tmp_path / "x"],
                   check=True)


def test_only_the_interface_is_exported(installed):
    library = next(pathlib.Path(str(installed) + PREFIX + "/lib").glob("libckpt.so.*.*"))
    symbols = subprocess.run(["nm", "-D", "--defined-only", library], check=True, text=True,
                             stdout=subprocess.PIPE).stdout
    exported = {re.sub(r"@.*", "", line.split()[-1]) for line in symbols.splitlines()
                if line.split()[-2] in "TDBR"}
    header = (ROOT / "libckpt/ckpt.h").read_text()
    declared = set(re.findall(r"\b(ckpt_\w+)\(", header))
    assert declared <= exported
    assert exported <= declared, exported - declared


def test_make_install_runs_the_script(tmp_path):
    """`make install DESTDIR=... PREFIX=...` is that script with those arguments."""
    said = subprocess.run(["make", "-n", "install", "DESTDIR=/stage", "PREFIX=/opt/ckpt"],
                          cwd=ROOT, check=True, text=True, stdout=subprocess.PIPE).stdout
    assert re.search(r"scripts/install build '/opt/ckpt' '/stage' \d+\.\d+\.\d+", said)


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
