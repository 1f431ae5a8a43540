"""LoadGen by its own C++ interface, which hands over pointers; numpy reads what they point to.

The library is LoadGen's sources with native.cc, as `native_build` makes it. LoadGen's Python module
still reads mlperf.conf and user.conf: its TestSettings are copied field by field, so that both
interfaces run on the same ones, and it must be of the same version.
"""

from __future__ import annotations

import ctypes
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ck_mlperf.common.errors import UserError
from ck_mlperf.common.files import hash_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ck_mlperf.loadgen.harness.interface import Ids, Interface
    from ck_mlperf.loadgen.harness.sut import SystemUnderTest

SHIM = Path(__file__).with_name("native.cc")
# Layouts that native.cc asserts. Indices are signed here: numpy indexes by those without a copy.
SAMPLE = np.dtype([("id", np.uint64), ("index", np.int64)])
RESPONSE = np.dtype(
    [("id", np.uint64), ("data", np.uint64), ("size", np.uint64), ("n_tokens", np.int64)]
)
# Up to here, Python's lists are faster than numpy's arrays.
_LISTS_UP_TO = 16

_IssueOne = ctypes.CFUNCTYPE(None, ctypes.c_uint64, ctypes.c_uint64)
_Many = ctypes.CFUNCTYPE(None, ctypes.c_size_t, ctypes.c_size_t)
_Flush = ctypes.CFUNCTYPE(None)
_view_memory = ctypes.pythonapi.PyMemoryView_FromMemory
_view_memory.argtypes = (ctypes.c_void_p, ctypes.c_ssize_t, ctypes.c_int)
_view_memory.restype = ctypes.py_object
_READ_ONLY = 0x100  # PyBUF_READ


class _Callbacks(ctypes.Structure):
    _fields_ = (
        ("issue_one", _IssueOne),
        ("issue", _Many),
        ("flush", _Flush),
        ("load", _Many),
        ("unload", _Many),
    )


class NativeResponses:
    """LoadGen's array of responses, each pointing at its label in `results`."""

    def __init__(
        self,
        results: NDArray[np.int32],
        complete: Callable[[int, int], None],
        complete_one: Callable[[int, int], None],
    ) -> None:
        self._responses = np.zeros(len(results), RESPONSE)
        self._responses["data"] = results.ctypes.data + results.itemsize * np.arange(len(results))
        self._responses["size"] = results.itemsize
        self._results = results  # kept alive: the responses point at it
        self._ids = self._responses["id"]
        self._address = self._responses.ctypes.data
        self._complete = complete
        self.complete_one = complete_one

    def complete(self, ids: Ids) -> None:
        count = len(ids)
        self._ids[:count] = ids
        self._complete(self._address, count)


class NativeInterface:
    """By the library at `path`."""

    name = "native"
    bytes_per_sample = 64
    most_samples_per_s = 1e7

    def __init__(self, path: Path) -> None:
        """Raises UserError where it cannot be loaded, or was made of another native.cc."""
        # PyDLL keeps Python's lock: for a single sample, releasing it costs more than the call.
        try:
            library, locked = ctypes.CDLL(str(path)), ctypes.PyDLL(str(path))
            shim_sha256 = _declare(library.ck_shim_sha256, ctypes.c_char_p)()
        except (OSError, AttributeError) as error:
            raise UserError(f"{path}: no native LoadGen that can be loaded: {error}") from None
        if shim_sha256.decode() != hash_file(SHIM):
            raise UserError(
                f"{path}: was made of another version of this repository's {SHIM.name}. Make it "
                "again: ck install package:lib-loadgen-native"
            )
        self.version: str = _declare(library.ck_version, ctypes.c_char_p)().decode()
        size, pointer, text = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p
        whole, real = ctypes.c_uint64, ctypes.c_double
        self._new_settings = _declare(library.ck_new_settings, pointer)
        self._delete_settings = _declare(library.ck_delete_settings, None, pointer)
        self._set = _declare(library.ck_set, ctypes.c_bool, pointer, text, real, whole)
        self._start = _declare(
            library.ck_start, text, pointer, text, size, size, ctypes.POINTER(_Callbacks)
        )
        self._complete = _declare(library.ck_complete, None, pointer, size)
        self._complete_one = _declare(locked.ck_complete_one, None, whole, ctypes.c_int32)

    def make_responses(self, results: NDArray[np.int32]) -> NativeResponses:
        return NativeResponses(results, self._complete, self._complete_one)

    def start(
        self, system: SystemUnderTest, total: int, loadable: int, test: Any, log_dir: Path
    ) -> None:
        callbacks = _make_callbacks(system, test.scenario.name == "Server")
        settings = self._copy_settings(test)
        try:
            error = self._start(
                settings, os.fsencode(log_dir.absolute()), total, loadable, callbacks
            )
        finally:
            self._delete_settings(settings)
        if error is not None:
            raise RuntimeError(f"LoadGen: {error.decode(errors='replace')}")

    def _copy_settings(self, test: Any) -> int:
        """A C++ TestSettings like `test`, of LoadGen's Python module; the caller deletes it."""
        settings: int = self._new_settings()
        for name in dir(test):
            value = getattr(test, name)
            if name.startswith("_") or callable(value):
                continue
            number = value if isinstance(value, float) else int(value)
            if not self._set(settings, name.encode(), number, int(number)):
                raise RuntimeError(f"LoadGen {self.version} has no setting {name}")
        return settings


def choose_interface(path: Path | None) -> tuple[Interface, str]:
    """The interface that a run uses where the native library was installed at `path` (None: it was
    not), and why it is not the native one although there is a library, else ''."""
    from ck_mlperf.loadgen.harness.wheel import WheelInterface

    if path is None:
        return WheelInterface(), ""
    try:
        native = NativeInterface(path)
    except UserError as error:
        return WheelInterface(), str(error)
    from importlib import metadata  # 20 ms, which a run without the library need not wait for

    try:
        wheel_version = metadata.version("mlcommons-loadgen")
    except metadata.PackageNotFoundError:
        wheel_version = "of an unknown version"
    if native.version != wheel_version:
        reason = f"it is LoadGen {native.version}, and its Python module is {wheel_version}"
        return WheelInterface(), f"{path}: {reason}"
    return native, ""


def _declare(function: Any, result: Any, *arguments: Any) -> Any:
    function.restype, function.argtypes = result, arguments
    return function


def _make_callbacks(system: SystemUnderTest, is_server: bool) -> _Callbacks:
    """What LoadGen calls. The structure keeps the functions alive."""

    def issue_one(id_: int, index: int) -> None:
        try:  # `_guard` would be another call
            system.issue([id_], [index])
        except BaseException:
            _end()

    def issue(address: int, count: int) -> None:
        memory = _view_memory(address, count * SAMPLE.itemsize, _READ_ONLY)
        if is_server or count <= _LISTS_UP_TO:  # Server keeps them for longer than this call
            numbers = memory.cast("Q").tolist()
            system.issue(numbers[::2], numbers[1::2])
        else:
            samples = np.frombuffer(memory, SAMPLE)
            system.issue(samples["id"], samples["index"])

    def load(address: int, count: int) -> None:
        system.load(_list_indices(address, count))

    def unload(address: int, count: int) -> None:
        system.unload(_list_indices(address, count))

    return _Callbacks(
        _IssueOne(issue_one),
        _Many(_guard(issue)),
        _Flush(_guard(system.flush)),
        _Many(_guard(load)),
        _Many(_guard(unload)),
    )


def _list_indices(address: int, count: int) -> list[int]:
    view = _view_memory(address, count * np.dtype(np.int64).itemsize, _READ_ONLY)
    indices: list[int] = np.frombuffer(view, np.int64).tolist()
    return indices


def _guard(callback: Callable[..., None]) -> Callable[..., None]:
    def call(*arguments: int) -> None:
        try:
            callback(*arguments)
        except BaseException:
            _end()

    return call


def _end() -> None:
    """End the process after an exception that left the system under test.

    ctypes would only print it, and LoadGen would wait for answers for ever.
    """
    traceback.print_exc()
    print("error: a callback of LoadGen failed, which ends the process", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
