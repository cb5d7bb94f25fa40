"""Fixtures of the download tests. A file with another repository overrides `hub` alone."""
import dataclasses
import pathlib
import ssl
import subprocess

import pytest

from client import Client, mixed
from mock_hub import Hub


@pytest.fixture
def hub():
    with Hub([mixed()]) as h:
        yield h


@pytest.fixture
def download(ckpt, hub, tmp_path):
    """download(...) runs ckpt-download against the hub."""
    return Client(ckpt, hub, tmp_path)


@dataclasses.dataclass
class Authority:
    """Who signed the certificate that a hub shows with tls=context."""
    certificate: pathlib.Path
    context: ssl.SSLContext


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = folder / "ca.pem", folder / "key.pem"
    names = "DNS:modelscope.cn,DNS:www.modelscope.ai,IP:127.0.0.1,IP:127.0.0.2"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-days", "2", "-keyout", key, "-out", certificate, "-subj", "/CN=mock",
         "-addext", f"subjectAltName={names}"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return Authority(certificate, context)
