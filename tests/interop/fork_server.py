"""Runs a worker as often as asked: its imports, of torch and megatron-core, take seconds, a fork
none.

    fork_server.py WORKER.py

Every line of stdin is a list, the worker's words. The answer is a line with the list of the status,
stdout and stderr that WORKER.run(words) had in a process of its own.
"""
import importlib
import json
import os
import pathlib
import sys
import tempfile
import traceback


def run(work, words):
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            status = 1
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                work(words)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in out, err:
            file.seek(0)
        return status, out.read().decode(), err.read().decode()


def main():
    # What libraries print is no answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    script = pathlib.Path(sys.argv[1])
    sys.path.insert(0, str(script.parent))
    worker = importlib.import_module(script.stem)
    for line in sys.stdin:
        print(json.dumps(run(worker.run, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
