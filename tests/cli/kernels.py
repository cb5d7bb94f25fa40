"""Which kernels this CPU can run, by its own word: a tool that fails with them is no reason."""
import pathlib

import pytest

from conftest import run_tool

FLAGS = {"scalar": set(), "avx2": {"avx2", "fma", "f16c", "bmi2"},
         "avx512": {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512vbmi",
                    "avx512_vbmi2"}}


def cpu_flags():
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("flags"):
            return set(line.split(":")[1].split())
    return set()


def needs_kernels(name):
    """Skip the test where the CPU lacks what these kernels are made of."""
    missing = FLAGS[name] - cpu_flags()
    if missing:
        pytest.skip(f"this CPU has no {' '.join(sorted(missing))}")


@pytest.fixture(params=FLAGS)
def tool(request):
    """run_tool with one set of kernels; import it where it is used."""
    needs_kernels(request.param)
    return lambda *args, **how: run_tool(*args, env={"CKPT_KERNELS": request.param}, **how)
