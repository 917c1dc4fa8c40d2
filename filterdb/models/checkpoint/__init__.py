"""Read PyTorch checkpoints: a pickle of names, shapes and strides, and the raw storages that it refers to."""
