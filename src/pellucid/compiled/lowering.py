"""What both ways of the translation share: slots for values, the engine's layout of parameters, instructions."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from pellucid import nn
from pellucid._types import Array
from pellucid.compiled.graph import Convolution, Graph, Operation, Value
from pellucid.compiled.kernel import Kernel
from pellucid.compiled.kernels import update, winograd
from pellucid.compiled.layout import READ_AHEAD, Border, Place, Slot, columns_padded
from pellucid.compiled.program import Instruction, Operands, Program, Stage, Task
from pellucid.compiled.tiles import cpu, lanes_for, padded
from pellucid.errors import EngineError
from pellucid.nn import Layer, Network


@dataclass(eq=False)
class Matrix:
    """A parameter in the engine's layout: (taps, rows, width), of whose width columns are in use.

    Attributes:
        start: Where it begins.
        taps, rows, columns, width: Its shape.
        copy: Where its transposed copy begins, (taps, columns, copy_width); -1 without one.
        copy_width: Length of the copy's rows.
        order: Table: which tap of the copy each tap becomes.
        remade: Instructions that make what is made of rows anew when they have changed.
        winograd, winograd_copy: Where the filters' side of Winograd's algorithm lies, (16, rows, width), and its
            transposed copy; -1 without.
    """

    start: int
    taps: int
    rows: int
    columns: int
    width: int
    copy: int = -1
    copy_width: int = 0
    order: int = 0
    remade: list[Instruction] = field(default_factory=list)
    winograd: int = -1
    winograd_copy: int = -1


class Lowering:
    """Slots, parameters and instructions of a program in the making.

    Args:
        graph: Of the network.
        network: Built.
        training: Whether the way back will follow.
        one_image: Whether all batches have one image.
    """

    def __init__(self, graph: Graph, network: Network, training: bool, one_image: bool = False) -> None:
        self.graph, self.network, self.training, self.one_image = graph, network, training, one_image
        self.program = Program()
        self.producer = {op.output: op for op in graph.operations}
        self.slots: dict[Value, Slot] = {}
        self.matrices: dict[int, Matrix] = {}
        self.norms: dict[Operation, Operands] = {}
        self.norms_of_sets: dict[Operation, Operands] = {}
        self.places: dict[Operation, Slot] = {}
        self._vectors: dict[tuple[int, str], int] = {}
        self._states: dict[tuple[int, str], int] = {}
        self._paths = {id(leaf): path for path, leaf in reversed(list(network.leaves()))}
        self._places = network.unflatten(np.arange(network.flat_parameters.size))
        self._state_places, start = {}, 0
        for name, array in network.named_buffers().items():
            self._state_places[name] = np.arange(start, start + array.size)
            start += array.size
        self._now = 0
        self._instructions: list[Instruction] = []
        widest = max(math.prod(v.maps) for v in [graph.input, *self.producer])
        self.nothing = self.program.parameters.add(np.full(widest + READ_AHEAD, -1))
        self._make_slots()

    def finish(self) -> Program:
        """Return the finished program."""
        for matrix in self.matrices.values():
            if matrix.remade:
                self.program.refresh.tasks.append(Task(matrix.remade, 0, matrix.rows))
        self.program.parameters.finish(READ_AHEAD)
        self.program.vectors.finish(READ_AHEAD)
        self.program.finish()
        return self.program

    # Slots

    def _make_slots(self) -> None:
        """Make a slot for each value; some take the memory of the value that they are made from."""
        graph = self.graph
        for value in [graph.input, *self.producer]:
            op = self.producer.get(value)
            if op is not None and (
                (op.kind == "add" and self._is_only_summed(op.inputs[0]))
                or (op.kind == "dropout" and not self.training)
                or (op.kind == "flatten" and not any(self.slots[op.inputs[0]].border + self._border(value)))
            ):
                self.slots[value] = self.slots[op.inputs[0]]
            else:
                self.slots[value] = self.new_slot(op.title if op is not None else "input", value.maps)
            self.slots[value].widen(self._border(value))

    def _border(self, value: Value) -> Border:
        """Return the border that the convolutions that read a value need, whatever else it shares memory with."""
        wanted = Slot("", value.maps)
        for op in self.graph.consumers(value):
            if op.kind in ("conv", "conv_pool", "depthwise"):
                wanted.widen(reach(op))
            elif op.kind == "conv_transpose":
                wanted.widen(reach_back(op))
            elif op.kind == "dropout" and not self.training:
                wanted.widen(self._border(op.output))
        return wanted.border

    def _is_only_summed(self, value: Value) -> bool:
        """Whether nobody but one sum needs the value, not even the way back of what made it."""
        maker = self.producer.get(value)
        kinds = ("conv", "linear", "depthwise", "conv_transpose", "norm")
        plain = maker is not None and maker.kind in kinds and not maker.relu
        return plain and len(self.graph.consumers(value)) == 1

    def new_slot(
        self, name: str, maps: tuple[int, int, int], border: Border = (0, 0, 0, 0), cleared: bool = False
    ) -> Slot:
        """Return a new slot of the frame.

        Args:
            name: For the debug view.
            maps: (C, H, W).
            border: Top, left, bottom, right.
            cleared: Whether a kernel clears it for each image.
        """
        slot = Slot(name, maps, border, cleared)
        self.program.slots.append(slot)
        return slot

    # Instructions

    def make(self, title: str, kernel: Kernel, number: int, operands: Operands) -> Instruction:
        """Return an instruction, and note that it uses its slots.

        Args:
            title: For the debug view.
            kernel: What runs.
            number: When, in the order of instructions.
            operands: By field name.
        """
        for value in operands.values():
            if isinstance(value, Place):
                value.slot.use(number)
        return Instruction(kernel, operands, title)

    def part(self, title: str, kernel: Kernel, operands: Operands) -> Instruction:
        """Return an instruction that is an operand of the next one."""
        return self.make(title, kernel, self._now + 1, operands)

    def emit(self, title: str, kernel: Kernel, operands: Operands) -> None:
        """Append an instruction to the stage over images.

        Args:
            title: For the debug view.
            kernel: What runs.
            operands: By field name.
        """
        self._now += 1
        self._instructions.append(self.make(title, kernel, self._now, operands))

    def close(self, title: str) -> None:
        """End the stage over images, if it has begun.

        Args:
            title: For the debug view.
        """
        if self._instructions:
            self.program.stages.append(Stage(title, instructions=self._instructions))
        self._instructions = []

    def over_channels(self, title: str, kernel: Kernel, channels: int, operands: Operands) -> None:
        """Add a stage whose tasks are blocks of channels.

        Args:
            title: For the debug view.
            kernel: What runs.
            channels: How many.
            operands: By field name.
        """
        self._now += 1
        instruction = self.make(title, kernel, self._now, operands)
        tasks = [Task([instruction], first, min(first + 16, channels)) for first in range(0, channels, 16)]
        self.program.stages.append(Stage(title, tasks=tasks))

    # Parameters

    def vector(self, layer: Layer | None, name: str, missing: float = 0.0, length: int = 0) -> int:
        """Return where a vector parameter lies; where the layer has none, where a constant vector stands for it.

        Args:
            layer: Whose.
            name: "weight" or "bias".
            missing: The constant.
            length: How many of it there must be, if it is not 0.
        """
        key = (id(layer), name)
        if key not in self._vectors:
            source = None if layer is None else self._source(layer, name)
            if source is not None:
                self._vectors[key] = self.program.parameters.add(source)
            elif missing == 0.0:
                self._vectors[key] = self.nothing
            else:
                self._vectors[key] = self.program.parameters.add(np.full(length, -1), missing)
        return self._vectors[key]

    def state(self, layer: Layer, name: str) -> int:
        """Return where a buffer of the network lies among the vectors."""
        key = (id(layer), name)
        if key not in self._states:
            self._states[key] = self.program.vectors.add(self._state_places[self._name(layer, name)])
        return self._states[key]

    def constants(self, values: Array) -> int:
        """Return where a vector of constants lies among the vectors."""
        return self.program.vectors.add(np.full(len(values), -1), values)

    def _name(self, layer: Layer, name: str) -> str:
        path = self._paths[id(layer)]
        return f"{path}.{name}" if path else name

    def _source(self, layer: Layer, name: str) -> Array | None:
        """Return where the network's flat array has a parameter, in the parameter's shape."""
        return self._places.get(self._name(layer, name))

    def matrix(self, op: Operation) -> Matrix:
        """Return the weight of an operation's layer, laid out when first asked for.

        A layer whose input needs a gradient gets its transposed copy in training, for the data gradient; a convolution
        with pooling gets one in training for the forward pass, and a transposed convolution always.

        Args:
            op: A convolution or dense layer.
        """
        layer = op.layer
        source = None if layer is None else self._source(layer, "weight")
        if layer is None or source is None:
            raise EngineError(f"{op.title} has no weight")
        reads_copy = any(
            o.kind == "conv_pool" or o.inputs[0].needs_gradient for o in self.graph.operations if o.layer is layer
        )
        needs_copy = op.kind == "conv_transpose" or (self.training and reads_copy)
        if id(layer) not in self.matrices:
            self.matrices[id(layer)] = self._lay_out(op, source, needs_copy)
        return self.matrices[id(layer)]

    def _lay_out(self, op: Operation, source: Array, needs_copy: bool) -> Matrix:
        if isinstance(op.layer, nn.Linear):
            if self.by_output(op):
                places = source.reshape(-1, *op.inputs[0].maps).transpose(0, 2, 3, 1)
                return self._add_matrix(places.reshape(1, len(source), -1), None)
            places = source.reshape(-1, *op.inputs[0].maps).transpose(2, 3, 1, 0)
            return self._add_matrix(places.reshape(1, -1, len(source)), [0] if needs_copy else None)
        conv = op.conv
        out, inner, kh, kw = source.shape
        if op.kind == "depthwise":
            return self._add_matrix(source.transpose(2, 3, 1, 0).reshape(1, kh * kw, out), None)
        if op.kind == "conv_pool" and self.training:
            rows = source.transpose(2, 0, 3, 1).reshape(kh, out, kw * inner)
            return self._add_matrix(rows, list(range(kh)))
        groups = conv.groups
        cells = source.reshape(groups, out // groups, inner, kh, kw).transpose(0, 3, 4, 2, 1)
        if needs_copy:
            order = [g * kh * kw + tap for g in range(groups) for tap in flipped_order(conv)]
            return self._add_matrix(cells.reshape(groups * kh * kw, inner, out // groups), order)
        return self._add_matrix(cells.reshape(groups * kh * kw, inner, out // groups), None)

    def by_output(self, op: Operation) -> bool:
        """Whether the weight of a dense layer lies as (outputs, inputs), which saves a copy for the way back."""
        return self.one_image and sum(other.layer is op.layer for other in self.graph.operations) == 1

    def _add_matrix(self, places: Array, order: list[int] | None) -> Matrix:
        taps, rows, columns = places.shape
        width = padded(columns, lanes_for(columns))
        start = self.program.parameters.add(columns_padded(places, width))
        matrix = Matrix(start, taps, rows, columns, width)
        if order is not None:
            matrix.copy_width = padded(rows, lanes_for(rows))
            matrix.copy, matrix.order = self._room(taps * columns * matrix.copy_width), self.program.table(order)
        return matrix

    def copy(self, matrix: Matrix) -> int:
        """Return where a matrix's transposed copy begins, which is made from now on."""
        if not any(i.operands.get("copy") == matrix.copy for i in matrix.remade):
            matrix.remade.insert(0, self._transpose(matrix, matrix.start, matrix.copy, matrix.taps, matrix.order))
        return matrix.copy

    def winograd(self, op: Operation, back: bool = False) -> int:
        """Return where the filters' side of Winograd's algorithm begins for a convolution, which is made from now on.

        Args:
            op: A convolution 3x3.
            back: For the data gradient.
        """
        matrix, inner = self.matrix(op), op.conv.in_channels
        if matrix.winograd < 0:
            filters_first = matrix.taps == 3  # as (kernel row, filter, run), with a copy as (cell, channel, filter)
            width = matrix.copy_width if filters_first else matrix.width
            matrix.winograd = self._room(16 * inner * width)
            operands: Operands = {
                "source": self.copy(matrix) if filters_first else matrix.start,
                "from_copies": int(filters_first),
                "rows": inner,
                "columns": matrix.rows if filters_first else matrix.columns,
                "width": width,
                "by_columns": int(filters_first),
                "target": matrix.winograd,
            }
            kernel = winograd.winograd_weights(lanes_for(op.conv.out_channels))
            matrix.remade.append(Instruction(kernel, operands, "filters for Winograd"))
        if back and matrix.winograd_copy < 0:
            matrix.winograd_copy = self._room(16 * matrix.columns * matrix.copy_width)
            # Flipping a filter exchanges the first and the last of G g.
            order = self.program.table([4 * a + b for a in (3, 1, 2, 0) for b in (3, 1, 2, 0)])
            turned = self._transpose(matrix, matrix.winograd, matrix.winograd_copy, 16, order, from_copies=True)
            matrix.remade.append(turned)
        return matrix.winograd_copy if back else matrix.winograd

    def _room(self, floats: int) -> int:
        """Return where so many floats among the copies begin."""
        self.program.copies += padded(floats, 16)
        return self.program.copies - padded(floats, 16)

    def _transpose(
        self, matrix: Matrix, source: int, copy: int, taps: int, order: int, from_copies: bool = False
    ) -> Instruction:
        """Return the instruction that brings rows (of a matrix, or of what has its rows) into a copy."""
        return Instruction(
            update.transposed(cpu()[0]),
            {
                "weights": source,
                "taps": taps,
                "rows": matrix.rows,
                "columns": matrix.columns,
                "width": matrix.width,
                "from_copies": int(from_copies),
                "copy": copy,
                "copy_width": matrix.copy_width,
                "order": order,
            },
            "transpose",
        )


def merges(layer: Convolution) -> bool:
    """Whether a row of the kernel reads one contiguous run of the input."""
    return layer.groups == 1 and layer.dilation[1] == 1


def is_3x3(layer: Convolution) -> bool:
    """Whether a convolution is one that Winograd's algorithm is for."""
    return (layer.kernel_size, layer.stride, layer.dilation, layer.groups) == ((3, 3), (1, 1), (1, 1), 1)


def reach(op: Operation) -> Border:
    """Return how far the windows of a convolution reach beyond what they slide over: top, left, bottom, right."""
    conv, sides = op.conv, op.padding
    ends = [
        max(0, (o - 1) * s + d * (k - 1) - front - (n - 1))
        for o, s, d, k, (front, _), n in zip(
            op.positions[1:], conv.stride, conv.dilation, conv.kernel_size, sides, op.windowed[1:], strict=True
        )
    ]
    return sides[0][0], sides[1][0], ends[0], ends[1]


@dataclass(frozen=True)
class Residue:
    """Rows (or columns) of a convolution's input that meet the same kernel cells: first, first + stride, ...

    Attributes:
        first: The first of them.
        count: How many there are.
        cells: Kernel cells, and for each the output that it reads for the first of them; ascending by output.
    """

    first: int
    count: int
    cells: tuple[tuple[int, int], ...]


def residues(size: int, kernel: int, stride: int, dilation: int, front: int) -> list[Residue]:
    """Return the residues of one axis: input i meets cell k at output (i + front - k dilation) / stride.

    Args:
        size: Of the input.
        kernel: Cells.
        stride: Step.
        dilation: Distance of cells.
        front: Zeros before the input.
    """
    found = []
    for first in range(min(stride, size)):
        cells = [
            (k, (first + front - k * dilation) // stride)
            for k in reversed(range(kernel))
            if (first + front - k * dilation) % stride == 0
        ]
        found.append(Residue(first, -(-(size - first) // stride), tuple(cells)))
    return found


def residues_of(op: Operation) -> Iterator[tuple[Residue, Residue]]:
    """Yield the residues of rows and columns of what a convolution's windows slide over."""
    conv = op.conv
    axes = [
        residues(n, k, s, d, front)
        for n, k, s, d, (front, _) in zip(
            op.windowed[1:], conv.kernel_size, conv.stride, conv.dilation, op.padding, strict=True
        )
    ]
    for rows in axes[0]:
        for columns in axes[1]:
            yield rows, columns


def reach_back(op: Operation) -> Border:
    """Return how far the data gradient of a convolution reads beyond the gradient of its positions."""
    top = left = bottom = right = 0
    for rows, columns in residues_of(op):
        for _, place in rows.cells:
            top, bottom = max(top, -place), max(bottom, place + rows.count - op.positions[1])
        for _, place in columns.cells:
            left, right = max(left, -place), max(right, place + columns.count - op.positions[2])
    return top, left, bottom, right


def flipped_order(layer: Convolution) -> list[int]:
    """Return for each kernel cell (row by row) its place in the copy for the data gradient.

    There the cells stand in the order in which the gradient reads them: by residue of rows, by residue of columns,
    then flipped.

    Args:
        layer: A convolution.
    """
    (kh, kw), (sh, sw), (dh, dw) = layer.kernel_size, layer.stride, layer.dilation
    order, place = [0] * (kh * kw), 0
    for rest_h in range(sh):
        for rest_w in range(sw):
            for a in reversed(range(kh)):
                for b in reversed(range(kw)):
                    if a * dh % sh == rest_h and b * dw % sw == rest_w:
                        order[a * kw + b] = place
                        place += 1
    return order
