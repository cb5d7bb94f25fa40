"""ckpt-download where memory is short: calls of libraries fail that otherwise never do."""
import time

from client import ID, MIB, Client, one, wait_for
from mock_hub import Entry, Hub, Repo

FILES = {"a.bin": 3 * MIB, "b.bin": MIB, "config.json": 700}


def failing(fault, call, run):
    """run(env) with one call after another failing, until there is no further such call."""
    for number in range(1, 200):
        done = run(**fault.env(f"{call}:ENOMEM:{number}"))
        if not fault.injected:
            assert number > 1
            return
        yield done


def listed_late():
    """The client has to wait for this listing, on the busiest machine, too."""
    time.sleep(0.1)
    return {}


def test_a_listing_that_ends_at_once_leaves_no_transfer_behind(ckpt, tmp_path, fault):
    """Above all the second listing, of a file that has changed. If that one fails, the run goes on
    with the hash it has, which is wrong: status 1. A wait that fails elsewhere ends the run."""
    again = 0
    for number in range(1, 100):
        answers = iter([{"Sha256": "0" * 64}])
        entry = Entry("f.bin", MIB // 4, 3, listed=lambda a=answers: next(a, None) or listed_late())
        folder = tmp_path / str(number)
        folder.mkdir()
        with Hub([Repo(ID, [entry, Entry("g.bin", MIB // 4, 4)])]) as hub:
            download = Client(ckpt, hub, folder)
            done = download("--hub", "modelscope", check=(0, 1, 2),
                            **fault.env(f"poll:ENOMEM:{number}"))
            if not fault.injected:
                break
            listed_twice = len([e for e in hub.log if "repo/files" in e["target"]]) == 2
            again += listed_twice
            if done.status == 1:
                assert listed_twice and "'f.bin' has the wrong hash after 3 downloads" in done.err
            else:
                assert done.status == 2 and "libcurl cannot wait" in done.err
            download("--hub", "modelscope", "--clean")   # a part under the other hash
            download.assert_right()
    assert number > 3 and again > 0


def test_a_request_goes_out_with_all_its_headers_or_not_at_all(ckpt, tmp_path, fault):
    files = [Entry(name, size, i) for i, (name, size) in enumerate(FILES.items())]
    with Hub([Repo(ID, files)]) as hub:
        download = Client(ckpt, hub, tmp_path)

        def run(**env):
            return download("--force-download", "--insecure-http", check=(0, 2),
                            HF_TOKEN=hub.token, **env)

        assert all(done.status == 2 for done in failing(fault, "append", run))
        assert hub.log and hub.requests(port="hub", has_authorization=False) == []


def test_no_part_is_begun_beside_one_whose_name_could_not_be_made(ckpt, tmp_path, fault):
    with Hub([one(8 * MIB)], connection_rate=MIB) as hub:
        download = Client(ckpt, hub, tmp_path)
        process = download.start()
        wait_for(lambda: hub.payload > 3 * MIB)
        download.stop(process)
        hub.connection_rate = None
        parts = [n for n in download.parts if n.endswith(".part")]
        assert len(parts) == 1

        def run(**env):
            return download(check=(0, 2), **env)

        for done in failing(fault, "digest", run):
            assert done.status == 2 and "cannot start a hash" in done.err
            assert [n for n in download.parts if n.endswith(".part")] == parts
        download.assert_right()
