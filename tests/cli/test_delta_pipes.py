"""ckpt-delta with '-': one stream, checked as it arrives; nothing appears before its end."""
import io
import re
import signal
import subprocess
import tarfile

import pytest

from cli.delta_models import drift, edit_config
from cli.trees import partial, tree
from conftest import BUILD, SANITIZER
from corrupt.files import INDEX

SIDE = "ckpt-delta.json"


@pytest.fixture(scope="module")
def steps(golden_a, tmp_path_factory):
    folder = tmp_path_factory.mktemp("steps")
    new = drift(golden_a, folder / "new")
    edit_config(new, rope_theta=54321)
    return golden_a, new


@pytest.fixture(scope="module")
def trained(ckpt, golden_a, tmp_path_factory):
    """Two steps without quantised weights, which SkyRL cannot read."""
    folder = tmp_path_factory.mktemp("trained")
    ckpt("ckpt-convert", "--no-manifest", "--dtype", "bf16", "--experts", "bf16", golden_a,
         folder / "old")
    return folder / "old", drift(folder / "old", folder / "new")


def stream_of(*args):
    """What the command writes to standard output."""
    done = subprocess.run([BUILD / "bin" / "ckpt-delta", *map(str, args)], capture_output=True,
                          env=SANITIZER, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def stream(steps, tmp_path_factory):
    spool = tmp_path_factory.mktemp("spool")
    sent = stream_of("diff", "--spool", spool, "--delta-version", 3, *steps, "-")
    assert list(spool.iterdir()) == []
    return sent


def members_of(stream):
    with tarfile.open(fileobj=io.BytesIO(stream)) as archive:
        return [(m, archive.extractfile(m).read()) for m in archive.getmembers()]


def archive_of(members):
    """A tar archive of (name, bytes)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return out.getvalue()


def test_a_delta_goes_through_a_pipe(ckpt, steps, stream, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    ckpt("ckpt-delta", "apply", "--spool", spool, steps[0], "-", tmp_path / "out", input=stream)
    assert tree(tmp_path / "out") == tree(steps[1])
    assert list(spool.iterdir()) == []


@pytest.mark.parametrize("options, what", [([], "a delta stream"),
                                           (["--base", "none"], "a packed checkpoint")])
def test_the_closing_line_says_where_a_stream_went(steps, tmp_path, options, what):
    inputs = steps[1:] if options else steps
    done = subprocess.run([BUILD / "bin" / "ckpt-delta", "diff", *options, "--spool", tmp_path,
                           *inputs, "-"], capture_output=True, env=SANITIZER, timeout=300,
                          check=True)
    last = done.stderr.decode().splitlines()[-1]
    assert last.startswith(f"ckpt-delta: wrote {what} to standard output: "), last


def test_the_stream_is_the_folder_as_a_tar(ckpt, steps, stream, tmp_path):
    ckpt("ckpt-delta", "diff", *steps, tmp_path / "weight_v000003")
    members = members_of(stream)
    assert members[0][0].name == SIDE
    assert {m.name: data for m, data in members} == {
        str(p.relative_to(tmp_path / "weight_v000003")): p.read_bytes()
        for p in (tmp_path / "weight_v000003").rglob("*") if p.is_file()}
    assert any(m.name.startswith("carried/") for m, _ in members)


def test_other_tars_of_the_same_files_are_read(ckpt, steps, stream):
    """GNU tar pads its end to 10 KiB, and uses its own order."""
    first, *others = [(m.name, data) for m, data in members_of(stream)]
    said = ckpt("ckpt-delta", "verify", "--json", steps[0], "-",
                input=archive_of([first, *others[::-1]]))
    assert '"version": "000003"' in said.out


def test_reverse_and_squash_read_and_write_streams(ckpt, steps, stream, tmp_path):
    for command in ("squash", "reverse"):
        done = subprocess.run([BUILD / "bin" / "ckpt-delta", command, steps[0], "-", "-"],
                              input=stream, capture_output=True, env=SANITIZER, timeout=300,
                              check=True)
        assert members_of(done.stdout)[0][0].name == SIDE
    ckpt("ckpt-delta", "apply", steps[1], "-", tmp_path / "back", input=done.stdout)
    assert tree(tmp_path / "back") == tree(steps[0])


def test_a_stream_that_is_cut_is_refused(ckpt, steps, stream, tmp_path):
    (tmp_path / "spool").mkdir()
    for size in (0, 100, 512, len(stream) // 2, len(stream) - 1024, len(stream) - 512,
                 len(stream) - 1):
        said = ckpt("ckpt-delta", "apply", "--spool", tmp_path / "spool", steps[0], "-",
                    tmp_path / "out", input=stream[:size], check=2).err
        assert "ends early" in said, size
        assert sorted(p.name for p in tmp_path.rglob("*")) == ["spool"]


def spoil_byte(members):
    name, data = members[-1]
    members[-1] = (name, data[:-1] + bytes([data[-1] ^ 1]))
    return "is damaged in"


def spoil_missing(members):
    members.pop()
    return "lacks"


def spoil_twice(members):
    members.append(members[-1])
    return "twice"


def spoil_unknown(members):
    members.append(("more.bin", b"1"))
    return "does not list"


def spoil_path(members):
    members.append(("../out", b"1"))
    return "names below the folder"


def spoil_order(members):
    members.append(members.pop(0))
    return "begins with"


@pytest.mark.parametrize("spoil", [spoil_byte, spoil_missing, spoil_twice, spoil_unknown,
                                   spoil_path, spoil_order])
def test_a_stream_that_is_not_what_it_says_is_refused(ckpt, steps, stream, tmp_path, spoil):
    (tmp_path / "spool").mkdir()
    members = [(m.name, data) for m, data in members_of(stream)]
    expected = spoil(members)
    said = ckpt("ckpt-delta", "apply", "--spool", tmp_path / "spool", steps[0], "-",
                tmp_path / "out", input=archive_of(members), check=2).err
    assert expected in said
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["spool"]


def flip(pattern):
    """A function that changes the last digit or letter of what `pattern` finds first."""
    def change(side):
        found = re.search(pattern, side)
        last = found.end(1) - 1
        return side[:last] + bytes([side[last] ^ 1]) + side[last + 1:]
    return change


@pytest.mark.parametrize("change, says", [
    (flip(rb'"base": {\s*"root": "(\w+)'), "tells a wrong root"),
    (flip(rb'"result": {\s*"root": "(\w+)'), "tells a wrong root"),
    (flip(rb'"before": "(\w+)'), "but its data file says"),
    (flip(rb'"after": "(\w+)'), "but its data file says"),
    (flip(rb'"(carried)"'), "files or carried"), (flip(rb'"(files)"'), "files or carried"),
], ids=["base", "result", "before", "after", "carried", "files"])
def test_a_damaged_side_file_is_not_taken_for_another_base(ckpt, steps, stream, change, says):
    """It has the hashes of all other files, and nothing has its own."""
    (side, text), *others = [(m.name, data) for m, data in members_of(stream)]
    spoilt = archive_of([(side, change(text)), *others])
    if "carried" in says:            # every file of a stream must be listed
        says += "|does not list"
    for command in (["verify", steps[0], "-"], ["squash", steps[0], "-", "-"],
                    ["reverse", steps[0], "-", "-"]):
        said = ckpt("ckpt-delta", *command, input=spoilt, check=2).err
        assert any(text in said for text in says.split("|")), said


def test_another_base_is_not_taken_for_damage(ckpt, golden_a, tmp_path):
    """It differs where the delta changes nothing."""
    new = drift(golden_a, tmp_path / "new", only=lambda name: "layers.1" in name)
    other = drift(golden_a, tmp_path / "other", only=lambda name: "layers.2" in name)
    delta = stream_of("diff", golden_a, new, "-")
    for command, says in ((["verify", other, "-"], "others are not"),
                          (["squash", other, "-", "-"], "do not change")):
        assert says in ckpt("ckpt-delta", *command, input=delta, check=1).err


def test_bytes_that_are_not_a_tar_or_lie_behind_it_are_refused(ckpt, steps, stream, tmp_path):
    for data, expected in ((b"x" * 4096, "is not a delta"), (stream + b"x", "behind its end")):
        said = ckpt("ckpt-delta", "verify", steps[0], "-", input=data, check=2).err
        assert expected in said


def test_a_link_in_a_stream_is_refused(ckpt, steps, stream):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for member, data in members_of(stream):
            if member.name == INDEX:
                member.type, member.linkname, member.size = tarfile.SYMTYPE, "/etc/passwd", 0
            archive.addfile(member, io.BytesIO(data))
    said = ckpt("ckpt-delta", "verify", steps[0], "-", input=out.getvalue(), check=2).err
    assert "expected regular files" in said


def test_a_killed_apply_goes_on_with_a_second_stream(ckpt, fault, steps, stream, tmp_path):
    target = tmp_path / "run" / "out"
    target.parent.mkdir()
    ckpt("ckpt-delta", "apply", steps[0], "-", target, input=stream, check=-signal.SIGKILL,
         env=fault.env("write:kill:60", partial(target)))
    assert fault.injected and partial(target).exists()
    said = ckpt("ckpt-delta", "apply", "--json", steps[0], "-", target, input=stream)
    assert said.json["kept"] > 0
    assert tree(target) == tree(steps[1])


def test_an_interrupt_while_the_sender_is_silent_ends_the_run(steps, stream, tmp_path):
    with subprocess.Popen([BUILD / "bin" / "ckpt-delta", "apply", "--spool", tmp_path, steps[0],
                           "-", tmp_path / "out"], stdin=subprocess.PIPE, stderr=subprocess.PIPE,
                          env=SANITIZER) as process:
        process.stdin.write(stream[:600])
        process.stdin.flush()
        while not list(tmp_path.glob(".ckpt-delta-*")):
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert b"interrupted" in said and b"resume" not in said
    assert process.returncode == -signal.SIGINT
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_with_a_stream_says_the_plan(ckpt, steps, tmp_path):
    (tmp_path / "spool").mkdir()
    said = ckpt("ckpt-delta", "diff", "--dry-run", "--spool", tmp_path / "spool", *steps, "-").out
    assert said.startswith("plan: version 000001")
    assert list((tmp_path / "spool").iterdir()) == []


def test_errors_call_a_stream_as_it_was_given(ckpt, steps, stream, tmp_path):
    said = ckpt("ckpt-delta", "apply", "--spool", tmp_path, steps[1], "-", tmp_path / "out",
                input=stream, check=1).err
    assert "'-'" in said and ".ckpt-delta-" not in said


def test_what_cannot_go_with_a_stream_is_refused(ckpt, steps):
    for option in ("--json", "--measure"):
        said = ckpt("ckpt-delta", "diff", option, *steps, "-", check=2).err
        assert "standard output" in said
    said = ckpt("ckpt-delta", "verify", steps[0], "-", "-", input=b"", check=2).err
    assert "standard input has one delta" in said


def test_a_packed_checkpoint_goes_through_a_pipe(ckpt, golden_a, tmp_path):
    spool = tmp_path / "spool"
    spool.mkdir()
    ckpt("ckpt-delta", "diff", "--base", "none", golden_a, tmp_path / "p.ckpt")
    sent = stream_of("diff", "--base", "none", "--spool", spool, golden_a, "-")
    assert sent == (tmp_path / "p.ckpt").read_bytes()
    ckpt("ckpt-delta", "apply", "--base", "none", "--spool", spool, "-", tmp_path / "out",
         input=sent)
    assert tree(tmp_path / "out") == tree(golden_a)
    for cut in (0, 5, len(sent) // 2, len(sent) - 1):
        said = ckpt("ckpt-delta", "apply", "--base", "none", "--spool", spool, "-",
                    tmp_path / "cut", input=sent[:cut], check=2).err
        assert "'-' is not a" in said and "packed checkpoint" in said
    said = ckpt("ckpt-delta", "diff", "--json", "--base", "none", golden_a, "-", check=2).json
    assert "'-' writes to standard output" in said["error"]
    assert list(spool.iterdir()) == []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "p.ckpt", "spool"]


def test_a_delta_for_skyrl_goes_through_a_pipe_and_is_measured(ckpt, trained, tmp_path):
    """Its data files have other names, and nothing of them is left."""
    spool = tmp_path / "spool"
    spool.mkdir()
    sent = stream_of("diff", "--spool", spool, "--format", "skyrl", *trained, "-")
    assert "manifest.json" in {m.name for m, _ in members_of(sent)}
    assert list(spool.iterdir()) == []
    ckpt("ckpt-delta", "apply", trained[0], "-", tmp_path / "out", input=sent)
    assert tree(tmp_path / "out") == tree(trained[1])
    ckpt("ckpt-delta", "diff", "--measure", "--format", "skyrl", *trained, tmp_path / "d")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "spool"]
