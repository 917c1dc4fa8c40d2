"""Read TensorFlow Lite (LiteRT) models: FlatBuffers with the whole graph, channels last, often quantised."""
