"""ckpt_tools, the Python module, over the library that was built."""
import ctypes
import inspect
import os
import re
import shutil
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

from conftest import BUILD, ROOT
from corrupt.files import Model
from interop.numpy_codes import decoded

PACKAGING = ROOT / "scripts/packaging"
os.environ["CKPT_LIBRARY"] = str(BUILD / "libckpt.so")
sys.path.insert(0, str(PACKAGING))
import ckpt_tools  # noqa: E402
from ckpt_tools import _native  # noqa: E402

STRUCTS = {"ckpt_error": _native.ErrorStruct, "ckpt_run_options": _native.RunOptions,
           "ckpt_tensor": _native.TensorStruct, "ckpt_open_options": _native.OpenOptions,
           "ckpt_compare_options": _native.CompareOptions,
           "ckpt_difference": _native.DifferenceStruct,
           "ckpt_convert_options": _native.ConvertOptions,
           "ckpt_source_functions": _native.SourceFunctions}
BIT_FIELDS = ("dtype", "stored_dtype", "scale_dtype", "stored_scale_dtype")


def test_structs_are_those_of_the_header(tmp_path):
    """Size and offsets, as the C compiler has them. Bit fields have no offset there."""
    lines = ['#include <stdio.h>', '#include "ckpt.h"', "int main(void) {"]
    expected = []
    for name, struct in STRUCTS.items():
        lines.append(f'printf("%zu\\n", sizeof({name}));')
        expected.append(ctypes.sizeof(struct))
        for field, _ in struct._fields_:
            if name == "ckpt_tensor" and field in BIT_FIELDS:
                continue
            lines.append(f'printf("%zu\\n", offsetof({name}, {field}));')
            expected.append(getattr(struct, field).offset)
    (tmp_path / "layout.c").write_text("\n".join([*lines, "}"]))
    subprocess.run([shutil.which("cc"), "-I", ROOT / "libckpt", "-o", tmp_path / "layout",
                    tmp_path / "layout.c"], check=True)
    said = subprocess.run([tmp_path / "layout"], check=True, text=True, capture_output=True).stdout
    assert [int(line) for line in said.split()] == expected


def test_functions_have_the_parameters_of_the_header():
    header = re.sub(r"/\*.*?\*/", "", (ROOT / "libckpt/ckpt.h").read_text(), flags=re.S)
    for name, (_, arguments) in _native._FUNCTIONS.items():
        parameters = re.search(rf"\b{name}\(([^)]*)\)", header)[1]
        if arguments is not None:
            count = 0 if parameters == "void" else parameters.count(",") + 1
            assert len(arguments) == count, name


def test_every_public_function_has_hints_and_a_description():
    for name in ckpt_tools.__all__:
        thing = getattr(ckpt_tools, name)
        if name == "__version__":
            continue
        assert inspect.getdoc(thing), name
        methods = [thing] if inspect.isfunction(thing) else [
            f for n, f in vars(thing).items() if inspect.isfunction(f) and n[0] != "_" and
            "NamedTuple" not in str(thing.__bases__) and tuple not in thing.__mro__]
        for method in methods:
            hints = inspect.signature(method)
            assert hints.return_annotation is not inspect.Signature.empty, (name, method)
            assert all(p.annotation is not inspect.Parameter.empty
                       for p in hints.parameters.values() if p.name != "self"), (name, method)


@pytest.fixture
def model(golden_a):
    with ckpt_tools.open(golden_a) as opened:
        yield opened


def test_a_checkpoint_is_a_mapping_of_tensors(model, ckpt, golden_a):
    listed = {t["name"]: t for t in ckpt("ckpt-inspect", "--json", "--logical", golden_a)
              .json["tensors"]}
    assert list(model) == list(listed) and len(model) == len(listed)
    for name, tensor in model.items():
        assert list(tensor.shape) == listed[name]["shape"]
    assert (model.layout, model.family, model.names) == ("hf", "deepseek_v4", "native")
    assert "embed.weight" in model and "nothing" not in model
    with pytest.raises(KeyError):
        model["nothing"]
    assert set(model.stored) == set(Model(golden_a).names())
    assert f"<Checkpoint {golden_a}: hf, deepseek_v4>" == repr(model)


@pytest.mark.parametrize("name", ["layers.0.attn.wq_a.weight", "layers.0.ffn.experts.0.w1.weight",
                                  "embed.weight"])
def test_values_are_float32_arrays(model, golden_a, name):
    expected = decoded(Model(golden_a), name).astype(np.float32)
    values = model[name].f32()
    assert values.dtype == np.float32 and values.shape == model[name].shape
    np.testing.assert_array_equal(values, expected)
    np.testing.assert_array_equal(model[name].f32(3, 9), expected[3:9])
    assert model[name].f32(4, 4).shape == (0, expected.shape[1])


def test_raw_bytes_are_those_of_the_file(model, golden_a):
    stored = Model(golden_a)
    tensor = model["layers.0.attn.wq_a.weight"]
    assert tensor.raw().tobytes() == stored[tensor.name].data
    scale = stored["layers.0.attn.wq_a.scale"]
    assert tensor.raw("scale").tobytes() == scale.data
    row_bytes = tensor.cols                       # of FP8
    assert tensor.raw("data", 1, 3).tobytes() == tensor.raw().tobytes()[row_bytes:3 * row_bytes]
    with pytest.raises(ckpt_tools.UsageError, match="part 'codes'"):
        tensor.raw("codes")


def test_digests_are_those_of_the_command(model, ckpt, golden_a):
    said = ckpt("ckpt-verify", "digest", "--json", golden_a).json
    digest = model.digest()
    assert (digest.root, digest.main) == (said["root"], said["main"])
    assert {t["name"]: t["value"] for t in said["tensors"]} == dict(digest)
    for name in list(model)[::20]:
        assert model[name].digest() == digest[name]


def test_arrays_have_the_digests_of_a_checkpoint(model):
    names = ["embed.weight", "layers.0.attn.wq_a.weight", "norm.weight", "hc_head_scale"]
    digest = model.digest()
    of_arrays = ckpt_tools.digest({n: model[n].f32() for n in names})
    assert dict(of_arrays) == {n: digest[n] for n in names}
    turned = np.asfortranarray(model[names[0]].f32())
    assert ckpt_tools.digest({names[0]: turned})[names[0]] == digest[names[0]]
    with pytest.raises(ckpt_tools.UsageError, match="'x' is complex128"):
        ckpt_tools.digest({"x": np.zeros(3, complex)})


def test_compare_tells_what_the_command_tells(ckpt, golden_a, golden_b):
    said = ckpt("ckpt-verify", "compare", "--json", golden_a, golden_b, check=1).json
    found = ckpt_tools.compare(golden_a, golden_b)
    assert not found.same and found.compared > 0
    assert len(found.differences) > 0
    differs = {d["name"]: d["kind"] for d in said["differing"]}
    assert {d.name: d.kind for d in found.differences} == differs
    with ckpt_tools.open(golden_a) as a:
        same = ckpt_tools.compare(a, golden_a, bits=True)
        assert same.same and same.differences == same.missing_in_a == same.config == []
        assert len(a) == same.compared, "it is still open"


def test_convert_writes_what_the_command_writes(ckpt, digest, golden_a, tmp_path):
    phases = []
    done = ckpt_tools.convert(golden_a, tmp_path / "out", dtype="bf16", experts="bf16",
                              progress=lambda *told: phases.append(told))
    ckpt("ckpt-convert", "--dtype", "bf16", "--experts", "bf16", "-q", golden_a, tmp_path / "cli")
    for path in (tmp_path / "cli").iterdir():
        if path.name != "ckpt-manifest.json":
            assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes()
    assert done.root == done.source_root == digest(golden_a) and done.rounded == 0
    assert any(phase == "converting" and done == total > 0 for phase, done, total in phases)
    assert ckpt_tools.compare(golden_a, tmp_path / "out").same


def test_an_exception_in_progress_stops_and_the_same_call_resumes(golden_a, tmp_path):
    class Enough(Exception):
        pass

    def stop(_phase, _done, _total):
        raise Enough

    with pytest.raises(Enough):
        ckpt_tools.convert(golden_a, tmp_path / "out", dtype="bf16", progress=stop)
    assert not (tmp_path / "out").exists() and (tmp_path / "out.partial").exists()
    assert ckpt_tools.convert(golden_a, tmp_path / "out", dtype="bf16").root


# A process's signal goes to its main thread as a rule; another thread that takes it wakes nobody.
@pytest.mark.parametrize("kill", ["os.kill(os.getpid(), signal.SIGINT)",
                                  "signal.pthread_kill(threading.get_ident(), signal.SIGINT)"])
def test_ctrl_c_stops_a_run(golden_a, tmp_path, kill):
    """The signal comes from the first call of progress, while the main thread waits."""
    program = textwrap.dedent(f"""
        import os, signal, threading, ckpt_tools
        heard = threading.Event()
        def handler(*_):
            heard.set()
            raise KeyboardInterrupt
        signal.signal(signal.SIGINT, handler)
        def progress(*_):
            {kill}
            heard.wait()
        try:
            ckpt_tools.convert({str(golden_a)!r}, "out", dtype="bf16", progress=progress)
        except KeyboardInterrupt:
            print("stopped")
        """)
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(PACKAGING)}, capture_output=True)
    assert done.stdout == "stopped\n", done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("call, kind, text", [
    (lambda p: ckpt_tools.open(p / "nothing"), ckpt_tools.FileError, "nothing"),
    (lambda p: ckpt_tools.open(p / "bad.safetensors"), ckpt_tools.FormatError, "bad.safetensors"),
    (lambda p: ckpt_tools.convert(p / "golden", p / "out", dtype="fp7"), ckpt_tools.UsageError,
     "fp7"),
    (lambda p: ckpt_tools.convert(p / "golden", p / "out", dtype="bf16", threads=1, memory=5),
     ckpt_tools.MemoryLimitError, "memory")])
def test_errors_are_exceptions(golden_a, tmp_path, call, kind, text):
    (tmp_path / "golden").symlink_to(golden_a)
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(kind, match=text) as raised:
        call(tmp_path)
    assert isinstance(raised.value, ckpt_tools.Error)
    assert not (tmp_path / "out").exists() and not (tmp_path / "out.partial").exists()


def test_what_is_closed_cannot_be_read(golden_a):
    with ckpt_tools.open(golden_a) as model:
        tensor = model["embed.weight"]
        with pytest.raises(ckpt_tools.UsageError, match="rows"):
            tensor.f32(0, tensor.rows + 1)
        with pytest.raises(ckpt_tools.UsageError, match="integer|I64|I32"):
            next(t for t in model.values() if t.is_int).f32()
    for read in tensor.f32, tensor.raw, tensor.digest, model.digest, lambda: len(model):
        with pytest.raises(ckpt_tools.UsageError, match="is closed"):
            read()
    model.close()


def test_threads_may_read_at_once(model):
    expected = model["embed.weight"].f32()
    results = []
    threads = [threading.Thread(target=lambda: results.append(model["embed.weight"].f32()))
               for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4 and all(np.array_equal(r, expected) for r in results)


def test_the_library_may_not_be_lost(tmp_path):
    """Without the library the module cannot be imported; the file is named."""
    done = subprocess.run([sys.executable, "-c", "import ckpt_tools"], text=True,
                          capture_output=True, env={
                              **os.environ, "PYTHONPATH": str(PACKAGING),
                              "CKPT_LIBRARY": str(tmp_path / "libckpt.so")})
    assert done.returncode != 0 and str(tmp_path / "libckpt.so") in done.stderr
