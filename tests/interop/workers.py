"""Processes that have imported torch or megatron-core and answer the requests of tests."""
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
HANG_SECONDS = 600


class Server:
    """A Python process that answers each line of JSON with one."""

    def __init__(self, *words):
        self.errors = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [sys.executable, *words], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.errors,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""})

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        self.process.stdin.close()
        try:
            assert self.process.wait(60) == 0
        finally:
            self.process.kill()
            self.process.stdout.close()
            self.errors.close()

    def send(self, request):
        print(json.dumps(request), file=self.process.stdin, flush=True)

    def receive(self):
        if not select.select([self.process.stdout], [], [], HANG_SECONDS)[0]:
            self.process.kill()
            raise AssertionError("no answer")
        answer = self.process.stdout.readline()
        if not answer:
            self.errors.seek(0)
            raise AssertionError(self.errors.read()[-4000:])
        return json.loads(answer)

    def ask(self, request):
        self.send(request)
        return self.receive()


class Forks(Server):
    """run(...) is WORKER.py with these words; its output when all went well."""

    def __init__(self, script):
        super().__init__(HERE / "fork_server.py", HERE / script)

    def __call__(self, *words):
        status, out, err = self.ask([str(word) for word in words])
        assert status == 0, err[-4000:]
        return out
