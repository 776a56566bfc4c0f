"""A small language for kernels: pointers, and tiles of vectors that stay in registers.

Numba knows scalars only; what makes a kernel fast is to say which numbers sit side by side in a register. So there is
one new type, the tile: P vectors of L lanes each, LLVM's [P x <L x float>]. Where a tile stands for a block of a
matrix, its vectors are the block's rows one after another: row r, vector v of V is number r V + v. All operations
below are pure (a tile in, a new tile out) or touch memory at a pointer; LLVM turns them into a few instructions each
and keeps tiles in registers as long as P is at most the number of registers less a few.

Pointers count in elements and carry no length; nothing checks bounds. P, L and the other sizes of a tile are
compile-time numbers, written as names of a kernel's closure or as literals. A multiplication that is added at once
(llvm.fmuladd) is fused where the CPU can; there are no fast-math flags: NaN, infinity and the order of sums are kept.

`twins.py` has each operation once more in plain Python; a test compares the two.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic, models, register_model

_FLOAT, _INT, _BYTE, _BIT = ir.FloatType(), ir.IntType(64), ir.IntType(8), ir.IntType(1)
_INT32 = ir.IntType(32)

FLOATS = types.CPointer(types.float32)
DOUBLES = types.CPointer(types.float64)
INTS = types.CPointer(types.int32)
LONGS = types.CPointer(types.int64)
BYTES = types.CPointer(types.uint8)


class Tile(types.Type):
    """The Numba type of P vectors of L lanes, float32."""

    def __init__(self, vectors: int, lanes: int) -> None:
        self.vectors, self.lanes = vectors, lanes
        super().__init__(name=f"tile({vectors}x{lanes})")


@register_model(Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, tile: Tile) -> None:
        super().__init__(manager, tile, ir.ArrayType(_vector(tile.lanes), tile.vectors))


def _vector(lanes: int, element: ir.Type = _FLOAT) -> ir.VectorType:
    return ir.VectorType(element, lanes)


def _constant(lanes: int, value: float, element: ir.Type = _FLOAT) -> ir.Constant:
    return ir.Constant(_vector(lanes, element), [value] * lanes)


def _splat(builder: Any, scalar: Any, lanes: int) -> Any:
    empty = ir.Constant(_vector(lanes, scalar.type), ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(_INT32, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(_vector(lanes, _INT32), [0] * lanes))


def _call(builder: Any, name: str, result: ir.Type, arguments: list[Any]) -> Any:
    function = ir.FunctionType(result, [a.type for a in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, function, name), arguments)


def _fmuladd(builder: Any, a: Any, b: Any, c: Any) -> Any:
    return _call(builder, f"llvm.fmuladd.v{a.type.count}f32", a.type, [a, b, c])


def _index(builder: Any, start: Any, *terms: tuple[int, Any]) -> Any:
    """Return start + the sum of factor x step; start may be None for 0."""
    total = start
    for factor, step in terms:
        if factor:
            scaled = builder.mul(step, ir.Constant(_INT, factor)) if factor > 1 else step
            total = scaled if total is None else builder.add(total, scaled)
    return ir.Constant(_INT, 0) if total is None else total


def _address(builder: Any, pointer: Any, index: Any, vector: ir.Type) -> Any:
    return builder.bitcast(builder.gep(pointer, [index]), vector.as_pointer())


def _load(builder: Any, pointer: Any, index: Any, lanes: int) -> Any:
    value = builder.load(_address(builder, pointer, index, _vector(lanes)))
    value.align = 4
    return value


def _store(builder: Any, value: Any, pointer: Any, index: Any) -> None:
    builder.store(value, _address(builder, pointer, index, value.type)).align = 4


def _mask(builder: Any, lanes: int, count: Any, skipped: int = 0) -> Any:
    """Return the mask of lanes whose number plus skipped is below count."""
    numbers = ir.Constant(_vector(lanes, _INT32), [skipped + i for i in range(lanes)])
    return builder.icmp_signed("<", numbers, _splat(builder, builder.trunc(count, _INT32), lanes))


def _load_masked(builder: Any, pointer: Any, index: Any, lanes: int, mask: Any) -> Any:
    address = _address(builder, pointer, index, _vector(lanes))
    name = f"llvm.masked.load.v{lanes}f32.p0"
    return _call(builder, name, _vector(lanes), [address, ir.Constant(_INT32, 4), mask, _constant(lanes, 0.0)])


def _store_rows(builder: Any, vectors: list[Any], starts: list[Any], pointer: Any, count: Any) -> None:
    """Store rows of vectors at their starts, of each only the first count numbers; whole rows without masks."""
    kind, width = vectors[0].type, len(vectors) // len(starts)
    lanes, bytes_each = kind.count, 1 if kind.element == _BYTE else 4
    places = [
        _address(builder, pointer, builder.add(start, ir.Constant(_INT, j * lanes)), kind)
        for start in starts
        for j in range(width)
    ]
    whole = builder.icmp_signed(">=", count, ir.Constant(_INT, width * lanes))
    with builder.if_else(whole) as (then, otherwise):
        with then:
            for place, vector in zip(places, vectors, strict=True):
                builder.store(vector, place).align = bytes_each
        with otherwise:
            masks = [_mask(builder, lanes, count, j * lanes) for j in range(width)] * len(starts)
            name = f"llvm.masked.store.v{lanes}{'i8' if bytes_each == 1 else 'f32'}.p0"
            for place, vector, mask in zip(places, vectors, masks, strict=True):
                _call(builder, name, ir.VoidType(), [vector, place, ir.Constant(_INT32, bytes_each), mask])


def _steps(builder: Any, count: int, step: Any) -> list[Any]:
    """Return 0, step, 2 step, ..."""
    return [_index(builder, None, (i, step)) for i in range(count)]


def _vectors(builder: Any, tile: Any) -> list[Any]:
    return [builder.extract_value(tile, i) for i in range(tile.type.count)]


def _pack(builder: Any, vectors: list[Any]) -> Any:
    tile = ir.Constant(ir.ArrayType(vectors[0].type, len(vectors)), ir.Undefined)
    for i, vector in enumerate(vectors):
        tile = builder.insert_value(tile, vector, i)
    return tile


def _map(signature: Any, combine: Any) -> Any:
    """Return what an intrinsic returns for an operation vector by vector; combine(builder, *vectors) makes one."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        rows = zip(*(_vectors(builder, a) for a in arguments), strict=True)
        return _pack(builder, [combine(builder, *row) for row in rows])

    return signature, generate


# Pointers


def pointer_maker(kind: Any) -> Any:
    """Return the operation that makes a pointer from an address.

    Args:
        kind: Numba type of the pointer.
    """

    def typed(context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(kind))

        return kind(types.int64), generate

    return intrinsic(typed)


floats = pointer_maker(FLOATS)
"""floats(address): the pointer to float32 at an address."""
doubles = pointer_maker(DOUBLES)
ints = pointer_maker(INTS)
longs = pointer_maker(LONGS)


@intrinsic
def address(context, pointer):
    """address(pointer): where it points to, as a number."""

    def generate(context, builder, signature, arguments):
        return builder.ptrtoint(arguments[0], _INT)

    return types.int64(pointer), generate


@intrinsic
def as_bytes(context, pointer):
    """as_bytes(pointer): the same place as a pointer to bytes."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(BYTES))

    return BYTES(pointer), generate


@intrinsic
def as_ints(context, pointer):
    """as_ints(pointer): the same place as a pointer to int32."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(INTS))

    return INTS(pointer), generate


@intrinsic
def at(context, pointer, index):
    """at(pointer, index): the pointer that many elements further on."""

    def generate(context, builder, signature, arguments):
        return builder.gep(arguments[0], [arguments[1]])

    return pointer(pointer, types.int64), generate


# Tiles: made, read, written


@intrinsic(prefer_literal=True)
def zeros(context, vectors, lanes):
    """zeros(P, L): t[p] = 0."""
    tile = Tile(vectors.literal_value, lanes.literal_value)

    def generate(context, builder, signature, arguments):
        return ir.Constant(ir.ArrayType(_vector(tile.lanes), tile.vectors), None)

    return tile(vectors, lanes), generate


@intrinsic(prefer_literal=True)
def fill(context, vectors, lanes, value):
    """fill(P, L, value): t[p][l] = value."""
    tile = Tile(vectors.literal_value, lanes.literal_value)

    def generate(context, builder, signature, arguments):
        return _pack(builder, [_splat(builder, arguments[2], tile.lanes)] * tile.vectors)

    return tile(vectors, lanes, types.float32), generate


@intrinsic(prefer_literal=True)
def load(context, rows, vectors, lanes, pointer, step):
    """load(R, V, L, pointer, step): t[r][v][l] = pointer[r step + v L + l]."""
    r, v, n = rows.literal_value, vectors.literal_value, lanes.literal_value

    def generate(context, builder, signature, arguments):
        start = [_index(builder, None, (i, arguments[4])) for i in range(r)]
        return _pack(
            builder,
            [
                _load(builder, arguments[3], builder.add(start[i], ir.Constant(_INT, j * n)), n)
                for i in range(r)
                for j in range(v)
            ],
        )

    return Tile(r * v, n)(rows, vectors, lanes, FLOATS, types.int64), generate


@intrinsic(prefer_literal=True)
def load_part(context, rows, vectors, lanes, pointer, step, count):
    """load_part(R, V, L, pointer, step, count): as load, but of each row only count floats; the others are 0."""
    r, v, n = rows.literal_value, vectors.literal_value, lanes.literal_value

    def generate(context, builder, signature, arguments):
        masks = [_mask(builder, n, arguments[5], j * n) for j in range(v)]
        start = [_index(builder, None, (i, arguments[4])) for i in range(r)]
        return _pack(
            builder,
            [
                _load_masked(builder, arguments[3], builder.add(start[i], ir.Constant(_INT, j * n)), n, masks[j])
                for i in range(r)
                for j in range(v)
            ],
        )

    return Tile(r * v, n)(rows, vectors, lanes, FLOATS, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def store(context, tile, rows, pointer, step):
    """store(t, R, pointer, step): pointer[r step + v L + l] = t[r][v][l]."""
    r, v, n = rows.literal_value, tile.vectors // rows.literal_value, tile.lanes

    def generate(context, builder, signature, arguments):
        vectors = _vectors(builder, arguments[0])
        for i in range(r):
            start = _index(builder, None, (i, arguments[3]))
            for j in range(v):
                _store(builder, vectors[i * v + j], arguments[2], builder.add(start, ir.Constant(_INT, j * n)))
        return context.get_dummy_value()

    return types.void(tile, rows, FLOATS, types.int64), generate


@intrinsic(prefer_literal=True)
def store_part(context, tile, rows, pointer, step, count):
    """store_part(t, R, pointer, step, count): as store, but of each row only count floats; others stay as they are."""
    r = rows.literal_value

    def generate(context, builder, signature, arguments):
        tile, _, pointer, step, count = arguments
        _store_rows(builder, _vectors(builder, tile), _steps(builder, r, step), pointer, count)
        return context.get_dummy_value()

    return types.void(tile, rows, FLOATS, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def store_block(context, tile, rows, columns, pointer, down, right, count):
    """store_block(t, A, B, pointer, down, right, count): pointer[a down + b right + v L + l] = t[a][b][v][l].

    Of each pixel only count floats; others stay as they are.
    """
    a, b = rows.literal_value, columns.literal_value

    def generate(context, builder, signature, arguments):
        tile, _, _, pointer, down, right, count = arguments
        starts = [_index(builder, None, (i, down), (j, right)) for i in range(a) for j in range(b)]
        _store_rows(builder, _vectors(builder, tile), starts, pointer, count)
        return context.get_dummy_value()

    return types.void(tile, rows, columns, FLOATS, types.int64, types.int64, types.int64), generate


@intrinsic(prefer_literal=True)
def repeat(context, rows, vectors, lanes, pointer):
    """repeat(R, V, L, pointer): t[r][v][l] = pointer[v L + l], the same for every row."""
    r, v, n = rows.literal_value, vectors.literal_value, lanes.literal_value

    def generate(context, builder, signature, arguments):
        row = [_load(builder, arguments[3], ir.Constant(_INT, j * n), n) for j in range(v)]
        return _pack(builder, row * r)

    return Tile(r * v, n)(rows, vectors, lanes, FLOATS), generate


@intrinsic(prefer_literal=True)
def vector(context, tile, number):
    """vector(t, p): the tile of one vector, t[p]."""
    p = number.literal_value

    def generate(context, builder, signature, arguments):
        return _pack(builder, [builder.extract_value(arguments[0], p)])

    return Tile(1, tile.lanes)(tile, number), generate


@intrinsic(prefer_literal=True)
def store_bytes(context, tile, rows, pointer, step, count):
    """store_bytes(t, R, pointer, step, count): as store_part, but whole numbers as bytes."""
    r, n = rows.literal_value, tile.lanes

    def generate(context, builder, signature, arguments):
        tile, _, pointer, step, count = arguments
        numbers = [builder.fptosi(vector, _vector(n, _INT32)) for vector in _vectors(builder, tile)]
        vectors = [builder.trunc(vector, _vector(n, _BYTE)) for vector in numbers]
        _store_rows(builder, vectors, _steps(builder, r, step), pointer, count)
        return context.get_dummy_value()

    return types.void(tile, rows, BYTES, types.int64, types.int64), generate


@intrinsic
def lanes_equal(context, pointer, count, wanted, first, numbers):
    """lanes_equal(pointer, count, wanted, first, numbers): which of the first count of 16 bytes are wanted.

    Writes first + l for each such lane l to numbers, one after another (16 places must be writable), and returns how
    many there are.
    """

    def generate(context, builder, signature, arguments):
        pointer, count, wanted, first, numbers = arguments
        n = 16
        value = builder.load(builder.bitcast(pointer, _vector(n, _BYTE).as_pointer()))
        value.align = 1
        same = builder.icmp_unsigned("==", value, _splat(builder, builder.trunc(wanted, _BYTE), n))
        hit = builder.and_(same, _mask(builder, n, count))
        lanes = ir.Constant(_vector(n, _INT32), list(range(n)))
        lanes = builder.add(lanes, _splat(builder, builder.trunc(first, _INT32), n))
        name = f"llvm.experimental.vector.compress.v{n}i32"
        packed = _call(builder, name, lanes.type, [lanes, hit, ir.Constant(lanes.type, None)])
        builder.store(packed, builder.bitcast(numbers, lanes.type.as_pointer())).align = 4
        bits = builder.bitcast(hit, ir.IntType(n))
        return builder.zext(_call(builder, f"llvm.ctpop.i{n}", bits.type, [bits]), _INT)

    return types.int64(BYTES, types.int64, types.int64, types.int64, INTS), generate


# Tiles: arithmetic


def _outer(builder: Any, tile: Any, x: Any, places: list[Any], w: Any) -> Any:
    """Add to each row of a tile the number at its place times the vectors at w."""
    vectors = _vectors(builder, tile)
    lanes, width = vectors[0].type.count, len(vectors) // len(places)
    ws = [_load(builder, w, ir.Constant(_INT, j * lanes), lanes) for j in range(width)]
    for i, place in enumerate(places):
        repeated = _splat(builder, builder.load(builder.gep(x, [place])), lanes)
        for j in range(width):
            vectors[i * width + j] = _fmuladd(builder, repeated, ws[j], vectors[i * width + j])
    return _pack(builder, vectors)


@intrinsic(prefer_literal=True)
def outer(context, tile, rows, x, step, w):
    """outer(t, R, x, step, w): t[r][v][l] += x[r step] w[v L + l].

    The work horse: R numbers of x, each repeated over the lanes, times V vectors of w. Each loaded number serves V
    multiplications, each loaded vector R of them.
    """

    def generate(context, builder, signature, arguments):
        total, _, x, step, w = arguments
        return _outer(builder, total, x, _steps(builder, rows.literal_value, step), w)

    return tile(tile, rows, FLOATS, types.int64, FLOATS), generate


@intrinsic(prefer_literal=True)
def outer_block(context, tile, rows, columns, x, down, right, w):
    """outer_block(t, A, B, x, down, right, w): t[a][b][v][l] += x[a down + b right] w[v L + l]."""
    a, b = rows.literal_value, columns.literal_value

    def generate(context, builder, signature, arguments):
        total, _, _, x, down, right, w = arguments
        places = [_index(builder, None, (i, down), (j, right)) for i in range(a) for j in range(b)]
        return _outer(builder, total, x, places, w)

    return tile(tile, rows, columns, FLOATS, types.int64, types.int64, FLOATS), generate


@intrinsic(prefer_literal=True)
def add_products(context, tile, rows, x, x_step, w, w_step):
    """add_products(t, R, x, x_step, w, w_step): t[r][v][l] += x[r x_step] w[r w_step + v L + l]."""
    r, v, n = rows.literal_value, tile.vectors // rows.literal_value, tile.lanes

    def generate(context, builder, signature, arguments):
        total, _, x, x_step, w, w_step = arguments
        vectors = _vectors(builder, total)
        for i in range(r):
            lanes = _splat(builder, builder.load(builder.gep(x, [_index(builder, None, (i, x_step))])), n)
            start = _index(builder, None, (i, w_step))
            for j in range(v):
                value = _load(builder, w, builder.add(start, ir.Constant(_INT, j * n)), n)
                vectors[i * v + j] = _fmuladd(builder, lanes, value, vectors[i * v + j])
        return _pack(builder, vectors)

    return tile(tile, rows, FLOATS, types.int64, FLOATS, types.int64), generate


@intrinsic(prefer_literal=True)
def add_scaled(context, tile, rows, factor, pointer, step):
    """add_scaled(t, R, factor, pointer, step): t[r][v][l] += factor pointer[r step + v L + l]."""
    r, v, n = rows.literal_value, tile.vectors // rows.literal_value, tile.lanes

    def generate(context, builder, signature, arguments):
        vectors = _vectors(builder, arguments[0])
        lanes = _splat(builder, arguments[2], n)
        for i in range(r):
            start = _index(builder, None, (i, arguments[4]))
            for j in range(v):
                value = _load(builder, arguments[3], builder.add(start, ir.Constant(_INT, j * n)), n)
                vectors[i * v + j] = _fmuladd(builder, lanes, value, vectors[i * v + j])
        return _pack(builder, vectors)

    return tile(tile, rows, types.float32, FLOATS, types.int64), generate


@intrinsic
def add(context, a, b):
    """add(a, b): a + b."""
    return _map(a(a, b), lambda builder, x, y: builder.fadd(x, y))


@intrinsic
def subtract(context, a, b):
    """subtract(a, b): a - b."""
    return _map(a(a, b), lambda builder, x, y: builder.fsub(x, y))


@intrinsic
def multiply(context, a, b):
    """multiply(a, b): a b."""
    return _map(a(a, b), lambda builder, x, y: builder.fmul(x, y))


@intrinsic
def divide(context, a, b):
    """divide(a, b): a / b."""
    return _map(a(a, b), lambda builder, x, y: builder.fdiv(x, y))


@intrinsic
def multiply_add(context, a, b, c):
    """multiply_add(a, b, c): a b + c, fused where the CPU can."""
    return _map(a(a, b, c), _fmuladd)


@intrinsic
def square_root(context, a):
    """square_root(a): the square root of each lane."""
    return _map(a(a), lambda builder, x: _call(builder, f"llvm.sqrt.v{x.type.count}f32", x.type, [x]))


@intrinsic
def relu(context, a):
    """relu(a): 0 where a <= 0, else a; so NaN stays NaN."""

    def combine(builder, x):
        zero = _constant(x.type.count, 0.0)
        return builder.select(builder.fcmp_ordered("<=", x, zero), zero, x)

    return _map(a(a), combine)


@intrinsic
def where_positive(context, x, a, b):
    """where_positive(x, a, b): a where x > 0, else b."""

    def combine(builder, x, a, b):
        return builder.select(builder.fcmp_ordered(">", x, _constant(x.type.count, 0.0)), a, b)

    return _map(x(x, a, b), combine)


@intrinsic
def where_larger(context, x, y, a, b):
    """where_larger(x, y, a, b): a where x > y or x is NaN, else b."""

    def combine(builder, x, y, a, b):
        larger = builder.or_(builder.fcmp_ordered(">", x, y), builder.fcmp_unordered("uno", x, x))
        return builder.select(larger, a, b)

    return _map(x(x, y, a, b), combine)


@intrinsic
def where_byte(context, pointer, wanted, a):
    """where_byte(pointer, wanted, a): a[0][l] where the byte pointer[l] is wanted, else 0; of one vector."""
    n = a.lanes

    def generate(context, builder, signature, arguments):
        value = builder.load(builder.bitcast(arguments[0], _vector(n, _BYTE).as_pointer()))
        value.align = 1
        same = builder.icmp_unsigned("==", value, _splat(builder, builder.trunc(arguments[1], _BYTE), n))
        return _pack(builder, [builder.select(same, builder.extract_value(arguments[2], 0), _constant(n, 0.0))])

    return a(BYTES, types.int64, a), generate


@intrinsic(prefer_literal=True)
def spread(context, tile, rows, x, step, v):
    """spread(t, R, x, step, v): t[r][c][l] += x[r step + c] v[0][l], where c counts the vectors of a row."""
    r, columns, n = rows.literal_value, tile.vectors // rows.literal_value, tile.lanes

    def generate(context, builder, signature, arguments):
        vectors, lanes = _vectors(builder, arguments[0]), builder.extract_value(arguments[4], 0)
        for i in range(r):
            start = _index(builder, None, (i, arguments[3]))
            for j in range(columns):
                scalar = builder.load(builder.gep(arguments[2], [builder.add(start, ir.Constant(_INT, j))]))
                vectors[i * columns + j] = _fmuladd(
                    builder, _splat(builder, scalar, n), lanes, vectors[i * columns + j]
                )
        return _pack(builder, vectors)

    return tile(tile, rows, FLOATS, types.int64, v), generate


@intrinsic(prefer_literal=True)
def fold(context, tile, rows):
    """fold(t, R): the row t[0] + t[1] + ... of V vectors, added in this order."""
    v = tile.vectors // rows.literal_value

    def generate(context, builder, signature, arguments):
        vectors = _vectors(builder, arguments[0])
        total = vectors[:v]
        for i in range(v, len(vectors)):
            total[i % v] = builder.fadd(total[i % v], vectors[i])
        return _pack(builder, total)

    return Tile(v, tile.lanes)(tile, rows), generate


@intrinsic(prefer_literal=True)
def add_rows(context, tile, v, w, step):
    """add_rows(t, v, w, step): t[r][l] += v[0][l] w[r step + l]."""
    n = tile.lanes

    def generate(context, builder, signature, arguments):
        vectors, factor = _vectors(builder, arguments[0]), builder.extract_value(arguments[1], 0)
        for i, total in enumerate(vectors):
            row = _load(builder, arguments[2], _index(builder, None, (i, arguments[3])), n)
            vectors[i] = _fmuladd(builder, factor, row, total)
        return _pack(builder, vectors)

    return tile(tile, v, FLOATS, types.int64), generate


@intrinsic
def lane_sums(context, tile):
    """lane_sums(t): the one vector whose lane r is the sum of the lanes of t[r]: of neighbors, then of pairs, ..."""
    n = tile.lanes

    def generate(context, builder, signature, arguments):
        vectors = _vectors(builder, arguments[0])
        vectors += [_constant(n, 0.0)] * (n - len(vectors))
        width = 1
        while width < n:
            low = [i if not i & width else n + i - width for i in range(n)]
            high = [i + width if not i & width else n + i for i in range(n)]
            masks = [ir.Constant(_vector(n, _INT32), lanes) for lanes in (low, high)]
            pairs = zip(vectors[::2], vectors[1::2], strict=True)
            vectors = [builder.fadd(*(builder.shuffle_vector(a, b, mask) for mask in masks)) for a, b in pairs]
            width *= 2
        return _pack(builder, vectors)

    return Tile(1, n)(tile), generate


@intrinsic
def transpose(context, tile):
    """transpose(t): t[j][i] for L vectors of L lanes."""
    n = tile.lanes

    def generate(context, builder, signature, arguments):
        vectors = _vectors(builder, arguments[0])
        # log2(n) rounds; each swaps the off-diagonal halves of all blocks of 2 width x 2 width.
        width = 1
        while width < n:
            low = [i if not i & width else n + i - width for i in range(n)]
            high = [i + width if not i & width else n + i for i in range(n)]
            masks = [ir.Constant(_vector(n, _INT32), lanes) for lanes in (low, high)]
            swapped = list(vectors)
            for i in range(n):
                if not i & width:
                    pair = vectors[i], vectors[i + width]
                    swapped[i] = builder.shuffle_vector(*pair, masks[0])
                    swapped[i + width] = builder.shuffle_vector(*pair, masks[1])
            vectors = swapped
            width *= 2
        return _pack(builder, vectors)

    return tile(tile), generate


# Calls and threads


@intrinsic
def call(context, kernel, operands, work):
    """call(kernel, operands, work): run the kernel at an address with the addresses of its two records."""

    def generate(context, builder, signature, arguments):
        function = ir.FunctionType(ir.VoidType(), [_INT, _INT])
        builder.call(builder.inttoptr(arguments[0], function.as_pointer()), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def atomic_add(context, pointer, value):
    """atomic_add(pointer, value): add to what all threads see there; returns what was there before."""

    def generate(context, builder, signature, arguments):
        return builder.atomic_rmw("add", arguments[0], arguments[1], "seq_cst")

    return types.int64(LONGS, types.int64), generate


@intrinsic
def atomic_load(context, pointer):
    """atomic_load(pointer): what all threads see there."""

    def generate(context, builder, signature, arguments):
        return builder.load_atomic(arguments[0], "seq_cst", 8)

    return types.int64(LONGS), generate


@intrinsic
def atomic_store(context, pointer, value):
    """atomic_store(pointer, value): write for all threads."""

    def generate(context, builder, signature, arguments):
        builder.store_atomic(arguments[1], arguments[0], "seq_cst", 8)
        return context.get_dummy_value()

    return types.void(LONGS, types.int64), generate
