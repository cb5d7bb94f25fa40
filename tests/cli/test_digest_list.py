"""Lists for other programs: digests as sha256sum has them, names, JSON lines, errors as JSON."""
import json
import os
import subprocess

import pytest

from conftest import BUILD, DATA

A, B = DATA / "golden-a", DATA / "golden-b"


@pytest.fixture
def roots(ckpt):
    return ckpt("ckpt-verify", "digest", A, B).out


# ---- digest A B, digest -c ----

def test_several_digests_are_those_of_each(ckpt, roots):
    assert roots == "".join(ckpt("ckpt-verify", "digest", path).out for path in (A, B))
    assert len(roots.splitlines()) == 4


@pytest.mark.parametrize("words", [["-c"], ["--check"], ["--che"]])
def test_a_list_that_was_printed_is_right(ckpt, roots, tmp_path, words):
    (tmp_path / "roots").write_text(roots)
    assert ckpt("ckpt-verify", "digest", *words, tmp_path / "roots").out.splitlines() == [
        f"{A}: OK", f"{A} (main): OK", f"{B}: OK", f"{B} (main): OK"]


def test_one_wrong_digit_is_found_and_is_status_1(ckpt, roots):
    lines = roots.splitlines(keepends=True)
    lines[1] = ("1" if lines[1][0] == "0" else "0") + lines[1][1:]
    done = ckpt("ckpt-verify", "digest", "-c", "-", input="".join(lines), check=1)
    assert done.out.splitlines() == [f"{A}: OK", f"{A} (main): FAILED", f"{B}: OK",
                                     f"{B} (main): OK"]
    assert done.err == ""


def test_a_check_as_json_tells_what_was_found(ckpt, roots):
    wrong = roots.replace(roots[:64], "0" * 64, 1)
    found = ckpt("ckpt-verify", "digest", "--json", "-c", "-", input=wrong, check=1).json
    assert found["schema"] == "ckpt-digest-check/1" and found["same"] is False
    first = found["checkpoints"][0]
    assert first == {"path": str(A), "is_main": False, "expected": "0" * 64, "got": roots[:64],
                     "same": False}
    assert all(entry["same"] for entry in found["checkpoints"][1:])


def test_what_cannot_be_read_is_told_and_the_rest_is_checked(ckpt, roots):
    gone = f"{'0' * 64}  {A}/gone\n"
    done = ckpt("ckpt-verify", "digest", "-c", "-", input=gone + roots, check=2)
    assert done.out.splitlines()[:2] == [f"{A}/gone: FAILED open or read", f"{A}: OK"]
    assert "1 of the checkpoints in '-' could not be read" in done.err


@pytest.mark.parametrize("text, said", [
    ("", "has no digests"), ("\n\n", "has no digests"), ("x  y\n", "line 1: expected a root"),
    ("0" * 64 + "\n", "line 1"), ("0" * 63 + "  a\n", "line 1"), ("0" * 64 + "  \n", "line 1"),
    ("\n" + "A" * 64 + "  a\n", "line 2"), ("0" * 32 + "  layers.0.norm\n", "without --tensors"),
    ("0" * 64 + "  a\0b\n", "byte 0")])
def test_a_list_that_is_none_is_refused(ckpt, text, said):
    assert said in ckpt("ckpt-verify", "digest", "-c", "-", input=text, check=2).err


def test_a_list_and_paths_exclude_each_other(ckpt):
    assert "leave out" in ckpt("ckpt-verify", "digest", "-c", "-", A, check=2).err
    assert "expected PATH, or --check" in ckpt("ckpt-verify", "digest", check=2).err


def test_several_manifests_are_a_list(ckpt):
    found = ckpt("ckpt-verify", "digest", "--json", A, B).json
    assert found["schema"] == "ckpt-digests/1"
    assert found["checkpoints"] == [ckpt("ckpt-verify", "digest", "--json", path).json
                                    for path in (A, B)]


def test_digests_as_lines(ckpt, roots):
    lines = [json.loads(line) for line in
             ckpt("ckpt-verify", "digest", "--jsonl", A, B).out.splitlines()]
    assert [line["path"] for line in lines] == [str(A), str(B)]
    assert [line["root"] for line in lines] == [line[:64] for line in roots.splitlines()[::2]]


# ---- names, JSON lines ----

def names_of(ckpt, *words):
    return [t["name"] for t in ckpt("ckpt-inspect", "--json", *words, A).json["tensors"]]


def test_names_one_per_line_or_with_a_byte_0(ckpt):
    names = names_of(ckpt)
    assert ckpt("ckpt-inspect", "--names-only", A).out.splitlines() == names
    assert ckpt("ckpt-inspect", "--names-only", "-0", A).out == "".join(n + "\0" for n in names)
    chosen = names_of(ckpt, "--logical", "--tensors", "*norm*")
    assert ckpt("ckpt-inspect", "--names-only", "--logical", "--tensors", "*norm*",
                A).out.splitlines() == chosen
    assert 0 < len(chosen) < len(names)


@pytest.mark.parametrize("words", [[], ["--logical"], ["--stat", "--tensors", "*norm*"]])
def test_tensors_as_lines(ckpt, words):
    expected = ckpt("ckpt-inspect", "--json", *words, A).json["tensors"]
    lines = [json.loads(line) for line in
             ckpt("ckpt-inspect", "--jsonl", *words, A).out.splitlines()]
    assert all(line.pop("schema") == "ckpt-inspect-tensor/1" for line in lines)
    assert lines == expected and len(lines) > 3


# ---- errors ----

@pytest.mark.parametrize("args, reason", [
    (["ckpt-inspect", "--json", "gone"], "io"), (["ckpt-inspect", "gone", "--json"], "io"),
    (["ckpt-convert", "--json", "--nonsense", "a", "b"], "usage"),
    (["ckpt-convert", "--nonsense", "--json", "a", "b"], "usage"),
    (["ckpt-verify", "nonsense", "--json"], "usage"),
    (["ckpt-verify", "digest", "--jsonl", "gone"], "io"),
    (["ckpt-delta", "inspect", "--json", "gone"], "io"),
    (["ckpt-run", "--json", "--tokens", "gone", A], "io")])
def test_an_error_is_a_document_too(ckpt, args, reason, tmp_path):
    done = ckpt(*args, check=2, cwd=tmp_path)
    assert done.json == {"schema": "ckpt-error/1", "error": done.err.split(": ", 1)[1][:-1],
                         "reason": reason}


def test_without_json_an_error_is_only_on_stderr(ckpt):
    assert ckpt("ckpt-inspect", "gone", check=2).out == ""
    assert ckpt("ckpt-convert", "--bogus", "--", "--json", check=2).out == ""


# ---- threads ----

@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="there is only one core")
def test_threads_follow_the_affinity(tmp_path, fault):
    """A write that does not come back holds one thread: on one core there are as many as with -j 1.

    Not a number: there is the clock's thread, too, and a sanitizer may have one of its own.
    """
    core = min(os.sched_getaffinity(0))
    env = {**os.environ, **fault.env("pwrite:hang:40", "out.partial")}
    counts = []
    for prefix, options in ((["taskset", "-c", str(core)], []), ([], ["-j", "1"]), ([], [])):
        process = subprocess.Popen([*prefix, BUILD / "bin" / "ckpt-convert", "--dtype", "bf16",
                                    *options, "--restart", A, tmp_path / "out"], env=env,
                                   stderr=subprocess.DEVNULL)
        while "hang" not in "".join(fault.injected):
            assert process.poll() is None
        counts.append(len(os.listdir(f"/proc/{process.pid}/task")))
        process.kill()
        process.wait()
        (tmp_path / "fault.log").unlink()
    assert counts[0] == counts[1] and counts[2] > counts[0]


# ---- a path that fails among others ----

def test_paths_after_one_that_fails_are_read(ckpt, roots, tmp_path):
    gone = tmp_path / "nothing"
    done = ckpt("ckpt-verify", "digest", A, gone, B, check=2)
    assert done.out == roots and str(gone) in done.err
    done = ckpt("ckpt-verify", "digest", gone, A, gone, check=2)
    assert done.out == "".join(roots.splitlines(keepends=True)[:2])
    assert "2 of the checkpoints could not be read; the first: " in done.err


def test_a_document_of_several_ends_with_the_error(ckpt, tmp_path):
    for paths, count in (([A, tmp_path / "nothing", B], 2), ([tmp_path / "nothing", A], 1)):
        done = ckpt("ckpt-verify", "digest", "--json", *paths, check=2)
        document = json.loads(done.out)
        assert len(document["checkpoints"]) == count and "nothing" in document["error"]


def test_an_error_among_json_lines_is_a_line(ckpt, tmp_path):
    done = ckpt("ckpt-verify", "digest", "--jsonl", A, tmp_path / "nothing", B, check=2)
    lines = [json.loads(line) for line in done.out.splitlines()]
    assert [line["schema"] for line in lines] == ["ckpt-digest/1"] * 2 + ["ckpt-error/1"]
    assert "nothing" in lines[-1]["error"]


# ---- names that end as the mark of main does ----

@pytest.fixture
def named(ckpt, tmp_path):
    """Checkpoints "x", "x (main)" and "y (main)", and their list."""
    names = {"x": A, "x (main)": B, "y (main)": A}
    for name, source in names.items():
        (tmp_path / name).symlink_to(source)
    return tmp_path, ckpt("ckpt-verify", "digest", *names, cwd=tmp_path).out


def checked(ckpt, folder, text, check=0):
    return ckpt("ckpt-verify", "digest", "-c", "-", input=text, cwd=folder, check=check).out


def test_names_that_end_as_the_mark_are_names(ckpt, named):
    folder, text = named
    expected = [line[66:] + ": OK" for line in text.splitlines()]
    assert checked(ckpt, folder, text).splitlines() == expected and len(expected) == 6
    assert checked(ckpt, folder, "".join(text.splitlines(keepends=True)[2:])).splitlines() == \
        expected[2:]


def test_a_line_of_main_may_stand_alone(ckpt, named):
    folder, text = named
    lines = text.splitlines(keepends=True)
    (folder / "x (main)").unlink()
    assert checked(ckpt, folder, lines[1]) == "x (main): OK\n"
    assert checked(ckpt, folder, lines[4]) == "y (main): OK\n"
    assert checked(ckpt, folder, lines[5]) == "y (main) (main): OK\n"
    wrong = ("1" if lines[5][0] == "0" else "0") + lines[5][1:]
    assert checked(ckpt, folder, wrong, check=1) == "y (main) (main): FAILED\n"


def test_two_lists_are_refused(ckpt):
    err = ckpt("ckpt-verify", "digest", "-c", "one", "--check=two", check=2).err
    assert "--check is given twice, as 'one' and 'two'" in err
