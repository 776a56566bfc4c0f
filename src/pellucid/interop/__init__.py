"""Files and foreign frameworks: the model file, ONNX, PyTorch."""

from typing import TYPE_CHECKING, Any

from pellucid.interop.onnx.export import Exported, export_onnx
from pellucid.interop.onnx.reading import import_onnx

if TYPE_CHECKING:
    from pellucid.interop.torch import TorchExport, export_torch, from_torch, to_torch

__all__ = ["Exported", "TorchExport", "export_onnx", "export_torch", "from_torch", "import_onnx", "to_torch"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from pellucid.interop import torch

        return getattr(torch, name)
    raise AttributeError(f"module 'pellucid.interop' has no attribute {name!r}")
