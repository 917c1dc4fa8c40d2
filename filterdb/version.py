"""The version, in one place: results name it, the package is built with it."""

__version__ = "0.1.0"
