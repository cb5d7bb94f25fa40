"""scripts/prepare-megatron: the folders that a miles launcher looks for."""
import json
import os
import shutil
import subprocess

import pytest

from cli.trees import tree
from client import environment
from conftest import BUILD, ROOT
from mock_hub import Entry, Hub, Repo

SCRIPT = ROOT / "scripts" / "prepare-megatron"
TRACKER = "latest_checkpointed_iteration.txt"


@pytest.fixture
def prepare(tmp_path):
    """prepare(*options, **variables) -> (status, stdout, stderr), with stubs for the network."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    (stubs / "rsync").write_text(                      # -a [--exclude /NAME] FROM/ [HOST:]TO/
        '#!/bin/bash\necho "rsync $*" >> "$LOG"\n'
        'skip=; [ "$2" != --exclude ] || skip=${3#/}\n'
        'from=${@: -2:1}; to=${@: -1}; to=${to#*:}\n'
        '(cd "$from" && find . -type f) | while read -r f; do\n'
        '  [ "${f#./}" != "$skip" ] || continue\n'
        '  mkdir -p "$to/$(dirname "$f")" && cp -p "$from/$f" "$to/$f"; done\n')
    (stubs / "ssh").write_text('#!/bin/bash\necho "ssh $*" >> "$LOG"\nshift; eval "$*"\n')
    (stubs / "srun").write_text('#!/bin/bash\necho "srun $*" >> "$LOG"\n'
                                'while [ "$1" != bash ]; do shift; done; "$@"\n')
    for stub in stubs.iterdir():
        stub.chmod(0o755)

    def run(*options, check=0, **variables):
        clean = {k: v for k, v in os.environ.items()
                 if not k.startswith(("MILES_SCRIPT_", "SLURM_"))}
        done = subprocess.run([SCRIPT, *map(str, options)], text=True, capture_output=True,
                              env={**clean, "BIN": str(BUILD / "bin"),
                                   "PATH": f"{stubs}:{os.environ['PATH']}",
                                   "LOG": str(tmp_path / "log"), **variables})
        assert done.returncode == check, done.stdout + done.stderr
        return done
    return run


def log(tmp_path):
    path = tmp_path / "log"
    return path.read_text().splitlines() if path.exists() else []


def test_help_names_every_option_and_stage(prepare):
    said = prepare("--help").stdout
    for word in ("--model-name", "--model-org", "--model-dir", "--model-local-dir", "--num-nodes",
                 "--hf-checkpoint", "--hosts", "--stages", "--force", "--dry-run", "--data-dir",
                 "--datasets", "MILES_SCRIPT_DATA_DIR", "download", "datasets",
                 "verify", "fp8", "bf16", "torch_dist", "copy", "MILES_SCRIPT_MODEL_DIR"):
        assert word in said
    # Every step of the launcher, and which of them has something to do all the same.
    for step in ("train", "full-train", "prepare-download", "prepare-fp8", "prepare-single",
                 "prepare-spmd", "prepare-cp", "prepare-mxfp8"):
        assert f"\n  {step} " in said
    assert "nothing to do" not in said
    assert max(map(len, said.splitlines())) <= 100


def test_dry_run_prints_the_commands_and_does_nothing(prepare, tmp_path):
    models, disk = tmp_path / "models", tmp_path / "disk"
    said = prepare("--dry-run", "--model-name", "DeepSeek-V4-Flash-0731", "--model-dir", models,
                   "--model-local-dir", disk, "--data-dir", tmp_path / "data", "--hosts",
                   "n1,n2").stdout
    bin = BUILD / "bin"
    name = models / "DeepSeek-V4-Flash-0731"
    commands = [line[2:] for line in said.splitlines() if line.startswith("+ ")]
    assert [c for c in commands if c.startswith(str(bin))] == [
        f"{bin}/ckpt-download deepseek-ai/DeepSeek-V4-Flash-0731 --local-dir {name}",
        *(f"{bin}/ckpt-download --repo-type dataset zhuzilin/{data} --local-dir "
          f"{tmp_path}/data/{data}" for data in ("dapo-math-17k", "aime-2024")),
        f"{bin}/ckpt-verify digest --json {name} > "
        f"{models}/.prepared/DeepSeek-V4-Flash-0731.digest",
        f"{bin}/ckpt-convert --experts fp8 --verify {name} {name}-FP8",
        f"{bin}/ckpt-shard --layout torch_dist --verify {name} {name}_torch_dist"]
    for folder in ("_torch_dist", "-FP8"):
        for host in ("n1", "n2"):
            local = f"{disk}/DeepSeek-V4-Flash-0731{folder}"
            assert commands.index(f"ssh {host} mkdir -p {local}") \
                < commands.index(f"rsync -a --exclude /{TRACKER} {name}{folder}/ {host}:{local}/") \
                < commands.index(f"rsync -a {name}{folder}/ {host}:{local}/")
    assert not models.exists() and not disk.exists() and log(tmp_path) == []
    assert not (tmp_path / "data").exists()


def test_variables_are_those_of_the_launcher(prepare, tmp_path):
    said = prepare("--dry-run", MILES_SCRIPT_MODEL_NAME="DeepSeek-V4-Pro-FP8",
                   MILES_SCRIPT_MODEL_DIR="/shared", MILES_SCRIPT_MODEL_LOCAL_DIR="/nvme",
                   MILES_SCRIPT_NUM_NODES="32").stdout
    assert "ckpt-download sgl-project/DeepSeek-V4-Pro-FP8 --local-dir /shared/" in said
    assert "# fp8: DeepSeek-V4-Pro-FP8 is FP8" in said
    assert "/shared/DeepSeek-V4-Pro-FP8 /shared/DeepSeek-V4-Pro-FP8_torch_dist" in said
    assert "+ srun --nodes 32 --ntasks 32 --ntasks-per-node 1 bash -c " in said
    said = prepare("--dry-run", "--model-dir", "/mine", "--", "--preset", "flash-h200",
                   MILES_SCRIPT_MODEL_DIR="/shared", SLURM_JOB_NUM_NODES="8").stdout
    assert "ckpt-shard --layout torch_dist --verify --preset flash-h200 /mine/" in said
    assert "srun" not in said, "one folder for all: nothing to copy"


@pytest.mark.parametrize("nodes, how", [("1", "rsync"), ("2", "srun")])
def test_a_small_model_is_prepared_and_found(prepare, ckpt, digest, golden_a, tmp_path, nodes,
                                             how):
    # A copy: other tests make links to the golden files, which changes the times that are recorded.
    source = shutil.copytree(golden_a, tmp_path / "source")
    models, disk = tmp_path / "my models", tmp_path / "disk"
    options = ("--model-name", "Tiny-V4", "--model-dir", models, "--model-local-dir", disk,
               "--hf-checkpoint", source, "--num-nodes", nodes)
    prepare(*options)
    made = models / "Tiny-V4_torch_dist"
    assert (made / TRACKER).read_text().strip() == "release"
    said = json.loads((models / ".prepared" / "Tiny-V4.digest").read_text())
    assert said["root"] == digest(golden_a)
    assert digest(made, "main") == digest(golden_a, "main") == said["main"]
    assert digest(models / "Tiny-V4-FP8") == digest(golden_a)
    for folder in ("Tiny-V4_torch_dist", "Tiny-V4-FP8"):
        assert tree(disk / folder) == tree(models / folder)
    assert log(tmp_path)[0].startswith(how)
    # Again: nothing is made, and nothing fails.
    before = {p: p.stat().st_mtime_ns for p in models.rglob("*")}
    said = prepare(*options).stdout
    assert said.count("done already") == 3
    assert before == {p: p.stat().st_mtime_ns for p in models.rglob("*")}


@pytest.mark.parametrize("name, folder", [
    ("DeepSeek-V4-Flash-FP8", "DeepSeek-V4-Flash-FP8-bf16"), ("Tiny-V4", "Tiny-V4-bf16"),
    ("DeepSeek-V4-Pro-FP8", "DeepSeek-V4-Pro-BF16")])
def test_full_train_finds_its_bf16(prepare, ckpt, digest, golden_a, tmp_path, name, folder):
    """The launcher looks for the index; the names are those of its own cast."""
    options = ("--model-name", name, "--model-dir", tmp_path / "models", "--hf-checkpoint",
               golden_a, "--stages", "bf16")
    prepare(*options)
    made = tmp_path / "models" / folder
    index = json.loads((made / "model.safetensors.index.json").read_text())["weight_map"]
    assert "model.layers.0.self_attn.wq_a.weight" in index
    assert not any("scale" in n and "hc_" not in n for n in index)
    assert {t["dtype"] for t in ckpt("ckpt-inspect", "--json", made).json["tensors"]} <= {
        "BF16", "F32", "I64", "I32"}
    assert digest(made) == digest(golden_a)
    assert "bf16: done already" in prepare(*options).stdout
    said = prepare("--dry-run", "--model-name", name, "--model-dir", tmp_path / "other").stdout
    assert "ckpt-shard" in said and "--dtype bf16" not in said, "it is large: only on request"


@pytest.mark.parametrize("missing, options", [
    ("rsync", ()), ("rsync", ("--hosts", "n1")), ("ssh", ("--hosts", "n1,n2")),
    ("srun", ("--num-nodes", "2"))])
def test_a_missing_program_is_told_at_the_beginning(prepare, golden_a, tmp_path, missing, options):
    (tmp_path / "stubs" / missing).unlink()
    for tool in "dirname", "cat", "bash", "env", "mkdir", "basename":
        (tmp_path / "stubs" / tool).symlink_to(shutil.which(tool))
    failed = prepare("--model-name", "Tiny-V4", "--model-dir", tmp_path / "models",
                     "--model-local-dir", tmp_path / "disk", "--hf-checkpoint", golden_a, *options,
                     PATH=str(tmp_path / "stubs"), check=2)
    assert failed.stderr == (f"prepare-megatron: the stage copy needs {missing}, which is not "
                             "installed\n")
    assert not (tmp_path / "models").exists()


def test_a_model_elsewhere_is_copied_too(prepare, golden_a, tmp_path):
    """A name of FP8 needs no cast: what is copied lies outside of --model-dir."""
    options = ("--model-name", "Tiny-FP8", "--model-dir", tmp_path / "models", "--hf-checkpoint",
               golden_a)
    rsync = tmp_path / "stubs" / "rsync"
    rsync.rename(tmp_path / "rsync")
    bare = tmp_path / "bare"
    bare.mkdir()
    for tool in "dirname", "cat", "bash", "env", "mkdir", "basename":
        (bare / tool).symlink_to(shutil.which(tool))
    assert "needs rsync" in prepare(*options, PATH=str(bare), check=2).stderr
    assert not (tmp_path / "models").exists()
    (tmp_path / "rsync").rename(rsync)
    prepare(*options)
    assert tree(tmp_path / "models" / golden_a.name) == tree(golden_a)


@pytest.mark.parametrize("options, said", [
    (("--preset", "flash-h200"), "layers cannot be divided over --pp 8"),
    (("--presett", "flash-h200"), "did you mean '--preset'?"),
    (("--tp", "3"), "--tp 3, legal values are: 1 2 4 8"), (("--dtype", "fp8"), "always BF16")])
@pytest.mark.parametrize("where", ["disk", "hub"])
def test_options_that_do_not_suit_the_model_are_told_at_the_beginning(prepare, golden_a, tmp_path,
                                                                      options, said, where):
    models = tmp_path / "models"
    words = ("--model-name", "m", "--model-org", "o", "--model-dir", models)
    if where == "disk":
        failed = prepare(*words, "--hf-checkpoint", golden_a, "--", *options, check=2)
    else:
        files = [Entry(p.name, data=p.read_bytes(),
                       kind="lfs" if p.suffix == ".safetensors" else "git")
                 for p in golden_a.iterdir()]
        with Hub([Repo("o/m", files)]) as hub:
            failed = prepare(*words, "--", *options, check=2,
                             **environment(hub, tmp_path / "home", BIN=str(BUILD / "bin")))
            size = sum(f.size for f in files)
            assert hub.payload < size / 2, "of the weights, headers only"
    assert said in failed.stderr and failed.stderr.count("\n") == 1
    assert failed.stdout == "" and not models.exists()


def test_a_mirror_without_the_hub_s_headers_is_no_obstacle(prepare, golden_a, digest, tmp_path):
    """ckpt-download hashes what it gets; what reads ranges must be told their commit."""
    files = [Entry(p.name, data=p.read_bytes(), shape="direct",
                   kind="lfs" if p.suffix == ".safetensors" else "git")
             for p in golden_a.iterdir()]
    with Hub([Repo("o/m", files)]) as hub:
        hub.hub.hidden = ["X-Repo-Commit", "X-Linked-Etag", "ETag"]
        done = prepare("--model-name", "m", "--model-org", "o", "--model-dir", tmp_path / "models",
                       "--stages", "download,torch_dist",
                       **environment(hub, tmp_path / "home", BIN=str(BUILD / "bin")))
    assert "names neither the commit nor" in done.stderr
    assert done.stdout.startswith("# torch_dist: its options are not checked before the download")
    assert digest(tmp_path / "models" / "m_torch_dist", "main") == digest(golden_a, "main")


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--stages", "verify"), ("--stages", "fp8")])
def test_a_model_that_is_not_there_is_told_at_the_beginning(prepare, tmp_path, more):
    failed = prepare("--model-name", "m", "--hf-checkpoint", tmp_path / "absent", "--model-dir",
                     tmp_path / "models", *more, check=2)
    assert "absent' does not exist" in failed.stderr and not (tmp_path / "models").exists()
    assert failed.stdout == "" and failed.stderr.count("\n") == 1


def test_offline_a_download_is_not_asked_about(prepare, tmp_path):
    """An earlier run may have brought all of it: the stage says so, or that it may not ask."""
    failed = prepare("--model-dir", tmp_path / "models", HF_HUB_OFFLINE="1", check=2)
    assert "ckpt-download: " in failed.stderr and "ckpt-shard" not in failed.stderr


def test_missing_tools_are_told_at_the_beginning(prepare, golden_a, tmp_path):
    failed = prepare("--model-name", "Tiny-V4", "--model-dir", tmp_path / "models",
                     "--hf-checkpoint", golden_a, BIN=str(tmp_path / "nowhere"), check=2)
    assert f"the stage verify needs {tmp_path}/nowhere/ckpt-verify" in failed.stderr
    assert not (tmp_path / "models").exists()


def test_datasets_lie_where_the_launcher_looks(prepare, tmp_path):
    """One folder for each, under the name without the organisation; each is fetched once."""
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "ckpt-download").write_text(
        '#!/bin/bash\necho "$*" >> "$LOG"\n[ "$3" != my/broken ] || exit 2\nmkdir -p "${@: -1}"\n')
    (fake / "ckpt-download").chmod(0o755)
    data = tmp_path / "data"
    options = ("--stages", "datasets")
    prepare(*options, MILES_SCRIPT_DATA_DIR=str(data), BIN=str(fake))
    assert log(tmp_path) == [f"--repo-type dataset zhuzilin/{name} --local-dir {data}/{name}"
                             for name in ("dapo-math-17k", "aime-2024")]
    said = prepare(*options, "--data-dir", data, "--datasets", "zhuzilin/aime-2024,my/own",
                   BIN=str(fake)).stdout
    assert "# datasets: zhuzilin/aime-2024: done already" in said
    assert log(tmp_path)[2:] == [f"--repo-type dataset my/own --local-dir {data}/own"]
    prepare(*options, "--data-dir", data, "--datasets", "my/broken", BIN=str(fake), check=2)
    assert not (data / ".prepared" / "broken.download").exists()


def test_datasets_need_a_network_only_when_asked_for(prepare, golden_a):
    """Who brings a model may be without one."""
    assert "dataset" not in prepare("--dry-run", "--hf-checkpoint", golden_a).stdout
    for more in ("--data-dir", "/d"), ("--stages", "datasets"):
        assert "--repo-type dataset" in prepare("--dry-run", "--hf-checkpoint", golden_a,
                                                *more).stdout
    assert "/root/datasets/aime-2024" in prepare("--dry-run").stdout


def test_it_runs_from_where_it_is_installed(tmp_path):
    """`make install` puts it beside the tools, with a man page."""
    version = subprocess.run([BUILD / "bin/ckpt-verify", "--version"], text=True, check=True,
                             capture_output=True).stdout.split()[1]
    subprocess.run([ROOT / "scripts/install", BUILD, "/opt", tmp_path, version], check=True,
                   env={**os.environ, "LIBDIR": "lib64"})
    script = tmp_path / "opt/bin/prepare-megatron"
    clean = {k: v for k, v in os.environ.items() if k != "BIN"}
    said = subprocess.run([script, "--dry-run"], text=True, check=True, capture_output=True,
                          env=clean).stdout
    assert f"+ {tmp_path}/opt/bin/ckpt-shard " in said
    said = subprocess.run([script.name, "--dry-run"], text=True, check=True, capture_output=True,
                          env={**clean, "PATH": f"{script.parent}:{os.environ['PATH']}"}).stdout
    assert "\n+ ckpt-shard " in said, "as it is typed"
    page = tmp_path / "opt/share/man/man1/prepare-megatron.1"
    shown = subprocess.run(["man", "-l", page], text=True, check=True, capture_output=True,
                           env={**clean, "MANWIDTH": "120"})
    assert "--data-dir DIR" in shown.stdout and shown.stderr == ""
    assert not (tmp_path / "opt/lib").exists()
    subprocess.run([ROOT / "scripts/install", "--remove", "/opt", tmp_path], check=True,
                   env={**os.environ, "LIBDIR": "lib64"})
    assert [p for p in tmp_path.rglob("*") if not p.is_dir()] == []


def test_a_half_made_torch_dist_is_not_taken_for_whole(prepare, golden_a, tmp_path):
    options = ("--model-name", "Tiny-FP8", "--model-dir", tmp_path / "models", "--hf-checkpoint",
               golden_a, "--stages", "torch_dist")
    prepare(*options)
    tracker = tmp_path / "models" / "Tiny-FP8_torch_dist" / TRACKER
    tracker.unlink()
    failed = prepare(*options, check=2)
    assert "Tiny-FP8_torch_dist" in failed.stderr
    prepare(*options, "--force")
    assert tracker.read_text().strip() == "release"


def test_a_stage_that_fails_stops_the_chain(prepare, tmp_path):
    models = tmp_path / "models"
    (models / "Nothing").mkdir(parents=True)
    failed = prepare("--model-name", "Nothing", "--model-dir", models, "--hf-checkpoint",
                     models / "Nothing", "--stages", "verify,fp8", check=2)
    assert "ckpt-verify: " in failed.stderr
    assert not (models / ".prepared" / "Nothing.digest").exists()
    assert "ckpt-convert" not in failed.stdout


@pytest.mark.parametrize("options, said", [
    (("--num-nodes", "0"), "expected a number"), (("--num-nodes", "many"), "expected a number"),
    (("--model-name", "a/b"), "without a folder"), (("--stages", "train"), "stage 'train'"),
    (("--model-dir",), "lacks its value"), (("--datasets", "own"), "ORG/NAME"),
    (("--model-dir=",), "'--model-dir' is empty"), (("--hf-checkpoint", ""), "is empty"),
    (("--model-name", "--dry-run"), "'--model-name' lacks its value"),
    (("--stages", "fp8,,copy"), "something is missing between commas"),
    (("--datasets", ","), "--datasets ',': something is missing between commas"),
    (("--hosts", "n1,"), "--hosts 'n1,': something is missing between commas"),
    (("--version",), "unknown option '--version'"),
    (("--hf-checkpoint", "hf://a/b"), "'hf://a/b': expected a folder"),
    (("--frobnicate", "1"), "unknown option"), (("--frobnicate=1",), "option '--frobnicate'"),
    (("--preset", "flash-h200"), "behind --, as in -- --preset"), (("V4",), "expected an option"),
    (("--", "--dry-run"), "'--dry-run' behind --"),
    (("--", "--part=1/2"), "'--part=1/2' behind --"),
    (("--", "--layout", "gguf"), "'--layout' behind --: the stage torch_dist makes")])
def test_nonsense_is_refused(prepare, options, said):
    failed = prepare(*options, check=2).stderr
    assert failed.startswith("prepare-megatron: ") and said in failed


@pytest.mark.parametrize("more", [(), ("--dry-run",)])
def test_there_must_be_something_to_copy(prepare, golden_a, tmp_path, more):
    failed = prepare("--model-name", "Tiny-V4", "--model-dir", tmp_path / "models",
                     "--hf-checkpoint", golden_a, "--stages", "copy", *more, check=2)
    assert "Tiny-V4_torch_dist' to copy: the stage torch_dist makes it" in failed.stderr


@pytest.mark.parametrize("below", ["", "/below", "-link"])
@pytest.mark.parametrize("option", ["model-dir", "data-dir", "model-local-dir"])
def test_a_folder_that_cannot_be_made_is_told_at_the_beginning(prepare, golden_a, tmp_path, option,
                                                               below):
    """Options may have their value after =."""
    (tmp_path / "file").write_text("")
    (tmp_path / "file-link").symlink_to("nowhere")
    failed = prepare(f"--model-dir={tmp_path / 'models'}", "--model-name=m",
                     f"--hf-checkpoint={golden_a}", f"--{option}={tmp_path / 'file'}{below}",
                     check=2)
    assert failed.stderr.startswith(f"prepare-megatron: --{option} '{tmp_path / 'file'}{below}': ")
    assert failed.stderr.count("\n") == 1 and failed.stdout == ""
    assert not (tmp_path / "models").exists()


# ---- another model under the same name ----

def prepared(prepare, models, source, *more, **how):
    return prepare("--model-name", "Tiny-V4", "--model-dir", models, "--hf-checkpoint", source,
                   *more, **how)


def test_another_model_is_not_taken_for_the_one_that_is_done(prepare, digest, golden_a, golden_b,
                                                             tmp_path):
    models = tmp_path / "models"
    prepared(prepare, models, golden_a)
    before = tree(models)
    for more in [], ["--stages", "fp8"], ["--stages", "torch_dist"]:
        err = prepared(prepare, models, golden_b, *more, check=2).stderr
        assert err.count("\n") == 1 and f"was made from '{golden_a}', root " in err
        assert f"not from '{golden_b}', root " in err
        assert "choose another --model-name, or add --force" in err
        assert tree(models) == before
    dry = prepared(prepare, models, golden_b, "--dry-run", "--stages", "torch_dist", check=2)
    assert dry.stderr == err and tree(models) == before, "a dry run refuses what the run refuses"
    prepared(prepare, models, golden_b, "--force")
    assert digest(models / "Tiny-V4-FP8") == digest(golden_b)
    assert "done already" in prepared(prepare, models, golden_b).stdout
    prepared(prepare, models, golden_a, check=2)


@pytest.mark.parametrize("with_records", [True, False])
def test_the_same_model_elsewhere_is_done(prepare, golden_a, golden_b, tmp_path, with_records):
    models = tmp_path / "models"
    prepared(prepare, models, golden_a)
    if not with_records:                   # as an earlier version has left them
        for record in (models / ".prepared").glob("*.source"):
            record.unlink()
    copy = shutil.copytree(golden_a, tmp_path / "copy")
    said = prepared(prepare, models, copy).stdout
    assert said.count("done already") == 3 and said.count("ckpt-verify digest") == 1
    assert "ckpt-verify digest" not in prepared(prepare, models, copy).stdout
    prepared(prepare, models, golden_b, check=2)
    shutil.rmtree(copy)                    # whoever has its results may remove it
    said = prepared(prepare, models, copy).stdout
    assert said.count("done already") == 3 and f"'{copy}', from which it was made, is no " in said
    failed = prepared(prepare, models, tmp_path / "typo", check=2).stderr
    assert failed == (f"prepare-megatron: '{tmp_path}/typo' does not exist: the stage verify of "
                      f"Tiny-V4 was made from '{copy}'\n")


def overwrite_file_by_file(copy, golden_b):
    for path in copy.iterdir():
        path.unlink()
    shutil.copytree(golden_b, copy, dirs_exist_ok=True, copy_function=shutil.copyfile)


def put_another_folder_there(copy, golden_b):
    shutil.rmtree(copy)
    shutil.copytree(golden_b, copy)        # with its times, which are older


@pytest.mark.parametrize("replace", [overwrite_file_by_file, put_another_folder_there])
def test_a_source_that_was_replaced_is_another_one(prepare, golden_a, golden_b, tmp_path, replace):
    copy = shutil.copytree(golden_a, tmp_path / "copy")
    options = ("--stages", "verify,fp8")
    prepared(prepare, tmp_path / "models", copy, *options)
    replace(copy, golden_b)
    for more in (), ("--dry-run",):
        err = prepared(prepare, tmp_path / "models", copy, *options, *more, check=2).stderr
        assert f"was made from '{copy}', root " in err and f"not from '{copy}', root " in err


def test_a_packed_source_that_was_replaced_is_another_one(prepare, ckpt, golden_a, golden_b,
                                                          tmp_path):
    packed, other = tmp_path / "a.ckpt", tmp_path / "b.ckpt"
    ckpt("ckpt-delta", "diff", "--base", "none", golden_b, other)
    ckpt("ckpt-delta", "diff", "--base", "none", golden_a, packed)
    prepared(prepare, tmp_path / "models", packed, "--stages", "fp8")
    assert "digest" not in prepared(prepare, tmp_path / "models", packed, "--stages", "fp8").stdout
    subprocess.run(["cp", "-a", other, packed], check=True)
    err = prepared(prepare, tmp_path / "models", packed, "--stages", "fp8", check=2).stderr
    assert f"the stage fp8 of Tiny-V4 was made from '{packed}', root " in err


def test_another_config_is_another_model(prepare, golden_a, tmp_path):
    copy = shutil.copytree(golden_a, tmp_path / "copy")
    options = ("--stages", "verify,fp8")
    prepared(prepare, tmp_path / "models", copy, *options)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "rope_theta": 999}))
    err = prepared(prepare, tmp_path / "models", copy, *options, check=2).stderr
    assert (f"the stage fp8 of Tiny-V4 was made from '{copy}' with another config.json than "
            f"'{copy}' has: choose another") in err
    (copy / "config.json").write_bytes((golden_a / "config.json").read_bytes())
    said = prepared(prepare, tmp_path / "models", copy, *options).stdout
    assert said.count("ckpt-verify digest") == 1 and said.count("done already") == 2
    assert "ckpt-verify digest" not in prepared(prepare, tmp_path / "models", copy, *options).stdout


def test_what_is_downloaded_later_is_looked_at_then(prepare, golden_a, golden_b, tmp_path):
    """Done from a folder; then the hub has another model of that name."""
    models = tmp_path / "models"
    options = ("--model-name", "m", "--model-org", "o", "--model-dir", models, "--stages")
    prepare(*options, "verify", "--hf-checkpoint", golden_a)
    files = [Entry(p.name, data=p.read_bytes(),
                   kind="lfs" if p.suffix == ".safetensors" else "git")
             for p in golden_b.iterdir()]
    with Hub([Repo("o/m", files)]) as hub:
        err = prepare(*options, "download,verify", check=2,
                      **environment(hub, tmp_path / "home", BIN=str(BUILD / "bin"))).stderr
    assert f"the stage verify of m was made from '{golden_a}', root " in err


def test_other_options_than_torch_dist_was_made_with_are_told(prepare, golden_a, tmp_path):
    options = ("--stages", "torch_dist", "--", "--tp")
    prepared(prepare, tmp_path / "models", golden_a, *options, "2")
    assert "made with" not in prepared(prepare, tmp_path / "models", golden_a, *options, "2").stdout
    said = prepared(prepare, tmp_path / "models", golden_a, *options, "4").stdout
    assert "# torch_dist: made with '--tp 2', not '--tp 4'; --force makes it again" in said
