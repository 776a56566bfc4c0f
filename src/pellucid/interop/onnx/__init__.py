"""ONNX: networks written as graphs, and graphs read as networks, each held to ONNX Runtime's numbers."""
