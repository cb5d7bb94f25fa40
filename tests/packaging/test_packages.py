"""`make dist wheel deb`: what they make is installed on bare systems, used and removed again."""
import fcntl
import os
import pathlib
import re
import shutil
import subprocess
import tarfile
import zipfile

import pytest

from client import environment, mixed
from conftest import BUILD, RELEASE, ROOT
from mock_hub import Hub

pytestmark = [pytest.mark.release,
              pytest.mark.skipif(not RELEASE, reason="is made and tested by make check-release")]
DIST = BUILD / "dist"
OLD = (2, 17)
C_LIBRARY = re.compile(r"lib(c|m|pthread|dl|rt)\.so\.[0-9]|ld-linux-.*")
TOOLS = sorted(p.stem for p in (ROOT / "tools").glob("ckpt-*.c"))
# The oldest first; what a mirror has left is found by asking.
SUITES = ("stretch", "buster", "bullseye", "bookworm")


def run(*words, check=0, **more):
    done = subprocess.run([str(w) for w in words], text=True, capture_output=True,
                          stdin=subprocess.DEVNULL, **more)
    assert done.returncode == check, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="session")
def made(request):
    """The three, made anew from what is built, once for all workers of this run."""
    missing = [p for p in ("debootstrap", "lintian", "dh") if shutil.which(p) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed: scripts/setup --packaging")
    this_run = getattr(request.config, "workerinput", {}).get("testrunuid", str(os.getpid()))
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("MAKE", "MFLAGS", "DEB"))}
    with open(BUILD / "packages.run", "a+") as last:
        fcntl.flock(last, fcntl.LOCK_EX)
        last.seek(0)
        if last.read() != this_run:
            shutil.rmtree(DIST, ignore_errors=True)
            run("make", "-C", ROOT, f"BUILD={BUILD.relative_to(ROOT)}", "dist", "wheel", "deb",
                env=clean)
            last.truncate(0)
            last.write(this_run)
    return {kind: list(DIST.glob(f"*.{kind}")) for kind in ("tar.xz", "whl", "deb")}


@pytest.fixture(scope="session")
def tarball(made, tmp_path_factory):
    """The tarball, unpacked."""
    folder = tmp_path_factory.mktemp("tarball")
    with tarfile.open(made["tar.xz"][0]) as archive:
        archive.extractall(folder)
    [top] = folder.iterdir()
    return top


def bare(suite, out):
    """A bare system of that Debian suite in `out`; what went wrong, or None."""
    done = subprocess.run(["debootstrap", "--variant=minbase", suite, str(out)], text=True,
                          capture_output=True)
    return None if done.returncode == 0 else done.stdout[-500:]


@pytest.fixture(scope="session")
def old_system(made, tmp_path_factory):
    """The oldest bare system that can be had."""
    reasons = []
    for suite in SUITES:
        root = tmp_path_factory.mktemp(suite)
        if (problem := bare(suite, root)) is None:
            yield root
            shutil.rmtree(root)
            return
        reasons.append(f"{suite}: {problem}")
        shutil.rmtree(root)
    pytest.skip("no bare system can be made here: " + " ".join(reasons)[-300:])


@pytest.fixture(scope="session")
def this_system(made, tmp_path_factory):
    """A bare system of the suite that the deb packages are made on."""
    root = tmp_path_factory.mktemp("system")
    suite = re.search(r"VERSION_CODENAME=(\w+)", pathlib.Path("/etc/os-release").read_text())[1]
    if (problem := bare(suite, root)) is not None:
        shutil.rmtree(root)
        pytest.skip("no bare system can be made here: " + problem)
    yield root
    shutil.rmtree(root)


def files(root):
    """All files of a system but logs and caches: {path: size}."""
    found = {}
    for at, folders, names in os.walk(root):
        where = pathlib.Path(at).relative_to(root)
        folders[:] = [f for f in folders if str(where / f) not in (
            "proc", "sys", "dev", "tmp", "root", "var/log", "var/cache", "var/lib/apt",
            "var/lib/dpkg")]
        found.update({str(where / n): os.lstat(pathlib.Path(at, n)).st_size for n in names})
    return {p: size for p, size in found.items() if not p.endswith("ld.so.cache")}


def main_job(golden_a, root, bin, check_digest):
    """In the system: convert, compare, and go back to the same bytes."""
    work = root / "root/work"
    shutil.copytree(golden_a, work / "golden")

    def inside(*words, **more):
        return run("chroot", root, "env", "-i", "HOME=/root", f"PATH={bin}:/usr/bin:/bin", "sh",
                   "-c", 'cd /root/work && exec "$@"', "sh", *words, **more)

    inside("ckpt-convert", "-q", "--dtype", "bf16", "--experts", "bf16", "golden", "bf16")
    inside("ckpt-verify", "compare", "-q", "golden", "bf16")
    inside("ckpt-convert", "-q", "--like", "golden", "bf16", "back")
    for path in golden_a.glob("*.safetensors"):
        assert (work / "back" / path.name).read_bytes() == path.read_bytes()
    assert check_digest in inside("ckpt-verify", "digest", "golden")
    inside("ckpt-verify", "digest", "nowhere", check=2)
    return inside


def symbols_of(path):
    """(versions of glibc's symbols, libraries) that an ELF file needs, by readelf."""
    versions = re.findall(r"GLIBC_([0-9.]+)", run("readelf", "--wide", "--version-info", path))
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", run("readelf", "--wide", "--dynamic", path))
    return {tuple(int(n) for n in v.split(".")) for v in versions}, needed


def check_elf(paths):
    checked = 0
    for path in paths:
        if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF":
            versions, needed = symbols_of(path)
            assert versions and max(v[:2] for v in versions) <= OLD, path
            assert all(C_LIBRARY.fullmatch(name) for name in needed), (path, needed)
            checked += 1
    assert checked == len(TOOLS) + 1, "every command and the library"


def test_the_tarball_needs_no_newer_c_library(tarball):
    check_elf(tarball.rglob("*"))
    assert sorted(p.name for p in (tarball / "bin").iterdir()) == [*TOOLS, "prepare-megatron"]
    licences = {p.name for p in (tarball / "share/doc/ckpt/licences").iterdir()}
    assert {"curl", "libssl", "libzstd", "libgomp1"} <= licences


def test_the_wheel_needs_no_newer_c_library(made, tmp_path):
    with zipfile.ZipFile(made["whl"][0]) as wheel:
        wheel.extractall(tmp_path)
    check_elf(tmp_path.rglob("*"))


def test_the_tarball_works_on_the_oldest_system(tarball, old_system, golden_a, digest):
    before = files(old_system)
    shutil.copytree(tarball, old_system / "opt/ckpt", symlinks=True)
    main_job(golden_a, old_system, "/opt/ckpt/bin", digest(golden_a))
    shutil.rmtree(old_system / "opt/ckpt")
    shutil.rmtree(old_system / "root/work")
    assert files(old_system) == before


def test_the_portable_download_speaks_tls(tarball, old_system, authority):
    """With certificates where Red Hat keeps them, which is not where libcurl was told to look."""
    folder = old_system / "opt/tls"
    shutil.copytree(tarball, folder, symlinks=True)
    place = old_system / "etc/pki/tls/certs/ca-bundle.crt"
    with Hub([mixed()], tls=authority.context) as hub:
        env = {k: v for k, v in environment(hub, "/root/home").items()
               if k in ("HF_ENDPOINT", "HF_HOME", "HF_HUB_OFFLINE", "PATH")}

        def get(check):
            return subprocess.run(["chroot", old_system, "/opt/tls/bin/ckpt-download", "o/m",
                                   "--local-dir", "/root/got", "--quiet"], env=env, text=True,
                                  capture_output=True).returncode == check
        assert get(2), "nobody vouches for the hub"
        place.parent.mkdir(parents=True)
        place.write_bytes(authority.certificate.read_bytes())
        assert get(0)
    assert any((old_system / "root/got").iterdir())
    for path in (folder, old_system / "root/got", old_system / "etc/pki"):
        shutil.rmtree(path)


def test_lintian_has_nothing_to_say(made):
    assert len(made["deb"]) == 3
    assert run("lintian", "--allow-root", "--fail-on", "error,warning", *made["deb"]) == ""


def test_no_package_has_cuda(made, tarball, tmp_path):
    """Made where nvcc is, too."""
    for deb in made["deb"]:
        run("dpkg-deb", "-x", deb, tmp_path)
    for bin_folder in tmp_path / "usr/bin", tarball / "bin":
        assert b"cudart" not in (bin_folder / "ckpt-run").read_bytes()


def test_the_packages_install_and_go(made, this_system, golden_a, digest):
    before = files(this_system)
    (this_system / "tmp/debs").mkdir()
    for deb in made["deb"]:
        shutil.copy(deb, this_system / "tmp/debs")
    apt = ("chroot", this_system, "env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "--quiet",
           "--yes", "-o", "APT::Sandbox::User=root")
    run(*apt, "--no-install-recommends", "install",
        *(f"/tmp/debs/{deb.name}" for deb in made["deb"]))
    main_job(golden_a, this_system, "/usr/bin", digest(golden_a))
    shutil.rmtree(this_system / "root/work")
    run(*apt, "--purge", "autoremove", "ckpt", "libckpt-dev", "libckpt0")
    assert files(this_system) == before


@pytest.fixture(scope="session")
def venv(made, tmp_path_factory):
    """A clean virtual environment with the wheel in it; before: what was there without it."""
    folder = tmp_path_factory.mktemp("venv")
    run("python3", "-m", "venv", folder)
    pip = folder / "bin/pip"
    done = subprocess.run([pip, "install", "--quiet", "numpy"], text=True, capture_output=True)
    if done.returncode != 0:
        pytest.skip("pip cannot reach PyPI: " + done.stderr[-200:])
    before = {p for p in folder.rglob("*") if "__pycache__" not in p.parts}
    run(pip, "install", "--quiet", made["whl"][0])
    return folder, before


def test_the_wheel_works_in_a_clean_environment(venv, golden_a, digest, tmp_path):
    folder, before = venv
    program = ("import ckpt_tools, sys\n"
               "with ckpt_tools.open(sys.argv[1]) as model:\n"
               "    print(model.digest().root, model['embed.weight'].f32().shape)\n"
               "done = ckpt_tools.convert(sys.argv[1], 'out', dtype='bf16', experts='bf16')\n"
               "print(ckpt_tools.compare(sys.argv[1], 'out').same, done.root)\n")
    said = run(folder / "bin/python", "-c", program, golden_a, cwd=tmp_path)
    root = digest(golden_a)
    assert said == f"{root} (512, 256)\nTrue {root}\n"
    for tool in TOOLS:
        assert run(folder / "bin" / tool, "--version").startswith(tool)
    run(folder / "bin/ckpt-verify", "compare", "-q", golden_a, tmp_path / "out")
    run(folder / "bin/prepare-megatron", "--help")
    run(folder / "bin/pip", "uninstall", "--quiet", "--yes", "ckpt-tools")
    left = {p for p in folder.rglob("*") if "__pycache__" not in p.parts and p.is_file()} - before
    assert left == set()
