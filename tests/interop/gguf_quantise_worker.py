"""Runs in .venv/clients/gguf: IN.npz OUT.npz TYPE: rows of F32 as the package quantises them."""
import sys

import gguf
import numpy

kind = gguf.GGMLQuantizationType[sys.argv[3]]
numpy.savez(sys.argv[2], **{name: gguf.quants.quantize(values, kind)
                            for name, values in numpy.load(sys.argv[1]).items()})
