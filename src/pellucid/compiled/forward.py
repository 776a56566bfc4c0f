"""The forward pass as instructions; one method for each kind of operation."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pellucid import nn
from pellucid.compiled.graph import Operation
from pellucid.compiled.kernel import Kernel
from pellucid.compiled.kernels import (
    correlate,
    depthwise,
    edges,
    group_norm,
    losses,
    norm,
    pointwise,
    pool,
    pooled,
    prelu,
    resample,
    select,
    winograd,
)
from pellucid.compiled.layout import Place, Slot
from pellucid.compiled.lowering import Lowering, flipped_order, is_3x3, merges, residues_of
from pellucid.compiled.program import Operands, Program
from pellucid.compiled.sums import SumsOfMap, of_nothing, of_windows
from pellucid.compiled.tiles import cpu, image_tile, lanes_for, map_tile, one_tile, pair_tile, winograd_tile
from pellucid.errors import EngineError
from pellucid.shapes import adaptive_regions, adaptive_size, pool_padding

_SIZES = ("rows", "columns", "run", "tap_count", "channels")


class Forward(Lowering):
    """Emits the forward pass."""

    def lower(self) -> Program:
        """Return the program that computes outputs."""
        self.lower_forward()
        slot = self.slots[self.graph.output]
        self.emit("write outputs", edges.write_outputs(), edge(slot))
        self.close("predict")
        return self.finish()

    def lower_forward(self) -> None:
        """Emit instructions from reading the images to the network's output."""
        slot = self.slots[self.graph.input]
        self.emit("read images", edges.read_images(), edge(slot))
        for op in self.graph.operations:
            self.program.cost += op.cost
            getattr(self, f"_{op.kind}")(op)

    def _ends(self, op: Operation) -> tuple[Slot, Slot]:
        return self.slots[op.inputs[0]], self.slots[op.output]

    # Convolutions and dense layers

    def windows(self, op: Operation, x: Slot, split: bool) -> Windows:
        """Return where a convolution's windows lie in a slot.

        Args:
            op: A convolution.
            x: Its input.
            split: Whether each kernel cell is a tap, even where a row of them is one run.
        """
        conv, channels = op.conv, x.channels
        (kh, kw), (dh, dw) = conv.kernel_size, conv.dilation
        (top, _), (left, _) = op.padding
        if merges(conv) and not split:
            taps, run = [a * dh * x.down for a in range(kh)], kw * channels
        else:
            taps = [a * dh * x.down + b * dw * channels for a in range(kh) for b in range(kw)]
            run = channels // conv.groups
        first = x.place(-top, -left)
        return Windows(
            first, conv.stride[0] * x.down, conv.stride[1] * channels, self.program.table(taps), len(taps), run
        )

    def correlations(
        self, op: Operation, x: Slot, y: Place | None, y_down: int, maps: tuple[int, ...]
    ) -> Iterator[Operands]:
        """Yield the operands of a convolution's forward pass, or a transposed one's way back, one for each group.

        Args:
            op: A convolution.
            x: What it reads.
            y: Where its output begins; None for the start of scratch.
            y_down: Step to the output's next row.
            maps: (C, H, W) of its output.
        """
        conv, matrix = op.conv, self.matrix(op)
        adds_bias = op.has_bias and op.kind != "conv_transpose"
        windows, bias = self.windows(op, x, split=False), self.vector(conv, "bias") if adds_bias else self.nothing
        copied = matrix.copy >= 0 and op.kind == "conv_pool"
        outputs = maps[0] // conv.groups
        for g in range(conv.groups):
            of_group = g * matrix.taps // conv.groups * matrix.rows * matrix.width
            yield {
                **windows.operands(g),
                "y": 0 if y is None else y + g * outputs,
                "y_down": y_down,
                "y_right": maps[0],
                "rows": maps[1],
                "columns": maps[2],
                "weights": self.copy(matrix) if copied else matrix.start + of_group,
                "width": matrix.copy_width if copied else matrix.width,
                "from_copies": int(copied),
                "bias": bias + g * outputs if adds_bias else bias,
                "channels": outputs,
                "relu": int(op.relu and op.kind == "conv"),
            }

    def correlations_back(self, op: Operation, x: Slot, y: Slot) -> Iterator[Operands]:
        """Yield the operands of a transposed convolution's forward pass, or another one's data gradient.

        One for each residue and group.

        Args:
            op: A convolution.
            x: What it reads: a number for each position of a window and filter.
            y: What it writes, which the windows slide over.
        """
        conv, matrix = op.conv, self.matrix(op)
        (kh, kw), (sh, sw) = conv.kernel_size, conv.stride
        order, outputs, inner = flipped_order(conv), matrix.columns, matrix.rows
        adds_bias = op.has_bias and op.kind == "conv_transpose"
        bias = self.vector(conv, "bias") if adds_bias else self.nothing
        for rows, columns in residues_of(op):
            cells = [(a, b) for a in rows.cells for b in columns.cells]
            ends = [place for _, place in columns.cells]
            merged = conv.groups == 1 and bool(ends) and ends == list(range(ends[0], ends[0] + len(ends)))
            if merged:
                taps = [place * x.down + ends[0] * x.channels for _, place in rows.cells]
            else:
                taps = [a * x.down + b * x.channels for (_, a), (_, b) in cells]
            first = order[cells[0][0][0] * kw + cells[0][1][0]] if cells else 0
            for g in range(conv.groups):
                yield {
                    "x": x.place() + g * outputs,
                    "x_down": x.down,
                    "x_right": x.channels,
                    "y": y.place(rows.first, columns.first) + g * inner,
                    "y_down": sh * y.down,
                    "y_right": sw * y.channels,
                    "rows": rows.count,
                    "columns": columns.count,
                    "taps": self.program.table(taps),
                    "tap_count": len(taps),
                    "run": outputs * len(ends) if merged else outputs,
                    "weights": matrix.copy + (g * kh * kw + first) * outputs * matrix.copy_width,
                    "width": matrix.copy_width,
                    "from_copies": 1,
                    "bias": bias + g * inner if adds_bias else bias,
                    "channels": inner,
                    "relu": int(op.relu and op.kind == "conv_transpose"),
                }

    def _conv(self, op: Operation) -> None:
        x, y = self._ends(op)
        for operands in self.correlations(op, x, y.place(), y.down, y.maps):
            self.emit(op.title, self.correlation(op, operands), operands)

    def _conv_transpose(self, op: Operation) -> None:
        x, y = self._ends(op)
        for operands in self.correlations_back(op, x, y):
            self.emit(op.title, self.correlation(op, operands, back=True), operands)

    def correlation(self, op: Operation, operands: Operands, back: bool = False) -> Kernel:
        """Return the kernel of a correlation, and change its operands where that is Winograd's.

        Args:
            op: The convolution.
            operands: As correlate wants them.
            back: For the data gradient.
        """
        tile = self.use_winograd(op, operands, back)
        if tile:
            return winograd.winograd(*tile, False)
        if back:
            self.copy(self.matrix(op))
        rows, columns, run, taps, channels = (int(operands[k]) for k in _SIZES)  # type: ignore[arg-type]
        return correlate.correlate(*map_tile(rows, columns, run * taps, channels))

    def use_winograd(self, op: Operation, operands: Operands, back: bool = False) -> tuple[int, ...]:
        """Change the operands of a correlation to those of Winograd's algorithm and return its tile, if that pays.

        Args:
            op: The convolution.
            operands: As correlate wants them.
            back: For the data gradient.
        """
        if op.kind == "conv_transpose" or not is_3x3(op.conv):
            return ()
        rows, columns, inner, channels = (int(operands[k]) for k in ("rows", "columns", "x_right", "channels"))  # type: ignore[arg-type]
        block, *tile = winograd_tile(rows, columns, inner, channels)
        if block:
            matrix = self.matrix(op)
            place = self.winograd(op, back)
            width = matrix.copy_width if back or matrix.taps == 3 else matrix.width
            operands |= {"weights": place, "width": width, "from_copies": 1, "block": block}
            operands.setdefault("places", 0)
            size = winograd.scratch_size(block, inner, tile[3], tile[1] * tile[2])
            self.program.scratch = max(self.program.scratch, size)
        return tuple(tile)

    def _conv_pool(self, op: Operation) -> None:
        (x, y), (channels, *size) = self._ends(op), op.convolved
        windows = bounds(op.pool, (size[0], size[1]), (y.rows, y.columns))
        rows, columns = (max(some.stops) for some in windows)  # what the pooling does not read is not computed
        maps, down, lanes = (channels, rows, columns), columns * channels, lanes_for(channels)
        places = self.places[op] = self.new_slot(f"places of {op.path}", (-(-math.prod(y.maps) // 4), 1, 1))
        if in_pairs(*windows):
            (operands,) = self.correlations(op, x, y.place(), y.down, maps)
            operands |= {"y_right": channels, "relu": int(op.relu), "places": places.corner}
            tile = self.use_winograd(op, operands)
            if tile:
                kernel = winograd.winograd(*tile, True, self.training)
            else:
                kernel = pooled.correlate_pool2(*pair_tile(y.columns, channels), self.training)
            self.emit(op.title, kernel, operands)
            return
        self.program.scratch = max(self.program.scratch, math.prod(maps))
        (convolution,) = self.correlations(op, x, None, down, maps)
        pooling = self.pooling(op.pool, maps, down, y)
        pooling |= {"x": 0, "places": places.corner, "relu": int(op.relu)}
        window = map_tile(rows, columns, op.cost // math.prod(op.convolved), channels)
        parts: Operands = {
            "correlate": self.part(op.title, correlate.correlate(*window), convolution),
            "pool": self.part(op.title, pool.max_pool(lanes, False), pooling),
        }
        self.emit(op.title, pooled.correlate_pool(*window, lanes), parts)

    def _depthwise(self, op: Operation) -> None:
        x, y = self._ends(op)
        matrix, windows = self.matrix(op), self.windows(op, x, split=True)
        operands = windows.operands() | {
            "y": y.place(),
            "y_down": y.down,
            "y_right": y.channels,
            "rows": y.rows,
            "columns": y.columns,
            "channels": y.channels,
            "weight_rows": self.program.table(list(range(windows.tap_count))),
            "weights": matrix.start,
            "width": matrix.width,
            "bias": self.vector(op.conv, "bias"),
            "relu": int(op.relu),
            "adds": 0,
        }
        del operands["run"]
        self.emit(op.title, depthwise.depthwise(lanes_for(y.channels)), operands)

    def _linear(self, op: Operation) -> None:
        x, y = self._ends(op)
        matrix = self.matrix(op)
        by_output = self.by_output(op)
        operands = self.dense(x, y, matrix.columns if by_output else matrix.rows, y.channels) | {
            "weights": matrix.start,
            "width": matrix.width,
            "from_copies": 0,
            "bias": self.vector(op.layer, "bias"),
            "relu": int(op.relu),
        }
        lanes = lanes_for(matrix.columns)  # so that a vector holds nothing of another row
        kernel = correlate.dense_rows(min(y.channels, lanes), lanes) if by_output else self.dense_kernel(y.channels)
        self.emit(op.title, kernel, operands)

    def dense_kernel(self, channels: int) -> Kernel:
        """Return the kernel of dense layers with so many outputs."""
        return correlate.dense_one(*one_tile(channels)) if self.one_image else correlate.dense(*image_tile(channels))

    def dense(self, x: Slot, y: Slot, run: int, channels: int) -> Operands:
        """Return the operands of a dense layer that say what it reads and writes."""
        return {
            "x": x.place(),
            "x_down": 0,
            "x_right": 0,
            "y": y.place(),
            "y_down": 0,
            "y_right": 0,
            "rows": 1,
            "columns": 1,
            "taps": self.program.table([0]),
            "tap_count": 1,
            "run": run,
            "channels": channels,
        }

    # Pooling

    def _max_pool(self, op: Operation) -> None:
        x, y = self._ends(op)
        wide, count = is_wide(op.layer), math.prod(y.maps)
        self.places[op] = self.new_slot(f"places of {op.path}", (count if wide else -(-count // 4), 1, 1))
        operands = self.pooling(op.layer, x.maps, x.down, y) | {"x": x.place(), "places": self.places[op].corner}
        self.emit(op.title, pool.max_pool(lanes_for(y.channels), wide), operands)

    def _mean_pool(self, op: Operation) -> None:
        x, y = self._ends(op)
        operands = self.pooling(op.layer, x.maps, x.down, y) | {"x": x.place(), "places": 0}
        self.emit(op.title, pool.mean_pool(lanes_for(y.channels)), operands)

    def pooling(self, layer: nn.Layer | None, maps: tuple[int, ...], down: int, y: Slot) -> Operands:
        """Return the operands of a pooling but for x and places.

        Args:
            layer: The pooling layer.
            maps: (C, H, W) of what it reads.
            down: Step to the next row of what it reads.
            y: Slot that it writes.
        """
        channels, height, width = maps
        rows, columns = bounds(layer, (height, width), (y.rows, y.columns))
        origins = [top * down + left * channels for top in rows.starts for left in columns.starts]
        cells = [i * down + j * channels for i in range(rows.span) for j in range(columns.span)]
        table = self.program.table
        return {
            "x_down": down,
            "x_right": channels,
            "y": y.place(),
            "y_down": y.down,
            "y_right": y.channels,
            "rows": y.rows,
            "columns": y.columns,
            "channels": channels,
            "tops": table(rows.starts),
            "bottoms": table(rows.stops),
            "lefts": table(columns.starts),
            "rights": table(columns.stops),
            "row_counts": table(rows.counts),
            "column_counts": table(columns.counts),
            "origins": table(origins),
            "cells": table(cells),
            "span": columns.span,
            "relu": 0,
            "map_rows": height,
            "map_length": width * channels,
        }

    def _select_pool(self, op: Operation) -> None:
        x, y = self._ends(op)
        self.places[op] = self.new_slot(f"places of {op.path}", y.maps)
        self.emit(op.title, select.select_pool(lanes_for(y.channels)), self.selection(op, x, y))

    def _unpool(self, op: Operation) -> None:
        x, y = self._ends(op)
        self.emit(op.title, select.unpool(), self.selection(self.source(op), y, x))

    def source(self, op: Operation) -> Operation:
        """Return the pooling whose places an unpooling takes."""
        if op.source is None:
            raise EngineError(f"{op.title} has no pooling")
        return op.source

    def selection(self, op: Operation, x: Slot, y: Slot) -> Operands:
        """Return the operands of a pooling that keeps numbers of cells, or of what goes by them.

        Args:
            op: The pooling.
            x: Its input, or what has the input's size.
            y: Its output, or what has the output's size.
        """
        if x.rows * x.columns > select.MOST_CELLS:
            raise EngineError(
                f'{op.title} has {x.rows} x {x.columns} cells, more than the engine "compiled" can number; '
                'use the engine "reference"'
            )
        rows, columns = of_windows(op.layer, (x.rows, x.columns), (y.rows, y.columns))
        table = self.program.table
        return {
            "x": x.place(),
            "x_down": x.down,
            "y": y.place(),
            "y_down": y.down,
            "rows": y.rows,
            "columns": y.columns,
            "channels": y.channels,
            "places": self.places[op].place(),
            "row_starts": table(rows.starts),
            "row_cells": table(rows.cells),
            "column_starts": table(columns.starts),
            "column_cells": table(columns.cells),
            "offsets": table([i * x.down + j * x.channels for i in range(x.rows) for j in range(x.columns)]),
            "map_rows": x.rows,
            "map_columns": x.columns,
            "map_length": x.columns * x.channels,
        }

    # Fixed sums along rows and columns

    def _pad(self, op: Operation) -> None:
        x, y = self._ends(op)
        self.emit(op.title, resample.resample(lanes_for(y.channels)), self.resampling(op.sums, x, y, y.channels))

    _upsample = _pad

    def _concat(self, op: Operation) -> None:
        y, first = self.slots[op.output], 0
        for value in op.inputs:
            x = self.slots[value]
            operands = self.resampling(of_nothing(x.maps[1:]), x, y, x.channels, y_first=first)
            self.emit(op.title, resample.resample(lanes_for(x.channels)), operands)
            first += x.channels

    def resampling(
        self, sums: SumsOfMap | None, x: Slot, y: Slot, channels: int, x_first: int = 0, y_first: int = 0
    ) -> Operands:
        """Return the operands of fixed sums from one map to another.

        Args:
            sums: Of rows and columns.
            x: Input.
            y: Output.
            channels: How many.
            x_first: The first of them in x.
            y_first: The first of them in y.
        """
        if sums is None:
            raise EngineError(f"{y.name} has no sums")
        rows, columns = sums
        table = self.program.table
        return {
            "x": x.place() + x_first,
            "y": y.place() + y_first,
            "y_down": y.down,
            "y_right": y.channels,
            "rows": y.rows,
            "columns": y.columns,
            "channels": channels,
            "row_starts": table(rows.starts),
            "row_offsets": table(rows.cells * x.down),
            "row_weights": self.constants(rows.weights),
            "column_starts": table(columns.starts),
            "column_offsets": table(columns.cells * x.channels),
            "column_weights": self.constants(columns.weights),
        }

    # Normalization

    def _group_norm(self, op: Operation) -> None:
        x, y = self._ends(op)
        layer = op.layer
        if isinstance(layer, nn.GroupNorm):
            sets, length = layer.num_groups, x.channels
            run = weight_step = length // sets
        elif isinstance(layer, nn.LayerNorm):
            run = length = math.prod(layer.normalized_shape)
            sets, weight_step = x.channels // length, 0
        else:
            raise EngineError(f"{op.title} is no normalization of sets")
        self.program.scratch = max(self.program.scratch, 2 * lanes_for(run))
        operands: Operands = {
            "x": x.place(),
            "x_down": x.down,
            "y": y.place(),
            "y_down": y.down,
            "dy": 0,
            "dy_down": 0,
            "dx": 0,
            "dx_down": 0,
            "rows": x.rows,
            "columns": x.columns,
            "right": x.channels,
            "sets": sets,
            "set_step": run,
            "run": run,
            "weight": self.vector(layer, "weight", 1.0, length),
            "bias": self.vector(layer, "bias"),
            "weight_step": weight_step,
            "length": length,
            "statistics": self.new_slot(f"statistics of {op.path}", (2 * sets, 1, 1)).place(),
            "sums": 0,
            "eps": layer.eps,
        }
        self.norms_of_sets[op] = operands
        self.emit(op.title, group_norm.group_norm(lanes_for(run)), operands)

    _layer_norm = _group_norm

    def _norm(self, op: Operation) -> None:
        x, y = self._ends(op)
        layer = op.layer
        if not isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            raise EngineError(f"{op.title} is no batch norm")
        lanes, channels = lanes_for(x.channels), x.channels
        blank = np.zeros(channels, dtype=np.float32)
        operands: Operands = {
            "x": x.place(),
            "x_down": x.down,
            "y": y.place(),
            "y_down": y.down,
            "dy": 0,
            "dy_down": 0,
            "dx": 0,
            "dx_down": 0,
            "rows": x.rows,
            "columns": x.columns,
            "channels": channels,
            "weight": self.vector(layer, "weight", 1.0, channels),
            "bias": self.vector(layer, "bias"),
            "affine": int(layer.affine),
            "mean": self.constants(blank) if self.training else self.state(layer, "running_mean"),
            "running_mean": self.state(layer, "running_mean"),
            "running_var": self.state(layer, "running_var"),
            "count": self.state(layer, "num_batches_tracked"),
            "sums": self.new_slot(f"sums of {op.path}", (2 * channels, 1, 1)).corner if self.training else 0,
            "relu": int(op.relu),
            "adds": 0,
            "eps": layer.eps,
            "momentum": -1.0 if layer.momentum is None else layer.momentum,
            **{name: self.constants(blank) for name in ("scale", "inverse", "share", "slope", "var")},
        }
        if self.training:
            self.norms[op] = operands
            self.emit(op.title, norm.moments(lanes), operands)
            self.close("forward")
            self.over_channels(f"statistics of {op.path}", norm.combine_moments(), channels, operands)
        else:
            scale = self.constants(blank)
            operands["scale"] = scale
            weight, var = self.vector(layer, "weight", 1.0, channels), self.state(layer, "running_var")
            self.program.scales.append((scale, weight, var, channels, layer.eps))
        self.emit(op.title, norm.normalize(lanes), operands)

    # Number by number

    def _activation(self, op: Operation) -> None:
        x, y = self._ends(op)
        self.emit(op.title, pointwise.activation(op.kind), self.pointwise(x, x, y, op))

    _relu = _leaky_relu = _sigmoid = _tanh = _elu = _silu = _gelu = _gelu_tanh = _softplus = _activation

    def _prelu(self, op: Operation) -> None:
        x, y = self._ends(op)
        self.emit(op.title, prelu.prelu(lanes_for(y.channels)), self.sloped(op, x, x, y))

    def sloped(self, op: Operation, a: Slot, b: Slot, y: Slot) -> Operands:
        """Return the operands of PReLU and its gradient but for the sums.

        Args:
            op: Which.
            a: Input.
            b: Gradient of the output.
            y: Output, or gradient of the input.
        """
        layer = op.layer
        return {
            "a": a.place(),
            "a_down": a.down,
            "b": b.place(),
            "b_down": b.down,
            "y": y.place(),
            "y_down": y.down,
            "rows": y.rows,
            "columns": y.columns,
            "channels": y.channels,
            "weight": self.vector(layer, "weight"),
            "several": int(isinstance(layer, nn.PReLU) and layer.num_parameters > 1),
            "sums": 0,
        }

    def pointwise(self, a: Slot, b: Slot, y: Slot, op: Operation | None = None) -> Operands:
        """Return the operands of y = f(a, b).

        Args:
            a: First input.
            b: Second input.
            y: Output.
            op: Gives the numbers of its layer: a slope, the share that is dropped.
        """
        layer = None if op is None else op.layer
        p = layer.p if isinstance(layer, nn.Dropout) else 0.0
        slopes = [getattr(layer, name) for name in ("negative_slope", "alpha", "beta") if hasattr(layer, name)]
        return {
            "a": a.place(),
            "a_down": a.down,
            "b": b.place(),
            "b_down": b.down,
            "y": y.place(),
            "y_down": y.down,
            "rows": y.rows,
            "length": y.columns * y.channels,
            "channels": y.channels,
            "key": self.program.dropouts.index(op.number) if op is not None and isinstance(layer, nn.Dropout) else 0,
            "p": p,
            "scale": 1.0 / (1.0 - p) if p < 1 else 0.0,
            "slope": slopes[0] if slopes else 0.0,
            "limit": layer.threshold if isinstance(layer, nn.Softplus) else 0.0,
        }

    def _dropout(self, op: Operation) -> None:
        if self.training:
            x, y = self._ends(op)
            self.program.dropouts.append(op.number)
            self.emit(op.title, self.dropout_kernel(op), self.pointwise(x, x, y, op))

    def dropout_kernel(self, op: Operation) -> Kernel:
        """Return the kernel of a dropout, of single numbers or of whole channels."""
        if not isinstance(op.layer, nn.Dropout2d):
            return pointwise.dropout()
        self.program.scratch = max(self.program.scratch, op.output.maps[0])
        return pointwise.channel_dropout()

    def _add(self, op: Operation) -> None:
        a, b = (self.slots[v] for v in op.inputs)
        self.emit(op.title, pointwise.add_maps(cpu()[0], op.relu), self.pointwise(a, b, self.slots[op.output], op))

    def _flatten(self, op: Operation) -> None:
        x, y = self._ends(op)
        if x is not y:
            self.emit(op.title, pointwise.copy_map(cpu()[0]), self.pointwise(x, x, y))

    def _reorder(self, op: Operation) -> None:
        x, y = self._ends(op)
        self.emit(op.title, edges.reorder(False), {**edge(x), "vector": y.place()})

    def _arrange(self, op: Operation) -> None:
        x, y = self._ends(op)
        self.emit(op.title, edges.reorder(True), {**edge(y), "vector": x.place()})

    def _softmax(self, op: Operation) -> None:
        x, y = self._ends(op)
        self.emit(op.title, getattr(losses, op.kind)(), self.softmax(op, x, y))

    _log_softmax = _softmax

    def softmax(self, op: Operation, x: Slot, y: Slot) -> Operands:
        """Return the operands of softmax or its logarithm from one slot to another."""
        layer, shape = op.layer, op.output.shape
        if not isinstance(layer, (nn.Softmax, nn.LogSoftmax)):
            raise EngineError(f"{op.title} is no softmax")
        axis = layer.dim - 1 if layer.dim > 0 else len(shape) + layer.dim
        if len(shape) == 3:
            lengths = (x.channels, x.rows, x.columns)
            steps = [(1, s.down, s.channels) for s in (x, y)]
            outer, inner = ((1, 2), (0, 2), (0, 1))[axis]
        else:  # one axis, or axes whose numbers stand in their usual order
            before, after = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
            lengths = (shape[axis], before, after)
            steps = [(after, after * shape[axis], 1)] * 2
            axis, outer, inner = 0, 1, 2
        (x_steps, y_steps) = steps
        return {
            "x": x.place(),
            "y": y.place(),
            "size": lengths[axis],
            "outer": lengths[outer],
            "inner": lengths[inner],
            "x_step": x_steps[axis],
            "x_outer": x_steps[outer],
            "x_inner": x_steps[inner],
            "y_step": y_steps[axis],
            "y_outer": y_steps[outer],
            "y_inner": y_steps[inner],
        }


def edge(slot: Slot) -> Operands:
    """Return the operands of reading or writing a map."""
    return {
        "map": slot.place(),
        "down": slot.down,
        "rows": slot.rows,
        "columns": slot.columns,
        "channels": slot.channels,
    }


def in_pairs(*axes: Bounds) -> bool:
    """Whether windows have two whole cells along each axis, and lie side by side."""
    return all(a.span == 2 and a.stops == list(range(2, 2 * len(a.stops) + 1, 2)) for a in axes)


def is_wide(layer: nn.Layer | None) -> bool:
    """Whether a pooling's windows have more cells than a byte can number."""
    return isinstance(layer, nn.MaxPool2d) and math.prod(layer.kernel_size) >= pool.DEAD


@dataclass(frozen=True)
class Windows:
    """Where a convolution's windows lie in a frame; see kernels.correlate.

    Attributes:
        first: Where the first window begins, before the taps.
        down, right: Steps to the next row of windows, to the next window.
        taps, tap_count: Table of taps.
        run: Numbers read at each.
    """

    first: Place
    down: int
    right: int
    taps: int
    tap_count: int
    run: int

    def operands(self, group: int = 0) -> Operands:
        """Return what kernels want to know of them, for one group of channels."""
        return {
            "x": self.first + group * self.run,
            "x_down": self.down,
            "x_right": self.right,
            "taps": self.taps,
            "tap_count": self.tap_count,
            "run": self.run,
        }


@dataclass(frozen=True)
class Bounds:
    """The windows of a pooling along one axis, clipped to the map.

    Attributes:
        starts, stops: Of each window.
        counts: By what a mean divides: padding counts if the layer says so, what ceil_mode adds beyond it does not.
    """

    starts: list[int]
    stops: list[int]
    counts: list[int]

    @property
    def span(self) -> int:
        """Length of the longest window."""
        return max(stop - start for start, stop in zip(self.starts, self.stops, strict=True))


def bounds(layer: nn.Layer | None, size: tuple[int, int], out: tuple[int, int]) -> tuple[Bounds, Bounds]:
    """Return the windows of a pooling along both axes.

    Args:
        layer: A pooling layer.
        size: (H, W) of its input.
        out: (H, W) of its output.
    """
    axes = []
    if isinstance(layer, nn.AdaptiveAvgPool2d):
        for n, o in zip(size, adaptive_size(layer.output_size, size), strict=True):
            regions = adaptive_regions(n, o)
            lengths = [r.stop - r.start for r in regions]
            axes.append(Bounds([r.start for r in regions], [r.stop for r in regions], lengths))
    elif isinstance(layer, (nn.MaxPool2d, nn.AvgPool2d)):
        sides = pool_padding(layer.padding, layer.kernel_size)
        for n, o, k, s, (front, back) in zip(size, out, layer.kernel_size, layer.stride, sides, strict=True):
            starts = [i * s - front for i in range(o)]
            stops, counts = [min(n, a + k) for a in starts], [min(a + k, n + back) - a for a in starts]
            if isinstance(layer, nn.AvgPool2d) and not layer.count_include_pad:
                counts = [stop - max(0, a) for stop, a in zip(stops, starts, strict=True)]
            axes.append(Bounds([max(0, a) for a in starts], stops, counts))
    else:
        raise EngineError(f"{layer!r} is no pooling")
    return axes[0], axes[1]
