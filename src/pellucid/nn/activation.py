"""Activation layers and dropout."""

from __future__ import annotations

import math

from pellucid import functional as F
from pellucid._types import Array, Shape
from pellucid.errors import OptionError, ShapeError
from pellucid.nn.conv import check_maps
from pellucid.nn.init import check_scheme
from pellucid.nn.layer import Backward, Layer, Parameter
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


class PReLU(Layer):
    """x where x > 0, else weight x, with a learned slope: one for all, or one for each channel.

    Args:
        num_parameters: 1, or the number of channels.
        init: Where the slopes start.

    Raises:
        OptionError: For arguments that cannot be.

    >>> PReLU()(np.array([[-1.0, 2.0]]))
    array([[-0.25,  2.  ]])
    """

    weight = Parameter()

    def __init__(self, num_parameters: int = 1, init: float = 0.25) -> None:
        super().__init__()
        self.num_parameters = integer(num_parameters, "num_parameters")
        self.init = number(init, "init", minimum=-math.inf)
        self._declare("weight", (self.num_parameters,), check_scheme(("constant", self.init)), 1, 1)

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, C, ...).
            training: Makes no difference.
            rng: Not used.
        """
        weight = self.weight

        def backward(dy: Array) -> tuple[Array, dict[str, Array]]:
            dx, dweight = F.prelu_backward(dy, x, weight)
            return dx, {"weight": dweight}

        return F.prelu(x, weight), backward

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape.

        Args:
            input_shape: (C, ...).
        """
        if self.num_parameters not in (1, *input_shape[:1]):
            raise ShapeError(f"has {self.num_parameters} slopes, but gets {input_shape[0]} channels; use one of both")
        return input_shape


class ELU(Layer):
    """x where x > 0, else alpha (exp(x) - 1).

    Args:
        alpha: How far down it goes.

    >>> ELU()(np.array([0.0, 2.0]))
    array([0., 2.])
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__()
        self.alpha = number(alpha, "alpha", minimum=-math.inf)

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Any shape.
            training: Makes no difference.
            rng: Not used.
        """
        return F.elu(x, self.alpha), lambda dy: (F.elu_backward(dy, x, self.alpha), {})


class SiLU(Layer):
    """x sigmoid(x), element by element.

    >>> SiLU()(np.array([0.0]))
    array([0.])
    """

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Any shape.
            training: Makes no difference.
            rng: Not used.
        """
        return F.silu(x), lambda dy: (F.silu_backward(dy, x), {})


class GELU(Layer):
    """x times the probability that a normal number lies below x; see functional.gelu.

    Args:
        approximate: "none", or "tanh" for a formula without erf.

    Raises:
        OptionError: For another name.

    >>> GELU()(np.array([0.0, 1.0])).round(4)
    array([0.    , 0.8413])
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        if approximate not in ("none", "tanh"):
            raise OptionError(f'approximate must be "none" or "tanh", got {approximate!r}')
        self.approximate = approximate

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Any shape.
            training: Makes no difference.
            rng: Not used.
        """
        return F.gelu(x, self.approximate), lambda dy: (F.gelu_backward(dy, x, self.approximate), {})


class Softplus(Layer):
    """log(1 + exp(beta x)) / beta, a smooth ReLU.

    Args:
        beta: How sharp it bends, above 0.
        threshold: Where beta x lies above it, y is x.

    Raises:
        OptionError: For arguments that cannot be.

    >>> Softplus()(np.array([0.0])).round(4)
    array([0.6931])
    """

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        super().__init__()
        self.beta, self.threshold = number(beta, "beta"), number(threshold, "threshold", minimum=-math.inf)
        if self.beta == 0:
            raise OptionError("beta must be above 0")

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Any shape.
            training: Makes no difference.
            rng: Not used.
        """
        options = (self.beta, self.threshold)
        return F.softplus(x, *options), lambda dy: (F.softplus_backward(dy, x, *options), {})


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


class _AlongClasses(Layer):
    """What softmax and log-softmax share: the axis of the classes."""

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        dim = integer(dim, "dim", minimum=-8)
        if dim == 0:
            raise OptionError("dim=0 is the batch, whose images must not mix; use dim=1 for the classes")
        self.dim = dim

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape.

        Args:
            input_shape: Any with the axis dim.
        """
        ndim = len(input_shape) + 1
        if not -ndim < self.dim < ndim:
            raise ShapeError(f"there is no axis dim={self.dim} in a batch with {ndim} axes")
        return input_shape


class Softmax(_AlongClasses):
    """exp(x) / sum of exp(x) along the classes. Losses that take logits do not want it before them.

    Args:
        dim: The axis of the classes; never 0, the batch.

    Raises:
        OptionError: For the batch axis.

    >>> Softmax()(np.array([[0.0, 0.0]]))
    array([[0.5, 0.5]])
    """

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, K) or (N, C, ...).
            training: Makes no difference.
            rng: Not used.
        """
        y = F.softmax(x, self.dim)
        return y, lambda dy: (F.softmax_backward(dy, y, self.dim), {})


class LogSoftmax(_AlongClasses):
    """The logarithm of softmax, without overflow: what NLLLoss takes.

    Args:
        dim: The axis of the classes; never 0, the batch.

    Raises:
        OptionError: For the batch axis.

    >>> LogSoftmax()(np.array([[0.0, 0.0]])).round(4)
    array([[-0.6931, -0.6931]])
    """

    def forward(self, x: Array, *, training: bool = False, rng: Source | None = None) -> tuple[Array, Backward]:
        """Return (y, backward).

        Args:
            x: Input, (N, K) or (N, C, ...).
            training: Makes no difference.
            rng: Not used.
        """
        y = F.log_softmax(x, self.dim)
        return y, lambda dy: (F.log_softmax_backward(dy, y, self.dim), {})


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
        mask = F.dropout_mask(rng.random(self._mask_shape(x)), self.p).astype(x.dtype)
        return x * mask, lambda dy: (dy * mask, {})

    def _mask_shape(self, x: Array) -> Shape:
        return x.shape


class Dropout2d(Dropout):
    """In training, zeroes a share p of the channels of each image, whole maps; otherwise as Dropout.

    Neighboring cells of a map say much the same, so dropping single cells would hide little (Tompson et al.: Efficient
    object localization using convolutional networks, 2015).

    Args:
        p: Share that is dropped, from 0 to 1.

    Raises:
        OptionError: For p outside [0, 1].

    >>> from pellucid.random import Stream
    >>> y, backward = Dropout2d(0.5).forward(np.ones((8, 4, 3, 3)), training=True, rng=Stream(0))
    >>> bool((y == y[:, :, :1, :1]).all())
    True
    """

    def _mask_shape(self, x: Array) -> Shape:
        return (*x.shape[:2], *[1] * (x.ndim - 2))

    def output_shape(self, input_shape: Shape) -> Shape:
        """Return the input's shape.

        Args:
            input_shape: (C, H, W).
        """
        check_maps(input_shape)
        return input_shape
