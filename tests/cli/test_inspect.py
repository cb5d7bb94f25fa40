"""ckpt-inspect: what it lists is what the headers say."""
import fnmatch
import json
import signal
import subprocess

import pytest

from corrupt.files import Model, read_header

BITS = {"BF16": 16, "F32": 32, "I64": 64, "I8": 8, "F8_E4M3": 8, "F8_E8M0": 8}


def headers(path):
    """{name: (dtype, shape, bytes, file)} from the files themselves."""
    found = {}
    for p in path.glob("*.safetensors"):
        for name, h in read_header(p)[0].items():
            begin, end = h["data_offsets"]
            found[name] = (h["dtype"], h["shape"], end - begin, p.name)
    return found


def test_every_stored_tensor_is_listed(ckpt, golden):
    doc = ckpt("ckpt-inspect", "--json", golden).json
    listed = {t["name"]: (t["dtype"], t["shape"], t["bytes"], t["file"]) for t in doc["tensors"]}
    assert listed == headers(golden) and len(doc["tensors"]) == len(listed)
    assert doc["layout"] == "hf" and doc["family"] == "deepseek_v4" and doc["names"] == "native"
    assert doc["config"] == json.loads((golden / "config.json").read_text())
    assert {f["name"]: f["bytes"] for f in doc["files"]} == {
        p.name: p.stat().st_size for p in golden.glob("*.safetensors")}


def test_totals_add_up(ckpt, golden):
    expected = headers(golden)
    totals = ckpt("ckpt-inspect", "--json", "--summary", golden).json["totals"]
    for dtype in {d for d, *_ in expected.values()}:
        sizes = [b for d, _, b, _ in expected.values() if d == dtype]
        assert totals[dtype] == {"tensor_count": len(sizes), "bytes": sum(sizes),
                                 "elements": sum(sizes) * 8 // BITS[dtype]}
    for key in "tensor_count", "bytes", "elements":
        assert totals["all"][key] == sum(t[key] for d, t in totals.items() if d != "all")


def test_logical_tensors_carry_their_scales(ckpt, golden):
    stored = headers(golden)
    logical = ckpt("ckpt-inspect", "--json", "--logical", golden).json["tensors"]
    digests = ckpt("ckpt-verify", "digest", "--json", golden).json["tensors"]
    assert sorted((t["name"], t["encoding"], tuple(t["shape"])) for t in logical) == sorted(
        (t["name"], t["encoding"], tuple(t["shape"])) for t in digests)
    expert = next(t for t in logical if t["name"] == "layers.1.ffn.experts.2.w1.weight")
    rows, packed = stored[expert["name"]][1]
    assert expert["encoding"] == "F4 1x32 F8_E8M0" and expert["shape"] == [rows, 2 * packed]
    assert expert["bytes"] == rows * packed + rows * packed // 16
    assert not any(t["name"].endswith(".scale") for t in logical)


@pytest.mark.parametrize("globs", [["*.experts.1.*"], ["embed.*", "head.*"], ["*"]])
def test_globs_choose(ckpt, golden, globs):
    options = [word for g in globs for word in ("--tensors", g)]
    doc = ckpt("ckpt-inspect", "--json", *options, golden).json
    chosen = {n for n in headers(golden) if any(fnmatch.fnmatchcase(n, g) for g in globs)}
    assert {t["name"] for t in doc["tensors"]} == chosen and chosen
    assert doc["totals"]["all"]["tensor_count"] == len(chosen)


def test_a_glob_that_matches_nothing_is_told(ckpt, golden):
    for others in [], ["--tensors", "embed.*"]:
        said = ckpt("ckpt-inspect", *others, "--tensors", "zzz*", golden, check=2)
        assert "'zzz*'" in said.err and said.out == ""


def test_the_text_has_a_line_for_each_tensor(ckpt, golden):
    lines = ckpt("ckpt-inspect", golden).out.splitlines()
    expected = headers(golden)
    for line in lines[:len(expected)]:
        name, dtype, *shape, size, file = line.split()
        assert (dtype, json.loads("".join(shape)), int(size), file) == (
            expected[name][0], *expected[name][1:])
    assert lines[len(expected)] == ""
    text = "\n".join(lines[len(expected):])
    assert "layout    hf, " in text and "family    deepseek_v4" in text
    assert "model_type deepseek_v4" in text


def test_the_summary_is_the_end_of_the_list(ckpt, golden):
    summary = ckpt("ckpt-inspect", "--summary", golden).out
    assert ckpt("ckpt-inspect", golden).out.endswith("\n" + summary)
    assert len(summary.splitlines()) < 20


def test_one_file_is_a_checkpoint_too(ckpt, golden):
    file = sorted(golden.glob("*.safetensors"))[0]
    doc = ckpt("ckpt-inspect", "--json", file).json
    assert doc["layout"] == "safetensors"
    assert {t["name"] for t in doc["tensors"]} == set(read_header(file)[0])


def test_what_lenient_lets_pass_is_noted(ckpt, golden, tmp_path):
    c = Model(golden)
    c.stale["nowhere.weight"] = next(iter(c.files))
    path = c.write(tmp_path / "c")
    ckpt("ckpt-inspect", path, check=2)
    assert any("nowhere.weight" in n for n in
               ckpt("ckpt-inspect", "--json", "--lenient", path).json["notes"])
    assert "note      " in ckpt("ckpt-inspect", "--lenient", path).out


def test_a_reader_that_goes_away_is_no_noise(build, golden):
    tool = subprocess.Popen([build / "bin" / "ckpt-inspect", "--json", golden],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    tool.stdout.read(1)
    tool.stdout.close()
    assert tool.stderr.read() == b""
    assert tool.wait() in (0, -signal.SIGPIPE)
    tool.stderr.close()
