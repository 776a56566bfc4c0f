"""A program: what a network has become, as tables that compiled code runs through.

An **instruction** is a kernel and its operands. A **stage** is a stretch of instructions between two points at which
all threads meet. There are two kinds: stages over images, where a task is a few images that go through all
instructions of the stage; and stages over blocks, where a task is a block of a parameter's rows (or of channels) with
its own instructions. A task runs on one thread from end to end, and no task writes what another of its stage reads.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from pellucid._types import Array
from pellucid.compiled.kernel import Kernel
from pellucid.compiled.layout import ParameterLayout, Place, Slot, place_slots
from pellucid.compiled.records import Record

AFTERWARDS = 1 << 40
"""The number of whatever runs after all stages over images, in the order of instructions."""

JUDGES, REPORTS = 1, 2
"""What a stage does with the loss, see STAGE."""

INSTRUCTION = Record("Instruction", "Addresses of a kernel and of its operands.", "kernel operands")

STAGE = Record(
    "Stage",
    """over_images: 1 for images, 0 for blocks.
    first, last: Which instructions, or which tasks.
    judges: JUDGES where the loss is known afterwards, and a step whose loss is not finite ends there; REPORTS where it
        goes on all the same; else 0.
    """,
    "over_images first last judges",
)

TASK = Record("Task", "Instructions first to last, for the rows or channels begin to end.", "first last begin end")


Operands: TypeAlias = "dict[str, float | Place | Instruction]"
"""Values of an instruction's operands by field name."""


@dataclass(eq=False)
class Instruction:
    """A kernel with its operands, whose places become numbers at the end.

    Attributes:
        kernel: What runs.
        operands: By field name.
        title: What it does for the network, for the debug view.
        record: The finished operands.
    """

    kernel: Kernel
    operands: Operands
    title: str
    record: Array = field(default_factory=lambda: np.empty(0))

    def finish(self) -> Array:
        """Make the record, once all slots are placed."""
        values: dict[str, float] = {}
        for name, value in self.operands.items():
            if isinstance(value, Instruction):
                values[name] = value.finish().ctypes.data
            else:
                values[name] = value.offset if isinstance(value, Place) else value
        self.record = self.kernel.operands.make(**values)
        return self.record


@dataclass
class Task:
    """A block of rows and the instructions that it goes through.

    Attributes:
        instructions: In this order.
        begin, end: Rows or channels.
        cost: About how long it takes; the longest start first.
    """

    instructions: list[Instruction]
    begin: int
    end: int
    cost: float = 0.0


@dataclass
class Stage:
    """Instructions for images, or tasks.

    Attributes:
        title: For the debug view.
        instructions: Of a stage over images.
        tasks: Of a stage over blocks.
        judges: As in STAGE.
    """

    title: str
    instructions: list[Instruction] = field(default_factory=list)
    tasks: list[Task] = field(default_factory=list)
    judges: int = 0


@dataclass
class Program:
    """Stages, slots and tables of one network, for training or for prediction.

    Attributes:
        stages: In their order.
        slots: Of a frame.
        parameters: The engine's layout.
        vectors: The layout of batch norm's and the loss's vectors.
        scales: Of prediction: for each batch norm (scale, weight, running_var, channels, eps), places of vectors.
        copies: Floats of transposed copies.
        scratch: Floats that each thread needs.
        refresh: Stage that makes all copies anew, after parameters were changed from outside.
        loss: The instruction whose operands say whether targets are labels.
        parts: Partial sums of squares, for clipping.
        dropouts: Numbers of the dropout layers, whose keys a step needs.
        frame: Floats of a frame; known, as all below, when the program is finished.
        tables: All tables, int32.
        instruction_table, task_table, stage_table: What the compiled loop runs through.
        refresh_table: The stage refresh as such a table.
        cost: Multiplications for one image.
    """

    stages: list[Stage] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    parameters: ParameterLayout = field(default_factory=ParameterLayout)
    vectors: ParameterLayout = field(default_factory=ParameterLayout)
    scales: list[tuple[int, int, int, int, float]] = field(default_factory=list)
    refresh: Stage = field(default_factory=lambda: Stage("copies"))
    loss: Instruction | None = None
    copies: int = 0
    scratch: int = 0
    parts: int = 0
    dropouts: list[int] = field(default_factory=list)
    frame: int = 0
    cost: float = 0.0
    tables: Array = field(default_factory=lambda: np.empty(0, dtype=np.int32))
    instruction_table: Array = field(default_factory=lambda: np.empty(0, dtype=INSTRUCTION.dtype))
    task_table: Array = field(default_factory=lambda: np.empty(0, dtype=TASK.dtype))
    stage_table: Array = field(default_factory=lambda: np.empty(0, dtype=STAGE.dtype))
    refresh_table: Array = field(default_factory=lambda: np.empty(0, dtype=STAGE.dtype))
    _instructions: list[Instruction] = field(default_factory=list)
    _tables: list[Array] = field(default_factory=list)
    _table_size: int = 0

    def table(self, numbers: Array | list[int]) -> int:
        """Append a table of int32 and return where it begins."""
        array = np.asarray(numbers, dtype=np.int32).ravel()
        self._tables.append(array)
        self._table_size += array.size
        return self._table_size - array.size

    def memory_bytes(self, frames: int, threads: int) -> int:
        """Return how much memory it takes to run.

        Args:
            frames: One for each image of a batch; in prediction, for each image that a thread has at a time.
            threads: How many.
        """
        arrays = 1 if self.loss is None else 4  # weights; gradients and two of the optimizer
        once = arrays * self.parameters.size + self.vectors.size + self.copies + self.tables.size
        return 4 * (once + frames * self.frame + threads * self.scratch)

    def kernels(self) -> list[Kernel]:
        """Return all kernels, repeats included."""
        found = [i.kernel for stage in self.stages for i in stage.instructions]
        tasks = [task for stage in self.stages for task in stage.tasks] + self.refresh.tasks
        return found + [i.kernel for task in tasks for i in task.instructions]

    def finish(self) -> None:
        """Place the slots and make the tables that compiled code reads."""
        self.frame = place_slots(self.slots)
        self.tables = np.concatenate([*self._tables, np.zeros(16, dtype=np.int32)])
        instructions: list[Instruction] = []
        tasks: list[tuple[int, ...]] = []
        stages: list[tuple[int, ...]] = []
        for stage in [*self.stages, self.refresh]:
            first = len(instructions) if stage.instructions else len(tasks)
            instructions += stage.instructions
            for task in sorted(stage.tasks, key=lambda t: -t.cost):
                begin = len(instructions)
                instructions += task.instructions
                tasks.append((begin, len(instructions), task.begin, task.end))
            last = len(instructions) if stage.instructions else len(tasks)
            stages.append((int(bool(stage.instructions)), first, last, stage.judges))
        self.stage_table, self.refresh_table = _table(STAGE, stages[:-1]), _table(STAGE, stages[-1:])
        self.task_table = _table(TASK, tasks)
        self._instructions = instructions
        self.instruction_table = np.zeros(len(instructions), dtype=INSTRUCTION.dtype)
        for row, instruction in zip(self.instruction_table, instructions, strict=True):
            if not instruction.record.size:
                instruction.finish()
            row["operands"] = instruction.record.ctypes.data

    def load(self) -> None:
        """Fill in the addresses of the kernels, which compiles what is not compiled yet."""
        for row, instruction in zip(self.instruction_table, self._instructions, strict=True):
            row["kernel"] = instruction.kernel.address

    def __str__(self) -> str:
        lines = [f"frame of {self.frame * 4:,} bytes an image"]
        for number, stage in enumerate(self.stages):
            lines.append(f"stage {number}: {stage.title}, over {'images' if stage.instructions else 'blocks'}")
            lines += [f"  {i.title:34} {i.kernel}" for i in stage.instructions]
            blocks: dict[str, list[Task]] = {}
            for task in stage.tasks:
                names = ", ".join(str(i.kernel) for i in task.instructions)
                blocks.setdefault(f"  {task.instructions[0].title:34} {names}", []).append(task)
            for line, tasks in blocks.items():
                lines.append(f"{line}; {len(tasks)} block{'s' * (len(tasks) > 1)}")
        lines.append("slots: offset and size in floats, channels x height x width, border, life, name")
        for slot in sorted(self.slots, key=lambda s: (s.birth, s.offset)):
            shape, border = "x".join(map(str, slot.maps)), ",".join(map(str, slot.border))
            life = f"{slot.birth}-{slot.death if slot.death < AFTERWARDS else 'end'}"
            lines.append(f"  {slot.offset:8} {slot.size:7} {shape:>12} {border} {life:>8} {slot.name}")
        return "\n".join(lines)


def _table(record: Record, rows: list[tuple[int, ...]]) -> Array:
    return np.array(rows, dtype=record.dtype) if rows else np.zeros(1, dtype=record.dtype)
