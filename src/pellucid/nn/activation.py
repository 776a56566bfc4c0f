"""Activation layers and dropout."""

from __future__ import annotations

import math

from pellucid import functional as F
from pellucid._types import Array, Shape
from pellucid.errors import OptionError, ShapeError
from pellucid.nn.layer import Backward, Layer
from pellucid.random import Source
from pellucid.shapes import integer, number


class ReLU(Layer):
    """max(x, 0), element by element; gradient 0 at 0.

    >>> ReLU()(np.array([-1.0, 2.0]))
    array([0., 2.])
    """

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Any shape.
            training: Makes no difference.
            rng: Not used.
        """
        return F.relu(x), lambda dy: (F.relu_backward(dy, x), {})


class LeakyReLU(Layer):
    """x where x > 0, else negative_slope x.

    Args:
        negative_slope: Slope on the left.

    >>> LeakyReLU(0.5)(np.array([-1.0, 2.0]))
    array([-0.5,  2. ])
    """

    def __init__(self, negative_slope: float = 0.01) -> None:
        super().__init__()
        self.negative_slope = number(negative_slope, "negative_slope", minimum=-math.inf)

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Any shape.
            training: Makes no difference.
            rng: Not used.
        """
        slope = self.negative_slope
        return F.leaky_relu(x, slope), lambda dy: (F.leaky_relu_backward(dy, x, slope), {})


class Sigmoid(Layer):
    """1 / (1 + exp(-x)), element by element.

    >>> Sigmoid()(np.array([0.0]))
    array([0.5])
    """

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Any shape.
            training: Makes no difference.
            rng: Not used.
        """
        y = F.sigmoid(x)
        return y, lambda dy: (F.sigmoid_backward(dy, y), {})


class Tanh(Layer):
    """The hyperbolic tangent, element by element.

    >>> Tanh()(np.array([0.0]))
    array([0.])
    """

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Any shape.
            training: Makes no difference.
            rng: Not used.
        """
        y = F.tanh(x)
        return y, lambda dy: (F.tanh_backward(dy, y), {})


class Softmax(Layer):
    """exp(x) / sum of exp(x) along the classes. Losses that take logits do not want it before them.

    Args:
        dim: The axis of the classes; never 0, the batch.

    Raises:
        OptionError: For the batch axis.

    >>> Softmax()(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]])
    """

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        dim = integer(dim, "dim", minimum=-8)
        if dim == 0:
            raise OptionError("dim=0 is the batch, whose images must not mix; use dim=1 for the classes")
        self.dim = dim

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, K) or (N, C, ...).
            training: Makes no difference.
            rng: Not used.
        """
        y = F.softmax(x, self.dim)
        return y, lambda dy: (F.softmax_backward(dy, y, self.dim), {})

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape.

        Args:
            input_shape: Any with the axis dim.
        """
        ndim = len(input_shape) + 1
        if not -ndim < self.dim < ndim:
            raise ShapeError(f"there is no axis dim={self.dim} in a batch with {ndim} axes")
        return input_shape


class Dropout(Layer):
    """In training, zeroes a share p of the elements and scales the others by 1 / (1 - p); else does nothing.

    Args:
        p: Share that is dropped, from 0 to 1.

    Raises:
        OptionError: For p outside [0, 1].

    >>> from pellucid.random import Stream
    >>> y, backward = Dropout(0.5).forward(np.ones((1, 4)), training=True, rng=Stream(0))
    >>> bool(set(y.ravel()) <= {0.0, 2.0})
    True
    """

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if isinstance(p, bool) or not isinstance(p, (int, float)) or not 0 <= p <= 1:
            raise OptionError(f"p is the share of elements to drop, from 0 to 1, got {p!r}")
        self.p = float(p)

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Any shape.
            training: Whether to drop.
            rng: Stream or generator; needed in training.
        """
        if not training or self.p == 0:
            return x, lambda dy: (dy, {})
        if rng is None:
            raise OptionError("dropout in training needs rng=, for example pellucid.random.Stream(seed=0)")
        mask = F.dropout_mask(rng.random(x.shape), self.p).astype(x.dtype)
        return x * mask, lambda dy: (dy * mask, {})
