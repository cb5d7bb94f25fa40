"""torch.distributed.checkpoint reads what we write, and we read what it writes."""
import io
import json
import pickle
import tarfile
import zipfile

import pytest

from corrupt.files import read_file

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")
import torch.distributed.checkpoint as dcp                                   # noqa: E402
from torch.distributed.checkpoint.format_utils import (                          # noqa: E402
    dcp_to_torch_save, torch_save_to_dcp)
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict     # noqa: E402

from interop.v4_values import bits, differing, megatron_values               # noqa: E402
from interop.value_digest import digest as python_digest                     # noqa: E402
from interop.workers import Forks                                            # noqa: E402

FORMS = {
    "layers-v1": ("v1", ()),
    "ranks-v1": ("v1", ("--files", "rank", "--tp", "2", "--ep", "4", "--etp", "2")),
    "stages-v2": ("v2", ("--key-style", "v2", "--files", "rank", "--tp", "2", "--pp", "2",
                         "--first-stage-layers", "2", "--iteration", "7")),
}


@pytest.fixture(scope="module")
def expected(golden, tmp_path_factory):
    """{style: (values under Megatron's keys, the same as a file)}."""
    folder = tmp_path_factory.mktemp("expected")
    made = {}
    for style in ("v1", "v2"):
        made[style] = megatron_values(golden, style), folder / f"{style}.pt"
        torch.save(*made[style])
    return made


@pytest.fixture(scope="module")
def written(ckpt, golden, tmp_path_factory):
    """{form: the folder with .metadata}."""
    folder = tmp_path_factory.mktemp("written")
    layers = 4 if golden.name == "golden-a" else 5
    for form, (_, options) in FORMS.items():
        if "--pp" in options:
            options += ("--last-stage-layers", str(layers - 2))
        ckpt("ckpt-shard", "--layout", "torch_dist", *options, golden, folder / form)
    return {form: folder / form / ("iter_0000007" if "--iteration" in FORMS[form][1]
                                   else "release") for form in FORMS}


@pytest.fixture(scope="module")
def run_worker():
    with Forks("dcp_worker.py") as run:
        yield run


def read_metadata(folder):
    return pickle.loads((folder / ".metadata").read_bytes())


def items(folder):
    """(key, offsets, the item's bytes) of everything that .metadata lists."""
    files = {p.name: p.read_bytes() for p in folder.glob("*.distcp")}
    for index, info in read_metadata(folder).storage_data.items():
        yield index.fqn, index.offset, files[info.relative_path][info.offset:][:info.length]


# ---- what we write ----

@pytest.mark.parametrize("form", FORMS)
def test_every_item_is_an_archive_of_its_box(expected, written, form):
    values = expected[FORMS[form][0]][0]
    metadata = read_metadata(written[form])
    volume = dict.fromkeys(values, 0)
    for key, offsets, data in items(written[form]):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
            assert all(i.compress_type == zipfile.ZIP_STORED for i in archive.infolist())
        t = torch.load(io.BytesIO(data), weights_only=True)
        box = tuple(slice(o, o + n) for o, n in zip(offsets, t.shape))
        assert t.dtype == values[key].dtype == \
            metadata.state_dict_metadata[key].properties.dtype
        assert torch.equal(bits(t), bits(values[key][box])), (key, offsets)
        volume[key] += t.numel()
    assert volume == {key: t.numel() for key, t in values.items()}


@pytest.mark.parametrize("form", FORMS)
def test_metadata_says_what_the_tensors_are(expected, written, form):
    metadata = read_metadata(written[form])
    values = expected[FORMS[form][0]][0]
    assert {key: (m.size, m.properties.dtype) for key, m in metadata.state_dict_metadata.items()} \
        == {key: (t.shape, t.dtype) for key, t in values.items()}
    assert metadata.planner_data == {}
    for name in {info.relative_path for info in metadata.storage_data.values()}:
        assert (written[form] / name).exists()


@pytest.mark.parametrize("form", FORMS)
def test_common_pt_loads_without_trust(golden, written, form):
    import argparse
    with torch.serialization.safe_globals([argparse.Namespace]):
        common = torch.load(written[form] / "common.pt", weights_only=True)
    assert common["checkpoint_version"] == 3.0
    assert common["iteration"] == (7 if "--iteration" in FORMS[form][1] else 0)
    assert common["args"].num_experts == (16 if golden.name == "golden-a" else 8)
    assert common["args"].num_layers == (4 if golden.name == "golden-a" else 5)
    assert common["content_metadata"]["singleton_local_shards"] is False


@pytest.mark.parametrize("form", FORMS)
def test_plain_tensors_load(expected, written, form):
    values = expected[FORMS[form][0]][0]
    state = {key: torch.empty_like(t) for key, t in values.items()}
    for t in state.values():
        bits(t).fill_(0x55)
    dcp.load(state, checkpoint_id=written[form], no_dist=True)
    assert differing(state, values) == []


def test_byte_entries_hold_what_modules_without_state_have(ckpt, golden, expected, written,
                                                           tmp_path):
    """And the tensors are where they would be without them."""
    ckpt("ckpt-shard", "--layout", "torch_dist", "--extra-state", golden, tmp_path / "out")
    folder = tmp_path / "out" / "release"
    known = {(key, offsets): data for key, offsets, data in items(written["layers-v1"])}
    count = 0
    for key, offsets, data in items(folder):
        if "._extra_state/shard_" not in key:
            assert known.pop((key, offsets)) == data
            continue
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            assert archive.testzip() is None
        held, = torch.load(io.BytesIO(data), weights_only=True)
        if ".wo_a." in key:
            assert held is None
        else:
            assert held.dtype == torch.uint8 and held.shape == (0,)
        count += 1
    assert known == {}
    metadata = read_metadata(folder)
    keys = [k for k, m in metadata.state_dict_metadata.items()
            if type(m).__name__ == "BytesStorageMetadata"]
    assert len(keys) == count > 0
    state = dict.fromkeys(keys)
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    assert all(len(held) == 1 for held in state.values())
    values = {key: torch.empty_like(t) for key, t in expected["v1"][0].items()}
    dcp.load(values, checkpoint_id=folder, no_dist=True)
    assert differing(values, expected["v1"][0]) == []


@pytest.mark.parametrize("form", FORMS)
def test_dcp_to_torch_save_gives_every_tensor(expected, written, tmp_path, form):
    dcp_to_torch_save(written[form], tmp_path / "all.pt")
    assert differing(torch.load(tmp_path / "all.pt", weights_only=True),
                     expected[FORMS[form][0]][0]) == []


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_dtensors_load_on_any_number_of_ranks(run_worker, expected, written, ranks):
    sources = ",".join(str(expected[FORMS[form][0]][1]) for form in FORMS)
    out = run_worker("load", ranks, sources, *written.values())
    for form, folder in written.items():
        count = len(expected[FORMS[form][0]][0])
        assert out.count(f"{folder}: {count} tensors\n") == ranks


def test_another_value_would_be_noticed(run_worker, expected, written, tmp_path):
    """The comparison of the workers can fail."""
    values = dict(expected["v1"][0])
    values["output_layer.weight"] = values["output_layer.weight"].clone()
    bits(values["output_layer.weight"])[-1, -1] ^= 1
    torch.save(values, tmp_path / "other.pt")
    with pytest.raises(AssertionError, match="output_layer.weight"):
        run_worker("load", 1, tmp_path / "other.pt", written["layers-v1"])


# ---- what we read ----

def random_tensors(seed=3):
    """Every dtype, shapes that cut badly, NaN and -0 among the values."""
    g = torch.Generator().manual_seed(seed)

    def codes(shape, dtype):
        size = torch.empty(0, dtype=dtype).element_size()
        raw = torch.randint(0, 256, (*shape[:-1], shape[-1] * size), generator=g,
                            dtype=torch.uint8)
        return raw.view(dtype)

    tensors = {f"all.{str(d)[6:]}": codes((5, 12), d) for d in (
        torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.uint8, torch.int16,
        torch.int32, torch.int64, torch.uint16, torch.uint32, torch.uint64,
        torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e8m0fnu)}
    tensors["all.bool"] = torch.randint(0, 2, (7, 3), generator=g).bool()
    tensors["deep.er.weight"] = torch.randn(13, 2100, generator=g)
    tensors["deep.er.bias"] = torch.randn(1025, generator=g).bfloat16()
    tensors["deep.cube"] = torch.randn(3, 5, 7, generator=g)
    tensors["zero"] = torch.tensor([[0.0, -0.0, float("nan"), -float("nan"), float("inf")]])
    return tensors


def compare_digest(ckpt, folder, tensors):
    """ckpt-verify's digest is Python's, tensor by tensor."""
    said = ckpt("ckpt-verify", "digest", "--lenient", "--json", folder).json
    root, lines = python_digest(tensors)
    assert [(t["name"], t["class"], t["shape"], t["value"]) for t in said["tensors"]] == lines
    assert said["root"] == root


def compare_all(ckpt, folder, tensors, tmp_path):
    """Inspected, digested and turned into safetensors: the same names, dtypes, shapes, bytes."""
    compare_digest(ckpt, folder, tensors)
    ckpt("ckpt-shard", "--lenient", "--layout", "hf", folder, tmp_path / "hf")
    stored = {n: t for p in (tmp_path / "hf").glob("*.safetensors")
              for n, t in read_file(p)[0].items()}
    assert {n: (tuple(t.shape), t.data) for n, t in stored.items()} == {
        n: (tuple(t.shape), bits(t).numpy().tobytes()) for n, t in tensors.items()}
    listed = ckpt("ckpt-inspect", "--lenient", "--json", folder).json
    assert listed["layout"] == "torch_dist"
    assert {t["name"]: tuple(t["shape"]) for t in listed["tensors"]} == {
        n: tuple(t.shape) for n, t in tensors.items()}


def test_the_golden_digest_is_pythons(ckpt, golden, written, expected):
    """The re-implementation agrees with the pinned digests, too: ckpt-digest(7) is enough."""
    from interop.v4_values import native_values
    values = {n: t for n, t in native_values(golden).items() if not n.startswith("mtp.")}
    assert python_digest(values)[0] == ckpt("ckpt-verify", "digest", "--json",
                                            written["layers-v1"].parent).json["main"]


def test_plain_tensors_are_read(ckpt, tmp_path):
    tensors = random_tensors()
    dcp.save(tensors, checkpoint_id=tmp_path / "dcp", no_dist=True)
    compare_all(ckpt, tmp_path / "dcp", tensors, tmp_path)


@pytest.mark.parametrize("computed", [True, False])
def test_checksums_of_torch_are_checked_where_it_computes_them(ckpt, tmp_path, computed):
    tensors = random_tensors()
    was = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(computed)
    try:
        dcp.save(tensors, checkpoint_id=tmp_path / "dcp", no_dist=True)
    finally:
        torch.serialization.set_crc32_options(was)
    check = "ckpt-verify", "check", "--lenient", "--structure-only"
    doc = ckpt(*check, "--json", tmp_path / "dcp").json
    count = len(tensors)
    assert (doc["checksums"], doc["without_checksum"]) == ((count, 0) if computed else (0, count))
    assert ("have no checksum" in ckpt(*check, tmp_path / "dcp").out) == (not computed)
    file, = (tmp_path / "dcp").glob("*.distcp")
    raw = bytearray(file.read_bytes())
    raw[raw.index(bits(tensors["deep.er.weight"]).numpy().tobytes()) + 9999] ^= 4
    file.write_bytes(raw)
    doc = ckpt(*check, "--json", tmp_path / "dcp", check=1 if computed else 0).json
    assert [d["name"][:14] for d in doc["differing"]] == ["deep.er.weight"] * computed


def test_views_scalars_empty_and_nested_tensors_are_read(ckpt, tmp_path):
    base = torch.arange(600, dtype=torch.float32).reshape(20, 30)
    state = {"model": {"transposed": base.t(), "column": base[:, 3], "window": base[2:7, 5:11],
                       "steps": base[::3, ::2], "expanded": base[0, :3].expand(4, 3),
                       "scalar": torch.tensor(2.5), "empty": torch.empty(0, 4),
                       "list": [torch.ones(2), torch.zeros(3, dtype=torch.bfloat16)]},
             "step": 17, "name": "run", "object": {"a": [1, None, "x"]}}
    dcp.save(state, checkpoint_id=tmp_path / "dcp", no_dist=True)
    flat = {f"model.{n}": t.contiguous() for n, t in state["model"].items() if n != "list"}
    flat.update({f"model.list.{i}": t for i, t in enumerate(state["model"]["list"])})
    compare_all(ckpt, tmp_path / "dcp", flat, tmp_path)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex64])
def test_dtypes_without_a_digest_are_refused_by_name(ckpt, tmp_path, dtype):
    dcp.save({"t": torch.ones(3, dtype=dtype)}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    failed = ckpt("ckpt-verify", "digest", tmp_path / "dcp", check=2)
    assert "'t'" in failed.err
    assert ckpt("ckpt-inspect", "--json", tmp_path / "dcp").json["tensors"][0]["shape"] == [3]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_dtensors_cut_in_every_way_are_read(ckpt, run_worker, tmp_path, ranks):
    tensors = random_tensors(ranks)
    torch.save(tensors, tmp_path / "tensors.pt")
    run_worker("save", ranks, tmp_path / "tensors.pt", tmp_path / "dcp")
    cut = [m for m in read_metadata(tmp_path / "dcp").state_dict_metadata.values()
           if len(m.chunks) > 1]
    assert len(cut) > 5 or ranks == 1
    compare_all(ckpt, tmp_path / "dcp", tensors, tmp_path)


def test_the_sample_of_torch_2_11_is_read(ckpt, data, tmp_path):
    with tarfile.open(data / "dcp-sample-torch2.11.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    tensors = torch.load(tmp_path / "dcp-sample.pt", weights_only=False)
    flat = {}
    for name, value in tensors.items():
        if isinstance(value, torch.Tensor):
            flat[name] = value
    listed = {t["name"] for t in ckpt("ckpt-inspect", "--lenient", "--json",
                                      tmp_path / "dcp-sample").json["tensors"]}
    state = {n: torch.empty(m.size, dtype=m.properties.dtype) for n, m in
             read_metadata(tmp_path / "dcp-sample").state_dict_metadata.items()
             if hasattr(m, "size")}
    dcp.load(state, checkpoint_id=tmp_path / "dcp-sample", no_dist=True)
    assert set(flat) <= set(state) == listed
    assert differing({n: state[n] for n in flat}, flat) == []
    compare_all(ckpt, tmp_path / "dcp-sample", state, tmp_path)


def test_what_we_wrote_and_torch_wrote_again_is_read(ckpt, golden, written, expected, digest,
                                                      tmp_path):
    """Ours -> torch -> a checkpoint by torch -> ours: training one step of nothing."""
    state = {key: torch.empty_like(t) for key, t in expected["v1"][0].items()}
    dcp.load(state, checkpoint_id=written["ranks-v1"], no_dist=True)
    inner = tmp_path / "trained" / "iter_0000100"
    dcp.save(state, checkpoint_id=inner, no_dist=True)
    (tmp_path / "trained" / "latest_checkpointed_iteration.txt").write_text("100")
    (tmp_path / "trained" / "config.json").write_bytes((golden / "config.json").read_bytes())
    ckpt("ckpt-shard", "--layout", "hf", "--like", golden, "--fill-from", golden,
         tmp_path / "trained", tmp_path / "back")
    for p in golden.glob("*.safetensors"):
        assert (tmp_path / "back" / p.name).read_bytes() == p.read_bytes()


def test_a_sparse_tensor_is_refused_by_its_layout(ckpt, tmp_path):
    dcp.save({"t": torch.ones(3)}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    metadata = read_metadata(tmp_path / "dcp")
    metadata.state_dict_metadata["t"].properties.layout = torch.sparse_coo
    (tmp_path / "dcp" / ".metadata").write_bytes(pickle.dumps(metadata))
    err = ckpt("ckpt-verify", "digest", tmp_path / "dcp", check=2).err
    assert "entry 't' has layout 'torch.sparse_coo', expected 'torch.strided'" in err


@pytest.mark.parametrize("style", ["v1", "v2"])
def test_extra_state_is_no_tensor_after_torchs_own_round_trip(ckpt, golden, tmp_path, style):
    """Torch makes tensors of what the byte entries hold; the family is known all the same."""
    ckpt("ckpt-shard", "--layout", "torch_dist", "--extra-state", "--key-style", style, golden,
         tmp_path / "ours")
    dcp_to_torch_save(tmp_path / "ours" / "release", tmp_path / "all.pt")
    torch_save_to_dcp(tmp_path / "all.pt", tmp_path / "theirs")
    kept = [k for k, m in read_metadata(tmp_path / "theirs").state_dict_metadata.items()
            if "._extra_state/shard_" in k and hasattr(m, "size")]
    assert kept, "torch keeps bytes: a weak test"
    for config in None, golden / "config.json":
        if config is not None:
            (tmp_path / "theirs" / "config.json").write_bytes(config.read_bytes())
        listed = ckpt("ckpt-inspect", "--json", tmp_path / "theirs").json
        assert (listed["family"], listed["names"]) == ("deepseek_v4", f"torch_dist-{style}")
        same = ckpt("ckpt-verify", "compare", "--json", tmp_path / "ours",
                    tmp_path / "theirs").json
        assert same["same"] and same["missing_in_a"] == same["missing_in_b"] == []


# ---- full size ----

@pytest.mark.parametrize("model, keys, layers", [("flash", 1242, 43), ("pro", 1772, 61)])
def test_the_metadata_of_a_full_model_is_read_by_torch(ckpt, tmp_path, model, keys, layers):
    """Every box in its place, none over another, and every item where the files will have it."""
    ckpt("ckpt-synth", "--config", model, "--sparse", tmp_path / "model")
    plan = ckpt("ckpt-shard", "--layout", "torch_dist", "--dry-run", "--json", "--describe",
                tmp_path / "plan", tmp_path / "model", tmp_path / "never").json
    assert not (tmp_path / "never").exists()
    folder = tmp_path / "plan" / "release"
    metadata = dcp.FileSystemReader(folder).read_metadata()
    assert plan["keys"] == keys == len(metadata.state_dict_metadata)
    assert plan["pieces"] == len(metadata.storage_data)
    boxes = 0
    for key, m in metadata.state_dict_metadata.items():
        assert sum(c.sizes.numel() for c in m.chunks) == m.size.numel(), key
        places = {tuple(c.offsets) for c in m.chunks}
        assert len(places) == len(m.chunks) <= 1024, key
        assert all(o + s <= n for c in m.chunks for o, s, n in zip(c.offsets, c.sizes, m.size))
        assert all(dcp.metadata.MetadataIndex(key, c.offsets) in metadata.storage_data
                   for c in m.chunks), key
        boxes += len(m.chunks)
    assert boxes == plan["pieces"]
    sizes = {f["name"].removeprefix("release/"): f["bytes"] for f in plan["files"]}
    assert len(sizes) == layers + 1
    used = {}
    for info in metadata.storage_data.values():
        used.setdefault(info.relative_path, []).append((info.offset, info.length))
    assert used.keys() == sizes.keys()
    for name, places in used.items():
        places.sort()
        assert all(a + n <= b for (a, n), (b, _) in zip(places, places[1:])), name
        assert sizes[name] - 64 < sum(places[-1]) <= sizes[name]
    assert (folder / ".metadata").stat().st_size < 16 << 20
    assert (tmp_path / "plan" / "latest_checkpointed_iteration.txt").read_text() == "release"


def test_empty_keys_are_read(ckpt, tmp_path):
    """torch saves them, for tensors and for bytes."""
    tensors = {"": torch.arange(3.), "b": torch.ones(2, 2)}
    dcp.save({**tensors, "sub": {"": 5}}, checkpoint_id=tmp_path / "dcp", no_dist=True)
    compare_digest(ckpt, tmp_path / "dcp", tensors)
    ckpt("ckpt-shard", "--layout", "hf", tmp_path / "dcp", tmp_path / "hf")
    compare_digest(ckpt, tmp_path / "hf", tensors)


@pytest.mark.parametrize("name", ["iter_0000007", "release"])
def test_a_root_without_a_tracker_is_read_if_it_has_one_iteration(ckpt, tmp_path, name):
    tensors = {"b": torch.ones(2, 2)}
    dcp.save(dict(tensors), checkpoint_id=tmp_path / "root" / name, no_dist=True)
    (tmp_path / "root" / "iter_0000001").mkdir()          # of a save that did not end
    compare_digest(ckpt, tmp_path / "root", tensors)


def test_of_several_iterations_none_is_guessed(ckpt, tmp_path):
    for name in ("iter_0000007", "iter_0000011"):
        dcp.save({"b": torch.ones(2, 2)}, checkpoint_id=tmp_path / name, no_dist=True)
    err = ckpt("ckpt-inspect", tmp_path, check=2).err
    assert "2 iterations" in err and f"'{tmp_path}/iter_0000011'" in err


# ---- what trainers add ----

def module_of(values):
    """A module whose parameters have these names, as torch_dist keys have them."""
    root = torch.nn.Module()
    for name, value in values.items():
        *path, last = name.split(".")
        at = root
        for part in path:
            if part not in at._modules:
                at.add_module(part, torch.nn.Module())
            at = at._modules[part]
        at.register_parameter(last, torch.nn.Parameter(value.clone().float()))
    return root


def test_optimizer_state_of_torch_is_left_out_and_told(ckpt, digest, expected, golden, written,
                                                       tmp_path):
    """AdamW's moments, steps and groups, under the keys that torch itself gives them."""
    values, _ = expected["v1"]
    trained = {k: v for k, v in values.items() if v.is_floating_point() and v.numel() > 0}
    model = module_of(dict(sorted(trained.items(), key=lambda kv: kv[1].numel())[:12]))
    optimizer = torch.optim.AdamW(model.parameters())
    for p in model.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    state = get_optimizer_state_dict(model, optimizer)
    dcp.save({**values, "optimizer": state}, checkpoint_id=tmp_path / "dist", no_dist=True)
    keys = [k for k in read_metadata(tmp_path / "dist").state_dict_metadata if k not in values]
    assert any(k.endswith(".exp_avg_sq") for k in keys)
    assert any("param_groups" in k for k in keys)
    assert all(k.startswith("optimizer.") for k in keys)
    options = "--config", golden / "config.json", "--report", tmp_path / "report.json"
    done = ckpt("ckpt-convert", *options, tmp_path / "dist", tmp_path / "out")
    moments = [k for k in keys if "param_groups" not in k]
    assert f"note: {len(moments)} stored tensors are left out: optimizer state" in done.out
    report = json.loads((tmp_path / "report.json").read_text())
    reasons = [t.get("reason") for t in report["source_tensors"]]
    assert reasons.count("optimizer state") == len(moments)
    assert digest(tmp_path / "out") == digest(written["layers-v1"].parent)
