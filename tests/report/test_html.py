"""The page: everything is on it, nothing leaves it, hostile text stays text, and everybody can read it."""

from __future__ import annotations

import base64
import hashlib
import re
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from redan.evidence.report import Report, Verdict
from redan.report.gallery import Gallery, pictures, png
from redan.report.html import render
from redan.report.plots import curve, segments
from redan.report.untrusted import visible

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

VOID = {"meta", "link", "img", "rect", "line", "polyline", "polygon", "circle", "path"}
WIDTHS = (390, 1280)


class Read(HTMLParser):
    """A page's tags, attributes and text; every tag must be closed by its own."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        if tag not in {"b", "bdi", "span"}:
            self.texts.append(" ")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.texts).replace("\N{NO-BREAK SPACE}", " ").split())


def test_the_verdict_comes_first_with_what_broke_how_sure_and_what_next(reports: dict[Verdict, Report]) -> None:
    text = Read(render(reports[Verdict.FAIL])).text
    first = text[: text.index("Threat picture")]
    for words in ("Fail", "What broke", "Accuracy under attack by anyone with a camera: ", "required at least 99 %"):
        assert words in first
    assert re.search(r"How sure Accuracy under attack by anyone with a camera is at most \d+\.\d %, at 95 %", first)
    assert "What next Train the model against anyone with a camera within linf: 0.1" in first
    assert "What held" in Read(render(reports[Verdict.PASS])).text
    assert "What is open" in Read(render(reports[Verdict.INCONCLUSIVE])).text


def test_every_part_of_the_report_is_on_the_page(everything: Report) -> None:
    text = Read(render(everything)).text
    expected = [everything.system, everything.run.id, everything.run.folder, *everything.shows_not]
    expected += [value for value in everything.digests.values() if value]
    expected += everything.environment.values()
    expected += [check.check for check in everything.preflight] + ["a third of the rows repeat", "Draw others"]
    expected += [part.attack for part in everything.plan] + [part.reason for part in everything.plan]
    for attacker in everything.attackers:
        expected += [attacker.name, attacker.why, *attacker.techniques]
        expected += [a.settings for a in attacker.attacks] + [f"{a.queries:,}" for a in attacker.attacks]
        expected += [f"{c.name} {c.robust} of {c.drawn}" for c in attacker.by_class if c.drawn]
        expected += [f"{p.radius:.4g} {p.robust} {p.drawn}" for p in attacker.curve]
    expected += ["not built yet", "masked gradients", "A pass cannot rest on these numbers", "connection reset"]
    expected += ["beside the model alone: not shown", "41 rows would hold if the attacker did not know", "+3.1 points"]
    expected += ["3 rows failed or were cut off on one side", "58 rows are right as served, 60 on the model alone"]
    expected += ["skipped on request: square", "our own limit of seconds", "3 not judged", "fast-cascade (cut)", "1.25"]
    flat = text.lower()
    assert [words for words in expected if " ".join(words.split()).lower() not in flat] == []


def test_the_same_report_gives_the_same_page(everything: Report, gallery: Gallery) -> None:
    assert render(everything, gallery) == render(Report.model_validate(everything.model_dump()), gallery)


def test_nothing_on_the_page_asks_for_anything(hostile: Report, gallery: Gallery) -> None:
    for tag, attributes in Read(render(hostile, gallery)).tags:
        assert tag not in {"script", "iframe", "object", "embed", "form", "base", "video", "audio", "source", "use"}
        assert [name for name in attributes if name.startswith("on") or name == "style"] == []
        for name in ("src", "href", "srcset", "action", "data", "poster"):
            assert attributes.get(name, "#").startswith(("#", "data:image/png;base64,", "data:,"))


def test_hostile_text_stays_text(hostile: Report, everything: Report, gallery: Gallery) -> None:
    example = replace(gallery.examples[0], row=hostile.system, attacker=hostile.system)
    page = render(hostile, replace(gallery, examples=(example,)))
    read, honest = Read(page), Read(render(everything, replace(gallery, examples=(example,))))
    assert {tag for tag, _ in read.tags} == {tag for tag, _ in honest.tags}
    for text in (hostile.system, hostile.attackers[0].name, hostile.shows_not[0], hostile.classes[2]):
        assert " ".join(visible(text).split()) in read.text
    assert not re.search("[\x00\x1b\u202e\ud800]", page)
    page.encode()


def test_the_policy_allows_the_one_style_sheet(everything: Report) -> None:
    page = render(everything)
    style = page[page.index("<style>") + 7 : page.index("</style>")]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'" in page


@pytest.mark.parametrize("shape", [(1, 5, 3), (3, 4, 6)])
def test_a_png_holds_the_picture(shape: tuple[int, int, int]) -> None:
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1))
    image[0, 0, 0], image[0, 1, 0], image[0, 0, 1] = -1, torch.nan, 2
    data = png(image)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    chunks, at = {}, 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0] == zlib.crc32(kind + body)
        chunks[kind], at = body, at + 12 + length
    channels, height, width = shape
    assert struct.unpack(">IIBBBBB", chunks[b"IHDR"]) == (width, height, 8, {1: 0, 3: 2}[channels], 0, 0, 0)
    lines = torch.tensor(list(zlib.decompress(chunks[b"IDAT"]))).reshape(height, 1 + width * channels)
    assert lines[:, 0].eq(0).all()
    expected = (image.nan_to_num(0).clamp(0, 1) * 255).round()
    assert lines[:, 1:].reshape(height, width, channels).permute(2, 0, 1).equal(expected.long())


def test_only_images_are_drawn_and_the_largest_difference_is_black_or_white(gallery: Gallery) -> None:
    drawn = pictures(gallery)
    assert [(p.width, p.height) for p in drawn] == [(28, 28), (20, 16)]
    assert drawn[0].factor == pytest.approx(5, rel=1e-5)
    same = replace(gallery.examples[0], x=gallery.examples[0].x0)
    assert pictures(Gallery(examples=(same,)))[0].factor == 1


def test_the_gallery_names_classes_and_scores(everything: Report, gallery: Gallery) -> None:
    text = Read(render(everything, gallery)).text
    assert "pullover → coat" in text
    assert "pullover 2.00 → -2.00, coat 4.00 → -4.00" in text
    assert "difference × 5" in text
    assert "Gallery" not in Read(render(everything, Gallery(examples=gallery.examples[2:]))).text


def test_the_bar_and_the_curve_are_to_scale(everything: Report) -> None:
    part = everything.attackers[0]
    assert part.counts is not None
    bar = segments(part)
    assert sum(s.rows for s in bar) == part.counts.drawn
    assert sum(s.width for s in bar) == pytest.approx(100, abs=0.01)
    drawn = curve(everything, part)
    assert drawn is not None
    heights = [float(point.split(",")[1]) for point in drawn.line.split()]
    assert heights == sorted(heights)  # downward: a picture's heights grow to its foot
    assert [t.label for t in drawn.steps] == ["0", "0.025", "0.05", "0.075", "0.1"]
    top, foot = drawn.shares[-1].at, drawn.shares[0].at
    assert heights[0] == pytest.approx(foot - (foot - top) * part.curve[0].robust / part.curve[0].drawn, abs=0.01)
    assert [t.label for t in drawn.required] == ["70\N{NO-BREAK SPACE}%"]
    assert curve(everything, everything.attackers[1]) is None


def test_intervals_that_would_not_hold_are_not_shown(everything: Report) -> None:
    gate = everything.model_copy(update={"run": everything.run.model_copy(update={"gate": True})})
    assert "pointwise" in render(everything)
    assert "pointwise" not in render(gate)


def test_a_report_of_nothing_is_a_page_too(everything: Report) -> None:
    empty = everything.model_copy(
        update={"requirements": [], "attackers": [], "plan": [], "preflight": [], "shows_not": [], "digests": {}}
    )
    assert "The threat model has none." in Read(render(empty)).text


# -- attackers who change training rows --------------------------------------------------------------------


def section(page: str) -> str:
    """The text of the first attacker's section."""
    return Read(page[page.index('<section id="attacker-1"') : page.index('<section id="limits"')]).text


def test_poisoning_is_told_figure_by_figure(poisoned: dict[str, Report], planted: Gallery) -> None:
    report = poisoned["rich"]
    text = section(render(report, planted))
    expected = [
        "96.8 % of triggered rows answered as the attacker wants, over 10 trained victims; 95 % interval 94.8 to 98.8",
        "badnets, 1 % of the training rows (60 rows)",
        "1.1 % of the same rows, over 10 trained victims without poison",
        "points of clean accuracy: not shown to be equal within 1 point",
        "0.1 % of the training rows is the smallest share tried that breaks the requirement",
        "required 10 %",
        "badnets strongest",
        "sig (cut)",
        "Our limit of seconds ended it.",
        "sleeper-agent (not applicable) sleeper-agent(seed=0) The attacker has no surrogate.",
        "sandal → pullover",
        "pullover (label kept)",
        "it flags pullover; the attacker's label is pullover; its trigger overlaps the planted one by 71.0 %",
        "pullover 4.7 flagged, the attacker's label",
        "sandal – no trigger found",
        "spectral-signatures 0.998 97.0 % 61 q 0.1 60",
        "confident-learning Not applicable: it needs scores of held-out models.",
        "supplier-b 55 60 1,500",
        "fine-pruning 97.0 % → 41.0 % 89.0 % → 86.0 % – no, > 5 %",
        "without-suspects 97.0 % → 1.2 % 89.0 % → 89.1 % 66 yes, ≤ 5 %",
        "loss-isolation Not applicable: the training gives no losses.",
        "Deep partition aggregation: 250 models vote",
        "withstand any change of 0.15 % of the training rows",
        "2 371 of 500 74.2 %",
        "detectors were given 200 of the test rows",
    ]
    assert [words for words in expected if words not in text] == []
    for poisoner in report.attackers[0].poisoning.poisoners if report.attackers[0].poisoning else []:
        for point in poisoner.points:
            assert point.success is not None
            assert (
                f"{100 * point.success.value:.1f} % {100 * point.success.low:.1f}–{100 * point.success.high:.1f}"
                in text
            )
    whole = Read(render(report)).text
    assert "Of triggered rows, 96.8 % as the attacker wants, 3.2 % otherwise" in whole
    assert "96.8 % (mean of 10 victims), 95 % interval" in whole
    assert "Screen the training rows that data contributor can reach with spectral-signatures (AUC 0.998)" in whole


def test_each_kind_of_poisoning_says_what_it_is_about(poisoned: dict[str, Report]) -> None:
    targeted = Read(render(poisoned["targeted"])).text
    assert "70.0 % of chosen rows (14 of 20) answered as the attacker wants, over 20 trained victims" in targeted
    assert "70.0 % (14 of 20 victims)" in targeted
    assert "dotted line" not in targeted  # chosen rows have no victims of clean rows
    lower = Read(render(poisoned["availability"])).text
    assert "71.0 % accuracy on clean rows, over 3 trained victims" in lower
    assert "89.3 % accuracy of 3 trained victims without poison" in lower
    assert "−18.3 points of clean accuracy: different by more than 1 point" in lower
    assert "1 could not be trained or asked, 1 left out; they never help to pass" in lower
    nothing = section(render(poisoned["nothing"]))
    assert "Nothing could be measured: the inputs have no bounds." in nothing
    assert "Spectral-signatures" not in nothing
    assert "spectral-signatures Not applicable: there is no poison to look for." in nothing


def test_pictures_of_poison_stand_with_their_attacker(poisoned: dict[str, Report], planted: Gallery) -> None:
    images = [a for tag, a in Read(render(poisoned["rich"], planted)).tags if tag == "img"]
    assert len(images) == 4 * 3 + 2
    assert images[0]["alt"] == "Training row 1, clean, labeled sandal"
    assert images[1]["alt"] == "Training row 1, poisoned, labeled pullover"
    assert images[0]["src"] != images[1]["src"]
    other = replace(planted.poisoned[0], attacker=1)
    assert "<img" not in render(poisoned["rich"], Gallery(poisoned=(other,)))
    sound = replace(planted.poisoned[0], clean=torch.zeros(4, 2, 28, 28), poisoned=torch.zeros(4, 2, 28, 28))
    assert "<img" not in render(poisoned["rich"], Gallery(poisoned=(sound,)))


def test_hostile_text_about_poison_stays_text(
    poisoned: dict[str, Report], planted: Gallery, made_hostile: Callable[[Report], Report]
) -> None:
    report = made_hostile(poisoned["rich"])
    page = render(report, planted)
    read, honest = Read(page), Read(render(poisoned["rich"], planted))
    assert {tag for tag, _ in read.tags} <= {tag for tag, _ in honest.tags}
    assert [name for _, a in read.tags for name in a if name.startswith("on") or name == "style"] == []
    part = report.attackers[0].poisoning
    assert part is not None
    for text in (part.poisoners[0].name, part.sources[0].source, part.detectors[0].name, part.notes[0]):
        assert " ".join(visible(text).split()) in read.text
    assert not re.search("[\x00\x1b\u202e\ud800]", page)
    page.encode()


def test_an_attacker_of_many_labels_and_sources_has_them_folded(poisoned: dict[str, Report]) -> None:
    document = poisoned["rich"].model_dump()
    part = document["attackers"][0]["poisoning"]
    part["trigger"]["anomaly"] = [0.1 * k for k in range(40)]
    part["sources"] = [{"source": f"s{k}", "rows": 9, "poisoned": k % 2, "suspicious": k} for k in range(25)]
    page = render(Report.model_validate(document))
    for words in ("The other 30 labels", "The other 15 sources", "class 39"):
        assert words in page


# -- attackers who copy the model ---------------------------------------------------------------------------


def test_copying_is_told_figure_by_figure(copied: dict[str, Report]) -> None:
    report = copied["fidelity"]
    text = section(render(report))
    expected = [
        "95.8 % of the test rows answered by a copy as by the model, over 3 copies; 95 % interval 92.1 to 97.9 %",
        "30.00 USD a copy costs: 20,000 answers 20 days at the API's limit for one customer",
        "20,000 answers are the least budget tried whose copies agree on 95 %",
        "The copy answers 88.6 % of the test rows right",
        "Where they differ most, 0.83 of the probability",
        "required 90 %",
        "extractors of one budget stand side by side",
        "knockoff-nets strongest 20,000 30.00 20 3 95.8 % 92.1–97.9 60.4 % 53.6–66.9 88.6 % 83.5–92.2",
        "copycat-cnn 2,000 rows drawn at random 1,000",
        "knockoff-nets 90 % 10,000 15.00 20,000",
        "1.50 USD for 1,000 answers",
        "1,000 answers a day for one customer",
        "rows come from the training rows, 6,000 rows",
        "equation-solving (not applicable) equation-solving(seed=0) AML.T0024.002 The model has 78,500 parameters",
        "No extraction.pool is given",
    ]
    assert [words for words in expected if words not in text] == []
    part = report.attackers[0].extraction
    assert part is not None
    for extractor in part.extractors:
        for point in extractor.points:
            for of in point.compared:
                assert of.fidelity is not None
                ends = f"{100 * of.fidelity.low:.1f}–{100 * of.fidelity.high:.1f}"
                assert text.count(f"{100 * of.fidelity.value:.1f} % {ends}") >= 2  # in both tables
    whole = Read(render(report)).text
    assert "Of test rows, 95.8 % as the model, 4.2 % otherwise" in whole
    assert "Agreement of a stolen copy by API customer: 95.8 % (mean of 3 copies), required at most 90 %." in whole
    assert '<a href="#attacker-1">' in render(report)


def test_each_kind_of_copying_says_what_it_is_about(copied: dict[str, Report]) -> None:
    used = Read(render(copied["transfer"])).text
    for words in (
        "Of the rows that the model answers right, 62.0 % broken, 38.0 % not broken",
        "What the copy is good for Anyone with a camera on the copy: 62.0 %",
        "on the copy of jacobian-augmentation 62.0 % (51.2–71.7)",
        "on the model itself 23.0 % (19.0–27.4)",
        "From 85 broken inputs on the copy is the cheaper way.",
        "used by anyone with a camera",
    ):
        assert words in used
    failed = section(render(copied["errors"]))
    assert "1, 1 failed, 1 left out" in failed
    assert "1,000, 12 not" in failed
    assert "What the copy is good for" not in failed
    assert "USD" not in failed
    ended = section(render(copied["cut"]))
    assert "copycat-cnn (cut) – – – 0, 3 left out – – –" in ended
    nothing = section(render(copied["nothing"]))
    assert "Nothing could be measured: the model answers no rows of ours." in nothing
    assert "What each budget buys" not in nothing


def test_hostile_text_about_copies_stays_text(
    copied: dict[str, Report], made_hostile: Callable[[Report], Report]
) -> None:
    for kind in ("fidelity", "transfer"):
        report = made_hostile(copied[kind])
        page = render(report)
        read, honest = Read(page), Read(render(copied[kind]))
        assert {tag for tag, _ in read.tags} <= {tag for tag, _ in honest.tags}
        assert [name for _, a in read.tags for name in a if name.startswith("on") or name == "style"] == []
        part = report.attackers[0].extraction
        assert part is not None
        for text in (part.extractors[0].name, part.answers, part.pool, part.extractors[0].settings, part.rows):
            assert " ".join(visible(text).split()) in read.text
        assert not re.search("[\x00\x1b\u202e\ud800]", page)
        page.encode()


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Any:
    """A function that opens a page as text in a window, and the addresses that were asked for."""
    contexts = []

    def show(text: str, width: int = 1280, scheme: Any = "light") -> tuple[Page, list[str]]:
        path = tmp_path / "report.html"
        path.write_text(text, encoding="utf-8")
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: asked.append(message.text))
        page.on("dialog", lambda dialog: asked.append(dialog.message))
        page.goto(path.as_uri())
        return page, [url for url in asked if url != path.as_uri() and not url.startswith("data:")]

    yield show
    for context in contexts:
        context.close()


@pytest.mark.parametrize(
    ("verdict", "width", "scheme"),
    [
        (Verdict.FAIL, 390, "light"),
        pytest.param(Verdict.FAIL, 1280, "dark", marks=pytest.mark.slow),
        pytest.param(Verdict.PASS, 390, "dark", marks=pytest.mark.slow),
        pytest.param(Verdict.INCONCLUSIVE, 1280, "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing(
    opened: Any, reports: dict[Verdict, Report], gallery: Gallery, verdict: Verdict, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe  # type: ignore[import-untyped]  # it ships none

    page, _ = opened(render(reports[verdict], gallery), width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = Axe().run(page).response
    assert len(found["passes"]) > 10
    assert [(v["id"], v["impact"], v["nodes"][0]["html"]) for v in found["violations"]] == []


@pytest.mark.parametrize(
    ("kind", "width", "scheme"),
    [
        ("rich", 390, "dark"),
        pytest.param("rich", 1280, "light", marks=pytest.mark.slow),
        pytest.param("nothing", 1280, "dark", marks=pytest.mark.slow),
        pytest.param("targeted", 390, "light", marks=pytest.mark.slow),
        pytest.param("availability", 1280, "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_about_poison(
    opened: Any, poisoned: dict[str, Report], planted: Gallery, kind: str, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page, asked = opened(render(poisoned[kind], planted if kind == "rich" else None), width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = Axe().run(page).response
    assert len(found["passes"]) > 10
    assert [(v["id"], v["impact"], v["nodes"][0]["html"]) for v in found["violations"]] == []
    assert asked == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("img").evaluate_all("all => all.every(each => each.naturalWidth > 1)")


@pytest.mark.parametrize(
    ("kind", "width", "scheme"),
    [
        ("fidelity", 390, "light"),
        pytest.param("transfer", 1280, "dark", marks=pytest.mark.slow),
        pytest.param("transfer", 390, "dark", marks=pytest.mark.slow),
        pytest.param("errors", 1280, "light", marks=pytest.mark.slow),
    ],
)
def test_axe_finds_nothing_about_copies(
    opened: Any, copied: dict[str, Report], kind: str, width: int, scheme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    page, asked = opened(render(copied[kind]), width, scheme)
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    found = Axe().run(page).response
    assert len(found["passes"]) > 10
    assert [(v["id"], v["impact"], v["nodes"][0]["html"]) for v in found["violations"]] == []
    assert asked == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_copies_fit_on_paper(opened: Any, copied: dict[str, Report]) -> None:
    page, _ = opened(render(copied["transfer"]), 672)  # A4 less its margins, in CSS pixels
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 672


@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_copies_are_no_wider_than_the_page(
    opened: Any, copied: dict[str, Report], made_hostile: Callable[[Report], Report], width: int
) -> None:
    page, asked = opened(render(made_hostile(copied["transfer"])), width)
    assert asked == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_poison_fits_on_paper(opened: Any, poisoned: dict[str, Report], planted: Gallery) -> None:
    page, _ = opened(render(poisoned["rich"], planted), 672)  # A4 less its margins, in CSS pixels
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth") <= 672


@pytest.mark.parametrize("width", WIDTHS)
def test_hostile_poison_is_no_wider_than_the_page(
    opened: Any,
    poisoned: dict[str, Report],
    planted: Gallery,
    made_hostile: Callable[[Report], Report],
    width: int,
) -> None:
    page, asked = opened(render(made_hostile(poisoned["rich"]), planted), width)
    assert asked == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", WIDTHS)
def test_no_request_leaves_the_page_and_nothing_is_wider_than_it(
    opened: Any, hostile: Report, gallery: Gallery, width: int
) -> None:
    page, asked = opened(render(hostile, gallery), width)
    assert asked == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("img").evaluate_all("all => all.every(each => each.naturalWidth > 1)")


def test_the_verdict_what_broke_how_sure_and_what_next_need_no_scrolling(
    opened: Any, reports: dict[Verdict, Report]
) -> None:
    page, _ = opened(render(reports[Verdict.FAIL]), 390)
    box = page.locator(".answers").bounding_box()
    assert box is not None
    assert box["y"] + box["height"] <= 800


def test_the_keyboard_reaches_everything(opened: Any, everything: Report) -> None:
    page, _ = opened(render(everything))
    wanted = page.locator("a, summary, [tabindex]").count()
    seen = []
    for _ in range(wanted):
        page.keyboard.press("Tab")
        seen.append(page.evaluate("document.activeElement.outerHTML.slice(0, 80)"))
    assert seen[0].startswith('<a class="skip"')
    closed = page.locator("details:not([open]) [tabindex]").count()
    assert len([each for each in seen if not each.startswith("<body")]) >= wanted - closed
    page.locator("summary").last.focus()
    page.keyboard.press("Enter")
    assert page.locator("details[open]").count() == 1


def test_print_shows_what_the_screen_folds(opened: Any, everything: Report) -> None:
    page, _ = opened(render(everything))
    cell = page.locator("#preflight table td").last
    assert not cell.is_visible()
    page.emulate_media(media="print")
    assert cell.evaluate("each => each.checkVisibility({contentVisibilityAuto: true}) && each.clientHeight > 0")
    assert not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
