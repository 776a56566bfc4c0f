"""JAX as a contestant: a step in plain JAX, channels last, compiled whole, its buffers donated."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

if TYPE_CHECKING:
    from pellucid.benchmark.peers.worker import Job, Way

_STATE = ("running_mean", "running_var")


def versions() -> dict[str, str]:
    """Return JAX's version."""
    return {"JAX": jax.__version__}


def _apply(spec: dict[str, Any], x: Any, path: str, p: dict[str, Any], key: Any, moved: dict[str, Any] | None) -> Any:
    """Return a layer's output; in training key is of dropout, and moved takes the new running statistics."""
    kind = spec["layer"]
    if kind == "Sequential":
        for place, child in enumerate(spec["layers"]):
            x = _apply(child, x, f"{path}{place}.", p, key, moved)
        return x
    if kind == "Residual":
        around = _apply(spec["shortcut"], x, f"{path}shortcut.", p, key, moved) if "shortcut" in spec else x
        return _apply(spec["body"], x, f"{path}body.", p, key, moved) + around
    if kind == "Conv2d":
        padding = [(side, side) for side in spec["padding"]]
        numbers = ("NHWC", "HWIO", "NHWC")
        x = lax.conv_general_dilated(x, p[path + "weight"], spec["stride"], padding, dimension_numbers=numbers)
    elif kind == "Linear":
        x = x @ p[path + "weight"]
    elif kind == "MaxPool2d":
        window, steps = (1, *spec["kernel_size"], 1), (1, *spec["stride"], 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, window, steps, "VALID")
    elif kind == "BatchNorm2d":
        return _norm(spec, x, path, p, moved)
    elif kind == "AdaptiveAvgPool2d":
        return x.mean(axis=(1, 2), keepdims=True)
    elif kind == "Flatten":
        return x.reshape(len(x), -1)
    elif kind == "ReLU":
        return jnp.maximum(x, 0)
    elif kind == "Dropout":
        if moved is None or spec["p"] == 0:
            return x
        kept = jax.random.bernoulli(key, 1 - spec["p"], x.shape)
        return jnp.where(kept, x / (1 - spec["p"]), 0)
    return x + p[path + "bias"] if path + "bias" in p else x


def _norm(spec: dict[str, Any], x: Any, path: str, p: dict[str, Any], moved: dict[str, Any] | None) -> Any:
    mean, var = (p[path + name] for name in _STATE)
    if moved is not None:
        kept, share, count = 1 - spec["momentum"], spec["momentum"], x.size / x.shape[-1]
        now = x.mean(axis=(0, 1, 2)), x.var(axis=(0, 1, 2))
        moved[path + _STATE[0]] = kept * mean + share * now[0]
        moved[path + _STATE[1]] = kept * var + share * now[1] * (count / (count - 1))
        mean, var = now
    return (x - mean) * (lax.rsqrt(var + spec["eps"]) * p[path + "weight"]) + p[path + "bias"]


def start(job: Job) -> dict[str, Way]:
    """Return steps one by one and, at batch 1, many in one call by lax.scan.

    Args:
        job: The workload.
    """
    job.channels_last()
    weights = {name: a for name, a in job.weights.items() if not name.endswith("num_batches_tracked")}
    parts = [jnp.asarray(job.x[job.part(i)]) for i in range(job.batches)]
    if job.optimizer is None:
        call, held = jax.jit(lambda p, x: _apply(job.spec, x, "", p, None, None)), jax.device_put(weights)

        def predict(first: int, count: int) -> float:
            for number in range(first, first + count):
                outputs = call(held, parts[number % job.batches]).block_until_ready()
            return float(np.abs(np.asarray(outputs)).sum())

        return {"jit": (predict, lambda: None)}
    ways = {"jit": _training(job, weights, parts, 1)}
    if job.unit > 1:
        ways["lax.scan"] = _training(job, weights, parts, job.unit)
    return ways


def _training(job: Job, weights: dict[str, Any], parts: list[Any], unit: int) -> Way:
    options = dict(job.optimizer or {})
    labels = [jnp.asarray(job.y[job.part(i)]) for i in range(job.batches)]
    all_x, all_y = (jnp.stack(part) if unit > 1 else None for part in (parts, labels))

    def loss_of(p: Any, state: Any, x: Any, y: Any, number: Any) -> Any:
        moved: dict[str, Any] = {}
        key = jax.random.fold_in(jax.random.key(0), number)
        outputs = _apply(job.spec, x, "", {**p, **state}, key, moved)
        picked = jnp.take_along_axis(jax.nn.log_softmax(outputs), y[:, None], axis=1)
        return -picked.mean(), moved

    def step(carry: Any, x: Any, y: Any, number: Any) -> Any:
        p, state, m, v = carry
        (loss, moved), g = jax.value_and_grad(loss_of, has_aux=True)(p, state, x, y, number)
        lr, t = options["lr"], number + 1.0
        if options["name"] == "adam":
            m = jax.tree.map(lambda a, b: 0.9 * a + 0.1 * b, m, g)
            v = jax.tree.map(lambda a, b: 0.999 * a + 0.001 * b * b, v, g)
            rate, scale = lr / (1 - 0.9**t), 1 / (1 - 0.999**t)
            p = jax.tree.map(lambda w, a, b: w - rate * a / (jnp.sqrt(b * scale) + 1e-8), p, m, v)
        elif options["momentum"]:
            m = jax.tree.map(lambda a, b: options["momentum"] * a + b, m, g)
            p = jax.tree.map(lambda w, a: w - lr * a, p, m)
        else:
            p = jax.tree.map(lambda w, b: w - lr * b, p, g)
        return (p, {**state, **moved}, m, v), loss

    @partial(jax.jit, donate_argnums=0)
    def single(carry: Any, x: Any, y: Any, number: Any) -> Any:
        return step(carry, x, y, number)

    @partial(jax.jit, donate_argnums=0)
    def scan(carry: Any, x: Any, y: Any, first: Any) -> Any:
        def body(carry: Any, number: Any) -> Any:
            place = number % job.batches
            return step(carry, x[place], y[place], number)

        carry, losses = lax.scan(body, carry, first + jnp.arange(unit))
        return carry, losses[-1]

    carry: Any = None

    def reset() -> None:
        nonlocal carry
        p = {name: jnp.array(a) for name, a in weights.items() if not name.endswith(_STATE)}
        state = {name: jnp.array(a) for name, a in weights.items() if name.endswith(_STATE)}
        adam = options["name"] == "adam"
        m = jax.tree.map(jnp.zeros_like, p) if adam or options["momentum"] else None
        carry = p, state, m, jax.tree.map(jnp.zeros_like, p) if adam else None

    def run(first: int, count: int) -> float:
        nonlocal carry
        for number in range(first, first + count, unit):
            if unit > 1:
                carry, loss = scan(carry, all_x, all_y, number)
            else:
                place = number % job.batches
                carry, loss = single(carry, parts[place], labels[place], number)
        return float(loss)

    reset()
    return run, reset
