"""Peak memory and CPU time of a tool: run through a small Python, whose own does not count."""
import dataclasses
import os
import subprocess
import sys

from conftest import BUILD, SANITIZER

# A process counts the memory it had before exec as its own: ours would drown a tool's.
LAUNCHER = """
import os, resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
used = resource.getrusage(resource.RUSAGE_CHILDREN)
with open(sys.argv[1], "w") as file:
    print(status, used.ru_maxrss, used.ru_utime + used.ru_stime, file=file)
"""


@dataclasses.dataclass
class Measured:
    status: int
    peak_bytes: int
    cpu_seconds: float          # of all threads: what other processes do counts little
    out: str
    err: str


def measure(tmp_path, tool, *args, env=None, timeout=300):
    note = tmp_path / "measured"
    done = subprocess.run([sys.executable, "-SEc", LAUNCHER, note, BUILD / "bin" / tool,
                           *map(str, args)], text=True, capture_output=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, env={**os.environ, **SANITIZER, **(env or {})})
    status, peak_kib, seconds = note.read_text().split()
    result = Measured(int(status), int(peak_kib) * 1024, float(seconds), done.stdout, done.stderr)
    print(f"{tool} {' '.join(map(str, args))}: {result.cpu_seconds:.2f} s of CPU, "
          f"{result.peak_bytes / (1 << 20):.1f} MiB")
    return result
