"""Records: the structs with named fields that Python fills in and kernels read."""

from __future__ import annotations

import numpy as np
from numba import from_dtype, types

from pellucid._types import Array


class Record:
    """A C struct with named fields of eight bytes: whole numbers, and those named in reals.

    Args:
        name: For messages and the debug view.
        doc: What the fields mean.
        fields: Names, separated by blanks.
        reals: Names of the float64 fields among them.
    """

    def __init__(self, name: str, doc: str, fields: str, reals: str = "") -> None:
        self.name, self.__doc__ = name, doc
        floating = set(reals.split())
        names = fields.split() + reals.split()
        self.dtype = np.dtype([(field, "f8" if field in floating else "i8") for field in names])
        self.pointer = types.CPointer(from_dtype(self.dtype))

    def make(self, **values: float) -> Array:
        """Return one such struct, shape (1,); every field must be given.

        Args:
            **values: By field name.
        """
        names = self.dtype.names or ()
        if set(values) != set(names):
            raise KeyError(f"{self.name}: fields that differ: {sorted(set(values) ^ set(names))}")
        record = np.zeros(1, dtype=self.dtype)
        for name, value in values.items():
            record[name] = value
        return record


WORK = Record(
    "Work",
    """What a thread works on at the moment. Addresses are in bytes, sizes and offsets in elements.

    first, last: In a stage over images: places of frames. In a stage over blocks: which rows of a parameter.
    sample: Place in the batch of the image in frame 0.
    batch: Images in the batch.
    frames, frame: Where the first image's frame lies (float32), and the size of a frame.
    weights, gradients, memory1, memory2: Parameters in the engine's layout, and arrays of that layout.
    copies: Parameters once more, transposed.
    buffers: Vectors of batch norm and losses, float32.
    tables: Offsets, int32.
    statistics: Partial sums of batch norm and clipping, float64.
    scratch: Float32 memory of this thread.
    images, targets, order, outputs: The caller's arrays; order (int64) is this batch's part, or 0 for none.
    losses, hits: One a frame, float64 and int64.
    keys: Dropout keys of this step, one a dropout layer.
    rate, correction1, correction2: Learning rate, 1 / (1 - beta1^t), 1 / sqrt(1 - beta2^t).
    divisor: What the sum over the batch is divided by to give the loss.
    """,
    "first last sample batch frames frame weights gradients memory1 memory2 copies buffers tables statistics scratch "
    "images targets order outputs losses hits keys",
    reals="rate correction1 correction2 divisor",
)
