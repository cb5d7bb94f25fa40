"""Runs in .venv/clients/gguf: FILE OUT.json OUT.npz: what the package gguf reads of a file.

The JSON has keys (name, types, value) and tensors (name, type, ne, bytes, SHA-256 of the bytes);
the other file has the values of each tensor, dequantised where it has codes.
"""
import hashlib
import json
import sys

import gguf
import numpy

reader = gguf.GGUFReader(sys.argv[1])
plain = {"F32", "F16", "BF16", "F64", "I8", "I16", "I32", "I64"}
keys = [{"key": f.name, "types": [t.name for t in f.types], "value": f.contents()}
        for f in reader.fields.values()]
tensors, values = [], {}
for t in reader.tensors:
    raw = t.data.tobytes()
    tensors.append({"name": t.name, "type": t.tensor_type.name, "ne": [int(n) for n in t.shape],
                    "offset": int(t.data_offset), "bytes": len(raw),
                    "sha256": hashlib.sha256(raw).hexdigest()})
    integers = t.tensor_type.name.startswith("I") and t.tensor_type.name in plain
    values[t.name] = t.data if integers else gguf.quants.dequantize(
        t.data, t.tensor_type).astype("<f4")
with open(sys.argv[2], "w") as f:
    json.dump({"keys": keys, "tensors": tensors}, f)
numpy.savez(sys.argv[3], **values)
