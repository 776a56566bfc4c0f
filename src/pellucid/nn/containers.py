"""Networks are trees of these: layers one after another, a body with a way around it, branches side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import overload

import numpy as np

from pellucid import functional as F
from pellucid._types import Array, Shape
from pellucid.errors import OptionError, ShapeError
from pellucid.nn.layer import Backward, Gradients, Layer, join
from pellucid.nn.network import Network, Steps
from pellucid.nn.pool import MaxPool2d
from pellucid.random import Source, advance
from pellucid.shapes import text


def _check_layer(layer: object) -> Layer:
    if isinstance(layer, Layer):
        return layer
    if isinstance(layer, type) and issubclass(layer, Layer):
        raise OptionError(f"{layer.__name__} is a class; write {layer.__name__}(...) to make a layer")
    if isinstance(layer, (list, tuple)):
        raise OptionError("expected layers one by one, got a list of them; write nn.Sequential(*layers)")
    cure = "; write a layer such as nn.ReLU()" if callable(layer) else ""
    raise OptionError(f"expected a layer, got {layer!r:.80}{cure}")


class Sequential(Network):
    """Layers one after another.

    Args:
        *layers: The layers; a Sequential among them is a part of its own.
        input_shape: Shape of one input, as (C, H, W); builds the network.
        seed: Same seed, same parameters.
        dtype: "float32" or "float64"; "float32" if None.

    Raises:
        ShapeError: Where a layer cannot take what it gets.

    >>> import numpy as np
    >>> from pellucid import nn
    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10), input_shape=(1, 8, 8))
    >>> net(np.zeros((5, 1, 8, 8), dtype=np.float32)).shape
    (5, 10)
    """

    def __init__(
        self, *layers: Layer, input_shape: Shape | None = None, seed: int = 0, dtype: str | None = None
    ) -> None:
        super().__init__()
        self._children = {str(i): _check_layer(layer) for i, layer in enumerate(layers)}
        if input_shape is not None:
            self.build(input_shape, seed, dtype)

    def append(self, layer: Layer) -> Sequential:
        """Add a layer at the end, before the network is built, and return the network.

        Args:
            layer: What to add.

        Raises:
            OptionError: Where the network is built already.
        """
        if self.built or self._network is not None:
            raise OptionError("the network is built; make a longer one: nn.Sequential(*net, layer, input_shape=...)")
        self._children[str(len(self))] = _check_layer(layer)
        return self

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Layer]:
        return iter(self._children.values())

    @overload
    def __getitem__(self, index: int) -> Layer: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Layer | Sequential:
        """Return a layer, or for a slice a new network of those layers (which clones them when it is built)."""
        if isinstance(index, slice):
            return Sequential(*list(self)[index])
        if not -len(self) <= index < len(self):
            raise IndexError(f"the network has {len(self)} layers, there is no number {index}")
        return list(self)[index]

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward): each layer's forward in turn, then each one's backward in reverse.

        Args:
            x: Input, (N, ...).
            training: Whether dropout drops and batch norm uses the batch.
            rng: Stream or generator for the layers that draw.
        """
        backwards: list[tuple[str, Backward]] = []
        for name, layer in self.children():
            x, backward_of_layer = layer.forward(x, training=training, rng=rng)
            backwards.append((name, backward_of_layer))
            rng = advance(rng, layer.leaf_count)

        def backward(dy: Array) -> tuple[Array, Gradients]:
            gradients: Gradients = {}
            for name, backward_of_layer in reversed(backwards):
                dy, own = backward_of_layer(dy)
                gradients.update({join(name, key): value for key, value in own.items()})
            return dy, self._merge_shared(gradients)

        return x, backward

    def _trace(self, shape: Shape, prefix: str, steps: Steps, source: str) -> Shape:
        for name, child in self.children():
            shape = self._trace_child(name, shape, prefix, steps, source)
            source = f"layer {join(prefix, name)} ({type(child).__name__})"
        return shape


class Residual(Network):
    """y = body(x) + shortcut(x), with nothing after the sum (He et al.: Deep residual learning, 2015).

    Args:
        body: A layer, or a Sequential.
        shortcut: What x passes through on its way around; x itself if None.

    Raises:
        ShapeError: When built, where body and shortcut do not give the same shape.

    >>> import numpy as np
    >>> from pellucid import nn
    >>> block = nn.Residual(nn.Sequential(nn.Conv2d(2, 2, 3, padding="same"), nn.ReLU()))
    >>> block(np.zeros((1, 2, 5, 5), dtype=np.float32)).shape
    (1, 2, 5, 5)
    """

    def __init__(self, body: Layer, shortcut: Layer | None = None) -> None:
        super().__init__()
        self._children = {"body": _check_layer(body)}
        if shortcut is not None:
            self._children["shortcut"] = _check_layer(shortcut)

    @property
    def body(self) -> Layer:
        """What computes the residual."""
        return self._children["body"]

    @property
    def shortcut(self) -> Layer | None:
        """What x passes through on its way around, or None."""
        return self._children.get("shortcut")

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (body(x) + shortcut(x), backward); the gradient comes back on both ways.

        Args:
            x: Input, (N, ...).
            training: Whether dropout drops and batch norm uses the batch.
            rng: Stream or generator for the layers that draw.
        """
        y, backward_of_body = self.body.forward(x, training=training, rng=rng)
        around, backward_of_shortcut = x, None
        if self.shortcut is not None:
            rng = advance(rng, self.body.leaf_count)
            around, backward_of_shortcut = self.shortcut.forward(x, training=training, rng=rng)
        if y.shape != around.shape:
            raise ShapeError(f"body gives {y.shape} but the way around gives {around.shape}; they are added")

        def backward(dy: Array) -> tuple[Array, Gradients]:
            dx, own = backward_of_body(dy)
            gradients = {join("body", key): value for key, value in own.items()}
            if backward_of_shortcut is None:
                return dx + dy, self._merge_shared(gradients)
            dx_around, own = backward_of_shortcut(dy)
            gradients.update({join("shortcut", key): value for key, value in own.items()})
            return dx + dx_around, self._merge_shared(gradients)

        return y + around, backward

    def _trace(self, shape: Shape, prefix: str, steps: Steps, source: str) -> Shape:
        out = self._trace_child("body", shape, prefix, steps, source)
        around = self._trace_child("shortcut", shape, prefix, steps, source) if self.shortcut is not None else shape
        if out != around:
            where = f"residual block {prefix}" if prefix else "the residual block"
            cure = "give both the same channels, stride and padding"
            if self.shortcut is None and len(out) == len(shape) == 3:
                cure = 'keep the shape in the body (padding for an odd kernel: kernel_size // 2, or padding="same")'
                strides = range(1, max(shape) + 1)
                fits = [s for s in strides if all(-(-n // s) == o for n, o in zip(shape[1:], out[1:], strict=True))]
                if fits:
                    stride = f", {fits[0]}" if fits[0] > 1 else ""
                    cure += f", or give a shortcut such as Conv2d({shape[0]}, {out[0]}, 1{stride})"
            raise ShapeError(f"{where} adds {text(out)} from its body to {text(around)} from around it; {cure}")
        return out


class Concat(Network):
    """The outputs of several branches one behind the other along the channels: an inception block, a U-Net's skip.

    All branches get the same input (N, C, ...) and must give the same size. Identity() as a branch hands the input on.

    Args:
        *branches: Layers, or Sequentials.

    Raises:
        ShapeError: When built, where the branches give different sizes.

    >>> import numpy as np
    >>> from pellucid import nn
    >>> block = nn.Concat(nn.Identity(), nn.Conv2d(2, 5, 3, padding=1))
    >>> block(np.zeros((1, 2, 6, 6), dtype=np.float32)).shape
    (1, 7, 6, 6)
    """

    def __init__(self, *branches: Layer) -> None:
        super().__init__()
        if not branches:
            raise OptionError("Concat needs at least one branch")
        self._children = {str(i): _check_layer(branch) for i, branch in enumerate(branches)}

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward); each branch gets back the gradient of its channels, and their dx are added.

        Args:
            x: Input, (N, C, ...).
            training: Whether dropout drops and batch norm uses the batch.
            rng: Stream or generator for the layers that draw.
        """
        outputs: list[Array] = []
        backwards: list[tuple[str, Backward]] = []
        for name, branch in self.children():
            y, backward_of_branch = branch.forward(x, training=training, rng=rng)
            outputs.append(y)
            backwards.append((name, backward_of_branch))
            rng = advance(rng, branch.leaf_count)
        if len({(y.ndim, y.shape[:1], y.shape[2:]) for y in outputs}) > 1:
            raise ShapeError(f"branches give {', '.join(str(y.shape) for y in outputs)}; only channels may differ")
        ends = np.cumsum([y.shape[1] for y in outputs])

        def backward(dy: Array) -> tuple[Array, Gradients]:
            gradients: Gradients = {}
            dx = np.zeros(x.shape, dtype=dy.dtype)
            for (name, backward_of_branch), part in zip(backwards, np.split(dy, ends[:-1], axis=1), strict=True):
                dx_of_branch, own = backward_of_branch(part)
                dx += dx_of_branch
                gradients.update({join(name, key): value for key, value in own.items()})
            return dx, self._merge_shared(gradients)

        return np.concatenate(outputs, axis=1), backward

    def _trace(self, shape: Shape, prefix: str, steps: Steps, source: str) -> Shape:
        outs = [self._trace_child(name, shape, prefix, steps, source) for name, _ in self.children()]
        if len({(len(out), out[1:]) for out in outs}) > 1:
            where = f"Concat {prefix}" if prefix else "the Concat"
            raise ShapeError(
                f"{where} puts {', '.join(map(text, outs))} one behind the other, which may differ in channels only; "
                "give all branches the same stride, and padding for their kernels"
            )
        return sum(out[0] for out in outs), *outs[0][1:]


class MaxUnpool2d(Network):
    """Max-pooling, a body, and each value back where its pool had found it: max_unpool2d(body(y), indices of the pool).

    The indices go around the body, as the input does in Residual. The output has the size of the input, whatever sizes
    the pool brings to one. The body must keep the shape; blocks may stand in each other (Badrinarayanan, Kendall,
    Cipolla: SegNet, 2015).

    Args:
        pool: A MaxPool2d without dilation.
        body: What the pooled maps pass through; a layer, or a Sequential.

    Raises:
        OptionError: For another pool.
        ShapeError: When built, where the body changes the shape.

    >>> import numpy as np
    >>> from pellucid import nn
    >>> nn.MaxUnpool2d(nn.MaxPool2d(2), nn.Identity())(np.array([[[[1.0, 5.0, 9.0], [2.0, 3.0, 9.0]]]]))[0, 0]
    array([[0., 5., 0.],
           [0., 0., 0.]])
    """

    def __init__(self, pool: MaxPool2d, body: Layer) -> None:
        super().__init__()
        if type(pool) is not MaxPool2d or pool.dilation != (1, 1):
            raise OptionError(f"pool must be a MaxPool2d without dilation, got {pool!r:.80}")
        self._children = {"pool": pool, "body": _check_layer(body)}

    @property
    def pool(self) -> MaxPool2d:
        """What the values come from."""
        return self._children["pool"]  # type: ignore[return-value]

    @property
    def body(self) -> Layer:
        """What the pooled maps pass through."""
        return self._children["body"]

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, C, H, W).
            training: Whether dropout drops and batch norm uses the batch.
            rng: Stream or generator for the layers that draw.
        """
        pool = self.pool.config()
        pooled, indices = F.max_pool2d(x, **pool, return_indices=True)
        window = (pool["kernel_size"], pool["stride"], pool["padding"], x.shape[2:])
        moved, backward_of_body = self.body.forward(pooled, training=training, rng=advance(rng, 1))

        def backward(dy: Array) -> tuple[Array, Gradients]:
            dpooled, own = backward_of_body(F.max_unpool2d_backward(dy, moved, indices, *window))
            dx = F.max_pool2d_backward(dpooled, x, **pool)
            return dx, self._merge_shared({join("body", key): value for key, value in own.items()})

        return F.max_unpool2d(moved, indices, *window), backward

    def _trace(self, shape: Shape, prefix: str, steps: Steps, source: str) -> Shape:
        pooled = self._trace_child("pool", shape, prefix, steps, source)
        source = f"layer {join(prefix, 'pool')} (MaxPool2d)"
        out = self._trace_child("body", pooled, prefix, steps, source)
        if out != pooled:
            where = f"MaxUnpool2d {prefix}" if prefix else "the MaxUnpool2d"
            raise ShapeError(
                f"{where} has indices for {text(pooled)}, but its body gives {text(out)}; keep the shape in the body"
            )
        return shape
