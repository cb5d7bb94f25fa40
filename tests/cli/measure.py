"""The peak memory of a tool: run through a small Python, whose own memory does not count."""
import dataclasses
import os
import subprocess
import sys
import time

from conftest import BUILD, SANITIZER

# A process counts the memory it had before exec as its own: ours would drown a tool's.
LAUNCHER = """
import os, resource, subprocess, sys
status = subprocess.call(sys.argv[2:])
with open(sys.argv[1], "w") as file:
    print(status, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=file)
"""


@dataclasses.dataclass
class Measured:
    status: int
    peak_bytes: int
    seconds: float
    out: str
    err: str


def measure(tmp_path, tool, *args, env=None, timeout=300):
    note = tmp_path / "measured"
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-SEc", LAUNCHER, note, BUILD / "bin" / tool,
                           *map(str, args)], text=True, capture_output=True, timeout=timeout,
                          stdin=subprocess.DEVNULL, env={**os.environ, **SANITIZER, **(env or {})})
    seconds = time.monotonic() - begin
    status, peak_kib = map(int, note.read_text().split())
    print(f"{tool} {' '.join(map(str, args))}: {seconds:.2f} s, {peak_kib / 1024:.1f} MiB")
    return Measured(status, peak_kib * 1024, seconds, done.stdout, done.stderr)
