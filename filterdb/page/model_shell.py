"""Write the page that shows one model at a time: a shell with script and style, which draws the data of a model.

It needs neither Jinja nor matplotlib, so that the page of a file opens quickly and without the extra `report`.
"""

from __future__ import annotations

import html
import re
from importlib import resources
from typing import Any

from filterdb.page import payload
from filterdb.page.policy import content_hash
from filterdb.version import __version__

SCRIPTS = ("core", "stateless", "charts", "verdicts", "table", "model")
"""The scripts of the page, in order."""


def shell(core: dict[str, Any]) -> bytes:
    """Return the page, given the data in it.

    `core` has the models' names (`models`), their ids in links and names of data files (`ids`), for the list of models
    `tones`, `words` and `layers`, and `pages` if the data of the models are in the page itself.
    """
    script = f"(() => {{\n{''.join(web(f'{name}.js') for name in SCRIPTS)}}})();\n"
    style = web("page.css") + web("model.css")
    values = {
        "title": html.escape(f"{core['title']} · filterdb"),
        "version": __version__,
        "script": script,
        "style": style,
        "script_hash": content_hash(script),
        "style_hash": content_hash(style),
        "core": payload.text(core),
    }
    page = re.sub(r"\{\{(\w+)\}\}", lambda match: values[match[1]], web("model.html"))
    return page.encode("utf-8", "replace")


def web(name: str) -> str:
    """Return a file of `web`."""
    return resources.files("filterdb.page").joinpath("web", name).read_text("utf-8")
