"""Wrong invocations of three trials: each is refused in one line that says what is and what to do.

Paths are relative to a folder with: `tiny`, a checkpoint; `bf16`, the same in BF16; `dist`, a
torch_dist; `g`, `p.ckpt`, GGUF and packed; `tiny5`, other values, and `d5`, the delta to it;
`cert.json`, a certificate; `precious`, a folder of somebody's; files of other programs; `absent` is
not there.
"""
import json
import os
import pathlib
import shutil
import subprocess
import zipfile

import pytest

from conftest import BUILD, run_tool

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n"


def make_configs(folder):
    """Wrong ones, for --config."""
    good = json.loads((folder / "tiny" / "config.json").read_text())
    for name, text in (("none", ""), ("list", "[1]"), ("bare", '{"model_type": "deepseek_v4"}'),
                       ("layers", {"num_hidden_layers": "x"}), ("list1", {"compress_ratios": [1]}),
                       ("experts", {"n_routed_experts": 3}),
                       ("deep", {"num_hidden_layers": 3, "compress_ratios": [0, 0, 4, 0]})):
        (folder / f"w-{name}").write_text(text if isinstance(text, str)
                                          else json.dumps({**good, **text}))


def make_folders(folder):
    """What has a name of weights and is none."""
    for name in ("hf/model.safetensors", "gguf/a.gguf", "mp/model0-mp2.safetensors",
                 "some/b.safetensors", "pipe"):
        (folder / "folders" / name).mkdir(parents=True)
    os.mkfifo(folder / "folders" / "pipe" / "a.safetensors")
    made = folder / "folders"
    (made / "my model").mkdir()
    (made / "one").mkdir()
    shutil.copy(next((folder / "tiny").glob("model-00001*")), made / "one")
    for name in "unnamed", "empty":
        shutil.copytree(folder / "tiny", made / name)
    (made / "empty" / "config.json").write_text("")
    index = json.loads((made / "unnamed" / "model.safetensors.index.json").read_text())
    del index["weight_map"]["embed.weight"]
    (made / "unnamed" / "model.safetensors.index.json").write_text(json.dumps(index))
    shutil.copytree(folder / "dist" / "release", made / "run" / "iter_0000005")
    (made / "run" / "latest_checkpointed_iteration.txt").write_text("7")
    shutil.copy(next((folder / "tiny").glob("*.safetensors")),
                folder / "folders" / "some" / "a.safetensors")


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trial")
    run_tool("ckpt-synth", "--config", "tiny", "--layers", "2", folder / "tiny")
    run_tool("ckpt-convert", "--dtype", "bf16", folder / "tiny", folder / "bf16")
    run_tool("ckpt-shard", "--layout", "torch_dist", folder / "tiny", folder / "dist")
    run_tool("ckpt-shard", "--layout", "gguf", "--without-tokenizer", folder / "tiny",
             folder / "g")
    run_tool("ckpt-synth", "--config", "tiny", "--layers", "2", "--seed", 5, folder / "tiny5")
    run_tool("ckpt-delta", "diff", folder / "tiny", folder / "tiny5", folder / "d5")
    run_tool("ckpt-delta", "diff", "--base", "none", folder / "tiny", folder / "p.ckpt")
    for words in (["genpkey", "-algorithm", "ed25519", "-out", folder / "key.pem"],
                  ["pkey", "-in", folder / "key.pem", "-pubout", "-out", folder / "pub.pem"]):
        subprocess.run(["openssl", *words], check=True)
    run_tool("ckpt-verify", "certify", "--out", folder / "cert.json", folder / "tiny")
    shutil.copytree(folder / "tiny", folder / "missing")
    shutil.copytree(folder / "dist", folder / "bare")
    for name in (folder / "bare").rglob("config.json"):
        name.unlink()
    for name in sorted((folder / "missing").glob("model-*"))[2:4]:
        name.unlink()
    (folder / "precious" / "sub").mkdir(parents=True)
    (folder / "precious" / "thesis").write_text("years")
    (folder / "lfs.safetensors").write_text(LFS)
    (folder / "x.gguf").write_bytes(b"GGUF\3\0\0\0")
    (folder / "torch").mkdir()
    for name in "a.pt", "torch/pytorch_model.bin":
        with zipfile.ZipFile(folder / name, "w") as archive:
            archive.writestr("archive/data.pkl", b"x")
    for name, file, text in (("config", "config.json", '{"model_type": "x"}'),
                             ("diffusers", "model_index.json", "{}")):
        (folder / name).mkdir()
        (folder / name / file).write_text(text)
    (folder / "cache" / "models--a--b" / "snapshots" / ("0123" * 10)).mkdir(parents=True)
    (folder / "cache" / "models--a--b" / "refs").mkdir()
    (folder / "cache" / "models--a--b" / "refs" / "main").write_text("0123" * 10)
    (folder / "broken").symlink_to("nowhere")
    (folder / "p.json").write_text("[[1, 2, 3]]")
    make_configs(folder)
    make_folders(folder)
    (folder / "map.txt").write_text("nonsense\n")
    return folder


@pytest.fixture(scope="module")
def before(place):
    return tree(place)


def tree(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


# what is said: all of these texts
TRIAL = """
ckpt-convert --overwrite tiny precious | 'thesis' in it does not belong to a checkpoint
ckpt-convert --dtype bf16 absent tiny | 'absent' does not exist
ckpt-convert tiny tiny | are the same
ckpt-convert --overwrite tiny tiny | are the same
ckpt-convert --overwrite tiny . | would replace 'tiny'
ckpt-convert tiny tiny/out | is inside the input
ckpt-run --tokens p.json --max-kl 0.1 tiny | --max-kl needs --against
ckpt-run --tokens p.json --format jsonl tiny | --format needs --out
ckpt-run --tokens p.json --top 0 --out x.safetensors tiny | '--top' | at least 1
ckpt-run --tokens p.json --out precious tiny | cannot write 'precious' | got a directory
ckpt-run --tokens p.json --out - tiny | --out - | standard output is not supported
ckpt-run tiny | expected --tokens, --prompt
ckpt-run --tokens p.json --prompt hi tiny | --prompt
ckpt-run --prompt hi tiny | 'tiny' has no tokenizer.json | --tokenizer FILE
ckpt-run --tokens absent tiny | 'absent'
ckpt-run --tokens p.json --device cpu tiny | ambiguous | --devices or --device-memory
ckpt-verify check tiny | has no manifest | --manifest FILE
ckpt-verify check --manifest absent tiny | 'absent'
ckpt-verify check --structure-only --manifest absent tiny | exclude each other
ckpt-convert tiny - | cannot be written to standard output
ckpt-convert --report - --manifest - tiny out | only one of --json, --report - and --manifest -
ckpt-convert --report /dev/stdout tiny out | cannot write '/dev/stdout'
ckpt-convert --report absent/r.json tiny out | 'absent' is not a directory
ckpt-convert --report tiny/config.json tiny out | is a file of the input
ckpt-convert --like absent bf16 out | 'absent' does not exist
ckpt-convert --like tiny --dtype bf16 bf16 out | --like
ckpt-convert --manifest m.json --no-digest tiny out | --manifest needs digests
ckpt-convert --part auto tiny out | no rank and size in the environment
ckpt-convert --part 3/2 tiny out | --part 3/2: I must be 1 to N
ckpt-convert --part 0/2 tiny out | --part 0/2: I must be 1 to N
ckpt-convert --part 0 tiny out | --part '0': expected I/N or auto
ckpt-convert tiny absent/out | cannot write 'absent/out' | 'absent'
ckpt-convert tiny s3://bucket/x | only local folders can be written
ckpt-convert tiny host:/x | only local folders can be written
ckpt-convert tiny me@host:x/y | only local folders can be written
ckpt-convert '' out | ''
ckpt-convert tiny '' | the output path is empty
ckpt-convert | too few arguments: expected '[OPTIONS] SRC DST', got 0
ckpt-convert tiny | too few arguments: expected '[OPTIONS] SRC DST', got 1
ckpt-convert tiny out more | too many arguments
ckpt-convert --dtpye bf16 tiny out | unknown option '--dtpye'; did you mean '--dtype'?
ckpt-convert --dtype bf61 tiny out | got 'bf61'; did you mean 'bf16'?
ckpt-convert --dtype int8 tiny out | expected bf16|f32|fp8|keep, got 'int8'
ckpt-convert --dtype | '--dtype' needs a value: bf16|f32|fp8|keep
ckpt-convert --dtype= tiny out | got ''
ckpt-convert --json=yes tiny out | takes no value
ckpt-convert --max_shard_size 5G tiny out | did you mean '--max-shard-size'?
ckpt-convert --max-shard-size 5X tiny out | like 4096, 500M, 1.5G or 4GiB, got '5X'
ckpt-convert --max-shard-size 0 tiny out | got '0'
ckpt-convert --max-shard-size 50% tiny out | got '50%'
ckpt-convert --memory 150% tiny out | like 50%, got '150%'
ckpt-convert --memory -1 tiny out | got '-1'
ckpt-convert --memory 1 tiny out | the memory limit of 1 bytes is too small: at least
ckpt-verify digest --memory 1k tiny | the memory limit of 1000 bytes is too small: at least
ckpt-inspect --memory 1 tiny | the memory limit of 1 bytes is too small: at least
ckpt-convert --threads many tiny out | expected a whole number of 0 or more, got 'many'
ckpt-convert --threads 99999 tiny out | at most 1024, got '99999'
ckpt-convert --thread 2 --memory 1X tiny out | got '1X'
ckpt-convert --force tiny out | unknown option '--force': use --overwrite
ckpt-convert --resume tiny out | run the same command again: it resumes
ckpt-convert --output-dir out tiny | use --out
ckpt-convert -f tiny out | unknown option '-f': use --overwrite
ckpt-convert -x tiny out | unknown option '-x'; see --help
ckpt-convert -j tiny out | got 'tiny'
ckpt-convert --no tiny out | option '--no' is ambiguous: --nonfinite or --no-space-check
ckpt-convert --names huggingface tiny out | 'deepseek_v4' | 'huggingface' | native
ckpt-convert --names transformers tiny out | transformers
ckpt-convert --quantize fp9 bf16 out | 'fp9'
ckpt-convert --config absent bare out | --config 'absent': there is no such file | flash
ckpt-convert --config tiny tiny out | 'tiny' has a config.json: leave out --config
ckpt-convert --fill-from absent dist out | 'absent' does not exist
ckpt-convert missing out | names 5 files, of which 2 do not exist
ckpt-inspect missing | of which 2 do not exist; the first is 'model-
ckpt-shard --layout mp tiny out | --layout mp needs --mp N
ckpt-shard --layout hf --mp 2 tiny out | --mp only applies to --layout mp
ckpt-shard --layout mp --mp 3 tiny out | cannot be divided by --mp 3, legal values are: 1 2 4 8
ckpt-shard --layout mp --mp 0 tiny out | at least 1, got '0'
ckpt-shard --layout bogus tiny out | --layout bogus: expected one of torch_dist mp hf
ckpt-shard tiny out | --layout is missing: expected one of torch_dist mp hf
ckpt-shard --layout torch_dist --tp 3 tiny out | by --tp 3, legal values are: 1 2 4 8
ckpt-shard --layout torch_dist --preset flash tiny out | expected one of flash-convert flash-h200
ckpt-shard --layout torch_dist --preset flash-h200 --tp 2 tiny out | --preset and --tp exclude
ckpt-shard --layout torch_dist --preset flash-h200 tiny out | are: none; choose other
ckpt-shard --layout hf --iteration 5 tiny out | --iteration needs --layout torch_dist, got hf
ckpt-shard --layout torch_dist --iteration x tiny out | expected release or a number
ckpt-shard --describe d --layout torch_dist tiny out | --describe needs --dry-run
ckpt-inspect lfs.safetensors | is a Git LFS pointer | git lfs pull
ckpt-inspect torch | 'pytorch_model.bin' is a PyTorch file
ckpt-inspect a.pt | is a torch.save archive
ckpt-inspect config | has a config.json but no weights: download them with ckpt-download
ckpt-inspect diffusers | is a diffusers pipeline
ckpt-inspect cache/models--a--b | use a snapshot, 'snapshots/0123
ckpt-inspect tiny/model.safetensors.index.json | is the index of a checkpoint
ckpt-inspect dist/release/__0_0.distcp | is one data file of a torch_dist
ckpt-inspect dist/latest_checkpointed_iteration.txt | is the tracker file
ckpt-inspect precious | is not a checkpoint
ckpt-inspect broken | is a link to 'nowhere', which does not exist
ckpt-inspect absent | 'absent' does not exist
ckpt-inspect deepseek-ai/DeepSeek-V4-Flash | ckpt-download deepseek-ai/DeepSeek-V4-Flash
ckpt-run hf://a/b --prompt x | local files only: download it with ckpt-download a/b
ckpt-run https://huggingface.co/a/b --prompt x | download it with ckpt-download a/b
ckpt-inspect hf:// | cannot read 'hf://': 
ckpt-inspect http://192.0.2.1/a | plain http is only used on this machine: expected https
ckpt-inspect --tensors nope tiny | --tensors 'nope' matches no tensor of 'tiny'
ckpt-inspect --values 5 tiny | --values needs --tensors
ckpt-inspect --values x --tensors norm.weight tiny | expected a row, as in 5
ckpt-inspect --values 5000 --tensors norm.weight tiny | there is no row 5000
ckpt-inspect --histogram tiny | --histogram needs --stat
ckpt-inspect --for tensorrt tiny | expected vllm|sglang|transformers|megatron
ckpt-inspect --for vlmm tiny | did you mean 'vllm'?
ckpt-inspect --names-only --json tiny | exclude each other
ckpt-inspect -0 tiny | --null needs --names-only
ckpt-inspect --map map.txt tiny | 'map.txt'
ckpt-inspect tiny bf16 | too many arguments
ckpt-verify | expected a command: digest|check|compare
ckpt-verify diff tiny bf16 | unknown command 'diff': it is called compare
ckpt-verify comprae tiny bf16 | did you mean 'compare'?
ckpt-verify cert tiny | command 'cert' is ambiguous: certify or certificate
ckpt-verify frobnicate | expected digest|check|compare
ckpt-verify compare tiny | too few arguments: expected '[OPTIONS] A B', got 1
ckpt-verify compare tiny absent | 'absent' does not exist
ckpt-verify compare --sort error tiny bf16 | --sort needs --stat
ckpt-verify compare --tolerance -1 tiny bf16 | a number of 0 or more, got '-1'
ckpt-verify compare --tensors nope tiny bf16 | 'nope'
ckpt-verify digest | expected PATH, or --check FILE
ckpt-verify digest --tensors nope tiny | --tensors 'nope' matches no tensor of 'tiny'
ckpt-verify digest -c p.json | 'p.json', line 1: expected a root
ckpt-verify digest -c absent | 'absent'
ckpt-verify logits p.json p.json | 'p.json'
ckpt-verify logits --max-kl x a b | --max-kl 'x': expected a number of 0 or more
ckpt-verify certify tiny | --out
ckpt-verify certificate p.json tiny | 'p.json'
ckpt-synth tiny2 | --config is missing: expected FILE, flash, pro
ckpt-synth --config v4-flash tiny2 | --config 'v4-flash': there is no such file | flash pro tiny
ckpt-synth --config config/config.json tiny2 | unknown model family
ckpt-synth --config tiny tiny | 'tiny' already exists; --overwrite replaces it
ckpt-synth --config tiny precious | already exists and does not contain only a checkpoint
ckpt-synth --config tiny --layers 99 tiny2 | --layers 99: the config has only 5
ckpt-synth --config tiny --sparse --seed 1 tiny2 | --sparse and --seed exclude each other
ckpt-delta | expected a command: diff|apply
ckpt-delta create tiny bf16 d | it is called diff
ckpt-delta diff tiny bf16 | too few arguments
ckpt-delta apply tiny absent out | 'absent'
ckpt-delta apply --in-place --out out tiny absent | exclude each other
ckpt-delta inspect tiny | is the index of a checkpoint, not of a delta
ckpt-download | too few arguments
ckpt-download a/b/c | 'a/b/c' is not a repository
ckpt-download ftp://host/x | 'ftp://host/x' is not a repository | --hub or --endpoint
ckpt-download a/b --resume-download | downloads always resume
ckpt-download a/b --local-dir-use-symlinks False | never links
ckpt-download a/b --limit-rate fast | '--limit-rate': expected bytes per second like 500k, 50M
ckpt-download a/b --local-dir D --cache-dir C | exclude each other
ckpt-download a/b --hub modelscope | needs '--local-dir'
ckpt-download a/b --hub ollama | expected hf|modelscope|ms, got 'ollama'
ckpt-download a/b --local-dir D --then | '--then' needs a command
ckpt-download a/b --local-dir D --then nosuchcommand | 'nosuchcommand' was not found
ckpt-download a/b --delete-source --local-dir D | '--delete-source' needs
ckpt-download a/b --connections 99 | expected 1 to 64
"""

# of a second trial, the same
TRIAL += """\
ckpt-convert --dtype bfloat16 tiny out | got 'bfloat16': it is called bf16
ckpt-convert --dtype float16 tiny out | got 'float16': use bf16 or f32
ckpt-convert --dtype q8_0 tiny out | ckpt-shard --layout gguf --quantize q8_0
ckpt-convert --experts nvfp4 tiny out | use --quantize nvfp4
ckpt-convert --compress tiny out | ckpt-delta diff --base none
ckpt-convert --gpu tiny out | '--gpu': conversions need none
ckpt-convert --to bf16 tiny out | use --dtype
ckpt-convert hf:a/b out | did you mean 'hf://a/b'?
ckpt-convert huggingface.co/a/b out | did you mean 'https://huggingface.co/a/b'?
ckpt-convert https://me:secret@host/x out | without a user name
ckpt-convert https://host/x?download=true out | without '?' and '#'
ckpt-convert ftp://host/x out | download it first
ckpt-convert tiny hf://me/mine | only local folders can be written
ckpt-convert --quantize v4-relese bf16 out | the nearest is 'v4-release'
ckpt-convert --quantize q8_0 bf16 out | only ckpt-shard --layout gguf
ckpt-convert --quantize fp8-f32 --quantize fp4 bf16 out | is given twice
ckpt-convert --quantize fp8-f32,expert=fp4 bf16 out | there is no class 'expert'; expected experts
ckpt-convert --quantize v4-release tiny out | is quantised already, such as 'layers.0.attn.wkv
ckpt-convert --quantize v4-release --dtype bf16 bf16 out | leave out --dtype and --experts
ckpt-convert --only layers.9.* --quantize v4-release bf16 out | 'layers.9.*' matches no tensor
ckpt-convert --max-relf 0.1 bf16 out | give --quantize RULE
ckpt-convert --max-relf 2% --quantize v4-release bf16 out | '2%' is not a number of 0 or more
ckpt-convert --sticky-scale --quantize v4-release bf16 out | --like: give it
ckpt-shard --format gguf tiny out | use --layout
ckpt-shard --layout safetensors tiny out | expected one of torch_dist mp hf gguf
ckpt-shard --layout gguf --without-tokenizer tiny flash.gguf | would be a folder | without '.gguf'
ckpt-delta diff --base none tiny V4.gguf | 'V4.gguf' would be a packed checkpoint | without '.gguf'
ckpt-run --tokens p.json --out x.st --against x.safetensors tiny | 'x.st': --against reads it
ckpt-convert tiny x.safetensors | would be a folder | without '.safetensors'
ckpt-convert tiny --outtype bf16 --outfile x | ckpt-shard --layout gguf
ckpt-convert tiny --outfile x | the last argument
ckpt-shard --layout gguf --split-max-size 4G tiny out | use --max-shard-size
ckpt-shard --layout gguf --quantize Q4_K_M bf16 out | 'Q4_K_M'; of the types of llama.cpp there
ckpt-shard --layout gguf --quantize experts=iq2_xxs bf16 out | llama-quantize makes the others
ckpt-shard --layout gguf --quantize Q8_0 bf16 out | the nearest is 'q8_0'
ckpt-inspect -m tiny | give its path as the argument
ckpt-inspect --tensors layers.0.* g | matches no tensor | but with --logical
ckpt-inspect --stat --tensors blk.0.* g | matches no tensor | but its stored names
ckpt-shard --layout gguf tiny out | no tokenizer.json | --without-tokenizer
ckpt-shard --layout gguf --mp 2 tiny out | --mp only applies to --layout mp
ckpt-shard --layout hf --gguf-dialect ds4 tiny out | needs --layout gguf, got hf
ckpt-shard --layout hf g g | are the same
ckpt-shard --layout torch_dist --pp 3 tiny out | legal values are: 1 2
ckpt-inspect ms://x | expected ms://OWNER/NAME
ckpt-inspect --revision main hf://a/b | hf://OWNER/NAME@REVISION
ckpt-inspect --layers 3 tiny | use --tensors 'layers.0.*'
ckpt-inspect s3://bucket/model | is a URL that this command does not read: download it first
ckpt-inspect cert.json | is a certificate, not a checkpoint
ckpt-inspect bf16/ckpt-manifest.json | is a manifest, not a checkpoint: ckpt-verify check --manifest
ckpt-run --max-tokens 10 --tokens p.json tiny | use --generate
ckpt-run --tokens 1,2,3 tiny | expected a file with token ids, or - for standard input
ckpt-run --devices 0 --tokens p.json tiny | --devices needs a backend with devices
ckpt-run --tokens p.json --model tiny | give its path as the last argument
ckpt-run --messages p.json tiny | use --tokenizer FILE
ckpt-verify sha256 tiny | it is called digest
ckpt-verify compare --top 5 tiny bf16 | unknown option '--top'; see --help
ckpt-verify compare --group expert tiny bf16 | expected layer|kind, got 'expert'
ckpt-verify certify --sign pub.pem --out c.json tiny | is not a private key
ckpt-verify certify --out tiny tiny | expected a file, got a directory
ckpt-verify certify --policy p.json --out c.json tiny | "schema": "ckpt-policy/1"
ckpt-verify certificate cert.json | give --key PUB, PATH or both
ckpt-verify certificate cert.json tiny --key key.pem | is not a public key | openssl pkey -pubout
ckpt-verify check --manifest cert.json tiny | is a certificate, not a manifest
ckpt-verify logits tiny bf16 | 'tiny' has no tensor 'logits'
ckpt-delta apply d5 tiny out | 'tiny' is a whole checkpoint, not a delta
ckpt-delta apply tiny d5 | DST is missing | got only 'tiny' 'd5' | --in-place
ckpt-delta apply - d5 out | BASE is '-'
ckpt-delta apply --in-place tiny d5 out | 'out' does not exist | there is no DST
ckpt-delta diff tiny - out | NEW is '-'
ckpt-delta apply tiny d6 out | 'd6' does not exist
ckpt-verify certify --delta - --out c.json tiny | --delta is '-': expected a delta on disk
ckpt-delta apply tiny d5 tiny | 'tiny' already exists
ckpt-delta apply --base none tiny out | is not a packed checkpoint
ckpt-delta inspect p.ckpt | is a packed checkpoint, not a delta: ckpt-inspect lists it
ckpt-delta diff --level 99 tiny tiny5 out | expected 1 to 3
ckpt-delta diff --base tiny tiny5 out | expected none, got 'tiny'
ckpt-delta diff tiny dist out | 'mtp.0.attn.attn_sink' of 'tiny' is not in 'dist'
ckpt-delta diff hf://a/b tiny out | download it with ckpt-download a/b
ckpt-download a/b --repo-type models --local-dir D | did you mean 'model'?
ckpt-synth --config flash --size 1G x | unknown option '--size'
"""

# of a third
TRIAL += """\
ckpt-convert --quantize fp8-channel bf16 out | deepseek_v4 has other blocks; use fp8-ue8m0
ckpt-convert --quantize fp8-ue8m0,fp4 bf16 out | a second value for all | CLASS=fp4
ckpt-convert --quantize nvfp4 bf16 out | of experts alone | experts=nvfp4,rest=fp8-ue8m0
ckpt-convert --dtype fp4 tiny out | got 'fp4': use --experts fp4
ckpt-convert --dtype bf16 tiny tiny/model-00001-of-00005.safetensors | is inside the input 'tiny'
ckpt-convert --dtype bf16 -- --weird out | '--weird' does not exist
ckpt-convert --like tiny5 bf16 out | .weight', row | --quantize RULE makes one
ckpt-convert --like g bf16 out | 'mtp.0.attn.attn_sink' of 'bf16' is not in 'g'
ckpt-convert --scale-dtype f32 bf16 out | scales of FP8 weights, but the result has none
ckpt-convert --input-scale 1 --quantize v4-release bf16 out | and --quantize v4-release makes none
ckpt-convert --only norm.weight --quantize fp4 bf16 out | (BF16), which is never quantised
ckpt-convert --part 1/2/3 tiny out | --part '1/2/3': expected I/N or auto
ckpt-convert --progress off tiny out | expected auto|always|never, got 'off'
ckpt-convert d5 out | is a weight delta, not a checkpoint: ckpt-delta
ckpt-convert --overwrite tiny key.pem | 'key.pem' is not replaced: it is not a checkpoint
ckpt-shard --layout gguf --tokenizer absent tiny out | put tokenizer.json beside the weights
ckpt-shard --layout torch_dist --experts fp8 tiny out | torch_dist is always BF16
ckpt-shard --layout torch_dist --ep 3 tiny out | by --ep 3, legal values are: 1 2 4 8 16
ckpt-shard --layout torch_dist --dialect slim tiny out | did you mean 'slime'?
ckpt-shard --layout mp --mp 2 --names sglang tiny out | --names only applies to --layout hf
ckpt-shard --config tiny/config.json --layout hf dist out | 'dist' has a config.json: leave out
ckpt-inspect tiny/config.json | use its folder, 'tiny'
ckpt-inspect --values 3-1 --tensors norm.weight tiny | expected a row, as in 5, or the first and the
ckpt-inspect --for vllm,sglang tiny | expected vllm|sglang|transformers|megatron, got 'vllm,sglang'
ckpt-inspect --logical --for vllm tiny | --for and --logical exclude each other
ckpt-verify compare tiny dist --main --tensors mtp.* | no tensor that both checkpoints have matches
ckpt-verify compare --up-to-rule fp99 tiny tiny5 | no such rule; the nearest is 'fp4'
ckpt-verify check --manifest tiny bf16 | 'tiny' is a folder: expected a manifest | compare
ckpt-verify check --sign key.pem tiny | '--sign': 'certify' has it, 'check' does not
ckpt-verify certificate tiny cert.json | 'tiny' is a folder: expected the certificate first
ckpt-verify certificate bf16/ckpt-manifest.json tiny | is not a certificate: expected an in-toto
ckpt-verify digest -c tiny | 'tiny' is a folder: expected a list that ckpt-verify digest printed
ckpt-verify certify --out c.json --html c.json tiny | 'c.json' is named for two outputs
ckpt-verify certify --out c.json --require licence tiny | cannot require 'licence': expected config
ckpt-verify mutate --kind swap tiny | --kind 'swap' is not known: --list prints all
ckpt-run --tokens p.json --generate 0 tiny | '--generate': expected at least 1, got '0'
ckpt-run --tokens p.json --top-p 0.9 --generate 2 tiny | sampling is by --temperature alone
ckpt-run --tokens p.json --stop x tiny | ends at the config's end-of-sequence token
ckpt-run --prompt hi --tokenizer p.json tiny | 'p.json': not a tokenizer
ckpt-run --tokens p.json --positions 9 --out x.safetensors tiny | but the prompt has 3 tokens
ckpt-run --tokens cert.json tiny | 'cert.json': expected an array of token ids
ckpt-delta inspect absent | 'absent' does not exist
ckpt-delta diff tiny5 bf16 out | is in 'tiny5' and not in 'bf16' | --structural
ckpt-delta squash tiny d5 tiny5 | 'tiny5' already exists: move it away
ckpt-delta patch tiny d5 out | it is called apply
ckpt-download /models/V4 | '/models/V4' is not a repository: it is a path
ckpt-download ./V4 | './V4' is not a repository: it is a path
ckpt-download a/b@ | the revision is empty
ckpt-download a/b --tries 0 | '--tries': expected 1 to 200
ckpt-download a/b --stall-timeout 0 | '--stall-timeout': expected at least 1, got '0'
ckpt-download a/b --retries 3 | use --tries
ckpt-download a/b --token x --endpoint http://example.com | is plain http | --insecure-http
ckpt-synth --config config out | 'config': expected a file, got a directory
"""


# of a fourth
TRIAL += """\
ckpt-convert - out | '-' does not exist: standard input is not read here
ckpt-verify compare tiny - | '-' does not exist: standard input is not read here
ckpt-delta inspect - | standard input is read by apply and verify alone
ckpt-inspect tiny/model-00001-of-00005.safetensors/ | without the '/' at its end it is a file
ckpt-inspect '~/tiny' | a shell replaces ~ where an unquoted word
ckpt-inspect htps://huggingface.co/a/b | did you mean 'https://huggingface.co/a/b'?
ckpt-inspect https:/huggingface.co/a/b | did you mean 'https://huggingface.co/a/b'?
ckpt-inspect ssh://me@host/V4 | is a URL that this command does not read: download it first
ckpt-inspect HF://a/b | did you mean 'hf://a/b'?
ckpt-inspect hf//a/b | did you mean 'hf://a/b'?
ckpt-inspect file:///models/V4 | did you mean '/models/V4'?
ckpt-convert --dtype fp8 bare out | 'bare' has no config.json, which tells its weights
ckpt-convert --dtype fp8 --experts fp4 bare out | give --config FILE or --like ORIGINAL
ckpt-convert --quantize v4-release bare out | give --config FILE or --like ORIGINAL
ckpt-convert --like tiny dist out | is not in 'dist': ckpt-convert --fill-from with the same path
ckpt-convert --dtype bf16 tiny/a tiny/b out | several files is given by its folder
ckpt-inspect tiny/a tiny/b | several files is given by its folder
ckpt-shard torch_dist tiny out | the layout is given by --layout
ckpt-synth tiny out | the config is given with --config
ckpt-synth --config flash --layers 0 out | expected at least 1, got '0'
ckpt-run tiny hi | a text is given with --prompt, a file of token ids with --tokens
ckpt-run --tokens p.json --backend gpu tiny | got 'gpu': it is called cuda
ckpt-run --tokens p.json --generate -1 tiny | expected a whole number of 1 or more, got '-1'
ckpt-run --tokens p.json --generate 99999999999 tiny | expected at most 2147483647
ckpt-verify check tiny bf16 | two checkpoints by ckpt-verify compare
ckpt-verify compare tiny bf16 tiny5 | any number are printed by ckpt-verify digest
ckpt-verify compare tiny bf16/ckpt-manifest.json | is a manifest, not a checkpoint
ckpt-verify certificate tiny | 'tiny' is a folder: expected the certificate first
ckpt-verify compare --tolerance 5% tiny tiny5 | a number of 0 or more, got '5%'
ckpt-convert --threads -2 tiny out | expected a whole number of 0 or more, got '-2'
ckpt-convert --memory 99999999999999999999999 tiny out | got '99999999999999999999999'
ckpt-convert --max-relf nan --quantize v4-release bf16 out | 'nan' is not a number of 0 or more
ckpt-shard --layout mp --mp 99999999999 tiny out | expected at most 65536
ckpt-download a/b --local-dir p.json | 'p.json' is a file: '--local-dir' and '--cache-dir' take
ckpt-download a/b --local-dir=~/V4 | begins with a ~ that no shell has replaced
ckpt-download a/b --revision= --local-dir D | '--revision': expected REV, got ''
ckpt-download a/b --tries 99999999999999999999 | at most 18446744073709551615
"""


# of a fifth: wrong configs are named as they were given, and what has a name of weights and is none
TRIAL += """\
ckpt-convert --config w-none bare out | 'w-none' is empty, not valid JSON
ckpt-convert --config w-list bare out | 'w-list' is not an object
ckpt-synth --config w-list out | 'w-list' is not an object
ckpt-convert --config w-bare bare out | 'w-bare': the config has neither 'compress_ratios' nor
ckpt-synth --config w-bare out | 'w-bare': config member 'vocab_size' is missing
ckpt-convert --config w-layers bare out | 'w-layers': config member 'num_hidden_layers' is not a non
ckpt-shard --layout hf --config w-layers bare out | 'w-layers': config member 'num_hidden_layers'
ckpt-inspect --config w-layers bare | 'w-layers': config member 'num_hidden_layers' is not a non
ckpt-verify digest --config w-layers bare | 'w-layers': config member 'num_hidden_layers' is not
ckpt-synth --config w-layers out | 'w-layers': config member 'num_hidden_layers' is not a non
ckpt-run --tokens p.json --config w-layers tiny | 'w-layers': 'num_hidden_layers' is not an integer
ckpt-convert --config w-list1 bare out | 'w-list1': config list 'compress_ratios' has 1 element, no
ckpt-convert --config w-experts bare out | [16, 256], expected BF16 [3, 256], by 'w-experts'
ckpt-run --tokens p.json --config w-experts tiny | expected [3, 256], with --config 'w-experts'
ckpt-convert --config w-deep bare out | lacks tensor 'layers.2. | which 'w-deep' requires
ckpt-inspect folders/hf | 'folders/hf/model.safetensors': expected a file, got a directory
ckpt-convert folders/some out | 'folders/some/b.safetensors': expected a file, got a directory
ckpt-inspect folders/gguf | 'folders/gguf/a.gguf': expected a file, got a directory
ckpt-inspect folders/mp | 'folders/mp/model0-mp2.safetensors': expected a file, got a directory
ckpt-inspect folders/pipe | 'folders/pipe/a.safetensors': expected a file, got a named pipe
ckpt-inspect folders/hf/model.safetensors | is an empty folder
ckpt-verify digest folders/unnamed | requires, and its index does not name it
ckpt-inspect folders/run | names 'iter_0000007', which is not there | 'folders/run/iter_0000005'
ckpt-inspect folders/empty | 'folders/empty/config.json' is empty, not valid JSON
ckpt-convert --dtype bf16 absent tiny | 'absent' does not exist, but 'tiny' does: SRC comes first
ckpt-convert dtype=bf16 tiny out | did you mean '--dtype=bf16' by 'dtype=bf16'?
ckpt-convert --dtype:bf16 tiny out | did you mean '--dtype'?
ckpt-inspect -json tiny | unknown option '-json'; did you mean '--json'?
ckpt-convert tiny out --out out2 | '--out out2' is the last one, and 'out' is one too many
ckpt-convert folders/my model out | 'folders/my model' is one path | when it is quoted
ckpt-convert tiny ~/out | it begins with a ~ that no shell has replaced
ckpt-convert --report ~/r.json tiny out | it begins with a ~ that no shell has replaced
ckpt-inspect ~ | a shell replaces ~ where an unquoted word
ckpt-convert --quantize experts=fp4, bf16 out | something is missing between commas
ckpt-inspect --tensors '' tiny | '--tensors': expected GLOB, got ''
ckpt-convert --skip [ --quantize v4-release bf16 out | --skip '[' matches no tensor
ckpt-run --tokens tiny p.json | 'p.json' is not a checkpoint
ckpt-verify compare --sort tiny bf16 | got 'tiny'
ckpt-convert hf:///a/b out | it is a path; expected OWNER/NAME of a hub
"""


# of a sixth
TRIAL += """\
ckpt-verify certify --out dir/ tiny | 'dir/': expected a file, got the name of a folder
ckpt-verify certify --out c.json --html dir/ tiny | 'dir/': expected a file, got the name of a
ckpt-convert --report dir/ tiny out | 'dir/': expected a file, got the name of a folder
ckpt-convert --manifest p.json/ tiny out | 'p.json/': expected a file, got the name of a folder
ckpt-run --tokens p.json --out dir/ tiny | 'dir/': expected a file, got the name of a folder
ckpt-delta diff --base none tiny dir/ | 'dir/': expected a file, got the name of a folder
ckpt-synth --config tiny out out2 | got 2; one DST at a time
ckpt-run --prompt hi tiny tiny5 | got 2; one model at a time
ckpt-convert -- --dtype bf16 tiny out | '--dtype' behind '--' is not an option: give options before
ckpt-shard --layout | '--layout' needs a value: LAYOUT (torch_dist, mp, hf, gguf)
ckpt-synth --config | '--config' needs a value: FILE|NAME ( | flash, pro, tiny
ckpt-synth --config tiny --seed 99999999999999999999 out | at most 18446744073709551615, got '9999
ckpt-synth --config tiny out.safetensors | would be a folder | without '.safetensors'
ckpt-delta apply tiny d5 out.gguf | would be a folder | without '.gguf'
ckpt-inspect tiyn | 'tiyn' does not exist; did you mean 'tiny'?
ckpt-inspect ./tin | './tin' does not exist; did you mean './tiny'?
ckpt-inspect tiny/config.jsn | 'tiny/config.jsn' does not exist; did you mean 'tiny/config.json'?
ckpt-inspect tiny* | does not exist: a shell replaces *, ? and $ where they are not quoted
ckpt-inspect $HOME/tiny | does not exist: a shell replaces *, ? and $ where they are not quoted
ckpt-inspect tiny,bf16 | 'tiny,bf16' does not exist: 'tiny' does, paths are separate arguments
ckpt-inspect /dev/null | '/dev/null' is a device, not a file or folder
ckpt-convert /dev/zero out | '/dev/zero' is a device, not a file or folder
ckpt-inspect folders/pipe/a.safetensors | expected a file, got a named pipe
ckpt-convert tiny /dev/null | '/dev/null' is a device
ckpt-verify check tiny m.json | a manifest is given with --manifest, two checkpoints by
ckpt-verify certificate cert.json tiny dist | got 3; one copy at a time
ckpt-verify mutate tiny out | got 2; faults are made in what is read, nothing is written
ckpt-delta diff tiny dist out | is not in 'dist': ckpt-convert --fill-from
ckpt-verify digest -c bf16/ckpt-manifest.json | is JSON, not a list of digests: a manifest is for
ckpt-download a/b --limit-rate 0 | like 500k, 50M or 1.5GiB, got '0'
"""


def cases():
    for line in TRIAL.strip().splitlines():
        words, *said = line.split(" | ")
        yield pytest.param([w.strip("'") for w in words.split(" ")], said, id=words)


ONLINE = {"HF_HUB_OFFLINE": "0", "TRANSFORMERS_OFFLINE": "0"}


@pytest.mark.parametrize("words, said", cases())
def test_a_wrong_invocation_is_refused_clearly(place, before, words, said):
    """One line, status 2 (run_tool looks), no advice that destroys, and nothing is left behind."""
    # The suite keeps its oracles offline; here the hub is the tool's own business.
    err = run_tool(*words, cwd=place, check=2, env=ONLINE).err
    assert all(text in err for text in said), err
    assert len(err) < 400 and "errno" not in err
    assert tree(place) == before, words


def test_the_advice_for_swapped_arguments_is_not_to_overwrite(place, before):
    """DST is there, SRC is not: what was meant is the other way round."""
    err = run_tool("ckpt-convert", "absent", "tiny", cwd=place, check=2).err
    assert "--overwrite" not in err


def test_a_download_names_a_command_that_will_fail_before_the_first_byte(place, before):
    for tail, said in ((["ckpt-convert", "--dtpye", "bf16", "D", "E"], "did you mean '--dtype'?"),
                       (["ckpt-convert", "D"], "too few arguments"),
                       (["ckpt-convert D E"], "its arguments behind it as words of their own"),
                       (["ckpt-verify", "diff", "D", "E"], "it is called compare"),
                       (["ckpt-convert", "D", "tiny"], "already exists")):
        env = {"PATH": f"{BUILD / 'bin'}:{os.environ['PATH']}", "HF_ENDPOINT": "http://127.0.0.1:9"}
        err = run_tool("ckpt-download", "a/b", "--local-dir", "D", "--then", *tail, cwd=place,
                       env=env, check=2).err
        assert said in err, err
    assert tree(place) == before


@pytest.mark.parametrize("text, repo, revision", [
    ("a/b@rev", "a/b", "rev"), ("https://huggingface.co/a/b", "a/b", "main"),
    ("https://huggingface.co/a/b/tree/v1?x=y", "a/b", "v1"), ("https://hf.co/a/b", "a/b", "main"),
    ("hf://a/b@rev", "a/b", "rev"), ("https://huggingface.co/datasets/a/b", "a/b", "main")])
def test_the_address_of_a_page_is_a_repository(place, text, repo, revision):
    """What is asked for is told, though nobody answers at this endpoint."""
    env = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HUB_OFFLINE": "1"}
    said = run_tool("ckpt-download", text, "--local-dir", "D", "--json", cwd=place, env=env,
                    check=2)
    assert (said.json["repo"], said.json["revision"]) == (repo, revision), said.err
    assert said.json["type"] == ("dataset" if "datasets" in text else "model")


def test_a_set_of_kernels_that_nobody_has_is_named(place):
    err = run_tool("ckpt-verify", "digest", place / "tiny", env={"CKPT_KERNELS": "avx3"},
                   check=2).err
    assert "CKPT_KERNELS 'avx3': expected scalar, avx2 or avx512" in err


def test_what_is_silent_is_told(place, tmp_path):
    """One shard of several; one file of several ranks; a report on standard output."""
    shard = sorted((place / "tiny").glob("model-*"))[1]
    done = run_tool("ckpt-convert", "--dtype", "bf16", shard, tmp_path / "one")
    assert "this is file 2 of" in done.out and "1 note" in done.err
    report = run_tool("ckpt-convert", "--report", "-", place / "tiny", tmp_path / "two")
    assert json.loads(report.out)["schema"] == "ckpt-report/1"
    manifest = run_tool("ckpt-convert", "--manifest", "-", place / "tiny", tmp_path / "three").out
    assert run_tool("ckpt-verify", "check", "--manifest", "-", place / "tiny", input=manifest)
    assert not pathlib.Path("-").exists()


def test_a_shell_loop_over_files_reads_the_names(place):
    script = '"$0" --names-only -0 tiny | xargs -0 -n1 echo | head -3 | wc -l'
    done = subprocess.run(["bash", "-o", "pipefail", "-c", script, BUILD / "bin" / "ckpt-inspect"],
                          cwd=place, capture_output=True, text=True)
    assert done.stdout == "3\n"


def test_a_folder_without_its_other_files_is_noted(place, ckpt):
    """Without index and config nothing else tells that tensors are missing."""
    for words in ["ckpt-inspect"], ["ckpt-verify", "digest"]:
        said = ckpt(*words, "--json", place / "folders" / "one").json
        assert "notes" not in said or any(
            "has 1 of 5 files, 'model-00002-of-00005.safetensors' is missing" in note
            for note in said["notes"])
    assert "is missing: the tensors" in ckpt("ckpt-inspect", place / "folders" / "one").out
