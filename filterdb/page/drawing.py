"""Keep the import path of the helpers of figures, which are in `filterdb.plotting.drawing`."""

from filterdb.plotting.drawing import (
    COLOURS,
    DPI,
    LABEL,
    LINES,
    STYLE,
    SUFFIXES,
    canvas,
    drawn,
    encode,
    files,
    legible,
    short,
    visible,
    visible_all,
)

__all__ = [
    "COLOURS",
    "DPI",
    "LABEL",
    "LINES",
    "STYLE",
    "SUFFIXES",
    "canvas",
    "drawn",
    "encode",
    "files",
    "legible",
    "short",
    "visible",
    "visible_all",
]
