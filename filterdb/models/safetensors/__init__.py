"""Read safetensors files: a JSON header and the tensors behind it."""
