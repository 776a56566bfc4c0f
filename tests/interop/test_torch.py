"""Networks to PyTorch and back, and files for PyTorch alone."""

from __future__ import annotations

import json
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest

import pellucid as pl
from available import needs_torch
from nets import every_layer
from oracles import assert_near, randn
from pellucid import interop, models, nn
from pellucid.errors import EngineError, FileError, MissingDependencyError, OptionError
from pellucid.random import Stream

pytestmark = needs_torch

SHAPES = {"lesson1": (1, 28, 28), "block_cnn": (1, 8, 8), "resnet8": (3, 32, 32)}
ZOO = [(name, SHAPES.get(name, (1, 28, 28))) for name in models.NAMES]


def moved(net: nn.Network, seed: int = 1) -> nn.Network:
    """Batch norm that has seen something, and no parameter at its start."""
    x = randn(seed, 6, *net.input_shape, dtype=net.dtype.name)
    with net.edit():
        net.flat_parameters[...] += 0.02 * randn(seed, net.flat_parameters.size)
        net.forward(x, training=True, rng=Stream(0))
    return net


def outputs(torch, module, x):
    with torch.no_grad():
        return module.eval()(torch.tensor(x)).numpy()


# There and back


@pytest.mark.capability("C14", "H33")
@pytest.mark.parametrize(("name", "shape"), ZOO)
def test_every_model_of_the_zoo_goes_there_and_back(torch, name, shape):
    net = moved(models.create(name, shape, 10))
    module = interop.to_torch(net)
    x = randn(0, 4, *shape, dtype="float32")
    assert_near(outputs(torch, module, x), net(x), 1e-5)
    state = net.state_dict()
    assert {key: value.numpy().tobytes() for key, value in module.state_dict().items()} == {
        key: value.tobytes() for key, value in state.items()
    }
    twin = interop.from_torch(module)
    assert [(path, type(leaf)) for path, leaf in twin.leaves()] == [(path, type(leaf)) for path, leaf in net.leaves()]
    assert twin.flat_parameters.tobytes() == net.flat_parameters.tobytes()
    assert twin.flat_buffers.tobytes() == net.flat_buffers.tobytes()
    assert np.array_equal(twin(x), net(x))
    assert list(twin.state_dict()) == list(state)


@pytest.mark.capability("C14")
@pytest.mark.parametrize("net", every_layer())
def test_every_layer_goes_there_and_back(torch, net):
    module = interop.to_torch(net)
    x = randn(0, 3, *net.input_shape)
    assert_near(outputs(torch, module, x), net(x), 1e-10)
    assert list(module.state_dict()) == list(net.state_dict())
    if any(name.startswith("Padded") for name in (type(m).__name__ for m in module.modules())):
        with pytest.raises(OptionError, match=r"calls conv.*, which cannot be read as a layer"):
            interop.from_torch(module)
        return
    twin = interop.from_torch(module)
    assert twin.dtype == np.float64 or not net.state_dict()
    assert twin.built
    twin = twin.astype("float64")
    assert np.array_equal(twin(x), net(x))
    assert list(twin.state_dict()) == list(net.state_dict())


def test_the_module_is_pytorchs_own(torch):
    """It is unpickled and run where pellucid cannot be imported."""
    net = moved(models.create("resnet8", (3, 16, 16), 4))
    module, x = interop.to_torch(net), randn(0, 2, 3, 16, 16, dtype="float32")
    assert not [name for name in (type(m).__module__ for m in module.modules()) if "pellucid" in name]
    code = """
import pickle, sys
sys.modules["pellucid"] = None
module, x = pickle.load(sys.stdin.buffer)
sys.stdout.buffer.write(pickle.dumps(module(x).detach().numpy()))
"""
    sent = pickle.dumps((module, torch.tensor(x)))
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True, env=env)
    assert_near(pickle.loads(done.stdout), net(x), 1e-5)


@pytest.mark.capability("C14")
def test_a_module_trains_on_in_pytorch(torch):
    """One step with the gradients of both."""
    net = moved(models.create("lesson1", (1, 12, 12), 3)).astype("float64")
    module, x, y = interop.to_torch(net).train(), randn(0, 5, 1, 12, 12), np.array([0, 2, 1, 1, 0])
    torch.nn.functional.cross_entropy(module(torch.tensor(x)), torch.tensor(y)).backward()
    engine = pl.engines.create("reference")
    engine.build(net, nn.CrossEntropyLoss())
    gradients = net.unflatten(engine.loss_and_gradients(x, y)[1])
    assert len(gradients) == len(list(module.parameters()))
    for key, parameter in module.named_parameters():
        assert_near(gradients[key], parameter.grad, 1e-9, key, size=1e-3)


def test_shared_layers_stay_shared(torch):
    dense, conv = nn.Linear(4, 4), nn.Conv2d(2, 2, 3, padding="same_lower")
    net = nn.Sequential(
        *(conv, nn.MaxPool2d(2), conv, nn.Flatten(), nn.LazyLinear(4)),
        *(dense, nn.Tanh(), nn.Residual(nn.Sequential(dense, dense))),
        input_shape=(2, 7, 6),
        dtype="float64",
    )
    module, x = interop.to_torch(net), randn(0, 3, 2, 7, 6)
    assert_near(outputs(torch, module, x), net(x), 1e-10)
    assert len(list(module.parameters())) == len(net.named_parameters())
    dense_only = nn.Sequential(dense, nn.Tanh(), dense, input_shape=(4,), dtype="float64")
    twin = interop.from_torch(interop.to_torch(dense_only))
    assert twin[0] is twin[2]
    assert len(twin.named_parameters()) == 2


def test_global_state_stays(torch):
    torch.manual_seed(3)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    net = models.create("lesson2", (1, 28, 28), 10)
    interop.from_torch(interop.to_torch(net))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_what_cannot_go(torch):
    class Own(nn.ReLU):
        pass

    with pytest.raises(EngineError, match=r'PyTorch has nothing for layer 0\.1 \(Own\); the engine "reference" runs'):
        interop.to_torch(nn.Sequential(nn.Sequential(nn.Flatten(), Own()), input_shape=(1, 3, 3)))
    overlapping = nn.MaxUnpool2d(nn.MaxPool2d(3, 2), nn.Identity())
    with pytest.raises(EngineError, match=r"layer 0 \(MaxUnpool2d\) has overlapping windows"):
        interop.to_torch(nn.Sequential(overlapping, input_shape=(1, 7, 7)))
    with pytest.raises(OptionError, match="got a network that is not built yet"):
        interop.to_torch(nn.Sequential(nn.Flatten()))
    with pytest.raises(OptionError, match="got ReLU"):
        interop.to_torch(nn.ReLU())


def test_without_pytorch_one_line_names_the_cure():
    code = """
import sys
sys.modules["torch"] = None
import pellucid as pl
from pellucid import engines, interop, models
net = models.create("mlp", (1, 3, 3), 2)
for call in (lambda: interop.to_torch(net), lambda: interop.from_torch(net), lambda: engines.create("torch"),
             lambda: interop.export_torch(net, "x")):
    try:
        call()
    except pl.MissingDependencyError as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.endswith("pip install 'pellucid[torch]'") for line in lines)
    assert issubclass(MissingDependencyError, ImportError)


# What PyTorch made


def trained(torch):
    """A network of PyTorch that has learned something, with batch norm and dropout."""
    t = torch.nn
    torch.manual_seed(0)
    module = t.Sequential(
        t.Conv2d(1, 6, 3, padding=1),
        t.BatchNorm2d(6, eps=1e-3, momentum=0.3),
        t.ReLU(inplace=True),
        t.MaxPool2d(2),
        t.Sequential(t.Conv2d(6, 8, (2, 3), stride=(1, 2), bias=False, padding_mode="reflect", padding=1), t.SiLU()),
        t.Dropout(0.3),
        t.Flatten(),
        t.LazyLinear(3),
    )
    x, y = torch.randn(40, 1, 9, 8), torch.arange(40) % 3
    module(x[:2])
    optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
    for _ in range(20):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    return module


@pytest.mark.capability("C14", "H33")
def test_what_pytorch_trained_predicts_the_same(torch):
    module = trained(torch)
    assert module.training
    net = interop.from_torch(module, input_shape=(1, 9, 8))
    assert module.training
    x = randn(1, 30, 1, 9, 8, dtype="float32")
    expected = outputs(torch, module, x)
    assert_near(net(x), expected, 1e-5)
    assert np.array_equal(net(x).argmax(axis=1), expected.argmax(axis=1))
    assert {key: value.tobytes() for key, value in net.state_dict().items()} == {
        key: value.numpy().tobytes() for key, value in module.state_dict().items()
    }
    assert (net[1].eps, net[1].momentum) == (1e-3, 0.3)
    assert net.state_dict()["1.num_batches_tracked"] == 21
    for engine in ("compiled", "reference", "torch"):
        if engine != "compiled":  # which has no padding_mode
            worker = pl.engines.create(engine)
            worker.build(net)
            assert_near(worker.predict(x), expected, 1e-5)


def test_without_a_shape_the_network_is_built_later(torch):
    module = trained(torch).double()
    net = interop.from_torch(module)
    assert not net.built
    x = randn(1, 3, 1, 9, 8)
    net = net.build((1, 9, 8), dtype="float64")
    assert_near(net(x), outputs(torch, module, x), 1e-10)
    dense = torch.nn.Sequential(torch.nn.Sequential(torch.nn.Linear(5, 2)), torch.nn.Sigmoid())
    assert interop.from_torch(dense).input_shape == (5,)


def blocks(torch):
    """Modules with a forward of their own, and the shape of their input."""
    t, f = torch.nn, torch.nn.functional

    class BasicBlock(t.Module):
        """torchvision's, in place where it may."""

        def __init__(self, before, after, stride=1):
            super().__init__()
            self.conv1 = t.Conv2d(before, after, 3, stride, 1, bias=False)
            self.bn1 = t.BatchNorm2d(after)
            self.relu = t.ReLU(inplace=True)
            self.conv2 = t.Conv2d(after, after, 3, 1, 1, bias=False)
            self.bn2 = t.BatchNorm2d(after)
            self.downsample = None
            if stride != 1 or before != after:
                self.downsample = t.Sequential(t.Conv2d(before, after, 1, stride, bias=False), t.BatchNorm2d(after))

        def forward(self, x):
            identity = x
            out = self.relu(self.bn1(self.conv1(x)))
            out = self.bn2(self.conv2(out))
            if self.downsample is not None:
                identity = self.downsample(x)
            out += identity
            return self.relu(out)

    class ResNet(t.Module):
        def __init__(self):
            super().__init__()
            self.stem = t.Conv2d(3, 4, 3)
            self.layers = t.ModuleList([BasicBlock(4, 4), BasicBlock(4, 6, 2), BasicBlock(6, 6)])
            self.pool, self.fc = t.AdaptiveAvgPool2d((1, 1)), t.Linear(6, 5)

        def forward(self, x):
            x = self.stem(x)
            for layer in self.layers:
                x = layer(x)
            return self.fc(torch.flatten(self.pool(x), 1))

    class Tutorial(t.Module):
        """The network of PyTorch's MNIST example."""

        def __init__(self):
            super().__init__()
            self.conv1, self.conv2 = t.Conv2d(1, 4, 5), t.Conv2d(4, 6, 5)
            self.conv2_drop, self.fc1, self.fc2 = t.Dropout2d(), t.Linear(96, 7), t.Linear(7, 10)

        def forward(self, x):
            x = f.relu(f.max_pool2d(self.conv1(x), 2))
            x = f.relu(f.max_pool2d(self.conv2_drop(self.conv2(x)), 2))
            x = x.view(-1, 96)
            x = f.dropout(f.relu(self.fc1(x)), training=self.training)
            return f.log_softmax(self.fc2(x), dim=1)

    class Inception(t.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = t.Conv2d(2, 3, 1), t.Sequential(t.Conv2d(2, 2, 1), t.ReLU(), t.Conv2d(2, 4, 3, padding=1))

        def forward(self, x):
            pooled = f.avg_pool2d(x, 3, 1, padding=1, count_include_pad=False)
            return torch.cat([self.a(x), self.b(x), pooled, x], dim=-3).mean((2, 3))

    class UNet(t.Module):
        def __init__(self):
            super().__init__()
            self.down, self.up = t.Conv2d(1, 3, 3, padding=1), t.ConvTranspose2d(5, 2, 2, stride=2)
            self.deep, self.last = t.Conv2d(3, 5, 3, padding=1), t.Conv2d(5, 1, 1)

        def forward(self, x):
            skip = torch.tanh(self.down(x))
            deep = f.leaky_relu(self.deep(f.max_pool2d(skip, 2)), 0.2)
            return torch.sigmoid(self.last(torch.cat((skip, self.up(deep)), 1)))

    class SegNet(t.Module):
        def __init__(self):
            super().__init__()
            self.pool, self.unpool = t.MaxPool2d(2, return_indices=True), t.MaxUnpool2d(2)
            self.conv, self.inner = t.Conv2d(2, 2, 3, padding=1), t.Conv2d(2, 2, 1)

        def forward(self, x):
            y, where = self.pool(self.conv(x))
            return self.unpool(self.inner(y).relu(), where)

    class Sizes(t.Module):
        def __init__(self):
            super().__init__()
            self.fc = t.Linear(24, 12)

        def forward(self, x):
            x = self.fc(x.reshape(x.shape[0], -1).contiguous())
            x = f.interpolate(x.view(x.size(0), 3, 2, 2), scale_factor=2, mode="bilinear", align_corners=False)
            return x + x

    return {
        "resnet": (ResNet(), (3, 11, 12)),
        "tutorial": (Tutorial(), (1, 28, 28)),
        "inception": (Inception(), (2, 6, 5)),
        "unet": (UNet(), (1, 8, 6)),
        "segnet": (SegNet(), (2, 6, 8)),
        "sizes": (Sizes(), (2, 3, 4)),
        "in a sequence": (t.Sequential(BasicBlock(2, 2), t.Identity(), BasicBlock(2, 3)), (2, 5, 4)),
    }


@pytest.mark.capability("C14")
@pytest.mark.parametrize("name", ["resnet", "tutorial", "inception", "unet", "segnet", "sizes", "in a sequence"])
def test_common_blocks_are_read(torch, name):
    module, shape = blocks(torch)[name]
    module = module.double()
    x = randn(0, 6, *shape)
    module.train()(torch.tensor(x))
    net = interop.from_torch(module, shape)
    assert_near(net(x), outputs(torch, module, x), 1e-10)
    assert net.flat_parameters.size == sum(p.numel() for p in module.parameters())
    back = interop.to_torch(net)
    assert_near(outputs(torch, back, x), net(x), 1e-10)


def test_a_block_is_what_one_would_write(torch):
    module, shape = blocks(torch)["in a sequence"]
    net = interop.from_torch(module, shape)
    first, _, second = net
    assert isinstance(first[0], nn.Residual)
    assert first[0].shortcut is None
    assert [type(layer).__name__ for layer in first[0].body] == [
        *("Conv2d", "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d")
    ]
    assert isinstance(second[0].shortcut, nn.Sequential)
    assert isinstance(second[1], nn.ReLU)


def refused(torch):
    """Modules that cannot be read, and the words of the refusal."""
    t, f = torch.nn, torch.nn.functional

    def made(forward, **modules):
        class Own(t.Module):
            def __init__(self):
                super().__init__()
                for name, module in modules.items():
                    setattr(self, name, module)

        Own.forward = forward
        return Own()

    def parts():
        return {"a": t.Conv2d(2, 2, 3, padding=1), "b": t.Conv2d(2, 2, 3, padding=1), "c": t.Conv2d(2, 2, 1)}

    class MyConv(t.Conv2d):
        pass

    class Called(t.Sequential):
        def __call__(self, x):
            return 2 * super().__call__(x)

    def bridge(self, x):
        a = self.a(x)
        b = self.b(a)
        return self.c(a + x) + b

    def moody(self, x):
        self.calls.append(1)
        return self.a(x) if self.calls.count(1) != 3 else self.b(x)

    def changed(self, x):
        y = x.clone()
        return self.a(y)

    def tied():
        a, b = t.Conv2d(2, 2, 1), t.Conv2d(2, 2, 1)
        b.weight = a.weight
        return t.Sequential(a, b)

    def hooked():
        module = t.Sequential(t.ReLU())
        module[0].register_forward_hook(lambda module, given, output: output + 1)
        return module

    def own_forward():
        module = t.Sequential(t.ReLU(), t.Tanh())
        module[1].forward = lambda x: x
        return module

    half = t.Sequential(t.Conv2d(2, 2, 1), t.Conv2d(2, 2, 1).double())
    normed = t.utils.parametrizations.weight_norm(t.Conv2d(2, 2, 1))
    scripted = torch.jit.script(t.Sequential(t.ReLU())) if sys.version_info < (3, 14) else t.ReLU
    return {
        "unknown layer": (
            t.Sequential(t.ReLU(), t.Sequential(t.Hardswish())),
            r"module 1\.0 \(Hardswish\) is not among",
        ),
        "recurrent": (t.Sequential(t.Flatten(), t.LSTM(70, 3)), r"module 1 \(LSTM\) is not among pellucid's layers"),
        "subclass": (
            t.Sequential(MyConv(2, 2, 1)),
            r"module 0 \(MyConv\) calls .*conv2d.*, which cannot be read as a lay",
        ),
        "weight norm": (t.Sequential(normed), r"module 0 \(ParametrizedConv2d\)"),
        "call": (Called(t.ReLU()), r"the module \(Called\) has a __call__ of its own"),
        "hook": (hooked(), r"module 0 \(ReLU\) has hooks"),
        "patched": (own_forward(), r"module 1 \(Tanh\) has hooks, or a forward of its own"),
        "mixed": (half, r"must all be float32, or all float64, got float32, float64; use module.float\(\)"),
        "half": (t.Conv2d(2, 2, 1).half(), "got float16"),
        "lazy": (t.Sequential(t.LazyLinear(3)), "has lazy layers that have seen no input yet; run it once"),
        "tied": (tied(), r"module 1 \(Conv2d\) shares its weight with module 0; share the whole module"),
        "statistics": (t.BatchNorm2d(2, track_running_stats=False), "has track_running_stats=False, which pellucid's"),
        "divisor": (t.AvgPool2d(2, divisor_override=3), "has divisor_override=3"),
        "start_dim": (t.Flatten(2), r"the module \(Flatten\) has start_dim=2"),
        "indices": (t.MaxPool2d(2, return_indices=True), "has return_indices=True"),
        "softmax": (t.Softmax(), r"the module \(Softmax\): dim must be a whole number, got None"),
        "bridge": (made(bridge, **parts()), "is not series-parallel"),
        "branch on values": (made(lambda s, x: x if x.sum() > 0 else -x), "has a forward that cannot be followed"),
        "constant": (made(lambda s, x: s.a(x) + 1, **parts()), "adds something to a that is no tensor"),
        "scaled sum": (made(lambda s, x: torch.add(s.a(x), x, alpha=2), **parts()), "adds something to a"),
        "sum with a size": (made(lambda s, x: s.a(x) + x.size(0), **parts()), "adds something to a that is no tensor"),
        "product": (made(lambda s, x: s.a(x) * x, **parts()), "calls .*mul.*, which cannot be read as a layer"),
        "own weight": (made(lambda s, x: x + s.w, w=t.Parameter(torch.ones(1))), "not series-parallel"),
        "dead end": (
            made(lambda s, x: (s.b(x), s.a(x))[1], **parts()),
            r"computes b, which does not reach its output",
        ),
        "only in training": (
            made(lambda s, x: s.a(x) if s.training else s.b(x), **parts()),
            "does other steps in training than in inference",
        ),
        "always dropout": (made(lambda s, x: f.dropout(s.a(x), 0.5), **parts()), "does not follow train"),
        "never dropout": (made(lambda s, x: f.dropout(s.a(x), 0.5, False), **parts()), "does not follow train"),
        "cat of rows": (made(lambda s, x: torch.cat([s.a(x), x], 2), **parts()), "along dim=2; only channels, dim=1"),
        "batch in view": (made(lambda s, x: s.a(x).view(-1, 5), **parts()), "not proven to keep the batch"),
        "flatten all": (made(lambda s, x: torch.flatten(s.a(x)), **parts()), "start_dim=0"),
        "in place": (
            made(lambda s, x: s.r(x) + s.a(x), r=t.Sequential(t.Identity(), t.ReLU(inplace=True)), **parts()),
            "works in place on x, which is read elsewhere; use inplace=False",
        ),
        "in place by function": (
            made(lambda s, x: s.a(x) + f.relu(x, inplace=True), **parts()),
            "works in place on x",
        ),
        "two inputs": (made(lambda s, x, y: s.a(x) + y, **parts()), "must take one tensor and give one"),
        "two outputs": (made(lambda s, x: (s.a(x), x), **parts()), "must take one tensor and give one"),
        "called with two": (
            made(lambda s, x: s.m(x, x), m=made(lambda s, x, y: x + y)),
            r"module m \(Own\) is called with other arguments than one tensor",
        ),
        "clone": (made(changed, **parts()), "calls clone, which cannot be read as a layer"),
        "moody": (made(moody, calls=[], **parts()), "gives other outputs than the layers that it was read as"),
        "not a module": (nn.Sequential(nn.ReLU()), "must be a torch.nn.Module"),
        "scripted": (scripted, "that was not scripted"),
        "input": (t.Sequential(t.Conv2d(3, 2, 1)), "cannot run on inputs|expects 3 channels"),
    }


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
def test_what_cannot_be_read_is_refused_by_name(torch):
    for name, (module, words) in refused(torch).items():
        with pytest.raises(pl.PellucidError) as caught:
            interop.from_torch(module, input_shape=(2, 7, 5))
        message = str(caught.value)
        assert re.search(words, message), f"{name}: {message}"
        assert "\n" not in message


def test_sizes_in_a_forward_need_the_input_shape(torch):
    module, _ = blocks(torch)["tutorial"]
    with pytest.raises(OptionError, match=r"calls view with sizes that .* keep the batch; give input_shape"):
        interop.from_torch(module)


# Files


@pytest.mark.capability("H25")
@pytest.mark.parametrize("net", every_layer())
def test_every_layer_is_exported_with_proof(net, tmp_path):
    done = interop.export_torch(net, tmp_path / "net.py")
    assert done.difference < 1e-9
    assert {path.name for path in tmp_path.iterdir()} == {"net.py", "net.safetensors"}


@pytest.mark.capability("H25")
@pytest.mark.parametrize(("name", "shape"), ZOO)
def test_every_model_of_the_zoo_is_exported_with_proof(name, shape, tmp_path):
    assert interop.export_torch(moved(models.create(name, shape, 10)), tmp_path / name).difference < 1e-5


@pytest.mark.capability("C14", "H25")
def test_the_files_need_pytorch_only(torch, tmp_path):
    """Raw images in a process without pellucid give the logits of the model."""
    ds = pl.data.load("digits", subset=200)
    model = pl.fit(models.create("lesson1", ds.shape, 10), ds, epochs=1, progress=False, engine="reference").model
    done = interop.export_torch(model, tmp_path / "a-model.v1.safetensors")
    assert (done.code.name, done.weights.name) == ("a-model.v1.py", "a-model.v1.safetensors")
    code = f"""
import importlib.util, json, sys
sys.modules["pellucid"] = None
import torch
spec = importlib.util.spec_from_file_location("exported", {str(done.code)!r})
exported = importlib.util.module_from_spec(spec)
spec.loader.exec_module(exported)
images = torch.tensor(json.load(sys.stdin))
with torch.no_grad():
    logits = exported.load()(exported.preprocess(images))
print(json.dumps([logits.tolist(), exported.CLASSES, exported.INPUT_SHAPE, exported.VALUE_RANGE]))
"""
    sent = json.dumps(ds.images[:9].tolist())
    env = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    out = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, text=True, check=True, env=env)
    logits, classes, shape, value_range = json.loads(out.stdout)
    model.engine, model._engine = "reference", None
    assert_near(logits, model.outputs(ds.images[:9]), 1e-5)
    assert (classes, shape, value_range) == (list(ds.classes), [1, 8, 8], [0.0, 16.0])


def test_the_code_is_the_same_each_time_and_reads_well(tmp_path):
    shared = nn.Conv2d(2, 2, 3, padding="same")
    net = nn.Sequential(
        nn.Conv2d(1, 2, (2, 3), stride=2, padding="same_lower"),
        *(shared, nn.Residual(nn.Sequential(shared, nn.ReLU())), nn.Softmax()),
        input_shape=(1, 7, 7),
    )
    first = interop.export_torch(net, tmp_path / "a").code.read_text()
    assert interop.export_torch(net, tmp_path / "b").code.read_text() == first
    assert first[first.index("class Network") : first.index("def load")].strip() == (
        "class Network(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        shared1 = nn.Conv2d(2, 2, (3, 3), padding='same')\n"
        "        super().__init__(\n"
        "            PaddedConv2d(1, 2, (2, 3), stride=(2, 2), sides=(1, 1, 1, 0)),\n"
        "            shared1,\n"
        "            Residual(\n"
        "                body=nn.Sequential(\n"
        "                    shared1,\n"
        "                    nn.ReLU(),\n"
        "                ),\n"
        "            ),\n"
        "            nn.Softmax(dim=1),\n"
        "        )"
    )


@pytest.mark.parametrize("name", ["'); open('made', 'w')  #", '"""', "\\", "a\nopen('made', 'w')", "{x}", "\ud800"])
def test_names_in_the_code_are_literals(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(nn.Flatten(), nn.LazyLinear(2), input_shape=(1, 4, 4))
    spec = pl.InputSpec((1, 4, 4), (0, 255), (0.0,), (1.0,))
    code = interop.export_torch(pl.Model(net, spec, (name, "other")), "m").code
    namespace = {"__name__": "m", "__file__": str(code)}
    exec(code.read_text(encoding="utf-8"), namespace)
    assert namespace["CLASSES"] == (name, "other")
    assert {path.name for path in tmp_path.iterdir()} == {"m.py", "m.safetensors"}


def test_a_difference_is_refused_and_nothing_is_written(tmp_path, monkeypatch):
    net = models.create("mlp", (1, 5, 5), 3)
    from pellucid.interop import torch_source

    true = torch_source._Writer._leaf
    monkeypatch.setattr(torch_source._Writer, "_leaf", lambda *a: true(*a).replace("nn.ReLU()", "nn.LeakyReLU(0.01)"))
    with pytest.raises(FileError, match=r"PyTorch's outputs differ by \d\.\de-\d+ of the largest, 1e-05 is allowed"):
        interop.export_torch(net, tmp_path / "net.py")
    monkeypatch.undo()
    with net.edit():
        net.flat_parameters[3] = np.nan
    with pytest.raises(FileError, match="differ by nan of the largest"):
        interop.export_torch(net, tmp_path / "net.py")
    assert not list(tmp_path.iterdir())


def test_both_files_or_neither(tmp_path):
    net, other = models.create("mlp", (1, 5, 5), 3), models.create("mlp", (1, 5, 5), 3, seed=1)
    done = interop.export_torch(net, tmp_path / "net.py")
    before = done.weights.read_bytes()
    done.code.unlink()
    done.code.mkdir()
    with pytest.raises(FileError, match=r"cannot write .*net\.py"):
        interop.export_torch(other, tmp_path / "net.py")
    assert done.weights.read_bytes() == before
    done.weights.unlink()
    with pytest.raises(FileError):
        interop.export_torch(other, tmp_path / "net.py")
    assert [path.name for path in tmp_path.iterdir()] == ["net.py"]
    with pytest.raises(FileError, match="cannot write"):
        interop.export_torch(net, tmp_path / "gone" / "net.py")


@pytest.mark.parametrize("what", [3, None, nn.ReLU(), nn.Sequential(nn.ReLU())])
def test_only_networks_and_models_are_exported(what, tmp_path):
    with pytest.raises(OptionError, match="net must be a built network"):
        interop.export_torch(what, tmp_path / "x")
