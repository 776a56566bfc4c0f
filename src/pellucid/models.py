"""The zoo: networks of the lessons and a few classics, as functions that return what one could write by hand."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from pellucid._types import Shape
from pellucid.errors import OptionError, ShapeError, unknown
from pellucid.nn import (
    AdaptiveAvgPool2d,
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Dropout,
    Flatten,
    Layer,
    LazyLinear,
    Linear,
    MaxPool2d,
    ReLU,
    Residual,
    Sequential,
    Sigmoid,
    Unflatten,
    Upsample,
)
from pellucid.shapes import text, transposed_sizes


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


def autoencoder(
    input_shape: Shape, filters: Sequence[int] = (16, 32), bottleneck: int | None = 16, *, upsample: bool = False
) -> Sequential:
    """Return a convolutional autoencoder: Sequential(encoder, decoder), the decoder the encoder's mirror image.

    Each convolution 3x3 halves height and width (rounded up), and its mirror brings back the very size that it got:
    output_padding is what the halving rounded away. Sigmoid keeps the output between 0 and 1, the range of the targets
    that Dataset.reconstruction makes. Nothing follows the bottleneck, so that a code may be any numbers. With more than
    two convolutions batch norm stands before each ReLU and weights start as He's: without them many a deep one never
    learns more than that most pixels are black.

    Args:
        input_shape: (C, H, W) of the images.
        filters: Filters of each convolution.
        bottleneck: How many numbers a code has, made by a dense layer; if None, a code is the last convolution's maps,
            (filters[-1], H', W').
        upsample: Whether the decoder repeats cells and convolves, instead of transposed convolutions.

    Raises:
        OptionError: Without filters, or for an input_shape that is none.

    >>> net = autoencoder((1, 28, 28), (16, 32, 32, 4), bottleneck=None).build((1, 28, 28))
    >>> net[0].output_shape((1, 28, 28)), net.output_shape((1, 28, 28))
    ((4, 2, 2), (1, 28, 28))
    """
    if len(input_shape) != 3 or not filters:
        raise OptionError(f"an autoencoder needs (C, H, W) and at least one convolution, got {input_shape}, {filters}")
    deep = len(filters) > 2
    init = "he_uniform" if deep else "default"

    def active(channels: int) -> list[Layer]:
        return [BatchNorm2d(channels), ReLU()] if deep else [ReLU()]

    encoder: list[Layer] = []
    decoder: list[Layer] = []
    shape: Shape = input_shape
    for number, count in enumerate(filters, 1):
        conv = Conv2d(shape[0], count, 3, stride=2, padding=1, init=init)
        after: Shape = conv.output_shape(shape)
        back: list[Layer]
        if upsample:
            back = [Upsample(size=shape[1:]), Conv2d(count, shape[0], 3, padding=1, init=init)]
        else:
            least = transposed_sizes(after[1:], conv.kernel_size, conv.stride, (1, 1), (0, 0), (1, 1))
            rest = tuple(n - m for n, m in zip(shape[1:], least, strict=True))
            back = [ConvTranspose2d(count, shape[0], 3, stride=2, padding=1, output_padding=rest, init=init)]
        is_code = bottleneck is None and number == len(filters)
        encoder += [conv, *([] if is_code else active(count))]
        decoder = [*back, *(active(shape[0]) if decoder else [Sigmoid()]), *decoder]
        shape = after
    if bottleneck is not None:
        size = math.prod(shape)
        encoder += [Flatten(), Linear(size, bottleneck)]
        decoder = [Linear(bottleneck, size), ReLU(), Unflatten(1, shape), *decoder]
    return Sequential(Sequential(*encoder), Sequential(*decoder))


def dense_autoencoder(input_shape: Shape, units: Sequence[int] = (128, 64), bottleneck: int = 16) -> Sequential:
    """Return an autoencoder of dense layers with ReLU between them: Sequential(encoder, decoder); see autoencoder.

    Args:
        input_shape: (C, H, W) of the images.
        units: Outputs of the encoder's hidden layers; the decoder has them in reverse.
        bottleneck: How many numbers a code has.

    >>> dense_autoencoder((1, 28, 28)).build((1, 28, 28)).flat_parameters.size
    220320
    """
    sizes = [math.prod(input_shape), *units, bottleneck]

    def dense(sizes: Sequence[int]) -> list[Layer]:
        layers: list[Layer] = []
        for before, after in pairwise(sizes):
            layers += [Linear(before, after), ReLU()]
        return layers[:-1]

    return Sequential(
        Sequential(Flatten(), *dense(sizes)),
        Sequential(*dense(sizes[::-1]), Unflatten(1, input_shape), Sigmoid()),
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
_AUTOENCODERS: dict[str, Callable[[Shape], Sequential]] = {
    "autoencoder": autoencoder,
    "dense_autoencoder": dense_autoencoder,
}
AUTOENCODERS = tuple(_AUTOENCODERS)


def create(name: str, input_shape: Shape, num_classes: int, seed: int = 0) -> Sequential:
    """Return a named model, built.

    Args:
        name: One of NAMES or AUTOENCODERS.
        input_shape: (C, H, W) of the images.
        num_classes: Number of outputs; an autoencoder gives images, whatever it is.
        seed: Same seed, same parameters.

    Raises:
        OptionError: For an unknown name.
        ShapeError: Where the images do not fit the model.

    >>> create("lesson2", (1, 28, 28), 10).flat_parameters.size
    93322
    """
    if name not in (*NAMES, *AUTOENCODERS):
        raise unknown("model", name, (*NAMES, *AUTOENCODERS))
    if len(input_shape) != 3:
        raise OptionError(f"input_shape must be (C, H, W), got {input_shape!r}")
    if name in _AUTOENCODERS:
        return _AUTOENCODERS[name](input_shape).build(input_shape, seed)
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
