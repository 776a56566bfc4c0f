"""Looking inside a trained model: functions that return arrays, and in figures the pictures drawn from them.

Everything is computed from the reference engine's own values. A layer is named by its place in the summary, as
"3.body.0", or by the number of one of the outermost layers.

    from pellucid import explain
    maps = explain.feature_maps(model, "digit.png")
    explain.figures.feature_maps(maps["3"]).savefig("layer3.png")
"""

from pellucid.explain import figures
from pellucid.explain.attribution import (
    IntegratedGradients,
    cam_layer,
    grad_cam,
    integrated_gradients,
    occlusion,
    saliency,
)
from pellucid.explain.latent import (
    Plane,
    bottleneck,
    codes,
    decode,
    grid,
    interpolate,
    last_hidden,
    nearest,
    plane,
    sample,
    split,
)
from pellucid.explain.maps import dead, feature_maps, kernels
from pellucid.explain.maximization import Maximized, maximize
from pellucid.explain.products import Pixel, pixel, window
from pellucid.explain.receptive import cells_that_see, effective_field, receptive_field
from pellucid.explain.walk import Trace, trace

__all__ = [
    "IntegratedGradients",
    "Maximized",
    "Pixel",
    "Plane",
    "Trace",
    "bottleneck",
    "cam_layer",
    "cells_that_see",
    "codes",
    "dead",
    "decode",
    "effective_field",
    "feature_maps",
    "figures",
    "grad_cam",
    "grid",
    "integrated_gradients",
    "interpolate",
    "kernels",
    "last_hidden",
    "maximize",
    "nearest",
    "occlusion",
    "pixel",
    "plane",
    "receptive_field",
    "saliency",
    "sample",
    "split",
    "trace",
    "window",
]
