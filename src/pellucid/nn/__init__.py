"""Layers, containers and losses. Names, arguments, defaults and initialization are PyTorch's."""

from pellucid.nn import init
from pellucid.nn.activation import Dropout, LeakyReLU, ReLU, Sigmoid, Softmax, Tanh
from pellucid.nn.containers import Residual, Sequential
from pellucid.nn.conv import Conv2d, LazyConv2d
from pellucid.nn.layer import Buffer, Layer, Parameter
from pellucid.nn.linear import Flatten, LazyLinear, Linear
from pellucid.nn.loss import BCEWithLogitsLoss, CrossEntropyLoss, Loss, MSELoss
from pellucid.nn.network import Network
from pellucid.nn.norm import BatchNorm2d
from pellucid.nn.pool import AdaptiveAvgPool2d, AvgPool2d, MaxPool2d

__all__ = [
    "AdaptiveAvgPool2d",
    "AvgPool2d",
    "BCEWithLogitsLoss",
    "BatchNorm2d",
    "Buffer",
    "Conv2d",
    "CrossEntropyLoss",
    "Dropout",
    "Flatten",
    "Layer",
    "LazyConv2d",
    "LazyLinear",
    "LeakyReLU",
    "Linear",
    "Loss",
    "MSELoss",
    "MaxPool2d",
    "Network",
    "Parameter",
    "ReLU",
    "Residual",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Tanh",
    "init",
]
