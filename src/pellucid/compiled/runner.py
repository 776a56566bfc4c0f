"""The compiled loop that runs a program: steps, stages, tasks, and the point where threads meet.

Every thread runs this loop over the same tables. In a stage it takes one task after another from a common counter; at
its end it waits for the others. Which thread took which task leaves no trace in the numbers.

The slow equivalent, with one thread:

    for step in steps:
        for stage in stages:
            for task in stage:
                for kernel, operands in task's instructions:
                    kernel(operands, work)
            if stage.judges:
                losses[step] = sum(loss of each image) / divisor
                if it is not finite:
                    return
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numba import carray

from pellucid.compiled.kernel import Kernel, inline
from pellucid.compiled.program import INSTRUCTION, JUDGES, STAGE, TASK
from pellucid.compiled.records import Record
from pellucid.compiled.simd import (
    address,
    at,
    atomic_add,
    atomic_load,
    atomic_store,
    call,
    doubles,
    longs,
    pointer_maker,
)

STEP = Record(
    "Step",
    """batch: Images of this step.
    start: Place of its first image in the order.
    keys: Place of its dropout keys.
    rate, correction1, correction2, divisor: As in Work.
    """,
    "batch start keys",
    reals="rate correction1 correction2 divisor",
)

RUN = Record(
    "Run",
    """What one thread is to run. Addresses are in bytes.

    instructions, stages, tasks: Tables of the program.
    stage_count: How many stages.
    steps, step_count: Table of the steps.
    thread, threads: Number of this thread, and how many there are.
    group: Images of a task.
    own_frames: 1 where each thread has frames of its own, for the images of one task (prediction).
    meeting: Numbers that all threads see, see below.
    pause: Address of a function that lets another thread run.
    order, keys: Of the whole chunk, or 0.
    losses, hits: One a step, written by thread 0.
    """,
    "instructions stages tasks stage_count steps step_count thread threads group own_frames meeting pause order keys "
    "losses hits",
)

# Numbers that all threads see, each in a cache line of its own (8 numbers).
NEXT, ARRIVED, GENERATION, STOP, ABANDONED, DONE, START = (8 * i for i in range(7))
MEETING_SIZE = 8 * 7

# What START can be: threads wait, begin, or leave again because one of them could not be started.
WAIT, BEGIN, LEAVE = range(3)

_SPINS = 4000

STEP_SIZE, STAGE_SIZE, TASK_SIZE, INSTRUCTION_SIZE = (r.dtype.itemsize for r in (STEP, STAGE, TASK, INSTRUCTION))

_instructions_at = pointer_maker(INSTRUCTION.pointer)
_stages_at = pointer_maker(STAGE.pointer)
_tasks_at = pointer_maker(TASK.pointer)
_steps_at = pointer_maker(STEP.pointer)


@inline
def _meet(meeting, threads, pause):
    """Wait until all threads are here. The last one sets the task counter back and says whether the step goes on."""
    generation = atomic_load(at(meeting, GENERATION))
    if atomic_add(at(meeting, ARRIVED), 1) == threads - 1:
        atomic_store(at(meeting, ARRIVED), 0)
        atomic_store(at(meeting, NEXT), 0)
        atomic_store(at(meeting, ABANDONED), atomic_load(at(meeting, STOP)))
        atomic_store(at(meeting, GENERATION), generation + 1)
    else:
        spins = 0
        while atomic_load(at(meeting, GENERATION)) == generation:
            spins += 1
            if spins > _SPINS:
                call(pause, 0, 0)


@cache
def run_program() -> Kernel:
    """Return the loop as a kernel whose operands are a Run."""

    def body(run, work_pointer):
        work_address = address(work_pointer)
        run, work = carray(run, 1)[0], carray(work_pointer, 1)[0]
        meeting, threads, group = longs(run.meeting), run.threads, run.group
        while atomic_load(at(meeting, START)) == WAIT:
            call(run.pause, 0, 0)
        if atomic_load(at(meeting, START)) == LEAVE:
            return
        for step_number in range(run.step_count):
            step = carray(_steps_at(run.steps + step_number * STEP_SIZE), 1)[0]
            work.batch, work.rate, work.divisor = step.batch, step.rate, step.divisor
            work.correction1, work.correction2 = step.correction1, step.correction2
            work.keys = run.keys + 8 * step.keys
            work.order = run.order + 8 * step.start if run.order else 0
            for stage_number in range(run.stage_count):
                stage = carray(_stages_at(run.stages + stage_number * STAGE_SIZE), 1)[0]
                count = stage.last - stage.first
                if stage.over_images:
                    count = (step.batch + group - 1) // group
                while True:
                    number = atomic_add(at(meeting, NEXT), 1)
                    if number >= count:
                        break
                    first, last = stage.first, stage.last
                    if stage.over_images:
                        if atomic_load(at(meeting, STOP)):
                            break
                        begin, end = number * group, min((number + 1) * group, step.batch)
                        work.first, work.last, work.sample = begin, end, 0
                        if run.own_frames:
                            work.first, work.last, work.sample = 0, end - begin, begin
                    else:
                        task = carray(_tasks_at(run.tasks + (stage.first + number) * TASK_SIZE), 1)[0]
                        first, last, work.first, work.last = task.first, task.last, task.begin, task.end
                    for i in range(first, last):
                        if stage.over_images and atomic_load(at(meeting, STOP)):
                            break
                        instruction = carray(_instructions_at(run.instructions + i * INSTRUCTION_SIZE), 1)[0]
                        call(instruction.kernel, instruction.operands, work_address)
                _meet(meeting, threads, run.pause)
                if stage.over_images and atomic_load(at(meeting, ABANDONED)):
                    return
                if stage.judges:
                    total, hits = 0.0, 0
                    for image in range(step.batch):
                        total += doubles(work.losses)[image]
                        hits += longs(work.hits)[image]
                    loss = total / step.divisor if step.divisor else np.nan
                    if run.thread == 0:
                        doubles(run.losses)[step_number] = loss
                        longs(run.hits)[step_number] = hits
                        atomic_store(at(meeting, DONE), step_number + 1)
                    if stage.judges == JUDGES and not np.isfinite(loss):
                        return

    return Kernel("run_program", RUN, body)
