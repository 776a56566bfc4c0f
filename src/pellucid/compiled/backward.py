"""The way back as instructions, then the blocks of parameters; one method for each kind of operation.

A gradient takes the memory of the gradient it is made from where the operation goes number by number and nobody else
adds to it. A value that several operations read gets the first gradient directly and the others by addition.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from pellucid import nn, optim
from pellucid._types import Array
from pellucid.compiled.forward import Forward, Windows, bounds, edge, is_wide
from pellucid.compiled.graph import Graph, Operation, Value
from pellucid.compiled.kernel import Kernel
from pellucid.compiled.kernels import (
    correlate,
    depthwise,
    edges,
    gradients,
    group_norm,
    losses,
    norm,
    pointwise,
    pool,
    pooled,
    prelu,
    resample,
    select,
    update,
    winograd_gradient,
)
from pellucid.compiled.layout import SLACK, Border, Place, Slot
from pellucid.compiled.lowering import Matrix, flipped_order, is_3x3, reach, reach_back, residues_of
from pellucid.compiled.program import AFTERWARDS, JUDGES, REPORTS, Instruction, Operands, Program, Stage, Task
from pellucid.compiled.sums import of_nothing
from pellucid.compiled.tiles import (
    cpu,
    lanes_for,
    row_tile,
    run_tile,
    scatter_tile,
    select_tile,
    winograd_gradient_tile,
)
from pellucid.errors import EngineError
from pellucid.nn import Loss, Network
from pellucid.optim import Optimizer

_TASKS = 3  # about how many blocks for each thread the parameters of a network are cut into; each reads all images
_IN_PLACE = (*pointwise.FUNCTIONS, "prelu", "norm", "group_norm", "dropout", "softmax", "log_softmax", "add")
_SUMMED = 64  # about how many products a convolution's weight gradient sums in registers, before it goes to memory


@dataclass
class Block:
    """Part of a parameter that one task computes and updates.

    Attributes:
        owner: Number of the layer, for clipping.
        path: Where the layer stands.
        gradient: Instructions that make its gradient.
        updates: Parameters that are stepped.
        begin, end: Which rows of each.
        cost: Multiplications.
        after: Instructions for the same rows after the step.
    """

    owner: int
    path: str
    gradient: list[Instruction]
    updates: list[Matrix]
    begin: int
    end: int
    cost: float
    after: list[Instruction] = field(default_factory=list)


class Backward(Forward):
    """Emits a whole training step. An operation of kind "conv" goes forward in _conv and back in _conv_back.

    Args:
        graph: Of the network.
        network: Built.
        loss: What is made small.
        optimizer: How; without one the step ends with the gradients.
        threads: For how many the parameters are cut into blocks; any number can run them.
        one_image: Whether all batches have one image, and the optimizer is in_one_go.
    """

    def __init__(
        self,
        graph: Graph,
        network: Network,
        loss: Loss,
        optimizer: Optimizer | None,
        threads: int = 1,
        one_image: bool = False,
    ) -> None:
        super().__init__(graph, network, training=True, one_image=one_image)
        self._loss, self._optimizer = loss, optimizer
        self._wanted_blocks = 1 if one_image else _TASKS * threads
        self._gradients: dict[Value, Slot] = {}
        # Gradients by an operation's own output, before its ReLU, which the gradient of its weight needs.
        self._convolved: dict[Operation, Slot] = {}
        # Gradients that must still be added to others: (total, part).
        self._more: list[tuple[Slot, Slot]] = []
        # Where each image leaves its part of the gradients of vectors.
        self._sums: dict[Operation, Slot] = {}
        self._done: dict[int, int] = {}

    def lower(self) -> Program:
        """Return the program of a training step."""
        self.lower_forward()
        self._lower_loss()
        for op in reversed(self.graph.operations):
            if op.output in self._gradients:
                getattr(self, f"_{op.kind}_back")(op, self._gradients[op.output])
                for total, part in self._more:
                    self.emit(
                        f"add to {total.name}", pointwise.add_maps(cpu()[0], False), self.pointwise(total, part, total)
                    )
                self._more = []
        self.close("backward" if self.norms else "forward and backward")
        last = [stage for stage in self.program.stages if stage.instructions][-1]
        last.judges = REPORTS if self._optimizer is None else JUDGES
        self._lower_parameters()
        return self.finish()

    def _lower_loss(self) -> None:
        value = self.graph.output
        output = self.slots[value]
        gradient = self._gradients[value] = self._new_gradient(value, compact=True)
        loss = self._loss
        operands: Operands = {
            "x": output.place(),
            "x_down": output.down,
            "dx": gradient.place(),
            "dx_down": gradient.down,
            "rows": output.rows,
            "columns": output.columns,
            "channels": output.channels,
            "labels": 1,
            "class_weights": 0,
            "weights": 0,
            "positive": 0,
            "smoothing": getattr(loss, "label_smoothing", 0.0),
            "bend": getattr(loss, "delta", getattr(loss, "beta", 1.0)),
        }
        kernel, weight = _loss_kernel(loss), getattr(loss, "weight", None)
        if isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
            classes = output.channels
            operands["class_weights"] = self.constants(np.ones(classes) if weight is None else weight)
            self.program.scratch = max(self.program.scratch, 2 * classes)
        else:
            weights = [self._per_element(w) if _is_weighted(loss) else 0 for w in (weight, _positive(loss))]
            operands |= {"weights": weights[0], "positive": weights[1]}
        self.emit(f"loss {type(loss).__name__}", kernel, operands)
        self.program.loss = self._instructions[-1]
        if not value.needs_gradient:
            del self._gradients[value]

    def _per_element(self, weight: Array | None) -> int:
        """Return where the weights of a loss lie, one for each element of the output, channels first; ones if None."""
        return self.constants(np.broadcast_to(1.0 if weight is None else weight, (1, *self.graph.output.shape)).ravel())

    # Slots of gradients

    def _new_gradient(self, value: Value, compact: bool) -> Slot:
        border = (0, 0, 0, 0) if compact else self._wanted(value)
        return self.new_slot(f"gradient of {self.slots[value].name}", value.maps, border)

    def _wanted(self, value: Value) -> Border:
        """Return the border that a value's gradient should have: what its convolution reads on the way back."""
        op = self.producer.get(value)
        if op is None:
            return 0, 0, 0, 0
        if op.kind == "conv_transpose":
            return reach(op)
        if op.kind in ("conv", "depthwise") and op.inputs[0].needs_gradient:
            return (0, 0, 0, 0) if _scatters(op) else reach_back(op)
        if op.kind in _IN_PLACE and len(self.graph.consumers(op.inputs[0])) == 1:
            return self._wanted(op.inputs[0])
        return 0, 0, 0, 0

    def _into(self, value: Value, same: Slot | None = None, compact: bool = False) -> Slot | None:
        """Return where a gradient of a value is to be written; None where nobody needs it.

        Args:
            value: An operation's input.
            same: The gradient that it is made from, if it may take its memory.
            compact: Whether the kernel writes one contiguous stretch.
        """
        if not value.needs_gradient:
            return None
        if value in self._gradients:
            part = self._new_gradient(value, compact=True)
            self._more.append((self._gradients[value], part))
            return part
        alone = len(self.graph.consumers(value)) == 1
        self._gradients[value] = same if same is not None and alone else self._new_gradient(value, compact)
        return self._gradients[value]

    def _masked(self, op: Operation, dy: Slot, border: Border = (0, 0, 0, 0)) -> Slot:
        """Return the gradient before the operation's ReLU, with at least the given border.

        Args:
            op: With or without ReLU.
            dy: Gradient of its output.
            border: What the next kernel reads around it.
        """
        fits = all(a >= b for a, b in zip(dy.border, border, strict=True))
        target = dy if fits else self.new_slot(f"{dy.name}, with border", dy.maps, border)
        if op.relu:
            operands = self.pointwise(self.slots[op.output], dy, target)
            self.emit(f"ReLU of {op.path}", pointwise.relu_gradient(cpu()[0]), operands)
        elif not fits:
            self.emit(f"border of {op.path}", pointwise.copy_map(cpu()[0]), self.pointwise(dy, dy, target))
        return target

    # Convolutions and dense layers

    def _conv_back(self, op: Operation, dy: Slot) -> None:
        tile = _scatters(op)
        if tile and not any(dy.border):
            self._scatter_back(op, dy, tile)
            return
        dx = self._into(op.inputs[0])
        dy = self._convolved[op] = self._masked(op, dy, (0, 0, 0, 0) if dx is None else reach_back(op))
        if dx is None:
            return
        for operands in self.correlations_back(op, dy, dx):
            self.emit(f"data gradient {op.path}", self.correlation(op, operands, back=True), operands)

    def _conv_transpose_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0])
        dy = self._convolved[op] = self._masked(op, dy, reach(op))
        if dx is not None:
            for operands in self.correlations(op, dy, dx.place(), dx.down, dx.maps):
                self.emit(f"data gradient {op.path}", self.correlation(op, operands), operands)

    def _scatter_back(self, op: Operation, dy: Slot, tile: tuple[int, ...]) -> None:
        dx = self._into(op.inputs[0], compact=True)
        dy = self._convolved[op] = self._masked(op, dy)
        if dx is None:
            return
        conv, matrix = op.conv, self.matrix(op)
        (kh, kw), (sh, sw), (dh, dw) = conv.kernel_size, conv.stride, conv.dilation
        places = sorted((place, divmod(cell, kw)) for cell, place in enumerate(flipped_order(conv)))
        self.program.scratch = max(self.program.scratch, math.prod(tile))
        operands: Operands = {
            "dy": dy.place(),
            "dx": dx.place(),
            "dx_down": sh * dx.down,
            "dx_right": sw * dx.channels,
            "rows": dy.rows,
            "columns": dy.columns,
            "run": dy.channels,
            "channels": dx.channels,
            "taps": self.program.table([a * dh * dx.down + b * dw * dx.channels for _, (a, b) in places]),
            "tap_count": kh * kw,
            "weights": self.copy(matrix),
            "width": matrix.copy_width,
            "map_size": math.prod(dx.maps),
        }
        self.emit(f"data gradient {op.path}", correlate.scatter(*tile), operands)

    def _depthwise_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0])
        dy = self._convolved[op] = self._masked(op, dy, (0, 0, 0, 0) if dx is None else reach_back(op))
        if dx is None:
            return
        (_, kw), (sh, sw), matrix = op.conv.kernel_size, op.conv.stride, self.matrix(op)
        for rows, columns in residues_of(op):
            cells = [(a, b) for a in rows.cells for b in columns.cells]
            operands: Operands = {
                "x": dy.place(),
                "x_down": dy.down,
                "x_right": dy.channels,
                "y": dx.place(rows.first, columns.first),
                "y_down": sh * dx.down,
                "y_right": sw * dx.channels,
                "rows": rows.count,
                "columns": columns.count,
                "channels": dx.channels,
                "taps": self.program.table([a * dy.down + b * dy.channels for (_, a), (_, b) in cells]),
                "weight_rows": self.program.table([a * kw + b for (a, _), (b, _) in cells]),
                "tap_count": len(cells),
                "weights": matrix.start,
                "width": matrix.width,
                "bias": self.nothing,
                "relu": 0,
                "adds": 0,
            }
            self.emit(f"data gradient {op.path}", depthwise.depthwise(lanes_for(dx.channels)), operands)

    def _conv_pool_back(self, op: Operation, dy: Slot) -> None:
        self._convolved[op] = dy
        dx = self._into(op.inputs[0])
        if dx is None:
            return
        # Windows reach into the padding, so a border gets numbers; dx's own must stay 0 for others.
        border = reach(op)
        target = self.new_slot(f"{dx.name}, padded", dx.maps, border, cleared=True) if any(border) else dx
        operands, window = self._pooled(op, target, dy)
        scratch = dy.rows * dy.columns * (window + dy.channels)
        self.program.scratch = max(self.program.scratch, scratch)
        kernel = pooled.pooled_data_gradient(*run_tile(op.conv.kernel_size[0], self.matrix(op).columns))
        self.emit(f"data gradient {op.path}", kernel, operands)
        if target is not dx:
            self.emit(f"data gradient {op.path}", pointwise.copy_map(cpu()[0]), self.pointwise(target, target, dx))

    def _pooled(self, op: Operation, x: Slot, dy: Slot) -> tuple[Operands, int]:
        """Return the operands of a pooled convolution's way back, and the cells of a pooling's window.

        Args:
            op: The convolution.
            x: Its input, or the input's gradient.
            dy: Gradient of the pooled output.
        """
        matrix, windows = self.matrix(op), self.windows(op, x, split=False)
        rows, columns = bounds(op.pool, (op.convolved[1], op.convolved[2]), (dy.rows, dy.columns))
        origins = [top * windows.down + left * windows.right for top in rows.starts for left in columns.starts]
        cells = [i * windows.down + j * windows.right for i in range(rows.span) for j in range(columns.span)]
        operands: Operands = {
            "x": windows.first,
            "dy": dy.place(),
            "dy_down": dy.down,
            "dy_right": dy.channels,
            "rows": dy.rows,
            "columns": dy.columns,
            "channels": dy.channels,
            "places": self.places[op].corner,
            "origins": self.program.table(origins),
            "cells": self.program.table(cells + [0] * (pool.DEAD + 1 - len(cells))),
            "taps": windows.taps,
            "tap_count": windows.tap_count,
            "run": windows.run,
            "tap_step": op.conv.dilation[0] * x.down,
            "weights": matrix.start,
            "width": matrix.width,
            "window": len(cells),
            "bias": self.vector(op.conv, "bias"),
            "map": x.corner,
            "map_size": x.size - SLACK,
        }
        return operands, len(cells)

    def _linear_back(self, op: Operation, dy: Slot) -> None:
        dy = self._convolved[op] = self._masked(op, dy)
        dx = self._into(op.inputs[0], compact=True)
        if dx is None:
            return
        matrix, direct = self.matrix(op), self.by_output(op)
        operands = self.dense(dy, dx, dy.channels, math.prod(dx.maps)) | {
            "weights": matrix.start if direct else self.copy(matrix),
            "width": matrix.width if direct else matrix.copy_width,
            "from_copies": int(not direct),
            "bias": self.nothing,
            "relu": 0,
        }
        self.emit(f"data gradient {op.path}", self.dense_kernel(math.prod(dx.maps)), operands)

    # Pooling and batch norm

    def _max_pool_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0])
        if dx is None:
            return
        operands = self.pooling(op.layer, dx.maps, dx.down, dy) | {"x": dx.place(), "places": self.places[op].corner}
        self.emit(f"gradient {op.path}", pool.max_pool_gradient(is_wide(op.layer)), operands)

    def _mean_pool_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0])
        if dx is None:
            return
        operands = self.pooling(op.layer, dx.maps, dx.down, dy) | {"x": dx.place(), "places": 0}
        self.emit(f"gradient {op.path}", pool.mean_pool_gradient(lanes_for(dx.channels)), operands)

    def _select_pool_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0])
        if dx is not None:
            self.emit(f"gradient {op.path}", select.select_pool_gradient(), self.selection(op, dx, dy))

    def _unpool_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0])
        if dx is not None:
            self.program.scratch = max(self.program.scratch, math.prod(dy.maps))
            self.emit(f"gradient {op.path}", select.unpool_gradient(), self.selection(self.source(op), dy, dx))

    def _pad_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0])
        if dx is not None and op.sums is not None:
            rows, columns = op.sums
            operands = self.resampling((rows.transposed(), columns.transposed()), dy, dx, dx.channels)
            self.emit(f"gradient {op.path}", resample.resample(lanes_for(dx.channels)), operands)

    _upsample_back = _pad_back

    def _concat_back(self, op: Operation, dy: Slot) -> None:
        first = 0
        for value in op.inputs:
            dx, channels = self._into(value), value.maps[0]
            if dx is not None:
                operands = self.resampling(of_nothing(value.maps[1:]), dy, dx, channels, x_first=first)
                self.emit(f"gradient {op.path}", resample.resample(lanes_for(channels)), operands)
            first += channels

    def _group_norm_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0], same=dy) or dy  # what nobody needs may replace dy
        operands = self.norms_of_sets[op]
        length, run = int(operands["length"]), int(operands["run"])  # type: ignore[arg-type]
        self._sums[op] = self.new_slot(f"sums of {op.path}", (2 * length, 1, 1))
        operands |= {"dy": dy.place(), "dy_down": dy.down, "dx": dx.place(), "dx_down": dx.down}
        operands |= {"sums": self._sums[op].place()}
        self.emit(f"gradient {op.path}", group_norm.group_norm_gradient(lanes_for(run)), operands)

    _layer_norm_back = _group_norm_back

    def _norm_back(self, op: Operation, dy: Slot) -> None:
        dy = self._masked(op, dy)
        dx = self._into(op.inputs[0], same=dy)
        operands = self.norms[op] | {"dy": dy.place(), "dy_down": dy.down, "adds": int(self._again(op))}
        lanes, channels = lanes_for(dy.channels), dy.channels
        self.emit(f"gradient {op.path}", norm.gradient_sums(lanes), operands)
        self.close("backward" if op is not self._last_norm() else "forward and backward")
        self.over_channels(f"gradient of {op.path}", norm.combine_gradients(), channels, operands)
        if dx is not None:
            operands = operands | {"dx": dx.place(), "dx_down": dx.down}
            self.emit(f"data gradient {op.path}", norm.normalize_gradient(lanes), operands)

    def _last_norm(self) -> Operation:
        """Return the batch norm that the way back meets first."""
        return list(self.norms)[-1]

    def _again(self, op: Operation) -> bool:
        """Whether another operation of the same layer came before on the way back; counts this one."""
        self._done[id(op.layer)] = self._done.get(id(op.layer), 0) + 1
        return self._done[id(op.layer)] > 1

    # Number by number

    def _activation_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0], same=dy)
        if dx is None:
            return
        source = self.slots[op.output if op.kind in ("relu", "sigmoid", "tanh") else op.inputs[0]]
        operands = self.pointwise(source, dy, dx, op)
        relu = op.kind == "relu"
        kernel = pointwise.relu_gradient(cpu()[0]) if relu else pointwise.activation_gradient(op.kind)
        self.emit(f"gradient {op.path}", kernel, operands)

    _relu_back = _leaky_relu_back = _sigmoid_back = _tanh_back = _elu_back = _silu_back = _activation_back
    _gelu_back = _gelu_tanh_back = _softplus_back = _activation_back

    def _prelu_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0], same=dy) or dy
        self._sums[op] = self.new_slot(f"sums of {op.path}", (dy.channels, 1, 1))
        operands = self.sloped(op, self.slots[op.inputs[0]], dy, dx) | {"sums": self._sums[op].place()}
        self.emit(f"gradient {op.path}", prelu.prelu_gradient(lanes_for(dy.channels)), operands)

    def _dropout_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0], same=dy)
        if dx is not None:
            self.emit(f"gradient {op.path}", self.dropout_kernel(op), self.pointwise(dy, dy, dx, op))

    def _add_back(self, op: Operation, dy: Slot) -> None:
        dy = self._masked(op, dy)
        first = self._into(op.inputs[0], same=dy)
        for dx in (first, self._into(op.inputs[1])):
            if dx is not None and dx is not dy:
                self.emit(f"gradient {op.path}", pointwise.copy_map(cpu()[0]), self.pointwise(dy, dy, dx))

    def _flatten_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0], same=dy)
        if dx is not None and dx is not dy:
            self.emit(f"gradient {op.path}", pointwise.copy_map(cpu()[0]), self.pointwise(dy, dy, dx))

    def _reorder_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0])
        if dx is not None:
            self.emit(f"gradient {op.path}", edges.reorder(True), {**edge(dx), "vector": dy.place()})

    def _arrange_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0])
        if dx is not None:
            self.emit(f"gradient {op.path}", edges.reorder(False), {**edge(dy), "vector": dx.place()})

    def _softmax_back(self, op: Operation, dy: Slot) -> None:
        dx = self._into(op.inputs[0], same=dy)
        if dx is None:
            return
        if dx is not dy:
            self.emit(f"gradient {op.path}", pointwise.copy_map(cpu()[0]), self.pointwise(dy, dy, dx))
        kernel = losses.softmax_gradient() if op.kind == "softmax" else losses.log_softmax_gradient()
        self.emit(f"gradient {op.path}", kernel, self.softmax(op, dx, self.slots[op.output]))

    _log_softmax_back = _softmax_back

    # Parameters

    def _lower_parameters(self) -> None:
        """Add the stages over blocks: gradients, and with an optimizer its step."""
        blocks = list(self._blocks())
        optimizer = self._optimizer
        if optimizer is None:
            tasks = [Task(b.gradient, b.begin, b.end, b.cost) for b in blocks if b.gradient]
            self.program.stages.append(Stage("gradients", tasks=tasks))
            return
        running = [
            Instruction(norm.update_running(), _without_slots(operands), f"running {op.path}")
            for op, operands in self.norms.items()
        ]
        moved = [Task(running, 0, 0)] if running else []
        clips = optimizer.clip_norm is not None or optimizer.clip_layer_norm is not None
        blocks.sort(key=lambda b: b.owner)
        owners = [b.owner for b in blocks for _ in b.updates]
        bounds = [owners.index(owner) for owner in dict.fromkeys(owners)] + [len(owners)]
        layers = self.program.table(bounds)
        self.program.parts = len(owners)
        step = update.update(_kind(optimizer), cpu()[0], clips)
        first, second, part = [], [], 0
        for block in blocks:
            squares, steps = [], []
            for matrix in block.updates:
                operands: Operands = {
                    "weights": matrix.start,
                    "taps": matrix.taps,
                    "rows": matrix.rows,
                    "width": matrix.width,
                    "part": part,
                    "layers": layers,
                    "layer_count": len(bounds) - 1,
                    **_numbers(optimizer),
                }
                squares.append(Instruction(update.squares(), operands, "squares"))
                steps.append(Instruction(step, operands, f"update {block.path}"))
                part += 1
            steps += block.after
            if clips:
                first.append(Task(block.gradient + squares, block.begin, block.end, block.cost))
                second.append(Task(steps, block.begin, block.end, block.cost))
            else:
                second.append(Task(block.gradient + steps, block.begin, block.end, block.cost))
        if clips:
            self.program.stages.append(Stage("gradients", tasks=first))
        self.program.stages.append(Stage("update" if clips else "gradients and update", tasks=second + moved))

    def _blocks(self) -> Iterator[Block]:
        by_layer: dict[int, list[Operation]] = {}
        for op in reversed(self.graph.operations):
            if op.layer is not None and op.layer.named_parameters():
                by_layer.setdefault(id(op.layer), []).append(op)
        total = sum(_gradient_cost(op) for ops in by_layer.values() for op in ops) or 1
        for owner, ops in enumerate(by_layer.values()):
            op, layer = ops[0], ops[0].layer
            pieces = max(1, round(self._wanted_blocks * sum(map(_gradient_cost, ops)) / total))
            if op.kind in ("prelu", "group_norm", "layer_norm"):
                yield self._summed_block(ops, owner)
            elif op.kind == "norm":
                vectors = [self.vector(layer, name) for name in ("weight", "bias")]
                updates = [Matrix(start, 1, 1, op.output.maps[0], op.output.maps[0]) for start in vectors]
                yield Block(owner, op.path, [], updates, 0, 1, 0)
            elif op.kind == "linear" and self.by_output(op):
                yield Block(owner, op.path, [], [], 0, 1, _gradient_cost(op), [self._rank_one(op)])
            elif op.kind == "conv_pool":
                yield from self._pooled_blocks(op, owner, pieces)
            else:
                yield from self._dense_blocks(ops, owner, pieces)

    def _summed_block(self, ops: list[Operation], owner: int) -> Block:
        """Return the block of vectors whose gradients each image leaves in its frame.

        Args:
            ops: All operations of the layer, as the way back meets them.
            owner: Number of the layer.
        """
        gradient, updates, layer = [], [], ops[0].layer
        named = {} if layer is None else layer.named_parameters()
        for number, (name, array) in enumerate(named.items()):
            start, size = self.vector(layer, name), array.size
            updates.append(Matrix(start, 1, 1, size, size))
            for op in ops:
                parts = self._sums[op]
                # Of one slope for all channels, the sums of channels are added too.
                channels = parts.channels if op.kind == "prelu" and size == 1 else 1
                operands: Operands = {
                    "dy": parts.place() + number * size,
                    "dy_down": 0,
                    "dy_right": 1,
                    "rows": 1,
                    "columns": channels,
                    "bias": start,
                    "channels": size,
                    "adds": int(op is not ops[0]),
                }
                kernel = gradients.bias_gradient(lanes_for(size))
                gradient.append(self.make(f"{name} gradient {op.path}", kernel, AFTERWARDS, operands))
        return Block(owner, ops[0].path, gradient, updates, 0, 1, 0)

    def _pooled_blocks(self, op: Operation, owner: int, pieces: int) -> Iterator[Block]:
        matrix, dy = self.matrix(op), self._convolved[op]
        operands, _ = self._pooled(op, self.slots[op.inputs[0]], dy)
        updates = [matrix]
        if op.has_bias:
            updates.append(Matrix(self.vector(op.conv, "bias"), 1, matrix.rows, 1, 1))
        else:  # the kernel writes one all the same
            operands["bias"] = self.program.parameters.add(np.full(matrix.rows, -1))
        selects = _selects(op)
        if selects:
            kernel, multiple = pooled.selected_weight_gradient(*selects), selects[2]
            self.program.scratch = max(self.program.scratch, math.prod(selects))
        else:
            taps, vectors, lanes = run_tile(matrix.taps, matrix.columns)
            self.program.scratch = max(self.program.scratch, 2 * dy.rows * dy.columns)
            few = taps * vectors < 8 and 4 * taps * vectors + 2 <= cpu()[1]
            kernel, multiple = pooled.pooled_weight_gradient(taps, vectors, lanes, 4 if few else 1), 1
        gradient = self.make(f"weight gradient {op.path}", kernel, AFTERWARDS, operands)
        for begin, end in _cut(matrix.rows, multiple, pieces):
            share = _gradient_cost(op) * (end - begin) / matrix.rows
            yield Block(owner, op.path, [gradient], updates, begin, end, share, matrix.remade)

    def _dense_blocks(self, ops: list[Operation], owner: int, pieces: int) -> Iterator[Block]:
        """Yield the blocks of a weight, then its bias.

        Args:
            ops: All operations of the layer, as the way back meets them.
            owner: Number of the layer.
            pieces: How many blocks.
        """
        op, matrix = ops[0], self.matrix(ops[0])
        # Where the usual sums are exactly 0, Winograd's leave a trace of rounding, and whoever divides by the size of a
        # gradient makes a whole step of it: so it is for SGD.
        fast = isinstance(self._optimizer, optim.SGD) and all(map(_by_winograd, ops))
        multiple = row_tile(matrix.rows, matrix.columns)[0]
        if op.kind == "depthwise":
            multiple = matrix.rows
        elif fast:
            multiple = _by_winograd(op)[-1]
        cuts = list(_cut(matrix.rows, multiple, pieces))
        most = max(end - begin for begin, end in cuts) if fast else 0
        weight = [i for o in ops for i in self._weight_gradient(o, matrix, o is not op, most)]
        for begin, end in cuts:
            share = sum(map(_gradient_cost, ops)) * (end - begin) / matrix.rows
            yield Block(owner, op.path, weight, [matrix], begin, end, share, matrix.remade)
        if op.has_bias:
            channels, start = op.output.maps[0], self.vector(op.layer, "bias")
            bias = [self._bias_gradient(o, start, o is not op) for o in ops]
            yield Block(owner, op.path, bias, [Matrix(start, 1, 1, channels, channels)], 0, 1, 0)

    def _rank_one(self, op: Operation) -> Instruction:
        """Return the instruction of a dense layer's whole step after one image."""
        matrix = self.matrix(op)
        operands: Operands = {
            "x": self.slots[op.inputs[0]].place(),
            "dy": self._convolved[op].place(),
            "weights": matrix.start,
            "inputs": matrix.columns,
            "outputs": matrix.rows,
            "width": matrix.width,
            "bias": self.vector(op.layer, "bias") if op.has_bias else -1,
            "decay": self._optimizer.weight_decay if self._optimizer is not None else 0.0,
        }
        return self.make(f"step {op.path}", update.rank_one(lanes_for(matrix.columns)), AFTERWARDS, operands)

    def _weight_gradient(self, op: Operation, matrix: Matrix, adds: bool, most: int) -> list[Instruction]:
        """Return the instructions of a weight's gradient, one for each group.

        Args:
            op: A convolution or dense layer.
            matrix: Its weight.
            adds: Whether another operation of the same layer came before.
            most: The most rows of a task where Winograd's algorithm makes the gradient, else 0.
        """
        x, dy, title = self.slots[op.inputs[0]], self._convolved[op], f"weight gradient {op.path}"
        if op.kind == "conv_transpose":  # its windows slide over the gradient of its output
            x, dy = dy, x
        if op.kind == "depthwise":
            operands = self.windows(op, x, split=True).operands() | {
                "y": dy.place(),
                "y_down": dy.down,
                "y_right": dy.channels,
                "rows": dy.rows,
                "columns": dy.columns,
                "channels": dy.channels,
                "weight_rows": 0,
                "weights": matrix.start,
                "width": matrix.width,
                "bias": 0,
                "relu": 0,
                "adds": int(adds),
            }
            del operands["run"]
            kernel = depthwise.depthwise_weight_gradient(lanes_for(dy.channels))
            return [self.make(title, kernel, AFTERWARDS, operands)]
        if op.kind == "linear":
            groups, windows = 1, Windows(x.place(), 0, 0, self.program.table([0]), 1, matrix.rows)
        else:
            groups = op.conv.groups
            windows = self.windows(op, x, split=matrix.rows < merged_run(op))
        kernel, places = gradients.weight_gradient(*row_tile(matrix.rows, matrix.columns)), dy.rows * dy.columns
        found = []
        for g in range(groups):
            operands = windows.operands(g) | {
                "dy": dy.place() + g * matrix.columns,
                "dy_down": dy.down,
                "dy_right": dy.channels,
                "rows": dy.rows,
                "columns": dy.columns,
                "weights": matrix.start + g * matrix.taps // groups * matrix.rows * matrix.width,
                "width": matrix.width,
                "channels": matrix.columns,
                "adds": int(adds),
                "images_at_once": max(1, _SUMMED // places) if places > 1 else 1 << 30,
            }
            if most:
                block, images, *tile = _by_winograd(op)
                operands |= {"block": block, "images_at_once": images}
                kernel = winograd_gradient.winograd_gradient(*tile)
                size = winograd_gradient.scratch_size(block * images, most, tile, matrix.columns)
                self.program.scratch = max(self.program.scratch, size)
            found.append(self.make(title, kernel, AFTERWARDS, operands))
        return found

    def _bias_gradient(self, op: Operation, start: int, adds: bool) -> Instruction:
        dy = self._convolved[op]
        operands: Operands = {
            "dy": dy.place(),
            "dy_down": dy.down,
            "dy_right": dy.channels,
            "rows": dy.rows,
            "columns": dy.columns,
            "bias": start,
            "channels": dy.channels,
            "adds": int(adds),
        }
        kernel = gradients.bias_gradient(lanes_for(dy.channels))
        return self.make(f"bias gradient {op.path}", kernel, AFTERWARDS, operands)


def _loss_kernel(loss: Loss) -> Kernel:
    if type(loss) is nn.CrossEntropyLoss:
        return losses.cross_entropy()
    if type(loss) is nn.NLLLoss:
        return losses.nll()
    if type(loss) is nn.SmoothL1Loss and loss.beta == 0:
        return losses.elementwise_loss("l1")
    names = {
        nn.MSELoss: "mse",
        nn.L1Loss: "l1",
        nn.SmoothL1Loss: "smooth_l1",
        nn.HuberLoss: "huber",
        nn.BCELoss: "bce_of_probabilities",
        nn.BCEWithLogitsLoss: "weighted_bce" if _is_weighted(loss) else "bce",
    }
    if type(loss) not in names:
        raise EngineError(
            f'the engine "compiled" has no kernel for the loss {loss!r}; the engine "reference" runs any loss'
        )
    return losses.elementwise_loss(names[type(loss)], _is_weighted(loss))


def _is_weighted(loss: Loss) -> bool:
    """Whether a loss of elements has weights."""
    return getattr(loss, "weight", None) is not None or _positive(loss) is not None


def _positive(loss: Loss) -> Array | None:
    """Return what a loss weighs what is there with."""
    return loss.pos_weight if isinstance(loss, nn.BCEWithLogitsLoss) else None


def in_one_go(optimizer: Optimizer | None) -> bool:
    """Whether an optimizer's step needs nothing but the gradient of the same number."""
    return (
        optimizer is not None
        and _kind(optimizer) == "sgd"
        and optimizer.clip_norm is None
        and optimizer.clip_layer_norm is None
    )


def _by_winograd(op: Operation) -> tuple[int, ...]:
    """Return the tile of a weight gradient by Winograd's algorithm, () where that does not pay or suit."""
    if op.kind != "conv" or not is_3x3(op.conv):
        return ()
    return winograd_gradient_tile(op.output.maps[1], op.output.maps[2], op.conv.in_channels, op.conv.out_channels)


def merged_run(op: Operation) -> int:
    """Return the run of a whole kernel row of a convolution."""
    return op.conv.kernel_size[1] * op.windowed[0]


def _without_slots(operands: Operands) -> Operands:
    return {name: 0 if isinstance(value, Place) else value for name, value in operands.items()}


def _cut(rows: int, multiple: int, pieces: int) -> Iterator[tuple[int, int]]:
    """Yield (begin, end) of about so many blocks of rows, each a multiple of a number, but for the last."""
    units = -(-rows // multiple)
    pieces = min(pieces, units)
    yield from pairwise(min(rows, multiple * (units * i // pieces)) for i in range(pieces + 1))


def _scatters(op: Operation) -> tuple[int, ...]:
    """Return the tile of a convolution's data gradient by scattering, () where it does not pay or suit."""
    conv, (channels, *size), (run, *out) = op.conv, op.inputs[0].maps, op.output.maps
    if op.kind != "conv" or conv.groups > 1 or any(map(any, op.padding)):
        return ()
    return scatter_tile((size[0], size[1]), (out[0], out[1]), math.prod(conv.kernel_size), channels, run)


def _selects(op: Operation) -> tuple[int, ...]:
    """Return the tile of a pooled convolution's weight gradient by selection, () where lists are faster.

    Also where windows are cut off at an edge: selecting reads all cells of a window, and beyond the edge may be NaN.
    """
    conv, (kh, kw), (_, *size), (_, *out) = op.conv, op.conv.kernel_size, op.convolved, op.output.maps
    windows = bounds(op.pool, (size[0], size[1]), (out[0], out[1]))
    cells = math.prod(op.pool.kernel_size) if op.pool is not None else 0
    read = math.prod(sum(some.stops) - sum(some.starts) for some in windows)
    if read < cells * math.prod(out):
        return ()
    return select_tile(kh, kw * conv.in_channels, conv.out_channels, cells)


def _gradient_cost(op: Operation) -> float:
    """Return about how long the gradient of a weight takes, in multiplications of a dense kernel.

    Where only maxima count, there are fewer, which take longer each.
    """
    if op.kind != "conv_pool":
        return op.cost
    return 1.5 * op.cost if _selects(op) else 1.3 * op.cost * math.prod(op.output.maps) / math.prod(op.convolved)


def _kind(optimizer: Optimizer) -> str:
    """Return the kernel of an optimizer, one of update.KINDS."""
    if type(optimizer) is optim.SGD:
        return "nesterov" if optimizer.nesterov else "momentum" if optimizer.momentum else "sgd"
    if type(optimizer) is optim.RMSprop:
        return "rmsprop_momentum" if optimizer.momentum else "rmsprop"
    if type(optimizer) in (optim.Adam, optim.AdamW):
        return "adamw" if type(optimizer) is optim.AdamW else "adam"
    raise EngineError(
        f'the engine "compiled" has no kernel for the optimizer {optimizer!r}; the engine "reference" runs any'
    )


def _numbers(optimizer: Optimizer) -> Operands:
    """Return an optimizer's numbers as the kernels want them."""
    beta1, beta2 = getattr(optimizer, "betas", (0.0, getattr(optimizer, "alpha", 0.0)))
    return {
        "decay": optimizer.weight_decay,
        "momentum": getattr(optimizer, "momentum", 0.0),
        "beta1": beta1,
        "beta2": beta2,
        "eps": getattr(optimizer, "eps", 0.0),
        "clip": math.inf if optimizer.clip_norm is None else optimizer.clip_norm,
        "layer_clip": math.inf if optimizer.clip_layer_norm is None else optimizer.clip_layer_norm,
    }
