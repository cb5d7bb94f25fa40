"""Open, digest, compare and convert checkpoints of large models, with NumPy arrays.

    import ckpt_tools

    with ckpt_tools.open("DeepSeek-V4-Flash") as model:
        print(model.layout, model.family, len(model))
        norm = model["layers.0.attn_norm.weight"].f32()      # a NumPy array of float32
        print(model.digest().root)

    ckpt_tools.convert("DeepSeek-V4-Flash", "V4-BF16", dtype="bf16", experts="bf16")
    print(ckpt_tools.compare("DeepSeek-V4-Flash", "V4-BF16").same)

What goes wrong raises an Error. Long calls take `progress`, a function of the phase ("reading",
"converting" ...; "" where the work has no names for them), the bytes done and the bytes of the
phase. It is called from other threads, one call at a time, and must not call this module. An
exception in it, or Ctrl-C, ends the run.
"""
import ctypes
import json
import os
import typing
from collections.abc import Mapping

import numpy as np

from . import _arrays, _native
from ._native import (DifferentError, Error, FileError, FormatError, InexactError, InterruptedRun,
                      MemoryLimitError, UsageError, lib)

__all__ = ["Checkpoint", "Comparison", "Conversion", "Difference", "DifferentError", "Digest",
           "Error", "FileError", "FormatError", "InexactError", "InterruptedRun",
           "MemoryLimitError", "Tensor", "Tensors", "UsageError", "__version__", "compare",
           "convert", "digest", "open"]
__version__: str = lib.ckpt_version().decode()

Path = typing.Union[str, "os.PathLike[str]"]
Progress = typing.Callable[[str, int, int], None]
PARTS = ("data", "scale", "tensor_scale", "input_scale")


class Digest(Mapping):
    """Value digests: a mapping of names to 32 hex digits, and the digests of all of them."""

    root: str       #: of all tensors; equal for equal values in every layout and encoding
    main: str       #: the same without mtp.*

    def __init__(self, source, names, run):
        handle = run.make(lib.ckpt_digest_free, lib.ckpt_digest_source, source,
                          ctypes.byref(run.options))
        try:
            self._tensors = {}
            out = ctypes.create_string_buffer(_native.ROOT_HEX)
            for i, name in enumerate(names):
                lib.ckpt_digest_tensor(handle, i, out)
                self._tensors[name] = out.value.decode()
            _native.call(lib.ckpt_digest_root, handle, 0, out)
            self.root = out.value.decode()
            _native.call(lib.ckpt_digest_root, handle, 1, out)
            self.main = out.value.decode()
        finally:
            lib.ckpt_digest_free(handle)

    def __getitem__(self, name: str) -> str:
        return self._tensors[name]

    def __iter__(self) -> typing.Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return f"<Digest {self.root}, {len(self)} tensors>"


class Tensor:
    """One tensor of an open checkpoint. Its rows are those of the shape [product of the first
    dimensions, last dimension]."""

    def __init__(self, tensors, index):
        self._tensors = tensors
        self._index = index
        struct = lib.ckpt_catalog_at(tensors._catalog(), index).contents
        out = ctypes.create_string_buffer(128)
        lib.ckpt_tensor_encoding(struct, out, len(out))
        self.name: str = struct.name.decode()
        self.shape: typing.Tuple[int, ...] = tuple(struct.shape[:struct.rank])
        self.dtype: str = lib.ckpt_dtype_name(struct.dtype).decode()   #: of elements or codes
        self.encoding: str = out.value.decode()     #: with block and dtype of the scales, if any
        self.nbytes: int = lib.ckpt_tensor_bytes(struct)               #: data and scales
        self.is_int: bool = bool(lib.ckpt_tensor_is_int(struct))
        self.rows: int = lib.ckpt_tensor_rows(struct)
        self.cols: int = lib.ckpt_tensor_cols(struct)

    def f32(self, start: int = 0, stop: typing.Optional[int] = None) -> np.ndarray:
        """The values: code times scale, as float32. Of all rows, in the tensor's shape; or of rows
        [start, stop), as an array of two dimensions."""
        whole = start == 0 and stop is None
        stop = self.rows if stop is None else stop
        self._check_rows(start, stop)
        out = np.empty((stop - start, self.cols), np.float32)
        _native.call(lib.ckpt_source_read_f32, self._tensors._source(), self._index, start,
                     stop - start, out.ctypes.data)
        return out.reshape(self.shape) if whole else out

    def raw(self, part: str = "data", start: int = 0,
            stop: typing.Optional[int] = None) -> np.ndarray:
        """Bytes of rows [start, stop) of a part ("data", "scale", "tensor_scale", "input_scale")
        as they are encoded: uint8 of the shape [rows, bytes of a row]."""
        if part not in PARTS:
            raise UsageError(f"part '{part}': expected one of {', '.join(PARTS)}")
        number = PARTS.index(part)
        struct = lib.ckpt_catalog_at(self._tensors._catalog(), self._index)
        rows = lib.ckpt_part_rows(struct, number)
        stop = rows if stop is None else stop
        self._check_rows(start, stop, rows)
        out = np.empty((stop - start, lib.ckpt_part_row_bytes(struct, number)), np.uint8)
        if out.size > 0:
            _native.call(lib.ckpt_source_read, self._tensors._source(), self._index, number, start,
                         stop - start, out.ctypes.data)
        return out

    def digest(self, progress: typing.Optional[Progress] = None, threads: int = 0,
               memory: int = 0) -> str:
        """The value digest of this tensor: 32 hex digits."""
        one = _arrays.OneTensor(self._tensors._source(), self._index)
        try:
            run = _native.Run(progress, threads, memory)
            return Digest(one.handle, [self.name], run)[self.name]
        finally:
            one.free()

    def _check_rows(self, start, stop, rows=None):
        rows = self.rows if rows is None else rows
        if not 0 <= start <= stop <= rows:
            raise UsageError(f"'{self.name}': expected 0 <= start <= stop <= {rows}, the rows, "
                             f"got [{start}, {stop})")

    def __repr__(self) -> str:
        return f"<Tensor {self.name} {list(self.shape)} {self.encoding}>"


class Tensors(Mapping):
    """Tensors by name."""

    def __init__(self, checkpoint, source_of):
        self._checkpoint = checkpoint
        self._source_of = source_of

    def _source(self):
        return self._source_of(self._checkpoint._open())

    def _catalog(self):
        return lib.ckpt_source_catalog(self._source())

    def __getitem__(self, name: str) -> Tensor:
        index = lib.ckpt_catalog_find(self._catalog(), str(name).encode())
        if index < 0:
            raise KeyError(name)
        return Tensor(self, index)

    def __iter__(self) -> typing.Iterator[str]:
        for i in range(len(self)):
            yield lib.ckpt_catalog_at(self._catalog(), i).contents.name.decode()

    def __len__(self) -> int:
        return lib.ckpt_catalog_count(self._catalog())


class Checkpoint(Tensors):
    """An open checkpoint: a mapping of canonical names to tensors, each with its scales."""

    def __init__(self, path: Path, options: "_native.OpenOptions"):
        self.path: str = os.fspath(path)
        self._handle = None
        self._handle = _native.make(lib.ckpt_open, _native.text(path), ctypes.byref(options))
        super().__init__(self, lib.ckpt_logical)
        #: The tensors as they are stored, by the names and in the shapes of the files.
        self.stored = Tensors(self, lib.ckpt_stored)
        self.layout: str = lib.ckpt_layout_name(self._handle).decode()
        self.family: str = lib.ckpt_family_name(self._handle).decode()
        self.names: str = lib.ckpt_names_style(self._handle).decode()
        #: Sentences on deviations that were accepted when opening.
        self.notes: typing.List[str] = _native.words(lib.ckpt_note, self._handle)
        self.files: typing.List[str] = _native.words(lib.ckpt_file_name, self._handle)

    def digest(self, progress: typing.Optional[Progress] = None, threads: int = 0,
               memory: int = 0) -> Digest:
        """Value digests of all tensors. threads 0: one for each core; memory 0: 1 GiB."""
        run = _native.Run(progress, threads, memory)
        run.options.fixed_bytes = lib.ckpt_checkpoint_bytes(self._open())
        return Digest(self._source(), list(self), run)

    def close(self) -> None:
        """Close it; its tensors can be read no more. Not while another thread uses it."""
        handle, self._handle = self._handle, None
        lib.ckpt_close(handle)

    def _open(self):
        if self._handle is None:
            raise UsageError(f"'{self.path}' is closed")
        return self._handle

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(self, *_exception) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_handle", None) is not None:
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._handle is None else f"{self.layout}, {self.family}"
        return f"<Checkpoint {self.path}: {state}>"


def _open_options(lenient=False, u8_scales=False, keep_copies=False, map_file=None,
                  incomplete=False, interrupted=False, config=None, dialect=None):
    return _native.OpenOptions(
        lenient=lenient, u8_scales=u8_scales, keep_copies=keep_copies,
        map_file=_native.text(map_file), incomplete=incomplete, interrupted=interrupted,
        config=_native.text(config), dialect=_native.text(dialect))


def open(path: Path, *, lenient: bool = False, u8_scales: bool = False, keep_copies: bool = False,
         map_file: typing.Optional[Path] = None, incomplete: bool = False,
         interrupted: bool = False, config: typing.Optional[Path] = None,
         dialect: typing.Optional[str] = None) -> Checkpoint:
    """Open a checkpoint of any layout; only headers are read. The options are those of the
    commands: lenient reports stale index entries, orphan scales and unknown tensors in `notes`
    instead of refusing them; config is a config.json, or a built-in model's name, for a checkpoint
    that has none."""
    return Checkpoint(path, _open_options(lenient, u8_scales, keep_copies, map_file, incomplete,
                                          interrupted, config, dialect))


def digest(arrays: typing.Mapping[str, typing.Any], progress: typing.Optional[Progress] = None,
           threads: int = 0, memory: int = 0) -> Digest:
    """Value digests of NumPy arrays by name: those that a checkpoint of these tensors has. BF16 and
    FP8 come as arrays of the package ml_dtypes."""
    source = _arrays.ArraySource(arrays)
    try:
        return Digest(source.handle, list(arrays), _native.Run(progress, threads, memory))
    finally:
        source.free()


class Difference(typing.NamedTuple):
    """A tensor that differs."""
    name: str
    kind: str        #: "values", "shape", "class", "copy", "encoding" or "bits"
    row: int         #: of the first difference
    col: int
    count: int       #: values: elements that differ; bits: bytes
    a: typing.Any    #: the value, shape, class or encoding on side a
    b: typing.Any
    file: typing.Optional[str]     #: copy: the file that has it


class Comparison(typing.NamedTuple):
    """What a comparison found."""
    same: bool                          #: nothing differs and nothing is missing
    compared: int                       #: tensors that have the same name on both sides
    differences: typing.List[Difference]
    missing_in_a: typing.List[str]
    missing_in_b: typing.List[str]
    config: typing.List[str]            #: members of config.json that differ


def _differences(handle):
    out = ctypes.create_string_buffer(_native.DIFFERENCE_BYTES)
    found = []
    while (pointer := lib.ckpt_comparison_difference(handle, len(found))):
        d = pointer.contents
        sides = []
        for side in (0, 1):
            lib.ckpt_difference_text(pointer, side, out)
            sides.append(json.loads(out.value))
        found.append(Difference(d.a.contents.name.decode(),
                                lib.ckpt_difference_name(d.kind).decode(), d.row, d.col, d.count,
                                *sides, d.file.decode() if d.file else None))
    return found


def compare(a: typing.Union[Path, Checkpoint], b: typing.Union[Path, Checkpoint], *,
            main_only: bool = False, bits: bool = False, weights_only: bool = False,
            progress: typing.Optional[Progress] = None, threads: int = 0,
            memory: int = 0) -> Comparison:
    """Compare two checkpoints by name and value, whatever their layouts and encodings. main_only
    leaves out mtp.*; bits asks for equal encodings and bytes; weights_only does not compare
    config.json and the tokenizer."""
    given = [a, b]
    opened = [c if isinstance(c, Checkpoint) else open(c) for c in given]
    try:
        run = _native.Run(progress, threads, memory)
        options = _native.CompareOptions(run=run.options, main_only=main_only, bits=bits,
                                         weights_only=weights_only)
        handle = run.make(lib.ckpt_comparison_free, lib.ckpt_compare, opened[0]._open(),
                          opened[1]._open(), ctypes.byref(options))
        try:
            return Comparison(
                bool(lib.ckpt_comparison_is_same(handle)), lib.ckpt_comparison_compared(handle),
                _differences(handle), _native.words(lib.ckpt_comparison_missing, handle, 0),
                _native.words(lib.ckpt_comparison_missing, handle, 1),
                _native.words(lib.ckpt_comparison_config, handle))
        finally:
            lib.ckpt_comparison_free(handle)
    finally:
        for checkpoint, was in zip(opened, given):
            if checkpoint is not was:
                checkpoint.close()


class Conversion(typing.NamedTuple):
    """What a conversion did."""
    root: typing.Optional[str]           #: of the result; None with no_digest
    source_root: typing.Optional[str]    #: differs from root if values were rounded
    tensors: int                         #: logical tensors
    rounded: int                         #: values that this run rounded
    notes: typing.List[str]


def convert(source: Path, target: Path, *, layout: typing.Optional[str] = None,
            dtype: typing.Optional[str] = None, experts: typing.Optional[str] = None,
            scale_dtype: typing.Optional[str] = None, names: typing.Optional[str] = None,
            like: typing.Optional[Path] = None, fill_from: typing.Optional[Path] = None,
            key_style: typing.Optional[str] = None, layer_keys: typing.Optional[str] = None,
            file_bytes_max: int = 0, mp: int = 0, tp: int = 0, pp: int = 0, ep: int = 0,
            etp: int = 0, first_stage_layers: int = 0, last_stage_layers: int = 0,
            per_rank_files: bool = False, extra_state: bool = False, mtp: bool = False,
            force_names: bool = False, many_files: bool = False, match_reference: bool = False,
            allow_lossy: bool = False, quantise: typing.Optional[str] = None,
            max_relf: typing.Optional[str] = None, no_digest: bool = False, verify: bool = False,
            overwrite: bool = False, restart: bool = False, no_space_check: bool = False,
            open_options: typing.Optional[typing.Dict[str, typing.Any]] = None,
            progress: typing.Optional[Progress] = None, threads: int = 0,
            memory: int = 0) -> Conversion:
    """Convert `source` into `target`, which appears whole or not at all. The options are those of
    ckpt-convert and ckpt-shard, whose help explains them; open_options are those of `open`, for the
    source. A run that is stopped leaves TARGET.partial; the same call resumes it."""
    given = {name: value for name, value in locals().items()
             if name not in ("source", "target", "open_options", "progress", "threads", "memory")}
    run = _native.Run(progress, threads, memory)
    options = _native.ConvertOptions(run=run.options, open=_open_options(**open_options or {}))
    types = dict(_native.ConvertOptions._fields_)
    for name, value in given.items():
        if value is not None:
            setattr(options, name, _native.text(value) if types[name] is ctypes.c_char_p
                    else value)
    handle = run.make(lib.ckpt_conversion_free, lib.ckpt_convert, _native.text(source),
                      _native.text(target), ctypes.byref(options))
    try:
        roots = [root and root.decode() for root in (lib.ckpt_conversion_root(handle),
                                                     lib.ckpt_conversion_source_root(handle))]
        return Conversion(*roots, lib.ckpt_conversion_tensors(handle),
                          lib.ckpt_conversion_rounded(handle),
                          _native.words(lib.ckpt_conversion_note, handle))
    finally:
        lib.ckpt_conversion_free(handle)
