"""Models in the forms of other programs: WSInfer and ONNX."""
