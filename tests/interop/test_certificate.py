"""Certificates and verifiers that we did not write: securesystemslib's DSSE, in-toto's statements,
OpenSSF model_signing. scripts/setup --tests installs them into .venv/clients/sigstore."""
import base64
import json
import pathlib
import shutil
import subprocess

import pytest

from conftest import DATA, ROOT, run_tool

CLIENT = ROOT / ".venv" / "clients" / "sigstore" / "bin"
WORKER = pathlib.Path(__file__).with_name("sigstore_worker.py")

pytestmark = pytest.mark.skipif(not (CLIENT / "python").exists(),
                                reason=f"{CLIENT} is not installed")


def make_key(folder, *args):
    private, public = folder / "key.pem", folder / "key.pub"
    subprocess.run(["openssl", "genpkey", *args, "-out", private], check=True,
                   capture_output=True)
    subprocess.run(["openssl", "pkey", "-in", private, "-pubout", "-out", public], check=True)
    return private, public


P256 = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]


def accept(envelope, public):
    return subprocess.run([CLIENT / "python", WORKER, envelope, public], capture_output=True,
                          text=True)


@pytest.mark.parametrize("key", [P256, ["-algorithm", "ed25519"]], ids=["p256", "ed25519"])
def test_another_verifier_accepts_the_envelope_and_refuses_a_tampered_one(key, tmp_path):
    private, public = make_key(tmp_path, *key)
    run_tool("ckpt-verify", "certify", "--out", tmp_path / "c.json", "--sign", private,
             DATA / "golden-a")
    done = accept(tmp_path / "c.json", public)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["predicateType"] == "urn:x-ckpt:certificate:v1"
    envelope = json.loads((tmp_path / "c.json").read_text())
    payload = bytearray(base64.b64decode(envelope["payload"]))
    payload[payload.index(b'"pass"') + 1] ^= 1
    envelope["payload"] = base64.b64encode(payload).decode()
    (tmp_path / "t.json").write_text(json.dumps(envelope))
    assert accept(tmp_path / "t.json", public).returncode == 1
    run_tool("ckpt-verify", "certificate", tmp_path / "t.json", "--key", public, check=1)


def test_the_statement_is_one_of_in_toto(tmp_path):
    run_tool("ckpt-verify", "certify", "--out", tmp_path / "c.json", DATA / "golden-a")
    script = ("import json, sys; from google.protobuf import json_format; "
              "from in_toto_attestation.v1 import statement_pb2, statement; "
              "pb = json_format.Parse(open(sys.argv[1]).read(), statement_pb2.Statement()); "
              "statement.Statement.copy_from_pb(pb).validate()")
    done = subprocess.run([CLIENT / "python", "-c", script, tmp_path / "c.json"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_model_signing_signs_a_folder_that_holds_our_certificate(tmp_path):
    private, public = make_key(tmp_path, *P256)
    model = tmp_path / "model"
    shutil.copytree(DATA / "golden-a", model)
    run_tool("ckpt-verify", "certify", "--out", model / "certificate.json", "--sign", private,
             model)

    def sign(verb, *words):
        return subprocess.run([CLIENT / "model_signing", verb, "key", model, "--signature",
                               model / "model.sig", *words], capture_output=True, text=True)

    assert sign("sign", "--private_key", private).returncode == 0
    assert sign("verify", "--public_key", public).returncode == 0
    run_tool("ckpt-verify", "certificate", "--files", "--key", public, model / "certificate.json",
             model)
    text = (model / "certificate.json").read_text()
    (model / "certificate.json").write_text(text.replace('"sig": "', '"sig":  "'))
    assert sign("verify", "--public_key", public).returncode != 0
