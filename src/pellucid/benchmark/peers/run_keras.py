"""Keras 3 on TensorFlow as a contestant: channels last, as TensorFlow wants it on a CPU."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

os.environ |= {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": "-1"}

import keras
import numpy as np
import tensorflow as tf

if TYPE_CHECKING:
    from pellucid.benchmark.peers.worker import Job, Way

_PER_CALL = 100  # steps at batch 1 in one call of TensorFlow


def versions() -> dict[str, str]:
    """Return the versions of Keras and TensorFlow."""
    return {"Keras": keras.__version__, "TensorFlow": tf.__version__}


def _apply(spec: dict[str, Any], x: Any, path: str, weights: dict[str, Any], layers: list[Any]) -> Any:
    """Return a layer's output; appends (Keras layer, its first weights) to layers."""
    kind, own = spec["layer"], keras.layers
    if kind == "Sequential":
        for place, child in enumerate(spec["layers"]):
            x = _apply(child, x, f"{path}{place}.", weights, layers)
        return x
    if kind == "Residual":
        body = _apply(spec["body"], x, f"{path}body.", weights, layers)
        around = _apply(spec["shortcut"], x, f"{path}shortcut.", weights, layers) if "shortcut" in spec else x
        return own.Add()([body, around])
    names: tuple[str, ...] = ("weight", "bias")
    if kind == "Conv2d":
        kernel, stride, pad = spec["kernel_size"], spec["stride"], spec["padding"]
        same = any(pad) and stride == [1, 1] and [2 * p + 1 for p in pad] == kernel
        if any(pad) and not same:  # with a stride TensorFlow's "same" is another one
            x = own.ZeroPadding2D(tuple(pad))(x)
        padding = "same" if same else "valid"
        layer = own.Conv2D(spec["out_channels"], kernel, stride, padding, use_bias=spec["bias"])
    elif kind == "Linear":
        layer = own.Dense(spec["out_features"], use_bias=spec["bias"])
    elif kind == "BatchNorm2d":
        layer = own.BatchNormalization(momentum=1 - spec["momentum"], epsilon=spec["eps"])
        names += ("running_mean", "running_var")
    else:
        layer = {
            "ReLU": own.ReLU,
            "Flatten": own.Flatten,
            "AdaptiveAvgPool2d": own.GlobalAveragePooling2D,
            "MaxPool2d": lambda: own.MaxPooling2D(spec["kernel_size"], spec["stride"]),
            "Dropout": lambda: own.Dropout(spec["p"]),
        }[kind]()
    y = layer(x)
    layers.append((layer, [weights[path + name] for name in names if path + name in weights]))
    return y


def _model(job: Job) -> tuple[Any, list[Any]]:
    job.channels_last()
    layers: list[Any] = []
    x = keras.Input(job.x.shape[1:])
    model = keras.Model(x, _apply(job.spec, x, "", job.weights, layers))
    for layer, values in layers:
        layer.set_weights(values)
    return model, layers


def start(job: Job) -> dict[str, Way]:
    """Return Keras' own methods, and steps as tf.function, with XLA and without.

    Args:
        job: The workload.
    """
    if tf.config.threading.get_intra_op_parallelism_threads() != job.threads:
        tf.config.threading.set_intra_op_parallelism_threads(job.threads)
        tf.config.threading.set_inter_op_parallelism_threads(job.threads)
    keras.backend.clear_session()
    model, layers = _model(job)
    parts = [tf.constant(job.x[job.part(i)]) for i in range(job.batches)]
    if job.optimizer is None:
        return _predictions(job, model, parts)
    return _trainings(job, model, layers, parts)


def _predictions(job: Job, model: Any, parts: list[Any]) -> dict[str, Way]:
    def way(call: Any, batches: list[Any]) -> Way:
        def run(first: int, count: int) -> float:
            for number in range(first, first + count):
                outputs = call(batches[number % job.batches])
            return float(np.abs(np.asarray(outputs)).sum())

        return run, lambda: None

    arrays = [job.x[job.part(i)] for i in range(job.batches)]
    plain = tf.function(lambda x: model(x, training=False))
    xla = tf.function(lambda x: model(x, training=False), jit_compile=True)
    return {
        "tf.function": way(plain, parts),
        "tf.function, XLA": way(xla, parts),
        "predict_on_batch": way(model.predict_on_batch, arrays),
    }


def _trainings(job: Job, model: Any, layers: list[Any], parts: list[Any]) -> dict[str, Way]:
    options = dict(job.optimizer or {})
    kind, rate = options.pop("name"), options.pop("lr")
    labels = [tf.constant(job.y[job.part(i)]) for i in range(job.batches)]
    all_x, all_y = (tf.stack(part) for part in (parts, labels))
    criterion = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def new_optimizer() -> Any:
        if kind == "adam":
            return keras.optimizers.Adam(rate, epsilon=1e-8)
        return keras.optimizers.SGD(rate, momentum=options["momentum"])

    def way(make: Any) -> Way:
        optimizer = new_optimizer()
        optimizer.build(model.trainable_variables)

        def step(x: Any, y: Any) -> Any:
            with tf.GradientTape() as tape:
                loss = criterion(y, model(x, training=True))
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)
            return loss

        return make(step, optimizer), lambda: reset(optimizer)

    def reset(optimizer: Any) -> None:
        for layer, values in layers:
            layer.set_weights(values)
        for variable in optimizer.variables:
            if variable.path.rpartition("/")[2] != "learning_rate":
                variable.assign(np.zeros(variable.shape, dtype=variable.dtype))

    def one_by_one(call: Any) -> Any:
        def run(first: int, count: int) -> float:
            for number in range(first, first + count):
                loss = call(parts[number % job.batches], labels[number % job.batches])
            return float(loss)

        return run

    def on_batch(step: Any, optimizer: Any) -> Any:
        model.compile(optimizer=optimizer, loss=criterion)
        arrays = [(job.x[job.part(i)], job.y[job.part(i)]) for i in range(job.batches)]

        def run(first: int, count: int) -> float:
            for number in range(first, first + count):
                loss = model.train_on_batch(*arrays[number % job.batches])
            return float(loss)

        return run

    def many(step: Any, optimizer: Any) -> Any:
        @tf.function  # type: ignore[untyped-decorator]
        def loop(first: Any, count: Any) -> Any:
            loss = tf.constant(0.0)
            for number in tf.range(first, first + count):
                place = number % job.batches
                loss = step(all_x[place], all_y[place])
            return loss

        def run(first: int, count: int) -> float:
            for start in range(first, first + count, _PER_CALL):
                loss = loop(tf.constant(start), tf.constant(min(_PER_CALL, first + count - start)))
            return float(loss)

        return run

    ways = {
        "tf.function": way(lambda step, _: one_by_one(tf.function(step))),
        "tf.function, XLA": way(lambda step, _: one_by_one(tf.function(step, jit_compile=True))),
        "train_on_batch": way(on_batch),
    }
    if job.batch == 1:
        ways["tf.function of 100 steps"] = way(many)
    return ways
