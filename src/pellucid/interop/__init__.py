"""Files and foreign frameworks: the model file, ONNX."""

from pellucid.interop.onnx.export import Exported, export_onnx
from pellucid.interop.onnx.reading import import_onnx

__all__ = ["Exported", "export_onnx", "import_onnx"]
