"""Read ONNX model files. Start at `layers.read_model`; the child process runs `reading`."""
