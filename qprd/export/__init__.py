"""What other programs take: a model as WSInfer or ONNX."""
