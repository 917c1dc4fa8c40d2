"""The registry: a section is a module and a script of the same name, and nothing else."""

from __future__ import annotations

import json
import re
import sys
from importlib import resources
from pathlib import Path

import dask
import pytest

import filterdb as fdb
from filterdb.page import sections
from filterdb.page.section import Section

TOY = '''
from filterdb.page.section import Section

class Toy(Section):
    position, title = 15, "Toy <b>"
    template = """<section id="toy"><h2>{{ text }}</h2></section>"""

    def context(self):
        return {"text": "a & b"}

    def core(self):
        return {"layers": self.results.db.counts["layers"]}

    @classmethod
    def script(cls):
        return "makers.toy = () => {};"

SECTION = Toy
'''


def test_each_section_is_a_module_and_a_script() -> None:
    classes = sections.section_classes()
    names = [section.name() for section in classes]
    assert names[0] == "summary"
    web = resources.files("filterdb.page").joinpath("web", "sections")
    assert sorted(f"{name}.js" for name in names) == sorted(path.name for path in web.iterdir())
    assert len({section.position for section in classes}) == len(classes)
    for section in classes:
        assert issubclass(section, Section)
        assert f'<section id="{section.name()}">' in section.template


@pytest.mark.slow
def test_a_new_section_is_found(page_db: fdb.Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.py").write_text(TOY)
    monkeypatch.setattr(sections, "__path__", [*sections.__path__, str(tmp_path)])
    monkeypatch.setattr(sections, "toy", None, raising=False)
    with dask.config.set(scheduler="threads"):
        few = page_db.select(model=["model 1"])
        try:
            text = Path(fdb.report(few, tmp_path / "page", densities=False)).read_text()
        finally:
            sys.modules.pop(f"{sections.__name__}.toy", None)
    assert '<li><a href="#toy">Toy &lt;b&gt;</a></li>' in text
    assert '<section id="toy"><h2>a &amp; b</h2></section>' in text
    assert text.index('id="summary"') < text.index('id="toy"') < text.index('id="contents"')
    core = re.search(r'id="core">(.*?)</script>', text)
    assert core is not None
    assert json.loads(core[1])["sections"]["toy"] == {"layers": few.counts["layers"]}
    assert "makers.toy = () => {};" in text
