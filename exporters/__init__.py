"""Files that real exporters write, the weights that onnxruntime computes from them, what filterdb reads.

`generate` and what it imports run in an environment of their own, with PyTorch and onnxruntime; `reading` and the
tests run beside filterdb. `make exporters` does both.
"""
