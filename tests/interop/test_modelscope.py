"""Against the real ModelScope client, which scripts/setup --tests puts into .venv/clients."""
import subprocess

import pytest

from client import ID, environment
from conftest import ROOT

COMMAND = ROOT / ".venv/clients/modelscope/bin/modelscope"
pytestmark = pytest.mark.skipif(not COMMAND.exists(), reason=f"{COMMAND} is not installed")


def theirs(download, tmp_path):
    env = environment(download.hub, tmp_path / "home", HOME=str(tmp_path / "user"))
    done = subprocess.run([COMMAND, "download", ID, "--local_dir", download.folder], env=env,
                          capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_after_theirs_ours_verifies_and_fetches_nothing(hub, download, tmp_path):
    theirs(download, tmp_path)
    hub.reset()
    result = download("--hub", "modelscope").json
    assert {f["status"] for f in result["files"]} == {"kept"} and hub.payload == 0


def test_after_ours_theirs_fetches_nothing(hub, download, tmp_path):
    download("--hub", "modelscope")
    hub.reset()
    theirs(download, tmp_path)
    assert hub.payload == 0
    download.assert_right()
