"""The public interface of libckpt (ckpt.h) for ctypes: structs, functions, errors."""
import ctypes
import os
import pathlib
import threading
from ctypes import POINTER, c_char, c_char_p, c_int, c_int64, c_size_t, c_uint8, c_uint16
from ctypes import c_uint32, c_uint64, c_void_p

RANK_MAX = 8
ERROR_BYTES = 1024
DIFFERENCE_BYTES = 256
ROOT_HEX = 65
SIGNAL_SECONDS = 0.1    # within so long a signal's handler runs while a call works
PROGRESS = ctypes.CFUNCTYPE(None, c_void_p, c_uint64, c_uint64)
CANCEL = ctypes.CFUNCTYPE(c_int, c_void_p)
PHASE = ctypes.CFUNCTYPE(None, c_void_p, c_char_p, c_uint64)
FREE = ctypes.CFUNCTYPE(None, c_void_p)


class Error(Exception):
    """What libckpt refused or could not do; the text is one line."""


class FormatError(Error, ValueError):
    """The data is wrong."""


class FileError(Error, OSError):
    """A system call failed."""


class UsageError(Error, ValueError):
    """The arguments are wrong, or do not go together."""


class MemoryLimitError(Error, MemoryError):
    """Out of memory, or over the limit that was set."""


class InexactError(Error, ArithmeticError):
    """The values do not fit the encoding that was asked for."""


class InterruptedRun(Error):
    """The run was stopped; what it wrote can be resumed by the same call."""


class DifferentError(Error):
    """Checked, and different."""


ERRORS = {1: FormatError, 2: FileError, 3: UsageError, 4: MemoryLimitError, 5: InexactError,
          6: InterruptedRun, 7: DifferentError}


class ErrorStruct(ctypes.Structure):
    _fields_ = [("code", c_int), ("text", c_char * ERROR_BYTES), ("detail", c_int)]


class RunOptions(ctypes.Structure):
    _fields_ = [("thread_count", ctypes.c_uint), ("memory_bytes", c_uint64),
                ("fixed_bytes", c_uint64), ("progress", PROGRESS), ("cancel", CANCEL),
                ("context", c_void_p), ("phase", PHASE), ("reserved", c_uint64 * 7)]


class TensorStruct(ctypes.Structure):
    # The first four are bit fields of eight bits, which lie as bytes on little-endian machines.
    _fields_ = [("name", c_char_p)] + [(name, c_uint8) for name in (
        "dtype", "stored_dtype", "scale_dtype", "stored_scale_dtype", "has_scale_vector",
        "tensor_scale", "has_tensor_scale_vector", "part_names", "is_numbers", "is_linear",
        "has_input_scale", "has_input_scale_vector", "shape_dtype")] + [
        ("stored_form", c_uint16), ("block_rows", c_uint32), ("block_cols", c_uint32),
        ("rank", c_uint32), ("file", c_uint32), ("shape", c_uint64 * RANK_MAX),
        ("offset", c_uint64), ("codes_name", c_char_p)]


class OpenOptions(ctypes.Structure):
    _fields_ = [("lenient", c_int), ("u8_scales", c_int), ("keep_copies", c_int),
                ("map_file", c_char_p), ("incomplete", c_int), ("interrupted", c_int),
                ("config", c_char_p), ("dialect", c_char_p), ("places", c_void_p),
                ("reserved", c_uint64 * 7)]


class CompareOptions(ctypes.Structure):
    _fields_ = [("run", RunOptions), ("main_only", c_int), ("bits", c_int),
                ("weights_only", c_int), ("reserved", c_uint64 * 8)]


class DifferenceStruct(ctypes.Structure):
    _fields_ = [("a", POINTER(TensorStruct)), ("b", POINTER(TensorStruct)), ("kind", c_int),
                ("row", c_uint64), ("col", c_uint64), ("count", c_uint64), ("a_value", c_int64),
                ("b_value", c_int64), ("file", c_char_p), ("side", c_int)]


class ConvertOptions(ctypes.Structure):
    _fields_ = [("run", RunOptions), ("open", OpenOptions)] + [(name, c_char_p) for name in (
        "layout", "dtype", "experts", "scale_dtype", "names", "like", "fill_from", "key_style",
        "layer_keys")] + [("file_bytes_max", c_uint64)] + [(name, c_uint32) for name in (
            "mp", "tp", "pp", "ep", "etp", "first_stage_layers", "last_stage_layers")] + [
        (name, c_int) for name in ("per_rank_files", "extra_state", "mtp", "force_names",
                                   "many_files", "match_reference", "allow_lossy")] + [
        ("quantise", c_char_p), ("max_relf", c_char_p)] + [(name, c_int) for name in (
            "no_digest", "verify", "overwrite", "restart", "no_space_check")] + [
        ("reserved", c_uint64 * 8)]


READ = ctypes.CFUNCTYPE(c_int, c_void_p, c_size_t, c_int, c_uint64, c_uint64, c_void_p,
                        POINTER(ErrorStruct))


class SourceFunctions(ctypes.Structure):
    _fields_ = [("read", READ), ("free", FREE), ("context", c_void_p), ("reserved", c_uint64 * 8)]


_ERR = POINTER(ErrorStruct)
_OUT = POINTER(c_void_p)
_TENSOR = POINTER(TensorStruct)
# Result and arguments. A function that returns ckpt_code and takes an error last is called by
# `call`, which raises.
_FUNCTIONS = {
    "ckpt_version": (c_char_p, []),
    "ckpt_fail": (c_int, None),
    "ckpt_set_memory_limit": (None, [c_uint64]),
    "ckpt_dtype_name": (c_char_p, [c_int]),
    "ckpt_dtype_find": (c_int, [c_char_p]),
    "ckpt_tensor_rows": (c_uint64, [_TENSOR]),
    "ckpt_tensor_cols": (c_uint64, [_TENSOR]),
    "ckpt_part_rows": (c_uint64, [_TENSOR, c_int]),
    "ckpt_part_row_bytes": (c_uint64, [_TENSOR, c_int]),
    "ckpt_tensor_bytes": (c_uint64, [_TENSOR]),
    "ckpt_tensor_is_int": (c_int, [_TENSOR]),
    "ckpt_tensor_encoding": (None, [_TENSOR, c_char_p, c_size_t]),
    "ckpt_catalog_count": (c_size_t, [c_void_p]),
    "ckpt_catalog_at": (_TENSOR, [c_void_p, c_size_t]),
    "ckpt_catalog_find": (c_int64, [c_void_p, c_char_p]),
    "ckpt_source_catalog": (c_void_p, [c_void_p]),
    "ckpt_source_read": (c_int, [c_void_p, c_size_t, c_int, c_uint64, c_uint64, c_void_p, _ERR]),
    "ckpt_source_read_f32": (c_int, [c_void_p, c_size_t, c_uint64, c_uint64, c_void_p, _ERR]),
    "ckpt_source_create": (c_int, [_TENSOR, c_size_t, POINTER(SourceFunctions), _OUT, _ERR]),
    "ckpt_source_free": (None, [c_void_p]),
    "ckpt_open": (c_int, [c_char_p, POINTER(OpenOptions), _OUT, _ERR]),
    "ckpt_close": (None, [c_void_p]),
    "ckpt_stored": (c_void_p, [c_void_p]),
    "ckpt_logical": (c_void_p, [c_void_p]),
    "ckpt_layout_name": (c_char_p, [c_void_p]),
    "ckpt_family_name": (c_char_p, [c_void_p]),
    "ckpt_names_style": (c_char_p, [c_void_p]),
    "ckpt_file_name": (c_char_p, [c_void_p, c_uint32]),
    "ckpt_note": (c_char_p, [c_void_p, c_size_t]),
    "ckpt_checkpoint_bytes": (c_uint64, [c_void_p]),
    "ckpt_digest_source": (c_int, [c_void_p, POINTER(RunOptions), _OUT, _ERR]),
    "ckpt_digest_free": (None, [c_void_p]),
    "ckpt_digest_tensor": (None, [c_void_p, c_size_t, c_char_p]),
    "ckpt_digest_root": (c_int, [c_void_p, c_int, c_char_p, _ERR]),
    "ckpt_difference_name": (c_char_p, [c_int]),
    "ckpt_difference_text": (None, [POINTER(DifferenceStruct), c_int, c_char_p]),
    "ckpt_compare": (c_int, [c_void_p, c_void_p, POINTER(CompareOptions), _OUT, _ERR]),
    "ckpt_comparison_free": (None, [c_void_p]),
    "ckpt_comparison_is_same": (c_int, [c_void_p]),
    "ckpt_comparison_compared": (c_size_t, [c_void_p]),
    "ckpt_comparison_difference": (POINTER(DifferenceStruct), [c_void_p, c_size_t]),
    "ckpt_comparison_missing": (c_char_p, [c_void_p, c_int, c_size_t]),
    "ckpt_comparison_config": (c_char_p, [c_void_p, c_size_t]),
    "ckpt_convert": (c_int, [c_char_p, c_char_p, POINTER(ConvertOptions), _OUT, _ERR]),
    "ckpt_conversion_free": (None, [c_void_p]),
    "ckpt_conversion_root": (c_char_p, [c_void_p]),
    "ckpt_conversion_source_root": (c_char_p, [c_void_p]),
    "ckpt_conversion_tensors": (c_size_t, [c_void_p]),
    "ckpt_conversion_rounded": (c_uint64, [c_void_p]),
    "ckpt_conversion_note": (c_char_p, [c_void_p, c_size_t]),
}


def _load():
    """CKPT_LIBRARY names another library than the one that came with the module."""
    path = os.environ.get("CKPT_LIBRARY") or pathlib.Path(__file__).with_name("libckpt.so")
    loaded = ctypes.CDLL(str(path))
    for name, (result, arguments) in _FUNCTIONS.items():
        function = getattr(loaded, name)
        function.restype = result
        if arguments is not None:
            function.argtypes = arguments
    return loaded


lib = _load()


def call(function, *arguments):
    """Call a function whose last parameter is the error, and raise what it reports."""
    err = ErrorStruct()
    code = function(*arguments, ctypes.byref(err))
    if code != 0:
        raise ERRORS.get(code, Error)(err.text.decode("utf-8", "replace"))


def make(function, *arguments):
    """The same for a function that makes something: the handle that it wrote."""
    out = c_void_p()
    call(function, *arguments, ctypes.byref(out))
    return out


def text(value):
    """str or path as bytes; None stays."""
    return None if value is None else os.fsencode(value)


def words(function, *arguments):
    """All results of a function that ends with NULL, counted by its last argument."""
    found = []
    while (word := function(*arguments, len(found))) is not None:
        found.append(word.decode("utf-8", "surrogateescape"))
    return found


class Run:
    """RunOptions for one call, and what happens in Python meanwhile.

    An exception in `progress`, or one that a signal raises in the waiting thread
    (KeyboardInterrupt), stops the run before its next tile and is raised again when the run has
    ended.
    """

    def __init__(self, progress, threads, memory):
        self.raised = None
        self.phase = ""
        self.user = progress
        self.options = RunOptions(thread_count=threads, memory_bytes=memory)
        self.options.cancel = CANCEL(lambda _: self.raised is not None)
        if progress is not None:
            self.options.phase = PHASE(lambda _, name, later: self._begin(name))
            self.options.progress = PROGRESS(lambda _, done, total: self._report(done, total))

    def _begin(self, name):
        self.phase = name.decode()

    def _report(self, done, total):
        try:
            if self.raised is None:
                self.user(self.phase, done, total)
        except BaseException as error:      # Python cannot raise through C
            self.raised = error

    def make(self, free, function, *arguments):
        """`make`, on another thread: this one still hears signals. `free` is for what is made."""
        begin = threading.Lock()        # taken by the work, or by what keeps it from beginning
        done = threading.Event()
        result = []

        def work():
            if not begin.acquire(blocking=False):
                return
            try:
                result.append(make(function, *arguments))
            except BaseException as error:
                result.append(error)
            done.set()

        try:
            threading.Thread(target=work, name="ckpt").start()
        except BaseException as error:  # no thread to be had, or a signal while it started
            self.raised = error
            if begin.acquire(blocking=False):
                raise
        # Not Thread.join: interrupted, it may take a thread that runs for one that ended. And
        # not one long wait: a signal that another thread takes, or that arrives just before the
        # wait begins, does not end it, and its handler runs only when this thread does.
        while True:
            try:
                while not done.wait(SIGNAL_SECONDS):
                    pass
                break
            except BaseException as error:
                self.raised = error
        failed = isinstance(result[0], BaseException)
        if self.raised is not None:
            if not failed:
                free(result[0])
            raise self.raised
        if failed:
            raise result[0]
        return result[0]
