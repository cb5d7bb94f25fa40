#!/usr/bin/env python3
"""bench_download [SCENARIO...]: ckpt-download beside `hf download` (Xet off) and plain curl.

From the mock hub on loopback to $CKPT_BENCH_DIR (default /dev/shm). Seconds are wall time, CPU is
the client's user and system time; that of the server beside it tells whether the server was the
limit. Clients take turns, and the median of the rounds counts. curl does not verify and asks for no
listing: once as one process for whole files, once as four at the same time, each with a quarter of
every file.
  plain   2 GB in 20 files, no cap: what the client itself costs
  url     a checkpoint of 2 GB in 20 shards: downloaded, and digested by its URL without a copy
  capped  0.8 GB in 8 files, 40 MB/s a connection: what parallel ranges are worth
  small   2000 files of 4 kB
  knee    the total falls above 6 connections: the search against fixed numbers
"""
import contextlib
import json
import os
import pathlib
import resource
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "hub"), str(ROOT / "tests")]
from client import environment  # noqa: E402
from content import Content  # noqa: E402
from memory import touch_memory  # noqa: E402
from mock_hub import Entry, Hub, Repo  # noqa: E402

BIN = ROOT / os.environ.get("CKPT_BUILD", "build") / "bin"
TOOL = BIN / "ckpt-download"
HF = ROOT / ".venv/bin/hf"
GB = 10**9
ROUNDS = int(os.environ.get("CKPT_BENCH_ROUNDS", "3"))


def own_cpu():
    """CPU seconds of this process, of which the server is a thread."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def measure(commands, env):
    """Seconds, CPU seconds, those of the server, and exit status of commands that run at the same
    time."""
    begin = time.monotonic()
    server = -own_cpu()
    cpu = status = 0
    with open(os.devnull, "w", encoding="utf-8") as null:
        processes = [subprocess.Popen([str(w) for w in words], env=env, stdout=null, stderr=null)
                     for words in commands]
        for process in processes:
            _, waited, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(waited)
            cpu += usage.ru_utime + usage.ru_stime
            status = status or process.returncode
    return time.monotonic() - begin, cpu, server + own_cpu(), status


def curl_command(curl, hub, folder, part=0, of=1):
    """One curl for the same part of every file."""
    words = [curl, "-sfL", "--create-dirs"]
    for i, f in enumerate(hub.repos["o/m"].files):
        first, end = f.size * part // of, f.size * (part + 1) // of
        words += ["--next", "-sfL"] if i > 0 else []
        words += ["-r", f"{first}-{end - 1}"] if of > 1 else []
        words += ["-o", folder / f"{f.path}.{part}", f"{hub.url}/o/m/resolve/main/{f.path}"]
    return words


def clients(hub, folder):
    """Names of clients, and the commands of each."""
    yield "ckpt-download", [[TOOL, "o/m", "--local-dir", folder, "--quiet"]]
    if HF.exists():
        yield "hf download", [[HF, "download", "o/m", "--local-dir", folder]]
    if curl := shutil.which("curl"):
        yield "one curl", [curl_command(curl, hub, folder)]
        yield "four curls", [curl_command(curl, hub, folder, i, 4) for i in range(4)]


def run_client(hub, commands, total):
    """One run in a folder of its own: what measure() says, and the number of requests."""
    with scratch() as folder:
        hub.reset()
        env = environment(hub, folder / "home", HF_HUB_DISABLE_XET="1",
                          HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_DISABLE_UPDATE_CHECK="1",
                          HF_HUB_DISABLE_PROGRESS_BARS="1")
        os.chdir(folder)
        touch_memory(folder, total)
        return *measure(commands, env), len(hub.log)


def compare(name, files, names=clients, **options):
    """The median seconds of each client, by its name."""
    total = sum(f.size for f in files)
    seconds = {}
    with Hub([Repo("o/m", files)], **options) as hub:
        for f in files:
            f.etag      # hashed before anybody is timed
        runs = {}
        for _ in range(ROUNDS):
            for client, commands in names(hub, pathlib.Path("D")):
                runs.setdefault(client, []).append(run_client(hub, commands, total))
        for client, done in runs.items():
            seconds[client], cpu, server, _, requests = map(statistics.median, zip(*done))
            print(f"{name:7} {client:14} {total / seconds[client] / 1e6:8.0f} MB/s  "
                  f"{seconds[client]:6.2f} s  {cpu:6.2f} CPU s  {cpu * GB / total:5.2f} CPU s/GB  "
                  f"{server:5.2f} of the server  {requests:5.0f} requests  "
                  f"exit {max(run[3] for run in done)}", flush=True)
    return seconds


def tell_rate(name, seconds, client, other):
    if client in seconds and other in seconds:
        ratio = seconds[other] / seconds[client]
        print(f"{name:7} {client} has {ratio:.2f} of the rate of {other}", flush=True)


@contextlib.contextmanager
def scratch():
    folder = pathlib.Path(tempfile.mkdtemp(dir=os.environ.get("CKPT_BENCH_DIR", "/dev/shm")))
    try:
        yield folder
    finally:
        os.chdir("/")
        shutil.rmtree(folder)


def plain():
    seconds = compare("plain", [Entry(f"model-{i}.bin", 2 * GB // 20, i) for i in range(20)])
    tell_rate("plain", seconds, "ckpt-download", "one curl")


class Shard(Content):
    """A safetensors file of one BF16 tensor."""

    def __init__(self, name, rows, seed):
        super().__init__(rows * 8192, seed)
        text = json.dumps({name: {"dtype": "BF16", "shape": [rows, 4096],
                                  "data_offsets": [0, self.size]}}).encode()
        self.header = struct.pack("<Q", len(text)) + text
        self.size += len(self.header)

    def pieces(self, start, end):
        skip = len(self.header)
        if start < skip:
            yield memoryview(self.header)[start:min(end, skip)]
        if end > skip:
            yield from super().pieces(max(start - skip, 0), end - skip)


def url_clients(hub, folder):
    yield "ckpt-download", [[TOOL, "o/m", "--local-dir", folder, "--quiet"]]
    yield "digest by URL", [[BIN / "ckpt-verify", "digest", "hf://o/m"]]


def url():
    names = [f"model-{i + 1:05}-of-00020.safetensors" for i in range(20)]
    index = {"metadata": {}, "weight_map": {f"t{i}": name for i, name in enumerate(names)}}
    files = [Entry("model.safetensors.index.json", data=json.dumps(index).encode(), kind="git")]
    for i, name in enumerate(names):
        files.append(Entry(name, 0))
        files[-1].content = Shard(f"t{i}", 2 * GB // 20 // 8192, i)
    tell_rate("url", compare("url", files, url_clients), "digest by URL", "ckpt-download")


def capped():
    compare("capped", [Entry(f"model-{i}.bin", GB // 10, i) for i in range(8)],
            connection_rate=40e6)


def small():
    compare("small", [Entry(f"f{i}.txt", 4096, i, "git", "direct") for i in range(2000)])


def knee():
    files = [Entry(f"model-{i}.bin", 240 * 10**6, i) for i in range(5)]
    rates = {}
    for count in (2, 4, 6, 8, 0):
        with Hub([Repo("o/m", files)], knee=(6, 60e6), latency=0.02) as hub, scratch() as folder:
            words = [TOOL, "o/m", "--local-dir", folder / "D", "--quiet"]
            words += ["--connections", count, "--fixed-connections"] if count else []
            seconds, _, _, status = measure([words], environment(hub, folder / "home"))
            rates[count] = sum(f.size for f in files) / seconds / 1e6
            print(f"knee    {count or 'search':>6} connections {rates[count]:6.1f} MB/s  "
                  f"{seconds:6.2f} s  exit {status}", flush=True)
    best = max(rates[c] for c in rates if c)
    print(f"knee    the search reaches {100 * rates[0] / best:.0f} % of the best fixed number")


def main():
    scenarios = {"plain": plain, "url": url, "capped": capped, "small": small, "knee": knee}
    for name in sys.argv[1:] or ("plain", "url", "capped", "small"):
        scenarios[name]()


if __name__ == "__main__":
    main()
