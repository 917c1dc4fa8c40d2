"""Tests of the reader of TensorFlow Lite models."""
