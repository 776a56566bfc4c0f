"""Convolution, its transpose, pooling and padding over one, two and three axes: PyTorch, the adjoint, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from oracles import EXACT, laid_out, layouts, randn, seeds
from pellucid import functional as F
from pellucid.errors import OptionError, PellucidError, ShapeError
from torch_parity import compare, refused_alike

DIMS = [1, 2, 3]
every_dtype = pytest.mark.parametrize("dtype", EXACT)
every_dim = pytest.mark.parametrize("dims", DIMS)


def tuples(dims, low, high):
    return st.tuples(*[st.integers(low, high)] * dims)


@st.composite
def convolutions(draw, dims, transposed=False):
    """Arrays and options of a convolution that fits, batches of none and sizes of one included."""
    groups = draw(st.sampled_from([1, 1, 2]))
    kernel, stride, dilation = (draw(tuples(dims, 1, high)) for high in (3, 3, 2))
    padding = draw(tuples(dims, 0, 2))
    n, c, o = draw(st.integers(0, 2)), groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    size = []
    for k, s, p, d in zip(kernel, stride, padding, dilation, strict=True):
        least = -(-2 * p // s) + 1 if transposed else d * (k - 1) + 1 - 2 * p
        size.append(max(1, least + draw(st.integers(0, 3))))
    if transposed:
        below = [max(s, d) - 1 for s, d in zip(stride, dilation, strict=True)]
        options["output_padding"] = tuple(draw(st.integers(0, most)) for most in below)
    seed = draw(seeds)
    shape = (c, o // groups, *kernel) if transposed else (o, c // groups, *kernel)
    bias = randn(seed + 2, o) if draw(st.booleans()) else None
    return [randn(seed, n, c, *size), randn(seed + 1, *shape), bias], options


@pytest.mark.capability("B1", "B4", "B7", "C8", "C14")
@every_dtype
@every_dim
@given(data=st.data(), layout=layouts)
def test_convolution_equals_torch(torch, dims, dtype, data, layout):
    arrays, options = data.draw(convolutions(dims))
    compare(torch, f"conv{dims}d", arrays, options, dtype, layout, keep=("x", "weight"))


@pytest.mark.capability("B14", "C8", "C14")
@every_dtype
@every_dim
@given(data=st.data(), layout=layouts)
def test_transposed_convolution_equals_torch(torch, dims, dtype, data, layout):
    arrays, options = data.draw(convolutions(dims, transposed=True))
    compare(torch, f"conv_transpose{dims}d", arrays, options, dtype, layout, keep=("x", "weight"))


@pytest.mark.capability("B14")
@every_dim
@given(data=st.data())
def test_transposed_convolution_is_the_adjoint(dims, data):
    """<A x, y> = <x, A^T y> for A = conv and A^T = conv_transpose with the same weight, to 1e-12."""
    (y, weight, _), options = data.draw(convolutions(dims, transposed=True))
    x = randn(5, *getattr(F, f"conv_transpose{dims}d")(y, weight, **options).shape)
    extra = options.pop("output_padding")
    if any(o >= s for o, s in zip(extra, options["stride"], strict=True)):
        return  # the convolution has more outputs than y
    ax = getattr(F, f"conv{dims}d")(x, weight, **options)
    back = getattr(F, f"conv_transpose{dims}d")(y, weight, output_padding=extra, **options)
    assert ax.shape == y.shape
    assert abs((ax * y).sum() - (x * back).sum()) <= 1e-12 * (np.linalg.norm(ax) * np.linalg.norm(y) + 1)


@pytest.mark.capability("B14")
def test_the_transpose_is_not_the_inverse():
    x, weight = randn(0, 1, 1, 7, 7), randn(1, 1, 1, 3, 3)
    back = F.conv_transpose2d(F.conv2d(x, weight, stride=2, padding=1), weight, stride=2, padding=1)
    assert back.shape == x.shape
    assert np.abs(back - x).max() > 0.1


@pytest.mark.capability("B14")
@pytest.mark.parametrize(("n", "output_padding", "expected"), [(7, 0, 13), (7, 1, 14), (3, 0, 5), (1, 0, 1)])
def test_output_padding_chooses_among_the_sizes_that_one_stride_brings_together(n, output_padding, expected):
    y = F.conv_transpose2d(np.ones((1, 1, n, n)), np.ones((1, 1, 3, 3)), None, 2, 1, output_padding)
    assert y.shape[2:] == (expected, expected)
    assert F.conv2d(y, np.ones((1, 1, 3, 3)), None, 2, 1).shape[2:] == (n, n)


@pytest.mark.capability("B14")
def test_transposed_convolution_by_hand():
    x, weight = np.array([[[[1.0, 2.0]]]]), np.array([[[[1.0, 10.0], [100.0, 1000.0]]]])
    y = F.conv_transpose2d(x, weight, np.array([0.5]), stride=(1, 2), output_padding=(0, 1))
    assert y[0, 0].tolist() == [[1.5, 10.5, 2.5, 20.5, 0.5], [100.5, 1000.5, 200.5, 2000.5, 0.5]]


@pytest.mark.capability("B7")
def test_a_motif_in_one_hot_dna_is_found_where_it_stands():
    """Four channels, one for each letter; an unknown letter is a column of zeros."""
    letters = "ACGT"

    def one_hot(text):
        return np.array([[float(letter == c) for c in text] for letter in letters])[None]

    scores = F.conv1d(one_hot("ANTAGATTACAG"), one_hot("GATTA"))
    assert scores.shape == (1, 1, 8)
    assert scores[0, 0].argmax() == 4
    assert scores[0, 0, 4] == 5


@pytest.mark.capability("B7")
def test_a_moving_dot_in_a_video():
    """A 3-D kernel that asks for a step to the right finds the dot that moves so, not the one that moves left."""
    video = np.zeros((1, 1, 2, 3, 8))
    video[0, 0, 0, 1, 1] = video[0, 0, 1, 1, 2] = 1
    video[0, 0, 0, 1, 6] = video[0, 0, 1, 1, 5] = 1
    kernel = np.zeros((1, 1, 2, 1, 2))
    kernel[0, 0, 0, 0, 0] = kernel[0, 0, 1, 0, 1] = 1
    assert np.argwhere(F.conv3d(video, kernel)[0, 0] == 2).tolist() == [[0, 1, 1]]


@st.composite
def windows(draw, dims, dilated):
    kernel, stride = draw(tuples(dims, 1, 3)), draw(st.none() | tuples(dims, 1, 3))
    dilation = draw(tuples(dims, 1, 2)) if dilated else (1,) * dims
    extents = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    # At least dilation, so that each window sees a cell; and PyTorch's avg_pool3d wants more than the window.
    least = extents if dims == 3 and not dilated else dilation
    fitting = zip(least, extents, padding, strict=True)
    size = [max(m, e - 2 * p + draw(st.integers(0, 4))) for m, e, p in fitting]
    options = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": draw(st.booleans())}
    if dilated:
        options["dilation"] = dilation
    else:
        options["count_include_pad"] = draw(st.booleans())
    return (draw(st.integers(0, 2)), 2, *size), options


@pytest.mark.capability("B8", "B9", "B10", "B12", "C14")
@every_dtype
@every_dim
@given(data=st.data(), seed=seeds, ties=st.booleans(), layout=layouts)
def test_max_pooling_equals_torch(torch, dims, dtype, data, seed, ties, layout):
    """The values, the gradients, and where the values stood."""
    shape, options = data.draw(windows(dims, dilated=True))
    x = np.random.default_rng(seed).integers(-2, 3, shape).astype(float) if ties else randn(seed, *shape)
    x = x.astype(dtype).astype(float)
    compare(torch, f"max_pool{dims}d", [x], options, dtype, layout)
    name = f"max_pool{dims}d"
    y, indices = getattr(F, name)(x, **options, return_indices=True)
    expected = getattr(torch.nn.functional, name)(torch.tensor(x), **options, return_indices=True)
    assert np.array_equal(indices, expected[1].numpy())
    assert np.array_equal(y, expected[0].numpy())
    assert indices.dtype == np.int64


@pytest.mark.capability("B11", "C14")
@every_dtype
@every_dim
@given(data=st.data(), seed=seeds, layout=layouts)
def test_average_pooling_equals_torch(torch, dims, dtype, data, seed, layout):
    shape, options = data.draw(windows(dims, dilated=False))
    compare(torch, f"avg_pool{dims}d", [randn(seed, *shape)], options, dtype, layout)


@pytest.mark.capability("B11")
def test_what_the_divisor_counts():
    x = np.full((1, 1, 2, 2), 8.0)
    assert F.avg_pool2d(x, 2, padding=1).tolist() == [[[[2, 2], [2, 2]]]]
    assert F.avg_pool2d(x, 2, padding=1, count_include_pad=False).tolist() == [[[[8, 8], [8, 8]]]]


@every_dtype
@pytest.mark.parametrize("kind", ["avg", "max"])
@every_dim
@given(data=st.data(), seed=seeds, layout=layouts)
def test_adaptive_pooling_equals_torch(torch, dims, kind, dtype, data, seed, layout):
    size, out = data.draw(tuples(dims, 1, 6)), data.draw(tuples(dims, 1, 4))
    x = randn(seed, data.draw(st.integers(0, 2)), 2, *size).astype(dtype).astype(float)
    out = out if dims > 1 else out[0]
    compare(torch, f"adaptive_{kind}_pool{dims}d", [x], {"output_size": out}, dtype, layout)


def test_adaptive_max_pooling_says_where():
    x = np.array([[[[1.0, 7.0, 7.0], [8.0, 0.0, np.nan]]]])
    y, indices = F.adaptive_max_pool2d(x, (2, 2), return_indices=True)
    assert indices[0, 0].tolist() == [[1, 1], [3, 5]]
    assert y[0, 0, 0].tolist() == [7, 7]
    assert np.isnan(y[0, 0, 1, 1])


@pytest.mark.capability("B16")
@every_dtype
@given(
    seed=seeds,
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    rest=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    count=st.tuples(st.integers(0, 2), st.integers(1, 3), st.integers(1, 3)),
    layout=layouts,
)
def test_unpooling_equals_torch(torch, dtype, seed, kernel, rest, count, layout):
    """Windows side by side, so that no place is taken twice; rows and columns that the pool dropped included."""
    n, rows, columns = count
    size = tuple(c * k + min(r, k - 1) for c, k, r in zip((rows, columns), kernel, rest, strict=True))
    x = randn(seed, n, 2, *size).astype(dtype)
    y, indices = F.max_pool2d(x, kernel, return_indices=True)
    leaf = torch.tensor(randn(seed + 1, *y.shape), requires_grad=True)
    if n:
        expected = torch.nn.functional.max_unpool2d(leaf, torch.tensor(indices), kernel, output_size=size)
    else:
        expected = leaf.sum() * torch.zeros((0, 2, *size), dtype=torch.float64)
    dy = randn(seed + 2, *expected.shape)
    expected.backward(torch.tensor(dy))
    moved = laid_out(leaf.detach().numpy().astype(dtype), layout)
    assert np.array_equal(
        F.max_unpool2d(moved, indices, kernel, output_size=size), expected.detach().numpy().astype(dtype)
    )
    dx = F.max_unpool2d_backward(laid_out(dy.astype(dtype), layout), moved, indices, kernel, output_size=size)
    assert np.array_equal(dx, leaf.grad.numpy().astype(dtype))


@pytest.mark.capability("B16")
@pytest.mark.parametrize("size", [14, 15])
def test_unpooling_gives_back_the_size_that_is_asked_for(size):
    x = 1 + np.random.default_rng(0).random((2, 3, size, size))
    y, indices = F.max_pool2d(x, 2, return_indices=True)
    back = F.max_unpool2d(y, indices, 2, output_size=size)
    assert back.shape == x.shape
    assert ((back == x) | (back == 0)).all()
    assert (back > 0).sum() == y.size
    assert np.array_equal(F.max_pool2d(back, 2), y)


@pytest.mark.capability("B16")
def test_a_place_taken_twice_belongs_to_the_last():
    x, indices = np.array([[[[2.0, 3.0]]]]), np.array([[[[1, 1]]]])
    assert F.max_unpool2d(x, indices, (1, 2), 1)[0, 0].tolist() == [[0, 3, 0]]
    dx = F.max_unpool2d_backward(np.array([[[[5.0, 7.0, 9.0]]]]), x, indices, (1, 2), 1)
    assert dx[0, 0].tolist() == [[0, 7]]


Y = np.zeros((1, 1, 2, 2))
NONE = np.zeros((1, 1, 2, 2), dtype=int)


@pytest.mark.capability("B16")
@pytest.mark.parametrize(
    ("indices", "options", "error", "match"),
    [
        (
            NONE[:, :, :1],
            {},
            ShapeError,
            r"indices must be whole numbers of the shape \(1, 1, 2, 2\) of x, got int64 \(1, 1, 1",
        ),
        (NONE.astype(float), {}, ShapeError, "indices must be whole numbers .* return_indices=True"),
        (
            NONE + 16,
            {},
            OptionError,
            "index 16 lies outside the output 4x4; indices must be those of this input's own pool",
        ),
        (NONE - 1, {}, OptionError, "index -1 lies outside the output 4x4"),
        (
            NONE,
            {"output_size": 6},
            OptionError,
            r"output_size \(6, 6\) is none that pools to \(2, 2\); .* 3\.\.5 x 3\.\.5",
        ),
        (NONE, {"output_size": (4, 2)}, OptionError, "output_size"),
        (NONE, {"stride": 0}, OptionError, "stride must be at least 1"),
    ],
)
def test_foreign_indices_are_refused(indices, options, error, match):
    with pytest.raises(error, match=match):
        F.max_unpool2d(Y, indices, 2, **options)


@st.composite
def paddings(draw, dims, mode):
    size = draw(tuples(dims, 1, 4))
    pad = []
    for n in reversed(size):
        most = {"reflect": n - 1, "circular": n}.get(mode, 3)
        least = -((n - 1) // 2) if mode == "constant" else 0
        pad += [draw(st.integers(least, most)), draw(st.integers(least, most))]
    return (draw(st.integers(0, 2)), 2, *size), tuple(pad)


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
@every_dtype
@every_dim
@given(data=st.data(), seed=seeds, layout=layouts)
def test_padding_equals_torch(torch, dims, dtype, mode, data, seed, layout):
    shape, pad = data.draw(paddings(dims, mode))
    options = {"pad": pad, "mode": mode}
    if not shape[0] and mode != "constant":
        assert F.pad(np.zeros(shape), **options).shape[0] == 0  # PyTorch refuses some of these
        return
    compare(torch, "pad", [randn(seed, *shape)], options, dtype, layout)


def test_padding_by_hand():
    x = np.array([[[1.0, 2.0, 3.0, 4.0]]])
    for mode, text in {
        "constant": "00123400",
        "reflect": "32123432",
        "replicate": "11123444",
        "circular": "34123412",
    }.items():
        assert F.pad(x, (2, 2), mode)[0, 0].tolist() == [int(c) for c in text]
    assert F.pad(x, (-1, 1), value=9)[0, 0].tolist() == [2, 3, 4, 9]


X1, X2, X3 = np.zeros((2, 4, 6)), np.zeros((2, 4, 6, 5)), np.zeros((2, 4, 3, 6, 5))
W1, W2, W3 = np.zeros((6, 4, 3)), np.zeros((6, 4, 3, 3)), np.zeros((6, 4, 3, 3, 3))
T2 = np.zeros((4, 6, 3, 3))
BAD = [
    ("conv1d", (X2, W1), {}, r"x must have the axes N x C x L, got shape \(2, 4, 6, 5\)"),
    ("conv1d", (X1[:, 0], W1), {}, r"x must have the axes N x C x L.*; for a single sequence use x\[None\]"),
    ("conv1d", (X1, W2), {}, r"weight must have the axes out x in/groups x k, got"),
    ("conv1d", (X1, W1), {"stride": (1, 2)}, r"stride must be a number or a tuple \(length,\), got \(1, 2\)"),
    ("conv1d", (X1[..., :2], W1), {}, "a window of length 3 does not fit into 2 cells"),
    ("conv3d", (X3, W3), {"dilation": (1, 2)}, r"dilation must be a number or a triple \(depth, height, width\)"),
    ("conv3d", (X3[:, :, :2], W3), {}, "a window of depth 3 does not fit into 2 cells"),
    ("conv_transpose2d", (X2, W2), {}, r"weight \(6, 4, 3, 3\) takes 6 channels, but x \(2, 4, 6, 5\) has 4"),
    ("conv_transpose2d", (X2, T2), {"groups": 3}, "groups=3 must divide the 4 input channels"),
    ("conv_transpose2d", (X2, T2), {"output_padding": 1}, "output_padding 1 must be less than stride 1 or dilation 1"),
    ("conv_transpose2d", (X2, T2), {"padding": (4, 0)}, "padding 4 leaves nothing of the output's height: 8 - 2 x 4"),
    ("conv_transpose2d", (X2, T2), {"padding": "same"}, "padding must be a whole number, got 'same'"),
    ("conv_transpose2d", (X2, T2), {"padding": -1}, "padding must be at least 0, got -1"),
    ("conv_transpose2d", (X2, T2, np.zeros(4)), {}, r"bias must have shape \(6,\), one number per filter, got \(4,\)"),
    ("max_pool1d", (X1, 3), {"dilation": 0}, "dilation must be at least 1, got 0"),
    ("max_pool1d", (X1, 2), {"padding": 2}, r"padding \(2,\) must be at most half of kernel_size \(2,\), else"),
    ("max_pool2d", (X2, 2), {"dilation": 2, "padding": 2}, r"of kernel_size \(2, 2\) with dilation \(2, 2\), else"),
    ("avg_pool3d", (X3, (1, 2)), {}, r"kernel_size must be a number or a triple \(depth, height, width\)"),
    ("adaptive_max_pool2d", (X2, (1, 2, 3)), {}, "output_size must be a number or a pair"),
    ("pad", (X2, (1, 2, 3)), {}, r"pad must have two numbers for each axis, .* got \(1, 2, 3\)"),
    ("pad", (X1, (1,) * 8), {}, "pad has 8 sides, but x of shape"),
    ("pad", (X2, (1, 1.5)), {}, "pad must be a whole number, got 1.5"),
    ("pad", (X2, (5, 0)), {"mode": "reflect"}, r'padding \(5, 0\) with mode "reflect" does not fit an axis of 5 cells'),
    ("pad", (X2, (6, 0)), {"mode": "circular"}, r'mode "circular" does not fit an axis of 5 cells'),
    ("pad", (X2, (-3, -3)), {}, "does not fit an axis of 5 cells"),
    ("pad", (X2, (1, 1)), {"mode": "mirror"}, 'unknown mode "mirror"'),
]  # fmt: skip


@pytest.mark.capability("B8", "B14")
@pytest.mark.parametrize(("name", "arguments", "options", "match"), BAD)
def test_what_torch_refuses_is_refused_with_the_argument_named(torch, name, arguments, options, match):
    refused_alike(torch, name, arguments, options, PellucidError, match)


def test_dy_of_another_shape_is_refused():
    for name, arguments in [("conv1d", (X1, W1)), ("conv_transpose2d", (X2, T2)), ("max_pool3d", (X3, 2))]:
        shape = getattr(F, name)(*arguments).shape
        with pytest.raises(ShapeError, match="dy must have the output's shape"):
            getattr(F, f"{name}_backward")(np.zeros((*shape[:-1], 9)), *arguments)
