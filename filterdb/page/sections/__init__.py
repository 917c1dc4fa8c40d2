"""The sections of the page, one module each. To add one, add a module here and its script `web/sections/<name>.js`.

A module defines `SECTION`, a subclass of `filterdb.page.section.Section`. `section_classes` finds all modules.
"""

from __future__ import annotations

import pkgutil
from importlib import import_module

from filterdb.page.section import Section


def section_classes() -> list[type[Section]]:
    """Return the class of every section in the order of the page."""
    modules = [import_module(f"{__name__}.{module.name}") for module in pkgutil.iter_modules(__path__)]
    classes: list[type[Section]] = [module.SECTION for module in modules]
    return sorted(classes, key=lambda section: (section.position, section.name()))
