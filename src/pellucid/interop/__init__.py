"""Files and foreign frameworks: the model file, PyTorch."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pellucid.interop.torch import TorchExport, export_torch, from_torch, to_torch

__all__ = ["TorchExport", "export_torch", "from_torch", "to_torch"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from pellucid.interop import torch

        return getattr(torch, name)
    raise AttributeError(f"module 'pellucid.interop' has no attribute {name!r}")
