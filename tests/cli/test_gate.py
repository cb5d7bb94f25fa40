"""scripts/gate, and the shell parts of the GitHub Action and the GitLab template around it, against
the mock hub."""
import json
import subprocess
import xml.etree.ElementTree

import pytest
import yaml

from client import ID, environment
from conftest import BUILD, DATA, ROOT, run_tool
from mock_hub import Entry, Hub, Repo

GATE = ROOT / "scripts" / "gate"


@pytest.fixture
def hub():
    """golden-a on a hub."""
    folder = DATA / "golden-a"
    with Hub([Repo(ID, [Entry(p.name, data=p.read_bytes(),
                              kind="lfs" if p.suffix == ".safetensors" else "git")
                        for p in sorted(folder.iterdir())])]) as h:
        yield h


@pytest.fixture
def candidate(tmp_path):
    run_tool("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", DATA / "golden-a",
             tmp_path / "bf16")
    return tmp_path / "bf16"


@pytest.fixture
def shell(hub, tmp_path):
    """shell(script, **variables) runs a part of a job in an empty folder."""
    work = tmp_path / "work"
    work.mkdir()

    def run(script, check=0, **variables):
        env = environment(hub, tmp_path / "home", CKPT_BIN=str(BUILD / "bin"), **variables)
        done = subprocess.run(["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
                              cwd=work, env=env, capture_output=True, text=True, timeout=300)
        assert done.returncode == check, done.stdout + done.stderr
        return done
    run.work = work
    return run


def certificate(folder):
    return json.loads((folder / "certificate.json").read_text())["predicate"]


def test_one_line_fetches_certifies_and_keeps(shell, candidate):
    shell(f"{GATE} out {ID} {candidate}", GATE_REQUIRE="origin values",
          GITHUB_STEP_SUMMARY=str(shell.work / "page.md"))
    predicate = certificate(shell.work / "out")
    assert predicate["verdict"] == "pass"
    assert predicate["checkpoints"][0]["origin"]["repo"] == ID
    checks = {(c["name"], c["checkpoint"]): c["verdict"] for c in predicate["checks"]}
    assert checks["files", "o--m"] == "pass" and checks["values", "bf16"] == "pass"
    assert "pass" in (shell.work / "page.md").read_text()
    assert sorted(p.name for p in (shell.work / "out").iterdir()) == \
        ["SHA256SUMS", "certificate.json", "junit.xml", "summary.md"]


def test_the_page_is_kept_where_it_is_asked_for(shell, candidate):
    shell(f"{GATE} out {ID} {candidate}", GATE_HTML="1")
    page = (shell.work / "out" / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and "<title>pass: o--m</title>" in page


def test_a_change_after_the_download_fails_against_the_listing(shell):
    shell(f"{GATE} out {ID}")
    config = shell.work / "ckpt-downloads" / "o--m" / "config.json"
    config.write_text(config.read_text() + "\n")
    shell(f"{GATE} out ckpt-downloads/o--m", check=1)
    assert {c["name"] for c in certificate(shell.work / "out")["checks"]
            if c["verdict"] == "fail"} == {"files"}
    suites = xml.etree.ElementTree.parse(shell.work / "out" / "junit.xml").getroot()
    assert suites[0].get("failures") == "1"


def test_what_is_neither_a_path_nor_a_repository_is_an_error(shell):
    assert "not OWNER/NAME" in shell(f"{GATE} out a/b/c", check=2).stderr
    assert "expected OUT" in shell(f"{GATE} out", check=2).stderr
    shell(f"{GATE} out o/absent", check=2)
    assert list(shell.work.iterdir()) == []


def test_an_error_is_not_taken_for_a_check_that_failed(shell, candidate):
    """A name in place of the key, a file in place of the folder: not status 1."""
    assert "expected the key itself" in shell(f"{GATE} out {candidate}", check=2,
                                              GATE_KEY="key.pem").stderr
    assert list(shell.work.iterdir()) == []
    (shell.work / "file").write_text("")
    assert "file" in shell(f"{GATE} file {candidate}", check=2).stderr


def steps_of_action():
    action = yaml.safe_load((ROOT / "scripts" / "action.yml").read_text())
    return action, {step["name"]: step for step in action["runs"]["steps"]}


def test_the_steps_of_the_github_action(shell, candidate, tmp_path):
    action, steps = steps_of_action()
    given = {"reference": ID, "candidates": f"{candidate}\n", "require": "candidate"}
    inputs = {name: given.get(name, value.get("default", ""))
              for name, value in action["inputs"].items()}
    key = tmp_path / "key.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True,
                   capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", tmp_path / "key.pub"],
                   check=True)
    inputs["key"] = key.read_text()
    variables = {name: inputs[text.removeprefix("${{ inputs.").removesuffix(" }}")]
                 for name, text in steps["certify"]["env"].items()}
    shell(steps["certify"]["run"], GITHUB_ACTION_PATH=str(ROOT / "scripts"), **variables)
    run_tool("ckpt-verify", "certificate", "--key", tmp_path / "key.pub",
             shell.work / "ckpt-gate" / "certificate.json", candidate)
    assert set(inputs) == {text.removeprefix("${{ inputs.").removesuffix(" }}")
                           for text in steps["certify"]["env"].values()}
    assert "GITHUB_ACTION_PATH" in steps["build"]["run"] and steps["keep"]["if"] == "always()"


def test_the_script_of_the_gitlab_template(shell, candidate):
    job = yaml.safe_load((ROOT / "scripts" / "gitlab-ci.yml").read_text())[".ckpt-gate"]
    variables = {**job["variables"], "GATE_REFERENCE": ID, "GATE_CANDIDATES": str(candidate),
                 "CKPT_SOURCE": str(ROOT)}
    if not (ROOT / "build" / "bin" / "ckpt-verify").exists():
        job["before_script"] = []
    shell("\n".join([*job["before_script"], *job["script"]]), **variables)
    assert certificate(shell.work / "ckpt-gate")["verdict"] == "pass"


def test_the_gate_of_a_user_is_short():
    for name in ("action.yml", "gitlab-ci.yml"):
        text = (ROOT / "scripts" / name).read_text()
        example = [line for line in text.splitlines() if line.startswith("#   ")]
        assert 0 < len(example) <= 5
