"""Write what Keras' exporter makes of small networks, with inputs and outputs: tests/golden/keras-*.onnx and .npz.

It runs in an environment of its own (tensorflow-cpu 2.21, keras 3.15, tf2onnx 1.17, onnx 1.23), by hand, when another
version of Keras exports other graphs. tests/interop/test_onnx_import.py reads the files.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from keras import layers as L

FOLDER = Path(__file__).resolve().parents[1] / "tests" / "golden"


def plain() -> keras.Model:
    """A classifier: same padding with a stride, batch norm behind an activation, flattened with channels last."""
    return keras.Sequential(
        [
            keras.Input((12, 10, 1)),
            L.Conv2D(4, 3, padding="same", activation="relu"),
            L.BatchNormalization(),
            L.MaxPooling2D(2),
            L.Conv2D(6, 3, strides=2, padding="same"),
            L.BatchNormalization(),
            L.ReLU(),
            L.Flatten(),
            L.Dense(8, activation="relu"),
            L.Dropout(0.5),
            L.Dense(3, activation="softmax"),
        ]
    )


def branched() -> keras.Model:
    """A residual block of separable convolutions, joined branches, upsampling and a global mean."""
    start = keras.Input((9, 8, 3))
    x = L.Conv2D(8, 3, padding="same", use_bias=False)(start)
    x = L.Activation("relu")(L.BatchNormalization()(x))
    y = L.BatchNormalization()(L.SeparableConv2D(8, 3, padding="same")(x))
    x = L.LeakyReLU(negative_slope=0.1)(L.Add()([x, y]))
    x = L.Concatenate()([L.Conv2D(4, 1, activation="elu")(x), L.AveragePooling2D(3, 1, padding="same")(x)])
    x = L.DepthwiseConv2D(3, activation="sigmoid")(L.ZeroPadding2D(1)(x))
    x = L.Conv2DTranspose(6, 3, strides=2, padding="same", activation="silu")(L.UpSampling2D(2)(x))
    x = L.GlobalAveragePooling2D()(L.MaxPooling2D(3, 2, padding="same")(x))
    return keras.Model(start, L.Dense(5)(x))


def autoencoder() -> keras.Model:
    """Maps in, maps out, both with channels last."""
    return keras.Sequential(
        [
            keras.Input((8, 6, 2)),
            L.Conv2D(4, 3, strides=2, padding="same", activation="tanh"),
            L.Conv2DTranspose(3, 3, strides=2, padding="same", activation="relu"),
            L.Conv2D(2, 3, padding="same", activation="sigmoid"),
        ]
    )


def main() -> None:
    """Write what is not there yet."""
    random = np.random.default_rng(0)
    for make in (plain, branched, autoencoder):
        for opset in (13, 18):
            path = FOLDER / f"keras-{make.__name__}-{opset}.onnx"
            if path.exists():
                sys.exit(f"{path.name} is there already; remove it first")
            keras.utils.set_random_seed(1)
            model = make()
            model.set_weights(
                [
                    np.abs(random.standard_normal(w.shape)) / 2 + 0.1
                    if "variance" in v.name
                    else random.standard_normal(w.shape) / 3
                    for v, w in zip(model.weights, model.get_weights(), strict=True)
                ]
            )
            x = random.standard_normal((3, *model.input_shape[1:])).astype(np.float32)
            y = model.predict(x, verbose=0)
            model.export(path, format="onnx", opset_version=opset, verbose=False)
            np.savez(path.with_suffix(".npz"), x=x, y=y)


if __name__ == "__main__":
    main()
