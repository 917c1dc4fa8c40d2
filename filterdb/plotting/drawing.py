"""Helpers of all figures: a canvas, a style, labels that cannot do harm, and the bytes of a file."""

from __future__ import annotations

import functools
import io
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from filterdb.errors import MissingExtraError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    "text.parse_math": False,  # names of models may contain dollar signs
    "axes.formatter.use_mathtext": False,
}

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""The colours of Okabe and Ito, which people with colour blindness can distinguish."""

LINES = ("-", "--", ":", "-.")
"""Line styles, so that lines differ by more than their colour."""

LABEL = 32
"""Most characters of a name that a figure shows."""

DPI = 120

SUFFIXES = (".svg", ".png", ".pdf")
"""Formats of a figure, by the suffix of its file."""


@contextmanager
def _style(**more: Any) -> Iterator[None]:
    from matplotlib import rc_context, rcdefaults, rcParams

    with rc_context(), warnings.catch_warnings():
        rcdefaults()
        rcParams.update({**STYLE, **more})
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def drawn[**P](make: Callable[P, Figure]) -> Callable[P, Figure]:
    """Wrap a function so that it draws in this package's style. It raises MissingExtraError without matplotlib."""

    @functools.wraps(make)
    def styled(*args: P.args, **kwargs: P.kwargs) -> Figure:
        if find_spec("matplotlib") is None:
            raise MissingExtraError("report: figures need the extra: pip install 'filterdb[report]'")
        with _style():
            return make(*args, **kwargs)

    return styled


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure; width and height are in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def files(figure: Figure, name: str) -> dict[str, bytes]:
    """Return the bytes of `figures/<name>.svg`, with texts as text, and `figures/<name>.png`; the same each time."""
    return {f"figures/{name}{suffix}": encode(figure, name, suffix) for suffix in (".svg", ".png")}


def encode(figure: Figure, name: str, suffix: str) -> bytes:
    """Return the bytes of a figure in the format of one of SUFFIXES, the same each time."""
    buffer = io.BytesIO()
    metadata: dict[str, dict[str, Any]] = {
        ".svg": {"Date": None, "Title": name},
        ".png": {"Software": None},
        ".pdf": {"CreationDate": None, "Title": name},
    }
    with _style(**{"svg.hashsalt": name}):
        engine = figure.get_layout_engine()
        if engine is not None:  # compute the layout once for all formats
            engine.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(buffer, format=suffix[1:], metadata=metadata[suffix], dpi=DPI)
    return _palette(buffer) if suffix == ".png" else buffer.getvalue()


def _palette(pixels: io.BytesIO) -> bytes:
    """Convert a PNG to 256 colours, which takes a fifth of the bytes."""
    from PIL import Image

    smaller = io.BytesIO()
    with Image.open(pixels) as image:
        few = image.convert("RGB").quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
        few.save(smaller, "png")
    return smaller.getvalue()


def visible(text: object) -> str:
    """Replace characters that XML cannot contain, and those that change the direction of the text around a name."""
    return "".join(
        "\ufffd" if unicodedata.category(mark) in {"Cc", "Cf", "Cs", "Cn", "Co"} else mark for mark in str(text)
    )


def visible_all(values: Iterable[object]) -> list[str]:
    """Return each value as `visible` shows it."""
    return [visible(value) for value in values]


def short(text: object, limit: int = LABEL) -> str:
    """Return a visible name of at most `limit` characters."""
    name = visible(text)
    return name if len(name) <= limit else f"{name[: limit - 1]}…"


def legible(count: int, *, most: int = 40) -> bool:
    """Return whether `count` labels can be read side by side."""
    return count <= most
