"""Convert an ONNX model to a TensorRT plan, keep it with what it depends on, and load it."""
