"""The summary: a card that answers the first questions, and the other findings as sentences."""

from __future__ import annotations

from typing import Any

from filterdb.page.answers import answer_tiles
from filterdb.page.answers.pairs import grouping
from filterdb.page.highlights import highlights
from filterdb.page.results import Results
from filterdb.page.section import Section


class Summary(Section):
    """Answer what is flagged, which pair is farthest, and whether it can be trusted."""

    position = 10
    title = "Summary"
    template = """\
<section id="summary">
<h2>At a glance</h2>
<p class="soft">D, the drift, is how differently the filters of two groups are distributed: 0 if alike, without an upper limit.{% if has_verdicts %} Two groups differ (≠) or are related (=), their D is like noise (≈; no difference is shown, but they may still differ), or filterdb cannot tell (?; too few models or filters).{% endif %}</p>
<ul class="answers n{{ tiles | length }}">
{% for tile in tiles %}
<li class="answer s-{{ tile.state }}" data-tile="{{ tile.key }}">
<div class="head"><h3>{{ tile.question }}</h3><span class="state"><b aria-hidden="true">{{ tile.symbol }}</b> {{ tile.word }}</span></div>
{% if tile.names | length == 2 %}<p class="names"><span class="a"{% if tile.are_models %} data-model="{{ tile.names[0] }}"{% endif %}>{{ tile.names[0] }}</span> <span class="soft">and</span> <span class="b"{% if tile.are_models %} data-model="{{ tile.names[1] }}"{% endif %}>{{ tile.names[1] }}</span></p>
{% elif tile.names %}<p class="names"><span{% if tile.are_models %} data-model="{{ tile.names[0] }}"{% endif %}>{{ tile.names[0] }}</span></p>{% endif %}
<p class="is">{{ tile.answer }}</p>
<div class="mini"></div>
<ul class="lines">
{% for line in tile.lines %}<li{% if line.state %} class="s-{{ line.state }}"{% endif %}>{% if line.sign %}<b aria-hidden="true">{{ line.sign }}</b> {% endif %}{% if line.name %}<a href="{{ line.href }}">{{ line.name }}</a> {{ line.text }}{% elif line.href %}<a href="{{ line.href }}">{{ line.text }}</a>{% else %}<span>{{ line.text }}</span>{% endif %}</li>
{% endfor %}
</ul>
{% if tile.note %}<p class="note">{{ tile.note }}</p>{% endif %}
{% if tile.link %}<p class="go"><a href="{{ tile.link[1] }}">{{ tile.link[0] }}</a></p>{% endif %}
</li>
{% endfor %}
</ul>
{% if highlights %}
<h3 class="also">Also</h3>
<ul class="findings">
{% for highlight in highlights %}
<li><b>{{ highlight.lead }}</b> {{ highlight.text }} <a href="{{ highlight.href }}">Show<span class="unseen"> {{ highlight.lead }}</span></a></li>
{% endfor %}
</ul>
{% endif %}
</section>
"""  # noqa: E501

    def __init__(self, results: Results) -> None:
        super().__init__(results)
        by = grouping(results)
        self.tiles = answer_tiles(results, by)
        self.highlights = highlights(results, by)

    def context(self) -> dict[str, Any]:
        """Return the tiles of the card and the other findings."""
        has_verdicts = any("verdict" in result for result in self.results.drifts.values())
        return {"tiles": self.tiles, "highlights": self.highlights, "has_verdicts": has_verdicts}

    def core(self) -> Any:
        """Return the data of the tiles' pictures."""
        return {tile.key: tile.picture for tile in self.tiles}


SECTION = Summary
