"""Names and defaults of arguments are PyTorch's; every difference stands here with its reason."""

from __future__ import annotations

import inspect

import pytest

from pellucid import functional as F
from pellucid import nn

PLACEMENT = "arrays are NumPy's: one device, and the type is that of the input or of astype"
PURE = "nothing works in place"
OLD = "deprecated in PyTorch in favor of reduction"
NAMED = "the formula's own letter or word"
LATER = "whole images need no mask over targets"

# Arguments of PyTorch that no layer, function or loss takes, and why.
NOWHERE = {
    "device": PLACEMENT,
    "dtype": PLACEMENT,
    "inplace": PURE,
    "size_average": OLD,
    "reduce": OLD,
    "ignore_index": LATER,
    "_stacklevel": "for warnings that are not given here",
}

# Ours -> theirs, in functional.
RENAMED = {
    "x": ("input", NAMED),
    "logits": ("input", NAMED),
    "log_p": ("input", NAMED),
    "output": ("input", "a loss compares an output with its target"),
}

# Name -> {argument: reason}: of theirs that are absent, of ours that are more, of both where defaults differ.
DIFFERENCES = {
    "nn.*": {"init": "initializations by name, which PyTorch has in torch.nn.init (PReLU's is PyTorch's own)"},
    "nn.MaxPool*": {"return_indices": "a layer has one output; MaxUnpool2d takes care of its pool's indices"},
    "nn.AdaptiveMaxPool*": {"return_indices": "a layer has one output; functional has it"},
    "nn.AvgPool*": {"divisor_override": "a mean divides by what it adds up"},
    "nn.BatchNorm*": {
        "track_running_stats": "inference without running statistics would mix images",
        "bias": "affine stands for weight and bias together",
    },
    "nn.GroupNorm": {"bias": "affine stands for weight and bias together"},
    "nn.ConvTranspose*": {"padding_mode": 'PyTorch takes only "zeros" there'},
    "nn.Flatten": {"start_dim": "the batch axis is always kept", "end_dim": "all other axes are joined"},
    "nn.Softmax": {"dim": "PyTorch's None guesses; 1 is the classes, and the batch is refused"},
    "nn.LogSoftmax": {"dim": "PyTorch's None guesses; 1 is the classes, and the batch is refused"},
    "nn.Upsample": {"recompute_scale_factor": "the factor that is given is the one that is used"},
    "nn.MaxUnpool2d": {
        **dict.fromkeys(("kernel_size", "stride", "padding"), "those of its pool"),
        **dict.fromkeys(("pool", "body"), "indices go around what lies between pool and unpool, as in Residual"),
    },
    "F.avg_pool*": {"divisor_override": "a mean divides by what it adds up"},
    "F.interpolate": {
        "recompute_scale_factor": "the factor that is given is the one that is used",
        "antialias": "networks resample without it; pictures are resized by data.images",
    },
    "F.mse_loss": {"weight": "for weights of elements; class weights belong to cross_entropy"},
    "F.l1_loss": {"weight": "for weights of elements; class weights belong to cross_entropy"},
    "F.huber_loss": {"weight": "for weights of elements; class weights belong to cross_entropy"},
    "F.pad": {"value": "PyTorch's None means 0"},
    "F.softmax": {"dim": "PyTorch's None guesses; -1 is the last axis, where scores stand"},
    "F.log_softmax": {"dim": "PyTorch's None guesses; -1 is the last axis, where scores stand"},
    "F.one_hot": {
        "labels": "num_classes first and always, since a batch may lack the last class",
        "tensor": "num_classes first and always, since a batch may lack the last class",
        "num_classes": "num_classes first and always, since a batch may lack the last class",
    },
}

# Of ours that PyTorch has not, or not under torch.nn and torch.nn.functional.
OURS = {
    "nn": {
        "Buffer": "a descriptor, not an array",
        "Concat": "PyTorch writes torch.cat in a module's forward",
        "Layer": "what Module is there",
        "Loss": "base of the losses",
        "Network": "base of the containers",
        "Parameter": "a descriptor, not an array",
        "Residual": "PyTorch writes a sum in a module's forward",
        "Sequential": "takes input_shape, seed and dtype, which build the network",
        "init": "a module of ours",
    },
    "F": {
        "convolve1d": "convolution as in mathematics, NumPy and SciPy",
        "convolve2d": "convolution as in mathematics, NumPy and SciPy",
        "dropout_mask": "the mask is made of numbers that the caller draws",
        "pixel_convolution": "one pixel, for learners",
    },
}

# What PyTorch refuses and we take, with reason; the tests of functional/ leave these out.
TAKEN = {
    "avg_pool3d": "maps smaller than the window, where padding makes it fit, as in one and two dimensions",
    "pad": "mirror images and repetitions along any axis, and of an empty batch",
}


def arguments(function) -> dict[str, object]:
    return {
        name: p.default
        for name, p in inspect.signature(function).parameters.items()
        if name != "self" and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    }


def excused(name: str) -> set[str]:
    found = {key for group, keys in DIFFERENCES.items() if matches(group, name) for key in keys}
    return found | set(NOWHERE)


def matches(group: str, name: str) -> bool:
    return name.startswith(group[:-1]) if group.endswith("*") else name == group


LAYERS = sorted(name for name in nn.__all__ if name not in OURS["nn"])
FUNCTIONS = sorted(name for name in F.__all__ if not name.endswith("_backward") and name not in OURS["F"])


def differences(name: str, ours: dict[str, object], theirs: dict[str, object]) -> set[str]:
    """Arguments that only one of both takes, or whose defaults differ; True == 1 and (1, 1) == 1 count as equal."""
    off = set(ours) ^ set(theirs)
    return off | {key for key in set(ours) & set(theirs) if ours[key] != theirs[key]}


@pytest.mark.capability("B25", "C14")
@pytest.mark.parametrize("name", LAYERS)
def test_layers_and_losses_take_what_torch_takes(torch, name):
    ours, theirs = arguments(getattr(nn, name)), arguments(getattr(torch.nn, name))
    unexplained = differences(name, ours, theirs) - excused(f"nn.{name}")
    assert not unexplained, f"nn.{name} differs in {sorted(unexplained)}"


@pytest.mark.capability("C14")
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_take_what_torch_takes(torch, name):
    theirs = torch_arguments(torch, name)
    ours = arguments(getattr(F, name))
    first = next(iter(ours))
    if first in RENAMED and "input" in theirs:
        ours = {RENAMED[first][0] if key == first else key: value for key, value in ours.items()}
    unexplained = differences(name, ours, theirs) - excused(f"F.{name}")
    assert not unexplained, f"F.{name} differs in {sorted(unexplained)}"


# Written in C, so that they have no signature that Python can read: as their documentation gives them.
CONV = {"input": ..., "weight": ..., "bias": None, "stride": 1, "padding": 0, "dilation": 1, "groups": 1}
TRANSPOSED = {
    "input": ...,
    "weight": ...,
    "bias": None,
    "stride": 1,
    "padding": 0,
    "output_padding": 0,
    "groups": 1,
    "dilation": 1,
}
POOL = {"input": ..., "kernel_size": ..., "stride": None, "padding": 0, "ceil_mode": False, "count_include_pad": True}
IN_C = {
    **{f"conv{d}d": CONV for d in (1, 2, 3)},
    **{f"conv_transpose{d}d": TRANSPOSED for d in (1, 2, 3)},
    "avg_pool1d": POOL,
    **{f"avg_pool{d}d": {**POOL, "divisor_override": None} for d in (2, 3)},
    **{f"max_pool{d}d": {**POOL, "dilation": 1, "return_indices": False} for d in (1, 2, 3)},
    **{f"adaptive_max_pool{d}d": {"input": ..., "output_size": ..., "return_indices": False} for d in (1, 2, 3)},
    "adaptive_avg_pool1d": {"input": ..., "output_size": ...},
    "gelu": {"input": ..., "approximate": "none"},
    "linear": {"input": ..., "weight": ..., "bias": None},
    "one_hot": {"tensor": ..., "num_classes": -1},
    "prelu": {"input": ..., "weight": ...},
    "softplus": {"input": ..., "beta": 1, "threshold": 20},
}


def torch_arguments(torch, name: str) -> dict[str, object]:
    try:
        found = arguments(getattr(torch.nn.functional, name))
    except ValueError:
        found = {}
    if not found:
        found = {key: inspect.Parameter.empty if v is ... else v for key, v in IN_C[name].items()}
        if name.startswith("max_pool"):
            del found["count_include_pad"]
    return found


def test_every_difference_is_one(torch):
    """A reason for what does not differ any more is to go."""
    real = set()
    for kind, names, module in (("nn", LAYERS, torch.nn), ("F", FUNCTIONS, torch.nn.functional)):
        for name in names:
            ours = arguments(getattr(nn if kind == "nn" else F, name))
            theirs = arguments(getattr(module, name)) if kind == "nn" else torch_arguments(torch, name)
            real |= {(f"{kind}.{name}", key) for key in differences(name, ours, theirs)}
    stale = [
        (group, key)
        for group, keys in DIFFERENCES.items()
        for key in keys
        if not any(matches(group, name) and key == other for name, other in real)
    ]
    assert not stale
    assert not set(OURS["nn"]) - set(nn.__all__)
    assert not set(OURS["F"]) - set(F.__all__)
