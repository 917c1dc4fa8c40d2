"""ONNX files, from local paths: a model's layers, filters and skip ledger; the catalog of models.

Start at `layers.read_model`.
"""
