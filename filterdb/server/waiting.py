"""The page that is shown at once, until the page itself is computed."""

from __future__ import annotations

from importlib import resources

from filterdb.page.document import document, web_file
from filterdb.page.header import database_name, page_title
from filterdb.plotting.drawing import visible
from filterdb.schema import kernel_name
from filterdb.server.pages import Place
from filterdb.store.database import Database


def waiting_page(db: Database, place: Place) -> bytes:
    """Return the page that shows how far the page at a place is, and loads it when it is there."""
    from jinja2 import Environment, StrictUndefined

    folder = resources.files("filterdb.server").joinpath("web")
    style = web_file("page.css") + folder.joinpath("live.css").read_text("utf-8")
    script = folder.joinpath("waiting.js").read_text("utf-8")
    name = visible(database_name(db.url))
    kernel = (place.folder.rstrip("/") or kernel_name(db.kernel)).replace("x", "×")
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        folder.joinpath("waiting.html").read_text("utf-8")
    )
    body = template.render(
        name=name,
        kernel=kernel,
        url=visible(db.url),
        selection=visible(" and ".join(db.conditions)),
        snapshot=place.snapshot,
    )
    refresh = '<noscript><meta http-equiv="refresh" content="2"></noscript>\n'
    return document(
        page_title(name, kernel), body, style=style, script=script, has_files=False, is_served=True, more=refresh
    )
