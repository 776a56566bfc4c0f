"""Take each model of the zoo to PyTorch and ONNX and back; print how far outputs are off, write docs/interchange.md.

python scripts/interchange.py [--images N]

Each model has weights and running statistics drawn anew; off is the largest difference, relative to the largest output.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from pellucid import interop, models, nn
from pellucid.interop.onnx import proof

PAGE = Path(__file__).resolve().parents[1] / "docs" / "interchange.md"
PAGE_TEXT = """\
# There and back

Written by `make interchange`; do not edit.

Each model of the zoo, with random weights and running statistics, goes out and comes back. {images} random images go
through the original, through what it became, and through what came back. A cell is the largest difference of outputs,
divided by the largest output of the original; "equal" is no difference in any bit.

{table}

`PyTorch` is the module of `interop.to_torch`, `back` what `interop.from_torch` makes of it.
`ONNX` is the file of `interop.export_onnx`, run by ONNX Runtime; `back` is what `interop.import_onnx` makes of it.
`export_onnx` compares with ONNX Runtime itself before it writes, `import_onnx` before it returns, and both refuse more
than 1e-5. Tests hold the same: `tests/interop/test_torch.py`, `tests/interop/test_onnx_export.py`,
`tests/interop/test_onnx_import.py`.
"""

Way = Callable[[nn.Sequential, np.ndarray], tuple[float, float]]


def through_onnx(net: nn.Sequential, x: np.ndarray) -> tuple[float, float]:
    """Return how far ONNX Runtime is off, and the network that comes back."""
    with tempfile.TemporaryDirectory() as folder:
        content = interop.export_onnx(net, Path(folder) / "net.onnx").path.read_bytes()
    y = net(x)
    return (
        proof.difference(proof.run(proof.session(content), x), y),
        proof.difference(interop.import_onnx(content)(x), y),
    )


def through_torch(net: nn.Sequential, x: np.ndarray) -> tuple[float, float]:
    """Return how far the plain module of PyTorch is off, and the network that comes back."""
    import torch

    module = interop.to_torch(net).eval()
    with torch.no_grad():
        there = module(torch.tensor(x)).numpy()
    y = net(x)
    back = interop.from_torch(module)
    back = back if back.built else back.build(net.input_shape)
    return proof.difference(there, y), proof.difference(back(x), y)


WAYS: dict[str, Way] = {"PyTorch": through_torch, "ONNX": through_onnx}


def network(name: str) -> nn.Sequential:
    """Return a model whose batch norms have statistics that are not those of the beginning."""
    net = models.create(name, (3, 32, 32) if name == "resnet8" else (1, 28, 28), 10, seed=1)
    random = np.random.default_rng(0)
    state = net.state_dict()
    for key, array in state.items():
        if key.endswith("running_mean"):
            state[key] = 0.1 * random.standard_normal(array.shape)
        elif key.endswith("running_var"):
            state[key] = random.uniform(0.5, 1.5, array.shape)
    net.load_state_dict(state)
    return net


def table(images: int) -> str:
    """Return the rows of all models."""
    head = ["model", "parameters", *(column for way in WAYS for column in (way, "back"))]
    rows = [head, ["---", *["---:"] * (len(head) - 1)]]
    for name in models.NAMES:
        net = network(name)
        x = np.random.default_rng(1).standard_normal((images, *net.input_shape)).astype(np.float32)
        if not np.ptp(net(x), axis=0).all():
            raise SystemExit(f"{name} gives every image the same outputs, so nothing is proven")
        offs = [off for way in WAYS.values() for off in way(net, x)]
        rows.append([name, f"{net.flat_parameters.size:,}", *(f"{off:.1e}" if off else "equal" for off in offs)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> None:
    """Print the table and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=16)
    images = parser.parse_args().images
    made = table(images)
    print(made)
    PAGE.write_text(PAGE_TEXT.format(images=images, table=made), encoding="utf-8")


if __name__ == "__main__":
    main()
