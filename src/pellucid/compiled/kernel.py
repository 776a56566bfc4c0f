"""What a kernel is: a Python function over two records, compiled once per machine.

Every kernel takes two records: its operands (which values, which sizes; fixed when the network is translated) and the
work (which images, where memory lies; set by whoever runs the program). So a program holds kernels as addresses, and
they compile one by one, only those that a network needs.

Machine code is kept in the user's cache folder, in a folder named by a digest of these sources, Numba, LLVM and the
CPU, so that no change can meet old code. Without a writable folder kernels are compiled anew in each process.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterable
from functools import cache, cached_property
from pathlib import Path
from typing import Any, ClassVar

import llvmlite
import numba
from numba import njit, types
from numba.core import caching, config, errors
from numba.core.ccallback import CFunc
from numba.core.registry import cpu_target

from pellucid.compiled.records import WORK, Record
from pellucid.errors import EngineError

# The one place that owns Numba's options. Division by zero gives infinity, as in NumPy; no fast-math.
_OPTIONS: dict[str, Any] = {"error_model": "numpy", "boundscheck": False}

_UNUSED_DAYS = 30


def inline(function: Callable[..., Any]) -> Any:
    """Mark a function that kernels call; LLVM puts its code in their place.

    Args:
        function: In the language of simd.py and what Numba knows.
    """
    return njit(forceinline=True, nogil=True, **_OPTIONS)(function)


@cache
def cache_folder() -> Path:
    """Return the folder of this version's machine code; it may not exist yet."""
    from platformdirs import user_cache_path

    digest, here = hashlib.sha256(), Path(__file__).parent
    made_of = [
        here / f"{name}.py" for name in ("kernel", "profile", "program", "records", "runner", "simd", "../random")
    ]
    for path in [*made_of, *sorted((here / "kernels").glob("*.py"))]:
        digest.update(path.read_bytes())
    versions = (sys.version_info[:2], numba.__version__, llvmlite.__version__)
    digest.update(repr((versions, cpu_target.target_context.codegen().magic_tuple())).encode())
    return user_cache_path("pellucid", appauthor=False) / "kernels" / digest.hexdigest()[:16]


def made_for() -> dict[str, str]:
    """Return what machine code depends on besides these sources: numba, llvmlite and the CPU, which may be imitated.

    The CPU is its name for LLVM with a digest of its features.
    """
    target = cpu_target.target_context.codegen().magic_tuple()
    features = hashlib.sha256(repr(target).encode()).hexdigest()[:8]
    return {"numba": numba.__version__, "llvmlite": llvmlite.__version__, "CPU": f"{target[1]}-{features}"}


@cache
def _prepared_folder() -> Path | None:
    """Return the cache folder, made; None where that is not possible. Folders of other versions fade away."""
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        for other in folder.parent.iterdir():
            if time.time() - other.stat().st_mtime > _UNUSED_DAYS * 86400:
                shutil.rmtree(other, ignore_errors=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK | os.R_OK) else None


class _Locator(caching._CacheLocator):  # type: ignore[misc]
    """Numba's question where to keep code: in our folder, whose name says what it was made from."""

    def __init__(self, folder: Path) -> None:
        self._folder = str(folder)

    def get_cache_path(self) -> str:
        return self._folder

    def get_source_stamp(self) -> str:
        return ""

    def get_disambiguator(self) -> str:
        return ""

    @classmethod
    def from_function(cls, function: Any, path: str) -> _Locator | None:
        folder = _prepared_folder()
        return None if folder is None else cls(folder)


class _Implementation(caching.CompileResultCacheImpl):  # type: ignore[misc]
    _locator_classes: ClassVar[list[Any]] = [_Locator]


class _Cache(caching.FunctionCache):  # type: ignore[misc]
    _impl_class = _Implementation

    def _index_key(self, signature: Any, codegen: Any) -> Any:
        # A kernel's name says everything about it; Numba would ask its closure, which differs from run to run.
        return signature, codegen.magic_tuple(), self._name


class Kernel:
    """One kernel, compiled when its address is first asked for.

    Args:
        name: Unique; it is the key of the cached code.
        operands: Its first record; the second is the work.
        body: body(op, work) with pointers to both; returns nothing.
    """

    def __init__(self, name: str, operands: Record, body: Callable[[Any, Any], None]) -> None:
        self.name, self.operands, self._body = name, operands, body

    def __repr__(self) -> str:
        return self.name

    @cached_property
    def _callback(self) -> Any:
        entry = self._body
        entry.__name__ = entry.__qualname__ = "".join(c if c.isalnum() else "_" for c in self.name)
        arguments = (self.operands.pointer, WORK.pointer)
        callback = CFunc(entry, (arguments, types.void), {}, {"nopython": True, **_OPTIONS})
        if _prepared_folder() is not None:
            stored = _Cache(entry)
            stored._name = self.name
            callback._cache = stored
        return callback

    @property
    def compiled(self) -> bool:
        """Whether its code is here or in the cache folder, so that asking for the address is quick."""
        if "address" in self.__dict__:
            return True
        index = self._callback._cache
        return isinstance(index, _Cache) and os.path.exists(index._cache_file._index_path)

    @cached_property
    def address(self) -> int:
        """Where its code lies in memory."""
        callback = self._callback
        try:
            callback.compile()
        except errors.NumbaError:
            raise
        except Exception:  # whatever a damaged cache file raises when it is read: make it anew, or do without
            try:
                callback._cache.flush()
                callback.compile()
            except Exception:
                callback._cache = caching.NullCache()
                callback.compile()
        return int(callback.address)


def prepare(kernels: Iterable[Kernel]) -> None:
    """Load or compile kernels; where some must be compiled, say so on the terminal.

    Args:
        kernels: May repeat.

    Raises:
        EngineError: Where Numba was told not to compile.
    """
    if config.DISABLE_JIT:
        raise EngineError(
            'NUMBA_DISABLE_JIT is set, so nothing can be compiled; unset it, or use the engine "reference"'
        )
    cold = []
    for kernel in dict.fromkeys(kernels):
        if kernel.compiled:
            _ = kernel.address
        else:
            cold.append(kernel)
    if not cold:
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    shown = console.is_terminal
    if not shown and len(cold) > 3:
        console.print(f"compiling {len(cold)} kernels (once on this machine)")
    label = "compiling kernels (once on this machine)"
    for kernel in track(cold, label, console=console, transient=True, disable=not shown):
        _ = kernel.address
