"""The torch engine: the network as a torch.nn.Module, on the CPU or on CUDA.

Parameters, gradients and what the optimizer remembers are flat tensors here too, of which the module's parameters are
views; so clipping and step are a few operations on one tensor, whatever the number of layers. On CUDA the data stay on
the device from chunk to chunk, maps and filters lie channels last, and forward and backward of a full batch are
launched as one CUDA graph.

On a CPU the bits of a run repeat on the same machine with the same number of threads and the same version of PyTorch.
On CUDA they need not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import numpy as np
import torch

from pellucid import optim
from pellucid._types import Array
from pellucid.compiled import threads as threads_to_use
from pellucid.engines.torch_module import quiet, tensor, to_loss, to_module
from pellucid.errors import EngineError, ShapeError, one_line
from pellucid.nn import BatchNorm1d, BatchNorm2d, BatchNorm3d, Dropout, Dropout2d, Layer, Loss, Network
from pellucid.optim import Optimizer
from pellucid.random import GOLDEN, step_keys

_PREDICT_FLOATS = 1 << 26  # numbers of the widest layer that a batch of predict may have
_GRAPH_WARM_UP = 3  # runs before a CUDA graph is captured, as PyTorch asks


class TorchEngine:
    """Runs a network with PyTorch; see engines.base.Engine for the methods.

    Args:
        device: "cpu" or "cuda".
        precision: "float32", the network's own, or "bfloat16" for products and activations; parameters stay as they
            are.

    Raises:
        EngineError: For "cuda" where PyTorch finds none.
    """

    def __init__(self, device: str = "cpu", precision: str = "float32") -> None:
        if device == "cuda" and not torch.cuda.is_available():
            raise EngineError(
                f'PyTorch {torch.__version__} finds no CUDA device; use device "cpu", or install a driver and a build '
                "of PyTorch for it"
            )
        self.hits: Array = np.empty(0, dtype=np.int64)
        self._device, self._half = torch.device(device), precision == "bfloat16"
        self._cuda = device == "cuda"
        self._built: _Built | None = None
        self._threads = 1
        self._stop = False
        self._held: tuple[Array, Array, Any, Any] | None = None

    def build(
        self,
        network: Network,
        loss: Loss | None = None,
        optimizer: Optimizer | None = None,
        seed: int = 0,
        threads: int | None = None,
    ) -> None:
        """Translate a network; what PyTorch has nothing for is an EngineError here.

        Args:
            network: Built. Training changes its parameters in place.
            loss: Needed for gradients and training.
            optimizer: Needed for training.
            seed: Of dropout.
            threads: How many to use on the CPU; if None as many as PyTorch would, at most PELLUCID_THREADS.
        """
        if not network.built:
            raise EngineError("the network is not built yet; give input_shape=(C, H, W), or call fit")
        if self._half and network.dtype != np.float32:
            raise EngineError(
                f'precision "bfloat16" is for float32, the network is {network.dtype}; use network.astype("float32")'
            )
        count = threads_to_use.check(threads)
        if threads is None:
            count = min(count, torch.get_num_threads())
        shape = network.output_shape(network.input_shape)
        if loss is not None:
            loss.check_network(network)
            example = np.zeros(1, dtype=np.int64) if loss.takes_labels else np.zeros((1, *shape), np.float32)
            loss.forward(np.zeros((1, *shape), np.float32), example)
        if optimizer is not None and type(optimizer) not in _UPDATES:
            raise EngineError(
                f'the engine "torch" does not know the optimizer {optimizer!r}; the engine "reference" runs any'
            )
        built = _Built(network, loss, optimizer, seed, self._device, self._cuda, self._half)
        self._built, self._threads, self._held = built, count, None

    def interrupt(self) -> None:
        """Let a train that runs (in another thread, or below a signal handler) return after the present step."""
        self._stop = True

    def predict(self, x: Array) -> Array:
        """Return the network's raw outputs (N, ...).

        Args:
            x: Canonical input, (N, C, H, W).
        """
        built = self._ready()
        x = _real(x, built.network)
        outputs = np.empty((len(x), *built.output_shape), dtype=built.network.dtype)
        with self._settings(), torch.inference_mode():
            built.refresh()
            built.module.eval()
            for start in range(0, len(x), built.predict_batch):
                part = built.on_device(tensor(x[start : start + built.predict_batch]))
                outputs[start : start + len(part)] = built.forward(part).cpu().numpy()
        return outputs

    def loss_and_gradients(self, x: Array, target: Array, step: int = 0) -> tuple[float, Array]:
        """Return the loss and the flat array of its gradients, in training mode; parameters stay as they are.

        Args:
            x: Canonical input, (N, C, H, W).
            target: Labels (N,) or floats (N, ...).
            step: Number of the step, which dropout depends on.
        """
        built = self._ready()
        if built.loss is None:
            raise EngineError("the engine was built without a loss; gradients need one")
        x, target = _real(x, built.network), built.checked_targets(np.asarray(target), np.arange(len(x)))
        with self._settings(), torch.enable_grad():
            built.refresh()
            built.module.train()
            built.keys.copy_(built.step_keys(step, 1)[0])
            with built.kept_buffers():
                value, _ = built.forward_backward(built.on_device(tensor(x)), built.on_device(tensor(target)))
            return float(value), built.unpack(built.gradients)

    def train(
        self,
        images: Array,
        targets: Array,
        order: Array,
        batch_size: int,
        first_step: int,
        learning_rates: Array,
    ) -> Array:
        """Train a chunk of consecutive steps and return the loss of each, float64.

        On CUDA images and targets stay on the device; arrays given again must not have been changed meanwhile.

        Args:
            images: Canonical input, (M, C, H, W).
            targets: Labels (M,) or floats (M, ...).
            order: Which samples, in this order: indices into images, (S,).
            batch_size: Samples of a step; the last step may have fewer.
            first_step: Number of the chunk's first step in the whole training, from 0.
            learning_rates: One for each step.
        """
        built = self._ready()
        if built.loss is None or built.optimizer is None:
            missing = "a loss" if built.loss is None else "an optimizer"
            raise EngineError(f"the engine was built without {missing}; training needs one")
        order = np.asarray(order)
        if len(order) and (order.min() < 0 or order.max() >= len(images)):
            raise ShapeError(f"order has indices from {order.min()} to {order.max()} into {len(images)} images")
        losses: list[float] = []
        hits: list[Any] = []
        self._stop = False
        with self._settings(), torch.enable_grad():
            x, y = self._hold(images, targets, order)
            places = torch.from_numpy(order.astype(np.int64)).to(self._device)
            keys = built.step_keys(first_step, len(learning_rates))
            numbers = built.on_device(torch.from_numpy(_numbers(built.optimizer, learning_rates, first_step)))
            built.refresh()
            built.module.train()
            try:
                for i in range(len(learning_rates)):
                    if self._stop:
                        break
                    batch = places[i * batch_size : (i + 1) * batch_size]
                    built.keys.copy_(keys[i])
                    value, right = built.step(
                        built.on_device(x[batch]), built.on_device(y[batch]), numbers[i], batch_size
                    )
                    losses.append(value)
                    hits.append(right)
                    if not math.isfinite(value):
                        break
            finally:
                built.hand_over()
            self.hits = torch.stack(hits).cpu().numpy() if hits else np.empty(0, dtype=np.int64)
        return np.array(losses, dtype=np.float64)

    def _hold(self, images: Array, targets: Array, order: Array) -> tuple[Any, Any]:
        """Return both as tensors; on CUDA those of the call before, where the arrays are the same."""
        built = self._ready()
        if self._held is not None and self._held[0] is images and self._held[1] is targets:
            built.checked_targets(np.asarray(targets), order)
            return self._held[2:]
        x = _real(images, built.network)
        if len(targets) != len(x):
            raise ShapeError(f"there are {len(x)} images, but {len(targets)} targets")
        y = built.checked_targets(np.asarray(targets), order)
        pair = tensor(x).to(self._device), tensor(y).to(self._device)
        if self._cuda:
            self._held = images, targets, *pair
        return pair

    def state(self) -> dict[str, Array]:
        """Return copies of the parameters, buffers and what the optimizer remembers, as flat arrays by name."""
        built = self._ready()
        network = built.network
        slots = {name: built.unpack(slot) for name, slot in built.slots.items()}
        return {"parameters": network.flat_parameters.copy(), "buffers": network.flat_buffers.copy(), **slots}

    def load_state(self, state: dict[str, Array]) -> None:
        """Take back what state() gave.

        Args:
            state: Flat arrays by name.
        """
        built = self._ready()
        own = self.state()
        if set(state) != set(own) or any(state[name].shape != array.shape for name, array in own.items()):
            raise EngineError("this state belongs to another network or optimizer")
        with built.network.edit():
            built.network.flat_parameters[...] = state["parameters"]
            built.network.flat_buffers[...] = state["buffers"]
        for name, slot in built.slots.items():
            built.pack(state[name], slot)

    def _ready(self) -> _Built:
        if self._built is None:
            raise EngineError("the engine is not built yet; call build(network) first")
        return self._built

    @contextmanager
    def _settings(self) -> Iterator[None]:
        """Set what PyTorch keeps for the whole process, and set it back; its errors become one line."""
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            with ExitStack() as stack:
                stack.enter_context(quiet())
                if self._cuda:
                    # Products of 32 bits, as on the CPU, unless bfloat16 is asked for; the fastest convolutions.
                    stack.enter_context(torch.backends.cudnn.flags(enabled=True, benchmark=True, allow_tf32=False))
                yield
        except torch.cuda.OutOfMemoryError as error:
            raise EngineError(f"the device has too little memory; use a smaller batch ({one_line(error)})") from error
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise ShapeError(
                f"batch norm in training needs more than one value per channel; use another batch size ({error})"
            ) from error
        except RuntimeError as error:
            raise EngineError(f"PyTorch cannot run this: {one_line(error)}") from error
        finally:
            torch.set_num_threads(before)


class _Built:
    """What build() has made of a network.

    Attributes:
        parameters, gradients: Flat tensors, in which each array lies as its views say.
        slots: What the optimizer remembers, as flat tensors.
        keys: Of dropout in the present step, one for each of its layers.
    """

    def __init__(
        self,
        network: Network,
        loss: Loss | None,
        optimizer: Optimizer | None,
        seed: int,
        device: Any,
        cuda: bool,
        half: bool,
    ) -> None:
        self.network, self.loss, self.optimizer, self._seed = network, loss, optimizer, seed
        self._device, self._channels_last, self._half = device, cuda and len(network.input_shape) == 3, half
        self._dtype = getattr(torch, network.dtype.name)
        self.output_shape = network.output_shape(network.input_shape)
        widest = max(math.prod(out) for _, _, _, out in network.trace(network.input_shape))
        self.predict_batch = max(1, min(1024, _PREDICT_FLOATS // widest))
        self._dropouts: list[tuple[int, Any]] = []
        self.module = to_module(network, self._replace).to(device)
        self._criterion = None if loss is None else to_loss(loss, self._dtype).to(device)
        self.keys = torch.zeros(len(self._dropouts), dtype=torch.int64, device=device)
        for place, (_, layer) in enumerate(self._dropouts):
            layer.key = self.keys[place]

        size = network.flat_parameters.size
        self.parameters, self.gradients = (torch.zeros(size, dtype=self._dtype, device=device) for _ in range(2))
        self._shapes = [array.shape for array in network.named_parameters().values()]
        self._layers = network.layer_slices()
        tensors = self.module.state_dict(keep_vars=True)
        self._leaves = [tensors[name] for name in network.named_parameters()]
        for leaf, view in zip(self._leaves, self._views(self.parameters), strict=True):
            leaf.data = view
        self._gradient_views = self._views(self.gradients)
        self._buffers = [tensors[name] for name in network.named_buffers()]
        self.slots = {
            name: torch.zeros(size, dtype=self._dtype, device=device)
            for name in (optimizer.start(0, network.dtype) if optimizer is not None else ())
        }
        # An even mean over all batches asks the device for their count in every step.
        asks = any(
            isinstance(leaf, (BatchNorm1d, BatchNorm2d, BatchNorm3d)) and leaf.momentum is None
            for _, leaf in network.leaves()
        )
        self._may_capture = cuda and not asks
        self._captured: tuple[int, _Capture] | None = None
        self._version = -1
        self.refresh()

    def _replace(self, layer: Layer, number: int) -> Any:
        """Return dropout that draws from streams, as the definition does."""
        if type(layer) not in (Dropout, Dropout2d) or not isinstance(layer, Dropout):
            return None
        dropout = _StreamDropout(layer.p, by_channel=type(layer) is Dropout2d)
        self._dropouts.append((number, dropout))
        return dropout

    def _views(self, flat: Any) -> list[Any]:
        """Return each parameter's part of a flat tensor, as the module sees it; filters may lie channels last."""
        views, start = [], 0
        for shape in self._shapes:
            part = flat[start : start + math.prod(shape)]
            start += math.prod(shape)
            if self._channels_last and len(shape) == 4:
                o, c, h, w = shape
                views.append(part.view(o, h, w, c).permute(0, 3, 1, 2))
            else:
                views.append(part.view(shape))
        return views

    def pack(self, array: Array, flat: Any) -> None:
        """Write a flat array of the network's layout into a flat tensor of this engine's."""
        start, source = 0, torch.tensor(array, dtype=self._dtype)
        for view in self._views(flat):
            view.copy_(source[start : start + view.numel()].view(view.shape))
            start += view.numel()

    def unpack(self, flat: Any) -> Array:
        """Return a flat tensor of this engine's layout as a flat array of the network's."""
        parts = [view.reshape(-1) for view in self._views(flat)]
        return np.asarray(torch.cat(parts).cpu().numpy()) if parts else np.empty(0, dtype=self.network.dtype)

    def refresh(self) -> None:
        """Take over parameters and buffers, where the network's have changed."""
        network = self.network
        if self._version == network.version:
            return
        with torch.no_grad():
            self.pack(network.flat_parameters, self.parameters)
            for buffer, array in zip(self._buffers, network.named_buffers().values(), strict=True):
                buffer.copy_(torch.tensor(array))
        self._version = network.version

    def hand_over(self) -> None:
        """Give parameters and buffers to the network."""
        with self.network.edit():
            self.network.flat_parameters[...] = self.unpack(self.parameters)
            for buffer, array in zip(self._buffers, self.network.named_buffers().values(), strict=True):
                array[...] = buffer.cpu().numpy()
        self._version = self.network.version

    @contextmanager
    def kept_buffers(self) -> Iterator[None]:
        """Leave batch norm's running statistics as they are."""
        kept = self._copies()
        try:
            yield
        finally:
            self._put_back(kept)

    def _copies(self) -> list[Any]:
        return [buffer.clone() for buffer in self._buffers]

    def _put_back(self, copies: Sequence[Any]) -> None:
        for buffer, copy in zip(self._buffers, copies, strict=True):
            buffer.copy_(copy)

    def checked_targets(self, targets: Array, order: Array) -> Array:
        """Return targets as the loss of PyTorch wants them; the definition is asked about extreme ones first."""
        if self.loss is not None and len(order):
            chosen = targets[order]
            rows = chosen.reshape(len(chosen), -1)
            some = [int(extreme) // max(rows.shape[1], 1) for extreme in (rows.argmin(), rows.argmax())]
            self.loss.forward(np.zeros((len(some), *self.output_shape), dtype=self.network.dtype), chosen[some])
        return targets.astype(np.int64 if targets.dtype.kind in "iu" else self.network.dtype, copy=False)

    def step_keys(self, first: int, count: int) -> Any:
        """Return dropout's keys for consecutive steps, (count, layers); int64 with the bits of the uint64."""
        numbers = [number for number, _ in self._dropouts]
        return torch.from_numpy(step_keys(self._seed, first, count, numbers).view(np.int64)).to(self._device)

    def on_device(self, x: Any) -> Any:
        """Return a batch where and as the module wants it; labels stay whole numbers."""
        x = x.to(self._device, self._dtype if x.is_floating_point() else torch.int64)
        return x.contiguous(memory_format=torch.channels_last) if self._channels_last and x.ndim == 4 else x

    def forward(self, x: Any) -> Any:
        """Return the module's outputs in the network's type."""
        context: AbstractContextManager[Any] = nullcontext()
        if self._half:
            context = torch.autocast(self._device.type, dtype=torch.bfloat16)
        with context:
            return self.module(x).to(self._dtype)

    def forward_backward(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Return loss and number of hits as tensors, and write the gradients."""
        output = self.forward(x)
        loss = self._criterion(output, y)  # type: ignore[misc]
        gradients = torch.autograd.grad(loss, self._leaves, materialize_grads=True) if self._leaves else ()
        for view, gradient in zip(self._gradient_views, gradients, strict=True):
            view.copy_(gradient)
        labels = y.dtype == torch.int64 and output.ndim == 2
        hits = (output.argmax(1) == y).sum() if labels else torch.zeros((), dtype=torch.int64, device=self._device)
        return loss.detach(), hits

    def step(self, x: Any, y: Any, numbers: Any, batch_size: int) -> tuple[float, Any]:
        """Train one step and return its loss and number of hits; where the loss is not finite nothing is changed."""
        kept = self._copies()
        run: Callable[[Any, Any], tuple[Any, Any]] = self.forward_backward
        if self._may_capture and len(x) == batch_size:
            if self._captured is None or self._captured[0] != batch_size:
                self._captured = batch_size, _Capture(self.forward_backward, x, y)
                self._put_back(kept)
            run = self._captured[1]
        loss, hits = run(x, y)
        value = float(loss)
        if math.isfinite(value):
            self._update(numbers)
        else:
            self._put_back(kept)
        return value, hits.clone()

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def _update(self, numbers: Any) -> None:
        optimizer, g = self.optimizer, self.gradients
        if optimizer is None:
            return
        if optimizer.clip_layer_norm is not None:
            for part in self._layers:
                _clip(g[part], optimizer.clip_layer_norm)
        if optimizer.clip_norm is not None:
            _clip(g, optimizer.clip_norm)
        if optimizer.weight_decay and type(optimizer) is not optim.AdamW:
            g.add_(self.parameters, alpha=optimizer.weight_decay)
        _UPDATES[type(optimizer)](optimizer, self.parameters, g, self.slots, *numbers)


class _Capture:
    """Forward and backward of a batch as one CUDA graph, for batches of one size: its many kernels are one launch.

    Args:
        run: What to capture; writes to tensors that stay where they are.
        x: A batch.
        y: Its targets.
    """

    def __init__(self, run: Callable[[Any, Any], tuple[Any, Any]], x: Any, y: Any) -> None:
        self._x, self._y = x.clone(), y.clone()
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(_GRAPH_WARM_UP):
                run(self._x, self._y)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._outputs = run(self._x, self._y)

    def __call__(self, x: Any, y: Any) -> tuple[Any, Any]:
        self._x.copy_(x)
        self._y.copy_(y)
        self._graph.replay()
        return self._outputs


class _StreamDropout(torch.nn.Module):
    """Dropout whose mask is that of random.Stream: element i, counted in NCHW order, is mix(key + (i + 1) GOLDEN).

    PyTorch multiplies int64 modulo 2^64, so only shifts to the right need care: they must not copy the sign.
    """

    key: Any

    def __init__(self, p: float, by_channel: bool) -> None:
        super().__init__()
        self._p, self._by_channel = p, by_channel

    def forward(self, x: Any) -> Any:
        if not self.training or self._p == 0:
            return x
        if self._p >= 1:
            return x * 0.0
        shape = (*x.shape[:2], *[1] * (x.ndim - 2)) if self._by_channel else x.shape
        counters = torch.arange(1, math.prod(shape) + 1, device=x.device)
        bits = _mix(self.key + counters * _signed(GOLDEN))
        uniform = _shifted(bits, 40).to(torch.float64) * 2.0**-24
        mask = (uniform >= self._p).to(torch.float64) / (1 - self._p)
        return x * mask.to(x.dtype).reshape(shape)


def _signed(word: int) -> int:
    return word - (1 << 64) if word >> 63 else word


def _shifted(z: Any, bits: int) -> Any:
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Any) -> Any:
    """random.mix, on int64."""
    z = (z ^ _shifted(z, 30)) * _signed(0xBF58476D1CE4E5B9)
    z = (z ^ _shifted(z, 27)) * _signed(0x94D049BB133111EB)
    return z ^ _shifted(z, 31)


def _real(images: Array, network: Network) -> Array:
    """Return images as an array of floats, if they are real numbers of the network's input shape."""
    x = network.check_images(images)
    return x if x.dtype in (np.float32, np.float64) else x.astype(network.dtype)


def _clip(gradients: Any, limit: float) -> None:
    """Scale in place as optim.clip_norm does; the factor stays on the device."""
    norm = torch.linalg.vector_norm(gradients, dtype=torch.float64)
    gradients.mul_((limit / norm).clamp(max=1.0).to(gradients.dtype))


def _numbers(optimizer: Optimizer, rates: Array, first: int) -> Array:
    """Return what changes from step to step, (steps, 3): the rate, and Adam's rate and root of its corrections."""
    rates = np.asarray(rates, dtype=np.float64)
    if not isinstance(optimizer, optim.Adam):
        return np.stack([rates, rates, rates], axis=1)
    (beta1, beta2), t = optimizer.betas, first + 1.0 + np.arange(len(rates))
    return np.stack([rates, rates / (1 - beta1**t), np.sqrt(1 - beta2**t)], axis=1)


# The formulas of optim, on tensors that stay where they are.


def _sgd(o: Any, w: Any, g: Any, state: dict[str, Any], lr: Any, *_: Any) -> None:
    if o.momentum:
        v = state["momentum_buffer"].mul_(o.momentum).add_(g)
        g = g + o.momentum * v if o.nesterov else v
    w.sub_(lr * g)


def _rmsprop(o: Any, w: Any, g: Any, state: dict[str, Any], lr: Any, *_: Any) -> None:
    s = state["square_avg"].mul_(o.alpha).add_((1 - o.alpha) * g * g)
    change = g / (s.sqrt() + o.eps)
    if o.momentum:
        change = state["momentum_buffer"].mul_(o.momentum).add_(change)
    w.sub_(lr * change)


def _adam(o: Any, w: Any, g: Any, state: dict[str, Any], lr: Any, corrected: Any, root: Any) -> None:
    if type(o) is optim.AdamW:
        w.mul_(1 - lr * o.weight_decay)
    b1, b2 = o.betas
    m = state["exp_avg"].mul_(b1).add_((1 - b1) * g)
    v = state["exp_avg_sq"].mul_(b2).add_((1 - b2) * g * g)
    w.sub_(corrected * m / (v.sqrt() / root + o.eps))


_UPDATES: dict[type[Optimizer], Callable[..., None]] = {
    optim.SGD: _sgd,
    optim.RMSprop: _rmsprop,
    optim.Adam: _adam,
    optim.AdamW: _adam,
}
