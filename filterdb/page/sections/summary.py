"""The summary: the main results in a few sentences, with links to the figures."""

from __future__ import annotations

from typing import Any

from filterdb.page.highlights import highlights
from filterdb.page.section import Section


class Summary(Section):
    """The highlights of a database."""

    position = 10
    title = "Summary"
    template = """\
<section id="summary">
<h2>Summary</h2>
<ul class="findings">
{% for highlight in highlights %}
<li><b>{{ highlight.lead }}</b> {{ highlight.text }} <a href="#{{ highlight.section }}"{% if highlight.group %} data-group="{{ highlight.group }}"{% endif %}{% if highlight.search %} data-layers="{{ highlight.search }}"{% endif %}>Show<span class="unseen"> {{ highlight.lead }}</span></a></li>
{% endfor %}
</ul>
</section>
"""  # noqa: E501

    def context(self) -> dict[str, Any]:
        """Return the highlights."""
        return {"highlights": highlights(self.results)}


SECTION = Summary
