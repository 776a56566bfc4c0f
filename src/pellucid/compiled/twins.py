"""The tile language once more, in plain Python: slow, readable, and what each operation of simd.py is held to.

A pointer is an array and a place in it; a tile is a float32 array (P, L), row r and vector v of V at number r V + v.
What compiled code does not check is checked here: an access outside an array raises IndexError.

It also runs a whole kernel in plain Python, for a debugger:

>>> from pellucid.compiled.kernels.pointwise import POINTWISE, add_maps
>>> from pellucid.compiled.records import WORK
>>> frame = np.array([1, 2, -3, 4, 4, -4, 0, 0, 0], dtype=np.float32)
>>> work = WORK.make(**(dict.fromkeys(WORK.dtype.names, 0) | {"last": 1, "frames": frame.ctypes.data}))
>>> maps = {"a": 0, "b": 3, "y": 6, "a_down": 0, "b_down": 0, "y_down": 0, "rows": 1, "length": 3, "channels": 1}
>>> operands = POINTWISE.make(**maps, key=0, p=0, scale=0, slope=0, limit=0)
>>> run(add_maps(4, as_relu=True), operands, work, frame)
>>> frame[6:].tolist()
[5.0, 6.0, 0.0]
"""

from __future__ import annotations

import ctypes
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CellType, FunctionType
from typing import Any, TypeAlias

import numba
import numpy as np
from numba.np.numpy_support import as_dtype

from pellucid._types import Array
from pellucid.compiled import simd
from pellucid.compiled.kernel import Kernel

Tile: TypeAlias = Array
"""Float32, (P, L)."""

_memory: list[Array] = []


class Pointer:
    """A place in a flat array, counted in its elements; p[i] is the element that many further on.

    Args:
        array: 1-D.
        offset: The place.
    """

    def __init__(self, array: Array, offset: int = 0) -> None:
        self.array, self.offset = array, int(offset)

    def __repr__(self) -> str:
        return f"Pointer({self.array.dtype}[{self.array.size}], {self.offset})"

    def __getitem__(self, index: int) -> Any:
        return self.array[self._place(index)]

    def __setitem__(self, index: int, value: Any) -> None:
        self.array[self._place(index)] = value

    def _place(self, index: int) -> int:
        place = self.offset + int(index)
        if not 0 <= place < self.array.size:
            raise IndexError(f"place {place} of an array of {self.array.size}")
        return place


class Fields:
    """A record as kernels see it, its fields as attributes.

    Args:
        record: An element of a structured array; setting a field writes there.
    """

    def __init__(self, record: Any) -> None:
        object.__setattr__(self, "_record", record)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._record[name]

    def __setattr__(self, name: str, value: Any) -> None:
        self._record[name] = value


@contextmanager
def memory(*arrays: Array) -> Iterator[None]:
    """Let addresses point into these arrays, and no others, within a with block.

    Args:
        *arrays: Contiguous.
    """
    before = _memory[:]
    _memory[:] = arrays
    try:
        yield
    finally:
        _memory[:] = before


def run(kernel: Kernel, operands: Array, work: Array, *arrays: Array) -> None:
    """Run a kernel's body in plain Python. As in compiled code, arithmetic neither warns nor raises.

    Args:
        kernel: Need not be compiled.
        operands: Its first record, from Record.make.
        work: Its second.
        *arrays: All that the addresses in both may point into.
    """
    with memory(*arrays), np.errstate(all="ignore"):
        plain(kernel._body)(Pointer(operands), Pointer(work))


def plain(function: Any) -> Any:
    """Return a function of the language with twins in the place of all operations, also in what it calls.

    Args:
        function: A kernel's body, or what inline made of a function.
    """
    original = getattr(function, "py_func", function)
    code, names = original.__code__, original.__globals__
    replaced = {name: _plain_value(names[name]) for name in code.co_names if name in names}
    cells = tuple(CellType(_plain_value(cell.cell_contents)) for cell in original.__closure__ or ())
    return FunctionType(code, {**names, **replaced}, original.__name__, original.__defaults__, cells)


def _plain_value(value: Any) -> Any:
    if value is numba.carray:
        return carray
    if hasattr(value, "py_func"):
        return plain(value)
    if not isinstance(value, type(simd.at)):
        return value
    for name, operation in vars(simd).items():
        if operation is value:
            return globals()[name]
    return pointer_maker(inspect.getclosurevars(value._defn).nonlocals["kind"])


def carray(pointer: Pointer, count: int) -> list[Fields]:
    """carray(pointer, count): the records there, as numba.carray."""
    return [Fields(pointer[i]) for i in range(count)]


# Pointers


def _bytes(array: Array, start: int, dtype: Any) -> Pointer:
    """Return the pointer to elements of a dtype at a byte of an array, whatever the array's own dtype."""
    size = np.dtype(dtype).itemsize
    whole = array.reshape(-1).view(np.uint8)[start % size :]
    return Pointer(whole[: whole.size // size * size].view(dtype), start // size)


def pointer_maker(kind: Any) -> Callable[[int], Pointer]:
    """Return the operation that makes a pointer from an address.

    Args:
        kind: Numba type of the pointer.
    """
    dtype = as_dtype(kind.dtype)

    def typed(address: int) -> Pointer:
        for array in _memory:
            start = int(address) - array.ctypes.data
            if 0 <= start < array.nbytes:
                return _bytes(array, start, dtype)
        return Pointer(np.empty(0, dtype=dtype))  # such as 0: it may be made, not used

    return typed


floats = pointer_maker(simd.FLOATS)
doubles = pointer_maker(simd.DOUBLES)
ints = pointer_maker(simd.INTS)
longs = pointer_maker(simd.LONGS)


def address(pointer: Pointer) -> int:
    """address(pointer): where it points to, as a number."""
    return int(pointer.array.ctypes.data) + pointer.array.itemsize * pointer.offset


def as_bytes(pointer: Pointer) -> Pointer:
    """as_bytes(pointer): the same place as a pointer to bytes."""
    return _bytes(pointer.array, pointer.array.itemsize * pointer.offset, np.uint8)


def as_ints(pointer: Pointer) -> Pointer:
    """as_ints(pointer): the same place as a pointer to int32."""
    return _bytes(pointer.array, pointer.array.itemsize * pointer.offset, np.int32)


def at(pointer: Pointer, index: int) -> Pointer:
    """at(pointer, index): the pointer that many elements further on."""
    return Pointer(pointer.array, pointer.offset + int(index))


# Tiles: made, read, written. The vectors of a row lie one behind another, so v L + l is one index i.


def _tile(rows: list[list[Any]], L: int) -> Tile:
    return np.array(rows, dtype=np.float32).reshape(-1, L)


def zeros(P: int, L: int) -> Tile:
    """zeros(P, L): t[p] = 0."""
    return np.zeros((P, L), dtype=np.float32)


def fill(P: int, L: int, value: float) -> Tile:
    """fill(P, L, value): t[p][l] = value."""
    return np.full((P, L), value, dtype=np.float32)


def load(R: int, V: int, L: int, pointer: Pointer, step: int) -> Tile:
    """load(R, V, L, pointer, step): t[r][v][l] = pointer[r step + v L + l]."""
    return _tile([[pointer[r * step + i] for i in range(V * L)] for r in range(R)], L)


def load_part(R: int, V: int, L: int, pointer: Pointer, step: int, count: int) -> Tile:
    """load_part(R, V, L, pointer, step, count): as load, but of each row only count floats; the others are 0."""
    return _tile([[pointer[r * step + i] if i < count else 0 for i in range(V * L)] for r in range(R)], L)


def store(t: Tile, R: int, pointer: Pointer, step: int) -> None:
    """store(t, R, pointer, step): pointer[r step + v L + l] = t[r][v][l]."""
    store_part(t, R, pointer, step, t.size // R)


def store_part(t: Tile, R: int, pointer: Pointer, step: int, count: int) -> None:
    """store_part(t, R, pointer, step, count): as store, but of each row only count floats; others stay as they are."""
    for r, row in enumerate(t.reshape(R, -1)):
        for i, value in enumerate(row):
            if i < count:
                pointer[r * step + i] = value


def store_block(t: Tile, A: int, B: int, pointer: Pointer, down: int, right: int, count: int) -> None:
    """store_block(t, A, B, pointer, down, right, count): pointer[a down + b right + v L + l] = t[a][b][v][l]."""
    for a, row in enumerate(t.reshape(A, B, -1)):
        for b, pixel in enumerate(row):
            for i, value in enumerate(pixel[:count]):
                pointer[a * down + b * right + i] = value


def repeat(R: int, V: int, L: int, pointer: Pointer) -> Tile:
    """repeat(R, V, L, pointer): t[r][v][l] = pointer[v L + l], the same for every row."""
    return load(R, V, L, pointer, 0)


def vector(t: Tile, p: int) -> Tile:
    """vector(t, p): the tile of one vector, t[p]."""
    return t[p : p + 1]


def store_bytes(t: Tile, R: int, pointer: Pointer, step: int, count: int) -> None:
    """store_bytes(t, R, pointer, step, count): as store_part, but whole numbers as bytes."""
    for r, row in enumerate(t.reshape(R, -1)):
        for i, value in enumerate(row):
            if i < count:
                pointer[r * step + i] = int(value)


def lanes_equal(pointer: Pointer, count: int, wanted: int, first: int, numbers: Pointer) -> int:
    """lanes_equal(pointer, count, wanted, first, numbers): which of the first count of 16 bytes are wanted.

    Writes first + l for each such lane l to numbers, one after another, and returns how many there are.
    """
    found = [lane for lane in range(16) if lane < count and pointer[lane] == wanted]
    for i, lane in enumerate(found):
        numbers[i] = first + lane
    return len(found)


# Tiles: arithmetic


def outer(t: Tile, R: int, x: Pointer, step: int, w: Pointer) -> Tile:
    """outer(t, R, x, step, w): t[r][v][l] += x[r step] w[v L + l]."""
    P, L = t.shape
    xs = _tile([[x[r * step]] * (P // R * L) for r in range(R)], L)
    return multiply_add(xs, repeat(R, P // R, L, w), t)


def outer_block(t: Tile, A: int, B: int, x: Pointer, down: int, right: int, w: Pointer) -> Tile:
    """outer_block(t, A, B, x, down, right, w): t[a][b][v][l] += x[a down + b right] w[v L + l]."""
    rows = t.reshape(A, -1, t.shape[1])
    return np.concatenate([outer(row, B, at(x, a * down), right, w) for a, row in enumerate(rows)])


def add_products(t: Tile, R: int, x: Pointer, x_step: int, w: Pointer, w_step: int) -> Tile:
    """add_products(t, R, x, x_step, w, w_step): t[r][v][l] += x[r x_step] w[r w_step + v L + l]."""
    P, L = t.shape
    xs = _tile([[x[r * x_step]] * (P // R * L) for r in range(R)], L)
    return multiply_add(xs, load(R, P // R, L, w, w_step), t)


def add_scaled(t: Tile, R: int, factor: float, pointer: Pointer, step: int) -> Tile:
    """add_scaled(t, R, factor, pointer, step): t[r][v][l] += factor pointer[r step + v L + l]."""
    P, L = t.shape
    return multiply_add(fill(P, L, factor), load(R, P // R, L, pointer, step), t)


def add(a: Tile, b: Tile) -> Tile:
    """add(a, b): a + b."""
    return a + b


def subtract(a: Tile, b: Tile) -> Tile:
    """subtract(a, b): a - b."""
    return a - b


def multiply(a: Tile, b: Tile) -> Tile:
    """multiply(a, b): a b."""
    return a * b


def divide(a: Tile, b: Tile) -> Tile:
    """divide(a, b): a / b."""
    return a / b


def multiply_add(a: Tile, b: Tile, c: Tile) -> Tile:
    """multiply_add(a, b, c): a b + c, rounded once."""
    return (a.astype(np.float64) * b + c).astype(np.float32)


def square_root(a: Tile) -> Tile:
    """square_root(a): the square root of each lane."""
    return np.sqrt(a)


def relu(a: Tile) -> Tile:
    """relu(a): 0 where a <= 0, else a; so NaN stays NaN."""
    return np.where(a <= 0, np.float32(0), a)


def where_positive(x: Tile, a: Tile, b: Tile) -> Tile:
    """where_positive(x, a, b): a where x > 0, else b."""
    return np.where(x > 0, a, b)


def where_larger(x: Tile, y: Tile, a: Tile, b: Tile) -> Tile:
    """where_larger(x, y, a, b): a where x > y or x is NaN, else b."""
    return np.where((x > y) | np.isnan(x), a, b)


def where_byte(pointer: Pointer, wanted: int, a: Tile) -> Tile:
    """where_byte(pointer, wanted, a): a[0][l] where the byte pointer[l] is wanted, else 0; of one vector."""
    return _tile([[value if pointer[lane] == wanted else 0 for lane, value in enumerate(a[0])]], a.shape[1])


def spread(t: Tile, R: int, x: Pointer, step: int, v: Tile) -> Tile:
    """spread(t, R, x, step, v): t[r][c][l] += x[r step + c] v[0][l], where c counts the vectors of a row."""
    P, L = t.shape
    xs = _tile([[x[p // (P // R) * step + p % (P // R)]] * L for p in range(P)], L)
    return multiply_add(xs, np.repeat(v, P, axis=0), t)


def fold(t: Tile, R: int) -> Tile:
    """fold(t, R): the row t[0] + t[1] + ... of V vectors, added in this order."""
    rows = t.reshape(R, -1, t.shape[1])
    total: Tile = rows[0]
    for row in rows[1:]:
        total = total + row
    return total


def add_rows(t: Tile, v: Tile, w: Pointer, step: int) -> Tile:
    """add_rows(t, v, w, step): t[r][l] += v[0][l] w[r step + l]."""
    P, L = t.shape
    return multiply_add(np.repeat(v, P, axis=0), load(P, 1, L, w, step), t)


def lane_sums(t: Tile) -> Tile:
    """lane_sums(t): the one vector whose lane r is the sum of the lanes of t[r]: of neighbors, then of pairs, ..."""
    sums, lanes = t, t.shape[1]
    while sums.shape[1] > 1:
        sums = sums[:, ::2] + sums[:, 1::2]
    return np.concatenate([sums.T, np.zeros((1, lanes - len(t)), dtype=np.float32)], axis=1)


def transpose(t: Tile) -> Tile:
    """transpose(t): t[j][i] for L vectors of L lanes."""
    return t.T.copy()


# Calls and threads. Plain Python runs one thread, so what it sees is what all threads see.


def call(kernel: int, operands: int, work: int) -> None:
    """call(kernel, operands, work): run the kernel at an address with the addresses of its two records."""
    ctypes.CFUNCTYPE(None, ctypes.c_int64, ctypes.c_int64)(kernel)(operands, work)


def atomic_add(pointer: Pointer, value: int) -> int:
    """atomic_add(pointer, value): add to what all threads see there; returns what was there before."""
    before = int(pointer[0])
    pointer[0] = before + value
    return before


def atomic_load(pointer: Pointer) -> int:
    """atomic_load(pointer): what all threads see there."""
    return int(pointer[0])


def atomic_store(pointer: Pointer, value: int) -> None:
    """atomic_store(pointer, value): write for all threads."""
    pointer[0] = value
