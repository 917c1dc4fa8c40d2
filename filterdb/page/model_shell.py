"""Write the page that shows one model at a time: a shell with script and style, which draws the data of a model."""

from __future__ import annotations

from typing import Any

from filterdb.page.document import document, web_file

SCRIPTS = ("core", "stateless", "charts", "verdicts", "table", "model")
"""The scripts of the page, in order."""


def shell(core: dict[str, Any]) -> bytes:
    """Return the page, given the data in it.

    `core` has the models' names (`models`), their ids in links and names of data files (`ids`), for the list of models
    `tones`, `words` and `layers`, and `pages` if the data of the models are in the page itself.
    """
    script = f"(() => {{\n{''.join(web_file(f'{name}.js') for name in SCRIPTS)}}})();\n"
    style = web_file("page.css") + web_file("model.css")
    return document(
        f"{core['title']} · filterdb",
        web_file("model.html"),
        style=style,
        script=script,
        core=core,
        has_files="pages" not in core,
    )
