"""Dense layers, and what only changes the shape."""

from __future__ import annotations

import math
from typing import Any

from pellucid import functional as F
from pellucid._types import Array, Shape
from pellucid.errors import OptionError, ShapeError
from pellucid.nn.init import Scheme, check_scheme
from pellucid.nn.layer import Backward, Layer, Parameter
from pellucid.random import Source
from pellucid.shapes import integer, text


class Flatten(Layer):
    """Keeps the batch axis and joins all others, channels first: (N, C, H, W) -> (N, C H W).

    >>> import numpy as np
    >>> Flatten()(np.zeros((2, 3, 4, 5))).shape
    (2, 60)
    """

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, ...).
            training: Makes no difference.
            rng: Not used.
        """
        return x.reshape(len(x), math.prod(x.shape[1:])), lambda dy: (dy.reshape(x.shape), {})

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (C H W,).

        Args:
            input_shape: Any.
        """
        return (math.prod(input_shape),)


class Unflatten(Layer):
    """Divides an axis into several, as Flatten's undoing: (N, C H W) -> (N, C, H, W).

    Args:
        dim: Which axis; 0 is the batch, which cannot be divided.
        unflattened_size: The sizes that it is divided into.

    Raises:
        OptionError: For the batch axis or other arguments that cannot be.

    >>> import numpy as np
    >>> Unflatten(1, (3, 4, 5))(np.zeros((2, 60))).shape
    (2, 3, 4, 5)
    """

    def __init__(self, dim: int, unflattened_size: Shape) -> None:
        super().__init__()
        dim = integer(dim, "dim", minimum=-8)
        if dim == 0:
            raise OptionError("dim=0 is the batch, which cannot be divided; use dim=1 for what Flatten gives")
        if not isinstance(unflattened_size, (tuple, list)) or not unflattened_size:
            raise OptionError(f"unflattened_size must be a tuple such as (16, 7, 7), got {unflattened_size!r}")
        self.dim = dim
        self.unflattened_size = tuple(integer(n, "unflattened_size") for n in unflattened_size)

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, ...).
            training: Makes no difference.
            rng: Not used.
        """
        return x.reshape(len(x), *self.output_shape(x.shape[1:])), lambda dy: (dy.reshape(x.shape), {})

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape with one axis divided.

        Args:
            input_shape: Any with the axis dim.
        """
        axis = self.dim - 1 if self.dim > 0 else self.dim + len(input_shape)
        if not 0 <= axis < len(input_shape):
            raise ShapeError(f"there is no axis dim={self.dim} to divide in a batch with {len(input_shape) + 1} axes")
        size = math.prod(self.unflattened_size)
        if input_shape[axis] != size:
            raise ShapeError(
                f"expects {size} = {text(self.unflattened_size)} along dim={self.dim}, but gets {input_shape[axis]}"
            )
        return (*input_shape[:axis], *self.unflattened_size, *input_shape[axis + 1 :])


class Identity(Layer):
    """Gives what it gets: a way past the other branches of a Concat, or a place held free.

    >>> import numpy as np
    >>> Identity()(np.array([1.0, 2.0]))
    array([1., 2.])
    """

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Any shape.
            training: Makes no difference.
            rng: Not used.
        """
        return x, lambda dy: (dy, {})


class Linear(Layer):
    """y = x W^T + b. Input (N, in_features), output (N, out_features).

    Args:
        in_features: Size of the input.
        out_features: Size of the output.
        bias: Whether each output adds a number.
        init: How the weights start, see nn.init; with another scheme than "default" biases start at 0.

    Raises:
        OptionError: For arguments that cannot be.

    >>> import numpy as np
    >>> Linear(4, 3)(np.zeros((2, 4), dtype=np.float32)).shape
    (2, 3)
    """

    weight = Parameter()
    bias = Parameter()

    def __init__(self, in_features: int, out_features: int, bias: bool = True, init: Scheme = "default") -> None:
        super().__init__()
        self._options(out_features, bias, init)
        self._open(integer(in_features, "in_features"))

    def _options(self, out_features: int, bias: bool, init: Scheme) -> None:
        self.out_features = integer(out_features, "out_features")
        self.has_bias = bool(bias)
        self.init = check_scheme(init)

    def _open(self, in_features: int) -> None:
        self.in_features = in_features
        fans = (in_features, self.out_features)
        self._declare("weight", (self.out_features, in_features), self.init, *fans)
        if self.has_bias:
            self._declare("bias", (self.out_features,), "default" if self.init == "default" else "zeros", *fans)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as plain data."""
        sizes = {"in_features": self.in_features, "out_features": self.out_features}
        return {**sizes, "bias": self.has_bias, "init": self.init}

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, in_features).
            training: Makes no difference.
            rng: Not used.
        """
        weight, bias = self.weight, self.bias

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dx, dweight, dbias = F.linear_backward(dy, x, weight)
            return dx, {"weight": dweight} if bias is None else {"weight": dweight, "bias": dbias}

        return F.linear(x, weight, bias), backward

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return (out_features,).

        Args:
            input_shape: (in_features,).
        """
        if len(input_shape) != 1:
            size = math.prod(input_shape)
            raise ShapeError(
                f"expects {self.in_features} features, but gets maps {text(input_shape)}; put a "
                f"Flatten before (it gives {size})"
            )
        if input_shape[0] != self.in_features:
            raise ShapeError(
                f"expects {self.in_features} features, but gets {input_shape[0]}; "
                f"use Linear({input_shape[0]}, {self.out_features}) or LazyLinear({self.out_features})"
            )
        return (self.out_features,)

    def multiply_adds(self, input_shape: Shape) -> int:
        """Return in_features out_features.

        Args:
            input_shape: (in_features,).
        """
        return self.in_features * self.out_features


class LazyLinear(Linear):
    """A Linear that takes in_features from what it gets when the network is built, and is a Linear from then on.

    Args:
        out_features: Size of the output.
        bias: As in Linear.
        init: As in Linear.

    >>> from pellucid import nn
    >>> nn.Sequential(Flatten(), LazyLinear(10), input_shape=(1, 8, 8))[1]
    Linear(64, 10)
    """

    def __init__(self, out_features: int, bias: bool = True, init: Scheme = "default") -> None:
        Layer.__init__(self)
        self._options(out_features, bias, init)

    def config(self) -> dict[str, Any]:
        """Return the constructor's arguments, as plain data."""
        return {"out_features": self.out_features, "bias": self.has_bias, "init": self.init}

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Raise an error: the number of features is not known before the network is built.

        Args:
            x: Not used.
            training: Not used.
            rng: Not used.
        """
        raise OptionError("LazyLinear has no weights yet; build its network with input_shape=(C, H, W)")

    def resolve(self, input_shape: Shape) -> None:
        """Take the number of features from the input and become a Linear.

        Args:
            input_shape: (in_features,).
        """
        if len(input_shape) != 1:
            raise ShapeError(f"expects features, but gets maps {text(input_shape)}; put a Flatten before")
        self._open(input_shape[0])
        self.__class__ = Linear  # type: ignore[assignment]
