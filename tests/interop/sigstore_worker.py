"""Runs in .venv/clients/sigstore: envelope.json public.pem -> the payload, if securesystemslib
accepts a signature of it; else exit status 1."""
import json
import sys

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import VerificationError
from securesystemslib.signer import SSlibKey


def main(envelope_path, key_path):
    with open(envelope_path, encoding="utf-8") as file:
        document = json.load(file)
    with open(key_path, "rb") as file:
        key = SSlibKey.from_crypto(load_pem_public_key(file.read()),
                                   keyid=document["signatures"][0]["keyid"])
    envelope = Envelope.from_dict(document)
    try:
        envelope.verify([key], 1)
    except VerificationError:
        return 1
    sys.stdout.write(envelope.payload.decode())
    return 0


sys.exit(main(*sys.argv[1:]))
