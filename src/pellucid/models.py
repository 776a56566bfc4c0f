"""The zoo: networks of the lessons and a few classics, as functions that return what one could write by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pellucid._types import Shape
from pellucid.errors import OptionError, ShapeError, unknown
from pellucid.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    Dropout,
    Flatten,
    Layer,
    LazyLinear,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
)
from pellucid.shapes import text


def block_cnn(
    in_channels: int,
    filters: Sequence[int],
    units: Sequence[int],
    *,
    padding: int = 0,
    input_shape: Shape | None = None,
    seed: int = 0,
) -> Sequential:
    """Return lesson 0's network: a block of conv 3x3, max-pool 2 and ReLU per filter count, then dense layers.

    Args:
        in_channels: Channels of the images.
        filters: Filters of each block.
        units: Outputs of each dense layer; ReLU stands between them, not after the last.
        padding: Of the convolutions; 1 keeps small images from shrinking away.
        input_shape: (C, H, W); builds the network.
        seed: Same seed, same parameters.

    Raises:
        ShapeError: Where the images are too small for so many blocks.

    >>> block_cnn(1, [32], [30, 10], input_shape=(1, 8, 8)).flat_parameters.size
    9300
    """
    layers: list[Layer] = []
    for channels, count in zip([in_channels, *filters], filters, strict=False):
        layers += [Conv2d(channels, count, 3, padding=padding), MaxPool2d(2), ReLU()]
    layers.append(Flatten())
    for count in units[:-1]:
        layers += [LazyLinear(count), ReLU()]
    layers.append(LazyLinear(units[-1]))
    network = Sequential(*layers)
    if input_shape is not None:
        try:
            network.build(input_shape, seed)
        except ShapeError as error:
            if padding == 0 and input_shape[0] == in_channels:
                raise ShapeError(
                    f"images {text(input_shape)} are too small for {len(filters)} blocks without padding; "
                    f"use padding=1 ({error})"
                ) from error
            raise
    return network


def lesson1(in_channels: int = 1, num_classes: int = 10) -> Sequential:
    """Return lesson 1's network: stages of 16, 16 and 32 filters, the second a residual block (10 042 parameters).

    Args:
        in_channels: Channels of the images.
        num_classes: Number of outputs.
    """
    return Sequential(
        Conv2d(in_channels, 16, 3, padding="same"),
        ReLU(),
        MaxPool2d(2),
        Residual(Sequential(Conv2d(16, 16, 3, padding="same"), ReLU(), BatchNorm2d(16))),
        MaxPool2d(2),
        Conv2d(16, 32, 3, padding="same"),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        LazyLinear(num_classes),
    )


def lesson2(in_channels: int = 1, num_classes: int = 10) -> Sequential:
    """Return lesson 2's network: three convolutions 3x3 of 32, 64, 64 filters, dense 64, dropout (93 322 parameters).

    Args:
        in_channels: Channels of the images.
        num_classes: Number of outputs.
    """
    return Sequential(
        Conv2d(in_channels, 32, 3),
        ReLU(),
        MaxPool2d(2),
        Conv2d(32, 64, 3),
        ReLU(),
        MaxPool2d(2),
        Conv2d(64, 64, 3),
        ReLU(),
        Flatten(),
        LazyLinear(64),
        ReLU(),
        Dropout(0.5),
        Linear(64, num_classes),
    )


def lesson3(in_channels: int = 1, num_classes: int = 10) -> Sequential:
    """Return lesson 3's network: eight filters 3x3 without bias, pooling, one dense layer (13 602 parameters).

    The start is the lesson's: filters N(0, 1) / 9, dense weights N(0, 1) / inputs, biases 0. The softmax of the lesson
    is in the loss.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of outputs.
    """
    return Sequential(
        Conv2d(in_channels, 8, 3, bias=False, init=("normal", 1 / 9)),
        MaxPool2d(2),
        Flatten(),
        LazyLinear(num_classes, init="normal"),
    )


def lesson4(in_channels: int = 1, num_classes: int = 10, filters: tuple[int, int] = (1, 1)) -> Sequential:
    """Return lesson 4's LeNet-like network: two convolutions 5x5 with pooling, then 128, 64 and the classes.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of outputs.
        filters: Filters of the two convolutions: (1, 1) has 11 134 parameters, (6, 1) 11 389, (6, 16) 44 374.
    """
    first, second = filters
    return Sequential(
        Conv2d(in_channels, first, 5),
        ReLU(),
        MaxPool2d(2),
        Conv2d(first, second, 5),
        ReLU(),
        MaxPool2d(2),
        Flatten(),
        LazyLinear(128),
        ReLU(),
        Linear(128, 64),
        ReLU(),
        Linear(64, num_classes),
    )


def lenet5(in_channels: int = 1, num_classes: int = 10) -> Sequential:
    """Return a LeNet with 6 and 16 filters 5x5, then 128, 64 and the classes (44 374 parameters).

    After LeCun et al.: Gradient-based learning applied to document recognition, 1998, with ReLU and max-pooling.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of outputs.
    """
    return lesson4(in_channels, num_classes, filters=(6, 16))


def mlp(units: Sequence[int] = (128, 64, 32), num_classes: int = 10) -> Sequential:
    """Return a plain dense network with ReLU between its layers (111 146 parameters on 28x28 images).

    Args:
        units: Outputs of the hidden layers.
        num_classes: Number of outputs.
    """
    layers: list[Layer] = [Flatten()]
    for count in units:
        layers += [LazyLinear(count), ReLU()]
    return Sequential(*layers, LazyLinear(num_classes))


def resnet8(in_channels: int = 3, num_classes: int = 10) -> Sequential:
    """Return a ResNet of eight layers: a stem of 16 filters, blocks of 16, 32 and 64, global mean (78 042 parameters).

    After He et al.: Deep residual learning for image recognition, 2015, section 4.2.

    Args:
        in_channels: Channels of the images.
        num_classes: Number of outputs.
    """

    def block(before: int, after: int, stride: int) -> list[Layer]:
        body = Sequential(
            Conv2d(before, after, 3, stride, padding=1, bias=False),
            BatchNorm2d(after),
            ReLU(),
            Conv2d(after, after, 3, padding=1, bias=False),
            BatchNorm2d(after),
        )
        if before == after and stride == 1:
            return [Residual(body), ReLU()]
        return [Residual(body, Sequential(Conv2d(before, after, 1, stride, bias=False), BatchNorm2d(after))), ReLU()]

    return Sequential(
        Conv2d(in_channels, 16, 3, padding=1, bias=False),
        BatchNorm2d(16),
        ReLU(),
        *block(16, 16, 1),
        *block(16, 32, 2),
        *block(32, 64, 2),
        AdaptiveAvgPool2d(1),
        Flatten(),
        Linear(64, num_classes),
    )


def _small(in_channels: int, num_classes: int) -> Sequential:
    return block_cnn(in_channels, [32, 64], [64, num_classes], padding=1)


_BY_NAME: dict[str, Callable[[int, int], Sequential]] = {
    "block_cnn": _small,
    "lesson1": lesson1,
    "lesson2": lesson2,
    "lesson3": lesson3,
    "lesson4": lesson4,
    "lenet5": lenet5,
    "mlp": lambda channels, num_classes: mlp(num_classes=num_classes),
    "resnet8": resnet8,
}
NAMES = tuple(_BY_NAME)


def create(name: str, input_shape: Shape, num_classes: int, seed: int = 0) -> Sequential:
    """Return a named model, built.

    Args:
        name: One of NAMES.
        input_shape: (C, H, W) of the images.
        num_classes: Number of outputs.
        seed: Same seed, same parameters.

    Raises:
        OptionError: For an unknown name.
        ShapeError: Where the images do not fit the model.

    >>> create("lesson2", (1, 28, 28), 10).flat_parameters.size
    93322
    """
    if name not in _BY_NAME:
        raise unknown("model", name, NAMES)
    if len(input_shape) != 3:
        raise OptionError(f"input_shape must be (C, H, W), got {input_shape!r}")
    try:
        return _BY_NAME[name](input_shape[0], num_classes).build(input_shape, seed)
    except ShapeError as error:
        other = default(input_shape) if default(input_shape) != name else "mlp"
        raise ShapeError(
            f"model {name} cannot take images {text(input_shape)}; use the model {other}, "
            f"or images of another size ({error})"
        ) from error


def default(input_shape: Shape) -> str:
    """Return the name of the model for images of that shape: small, gray, or color.

    Args:
        input_shape: (C, H, W) of the images.

    >>> default((1, 8, 8)), default((1, 28, 28)), default((3, 32, 32))
    ('block_cnn', 'lesson2', 'resnet8')
    """
    channels, height, width = input_shape
    if min(height, width) < 18:
        return "block_cnn"
    return "lesson2" if channels == 1 else "resnet8"
