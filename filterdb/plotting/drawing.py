"""Helpers of all plots: where they are drawn, a style, labels that cannot do harm, and the bytes of a file.

A plot draws into the Axes or Figure that it is given, or into a new figure of pyplot, in the caller's style. Inside
`as_figure` the new figure is not one of pyplot and has filterdb's style, for files that do not depend on who draws.
"""

from __future__ import annotations

import base64
import functools
import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from filterdb.errors import MissingExtraError, UsageError
from filterdb.schema import KERNEL, Kernel, kernel_name, parse_kernel

if TYPE_CHECKING:
    import xarray as xr
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure, SubFigure

    type AnyFigure = Figure | SubFigure

LITERAL = {"text.parse_math": False, "axes.formatter.use_mathtext": False}
"""Settings for texts that are no formulas: names of models may contain dollar signs."""

STYLE = {
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "svg.fonttype": "none",
    **LITERAL,
}

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
"""The colours of Okabe and Ito, which people with colour blindness can distinguish."""

LINES = ("-", "--", ":", "-.")
"""Line styles, so that lines differ by more than their colour."""

LABEL = 32
"""Most characters of a name that a figure shows."""

DPI = 120

_off_screen: ContextVar[bool] = ContextVar("off_screen", default=False)
"""Whether new figures are unknown to pyplot."""

SMALL_IMAGE = 20_000
"""Images inside an SVG of fewer characters stay as they are."""

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


def drawn[**P, T](draw: Callable[P, T]) -> Callable[P, T]:
    """Wrap a function that draws and returns Axes, so that it reads no text as a formula.

    The wrapped function raises MissingExtraError without matplotlib.
    """

    @functools.wraps(draw)
    def literal(*args: P.args, **kwargs: P.kwargs) -> T:
        check_matplotlib()
        from matplotlib import rc_context
        from matplotlib.text import Text

        target: Any = kwargs.get("ax") or kwargs.get("fig")
        before = {} if target is None else {text: text.get_text() for text in target.findobj(Text)}
        with rc_context(LITERAL):
            drawing = draw(*args, **kwargs)
        for axes in _all_axes(drawing):
            for text in axes.findobj(Text):
                if text.get_text() != before.get(text):
                    text.set_parse_math(False)
                    text.set_usetex(False)
        return drawing

    return literal


def check_matplotlib() -> None:
    """Raise MissingExtraError if matplotlib is not installed."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError("report: figures need the extra: pip install 'filterdb[report]'")


def _all_axes(drawing: Any) -> list[Axes]:
    """Return the Axes of what a plot returned, an Axes or an array of them."""
    return list(getattr(drawing, "flat", [drawing]))


def as_figure(draw: Callable[[], Any]) -> Figure:
    """Return the Figure that `draw` makes, a call of a plot without `ax` and `fig`, in filterdb's style."""
    check_matplotlib()
    token = _off_screen.set(True)
    try:
        with _style():
            drawing = draw()
    finally:
        _off_screen.reset(token)
    figure: Any = _all_axes(drawing)[0].get_figure(root=True)
    return figure  # type: ignore[no-any-return]


def canvas(width: float, height: float) -> Figure:
    """Return an empty figure that pyplot does not know; width and height are in inches."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure, which a notebook shows unless it is drawn in `as_figure`; sizes are in inches."""
    if _off_screen.get():
        return canvas(width, height)
    from matplotlib import pyplot

    figure: Figure = pyplot.figure(figsize=(width, height), layout="constrained")
    return figure


def panel(ax: Axes | None, width: float, height: float) -> Axes:
    """Return `ax`, or the only Axes of a new figure of this size in inches."""
    return new_figure(width, height).subplots() if ax is None else ax


def kernel_of(result: xr.Dataset) -> Kernel:
    """Return the shape of the filters that a result is about."""
    return parse_kernel(result.attrs.get("kernel", kernel_name(KERNEL)))


def check_result(function: str, result: object, of: str, *needed: str) -> None:
    """Raise UsageError if a result lacks a variable, coordinate or dimension that a plot draws."""
    import xarray as xr

    if not isinstance(result, xr.Dataset):
        raise UsageError(f"plot.{function}: expected a result of {of}, got {type(result).__name__}")
    missing = [name for name in needed if name not in result.variables and name not in result.sizes]
    if missing:
        raise UsageError(f"plot.{function}: expected a result of {of}, got one without {', '.join(missing)}")


def files(figure: Figure, name: str) -> dict[str, bytes]:
    """Return the bytes of `figures/<name>.svg`, with texts as text, and `figures/<name>.png`; the same each time."""
    return {f"figures/{name}{suffix}": encode(figure, name, suffix) for suffix in (".svg", ".png")}


def encode(figure: Figure, name: str, suffix: str, dpi: int = DPI) -> bytes:
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
        figure.savefig(buffer, format=suffix[1:], metadata=metadata[suffix], dpi=dpi)
    if suffix == ".svg":
        return _short(_numbered(buffer.getvalue()))
    return _palette(buffer.getvalue()) if suffix == ".png" else buffer.getvalue()


def _numbered(drawing: bytes) -> bytes:
    """Replace the names of clip paths in an SVG by numbers in their order.

    Matplotlib names them by all digits of their places, the last of which differ from one layout to the next.
    """
    names = {name: b"clip%d" % i for i, name in enumerate(re.findall(rb'<clipPath id="(\w+)"', drawing))}
    drawing = re.sub(rb'(?<=<clipPath id=")\w+', lambda name: names[name[0]], drawing)
    return re.sub(rb"(?<=url\(#)\w+(?=\))", lambda name: names.get(name[0], name[0]), drawing)


def _short(drawing: bytes) -> bytes:
    """Return an SVG with paths rounded to a hundredth of a point, and at most 256 colours in its large images."""
    paths = re.sub(rb' d="[^"]*"', lambda path: re.sub(rb"(\.\d\d)\d+", rb"\1", path[0]), drawing)
    image = rb"(?<=data:image/png;base64,)[A-Za-z0-9+/=\s]{%d,}" % SMALL_IMAGE
    return re.sub(image, lambda code: base64.b64encode(_palette(base64.b64decode(code[0]))), paths)


def _palette(png: bytes) -> bytes:
    """Convert a PNG to 256 colours, which takes a fifth of the bytes. One that is transparent stays as it is."""
    from PIL import Image

    smaller = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        if image.mode == "RGBA" and image.getchannel("A").getextrema() != (255, 255):
            return png
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
