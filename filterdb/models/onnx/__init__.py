"""ONNX model files. Start at `layers.read_model`; `reading` is what the child process runs."""
