"""A report as one page that needs nothing else: no network, no script, no file beside it.

The page forbids itself every request by a Content-Security-Policy; its one style sheet is allowed by its hash, so
that no text of a report could bring another one along.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass, replace
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from redan.evidence.report import AttackerPart, ClassPart, Report
from redan.report import (
    advice,
    axes,
    certified_words,
    defended_words,
    detector_words,
    extraction_plots,
    extraction_tiles,
    extraction_words,
    plots,
    poison_plots,
    poison_words,
    transfer_words,
    words,
)
from redan.report.figures import days, money
from redan.report.gallery import Gallery, Picture, pictures
from redan.report.poison_gallery import PoisonPicture, poison_pictures
from redan.report.untrusted import cleaned, visible

__all__ = ["render"]

_CLASSES = 10
"""How many classes are shown without being asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Class:
    """A class with its rate and interval, in percent."""

    part: ClassPart
    value: float
    span: tuple[float, float] | None


def render(report: Report, gallery: Gallery | None = None) -> str:
    """Write the page. The same report and gallery give the same bytes."""
    gallery = gallery or Gallery()
    shown = pictures(replace(gallery, examples=tuple(replace(e, row=visible(e.row)) for e in gallery.examples)))
    named = tuple((visible(each.example.attacker), each) for each in shown)
    return _page(cleaned(report), named, poison_pictures(gallery))


def _page(report: Report, shown: tuple[tuple[str, Picture], ...], planted: dict[int, PoisonPicture]) -> str:
    environment, style = _environment()
    return environment.get_template("page.html.j2").render(
        report=report,
        words=words,
        advice=advice,
        plots=plots,
        axes=axes,
        certified=certified_words,
        defended=defended_words,
        refusals=detector_words.refusals,
        carried=transfer_words,
        poison=poison_words,
        poison_plots=poison_plots,
        copying=extraction_words,
        copying_plots=extraction_plots,
        copying_tiles=extraction_tiles.tiles,
        planted=lambda part: next((planted.get(i) for i, each in enumerate(report.attackers) if each is part), None),
        style=style,
        style_hash=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii"),
        pictures=shown,
        classes=lambda part: _classes(report, part),
        label=lambda index: words.class_name(report, index),
        few=_CLASSES,
        scores=lambda each: _scores(report, each),
    )


@cache
def _environment() -> tuple[Environment, str]:
    """Where templates are, and the style sheet."""
    loader = PackageLoader("redan", "report")
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(
        sentence=words.sentence, capital=words.capital, percent=words.percent, money=money, days=days
    )
    return environment, loader.get_source(environment, "page.css")[0]


def _classes(report: Report, part: AttackerPart) -> list[_Class]:
    found = []
    for c in words.worst_classes(part):
        between = words.span(report, c.robust, c.drawn, c.errors + c.undecided)
        span = (100 * between[0], 100 * between[1]) if between else None
        found.append(_Class(part=c, value=100 * c.robust / c.drawn, span=span))
    return found


def _scores(report: Report, picture: Picture) -> list[tuple[str, float, float]]:
    """The scores of the right class and of the one answered at the end, before and after."""
    example = picture.example
    if example.scores is None:
        return []
    before, after = example.scores
    shown = dict.fromkeys((example.label, example.adversarial))
    return [(words.class_name(report, k), float(before[k]), float(after[k])) for k in shown if 0 <= k < len(before)]
