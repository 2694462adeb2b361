"""The film report: one file, every number, sentences that follow the numbers, and a page that a browser draws whole."""

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Page

from tests.sample_records import TITLES, sample_record, with_system
from tidegate.errors import InputValueError
from tidegate.report import DemoRecord, Span, film_page
from tidegate.report.curves import smooth
from tidegate.report.findings import findings
from tidegate.report.maps import unit_order
from tidegate.report.numbers import count, listed, percent, scientific, seconds, spelled


class Elements(HTMLParser):
    """Every element with its attributes, and the text that a person reads (not scripts, not styles)."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._silent = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._silent = tag

    def handle_endtag(self, tag: str) -> None:
        if tag == self._silent:
            self._silent = ""

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.text += data


@pytest.fixture(scope="module")
def record() -> DemoRecord:
    return sample_record(units=12, training_steps=80)


@pytest.fixture(scope="module")
def html(record: DemoRecord) -> str:
    return film_page(record)


@pytest.fixture(scope="module")
def elements(html: str) -> Elements:
    return Elements(html)


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_page_is_one_file(elements):
    for tag, attributes in elements.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:image/jpeg;base64,"), (tag, name, value)
    policies = [a["content"] for tag, a in elements.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert policies[0] is not None
    assert "default-src 'none'" in policies[0]


def test_our_own_style_and_script_fetch_nothing(html):
    own = html.split("/**\n* plotly.js")[0] + html.split('id="figures">')[1]
    assert not re.search(r"@import|https?://|url\((?!#)", own)


def test_the_page_says_what_it_is_to_machines(elements):
    found = dict(elements.elements)
    assert found["html"]["lang"] == "en"
    assert any(a.get("name") == "viewport" for _, a in elements.elements)
    levels = [int(tag[1]) for tag, _ in elements.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    pictures = [a for tag, a in elements.elements if tag == "img"]
    assert all("alt" in a for a in pictures)
    ids = [a["id"] for _, a in elements.elements if "id" in a]
    assert len(ids) == len(set(ids))


def gate_cells(trained: float, untrained: float) -> list[str]:
    """A gate's number, and what it was before training; a gate that is 1 by definition has no before."""
    return [f"{trained:.2f}", *([] if untrained == 1 else [f"from {untrained:.2f}"])]


def test_every_system_and_number_is_there(elements, record):
    text = words(elements.text)
    for system in record.systems:
        numbers = (
            system.title,
            count(system.parameters),
            percent(system.accuracy),
            *gate_cells(system.update_on_opening, system.untrained_update_on_opening),
            *gate_cells(system.update_on_advert, system.untrained_update_on_advert),
            percent(system.memory_opening),
            percent(system.memory_advert),
            percent(system.memory_rest),
            *(["by definition"] if system.system in ("dense", "rnn") else []),
            scientific(system.gradient),
            seconds(system.seconds),
        )
        assert words(" ".join(numbers)) in text, system.system
    for number in (record.seed, record.training_steps, record.batch_size, record.hidden_size, record.chrono_steps):
        assert str(number) in text.split("How this was made")[1]
    for attribution in ("Anokato", "Spiral Sessions 2019", "CC BY 4.0", "Big Buck Bunny", "Blender", "CC BY 3.0"):
        assert attribution in text
    for name, version in record.versions.items():
        assert f"{name} {version}" in text
    assert "reset (relevance) gate" in text[: text.index("Gr")]


def test_every_frame_is_in_the_strip_and_every_span_in_its_place(elements, record):
    frames = [a for tag, a in elements.elements if tag == "img" and a["alt"] == ""]
    assert [a["title"] for a in frames] == [f"step {step}" for step in range(50)]
    large = [a["alt"] or "" for tag, a in elements.elements if tag == "img" and a["alt"]]
    assert all(any(span.shot in alt for alt in large) for span in record.film.spans)
    figures = [a for tag, a in elements.elements if tag == "figure" and "span" in (a.get("class") or "")]
    widths = [a["style"] for a in figures]
    assert widths == [f"grid-column:span {span.stop - span.start}" for span in record.film.spans]


def test_hostile_names_are_text(record):
    name = "<script>alert('&')</script>"
    spans = tuple(replace(span, shot=name) if span.kind != "advert" else span for span in record.film.spans)
    hostile = replace(record, film=replace(record.film, spans=spans), versions={name: name})
    hostile = with_system(hostile, "gru", title=name, answer=name)
    page = film_page(hostile)
    scripts = [tag for tag, _ in Elements(page).elements if tag == "script"]
    assert len(scripts) == len([tag for tag, _ in Elements(film_page(record)).elements if tag == "script"])
    assert "<script>alert" not in page
    assert name in Elements(page).text


def test_the_same_record_gives_the_same_page(record, html):
    assert film_page(record) == html
    assert film_page(sample_record(units=12, training_steps=80)) == html
    assert film_page(replace(record, seed=8)) != html


def sentences(record: DemoRecord) -> str:
    return " ".join(findings(record)).replace("\u202f", " ")


def accuracies(record: DemoRecord, value: float) -> DemoRecord:
    return replace(record, systems=tuple(replace(system, accuracy=value) for system in record.systems))


def test_the_headline_follows_the_accuracies(record):
    assert "GRU did best" in sentences(record)
    assert "20.0 % can be had without it, by ruling out the shots that came later" in sentences(record)
    assert "as far as their answers show: the Dense layer (12.2 %) and the RNN (15.2 %);" in sentences(record)
    within = with_system(record, "gru-default-init", accuracy=0.23)  # within two standard errors of ruling out
    assert "(15.2 %) and the GRU, PyTorch's initialisation (23.0 %)" in sentences(within)
    assert "two standard errors more, 4.0 percentage points, may be luck." in sentences(within)
    assert "(23.0 %)" not in sentences(replace(within, elimination=0.15))
    assert "Not clearly better than guessing either: the Dense layer and the RNN." in sentences(record)
    assert "guessing either: the Dense layer." in sentences(with_system(record, "rnn", accuracy=0.18))
    above = with_system(with_system(record, "rnn", accuracy=0.18), "dense", accuracy=0.18)
    assert "the Dense layer (18.0 %) and the RNN (18.0 %)" in sentences(above)
    assert "guessing either" not in sentences(above)
    assert sentences(accuracies(record, 0.19)).count("(19.0 %)") == 5  # above chance, yet nobody remembers
    turned = with_system(with_system(record, "gru", accuracy=0.1), "rnn", accuracy=0.999)
    assert "RNN did best: it named the opening shot in 99.9 %" in sentences(turned)
    assert "GRU did worst, with 10.0 %" in sentences(turned)
    assert "No network did clearly better than guessing" in sentences(accuracies(record, 0.13))
    assert "All networks did equally well: 90.0 %" in sentences(accuracies(record, 0.9))
    assert "Every network remembers the opening" in sentences(accuracies(record, 0.9))


def test_the_headline_follows_the_gates(record):
    def gates(opening: float, advert: float) -> str:
        return sentences(with_system(record, "gru", update_on_opening=opening, update_on_advert=advert))

    assert "less open during the advert than during the opening: 0.10 on average, against 0.50" in gates(0.5, 0.1)
    assert "wider open during the advert than during the opening" in gates(0.1, 0.5)
    assert "about as far open during the advert as during the opening" in gates(0.3, 0.31)
    before = with_system(record, "gru", untrained_update_on_advert=0.21, untrained_update_on_opening=0.43)
    assert "Before training it was 0.21 and 0.43." in sentences(before)


def test_the_table_tells_what_was_learned_from_what_was_given(record, html):
    text = Elements(html).text
    assert "from 0.07" in text
    assert "from 0.51" in text
    assert "from 1.00" not in text  # what has no gate starts and stays at 1 by definition
    cells = [a for tag, a in Elements(html).elements if tag == "td" and "defined" in (a.get("class") or "")]
    assert len(cells) == 2 * 5  # two gates and three shares, of the dense layer and of the RNN
    marks = [a for tag, a in Elements(html).elements if tag == "small" and a.get("class") == "defined"]
    assert len(marks) == 2
    gated = replace(record, systems=record.systems[2:])
    assert not any("defined" in (a.get("class") or "") for _, a in Elements(film_page(gated)).elements)


def test_both_baselines_are_on_the_page(record):
    text = words(Elements(film_page(replace(record, chance=0.111, elimination=0.222))).text)
    assert "Guessing (chance)11.1 %" in text
    assert "Ruling out later shots22.2 %" in text
    assert "22.2 % can be had without a memory of the opening" in text


@pytest.mark.parametrize(
    ("gru", "rnn", "said"),
    [
        (1e-2, 1e-12, "1.0 × 10¹⁰ times as strongly in the GRU as in the RNN"),
        (1e-3, 1e-2, "10 times as strongly in the RNN as in the GRU"),
        (0.2, 0.3, "about equally in both"),
        (0.2, 0.0, "only in the GRU"),
        (0.0, 0.0, "in neither"),
    ],
)
def test_the_headline_follows_the_gradients(record, gru, rnn, said):
    changed = with_system(with_system(record, "gru", gradient=gru), "rnn", gradient=rnn)
    assert said in sentences(changed)


def test_the_headline_follows_the_initialisation(record):
    assert "points less" in sentences(record)
    assert "points more" in sentences(with_system(record, "gru", accuracy=0.3))
    assert "no clear difference" in sentences(with_system(record, "gru-default-init", accuracy=0.98))


def test_the_headlines_are_on_the_page(html, record):
    text = words(Elements(html).text)
    assert all(words(sentence) in text for sentence in findings(record))


def test_gates_that_a_system_lacks_are_said_not_drawn(elements):
    text = words(elements.text)
    assert "RNN has no update gate: by definition Gu = 1" in text
    assert "Dense layer has no reset gate: by definition Gr = 0" in text
    assert "Update-only GRU has no reset gate: by definition Gr = 1" in text
    assert "GRU has no update gate" not in text


def test_a_gradient_of_zero_is_said(record):
    norms = record.systems[1].gradient_norms.copy()
    norms[[0, 1, 2, 7]] = 0
    text = words(Elements(film_page(with_system(record, "rnn", gradient_norms=norms))).text)
    assert "RNN is exactly 0 at t = 0 to 2 and 7" in text
    assert "Dense layer is exactly 0 at t = 0 to 49, for it never looks back" in text


def test_fewer_systems_and_other_spans_make_a_page(record):
    spans = (Span("opening", "a", 0, 9), Span("advert", "advert", 9, 10), Span("rest", "b", 10, 50))
    few = replace(record, systems=record.systems[:2], film=replace(record.film, spans=spans))
    text = words(Elements(film_page(few)).text)
    assert "Two networks" in text
    assert "nine from one shot" in text
    assert 'id="plot-gradient-gated"' not in film_page(few)


def test_units_are_ordered_by_what_they_hold_of_the_opening(record):
    gru = record.systems[3]
    held = gru.memory[1:6].sum(axis=0)[unit_order(gru, record.film)]
    assert (np.diff(held) <= 0).all()
    assert sorted(unit_order(gru, record.film)) == list(range(12))


def test_smoothing_is_the_mean_of_the_last_steps():
    values = np.array([4, 2, 6, 0, 3], np.float32)
    np.testing.assert_allclose(smooth(values, 3), [4, 3, 4, 8 / 3, 3])
    np.testing.assert_array_equal(smooth(values, 1), values)


def test_numbers_as_people_read_them():
    assert percent(0.934) == "93.4\u202f%"
    assert percent(0.0001) == "<\u202f0.1\u202f%"
    assert percent(0.0) == "0.0\u202f%"
    assert scientific(3.2e-17) == "3.2\u202f×\u202f10⁻¹⁷"
    assert scientific(0.0) == "0"
    assert scientific(2.013) == "2.01"
    assert scientific(0.1) == "0.10"
    assert scientific(999.4) == "999"
    assert scientific(1000.0) == "1.0\u202f×\u202f10³"
    assert scientific(999.9) == "1000"
    assert (seconds(3.14159), seconds(31.4159), seconds(314.159)) == ("3.14", "31.4", "314")
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c"]) == "a, b and c"
    assert (spelled(2), spelled(41), count(12345)) == ("two", "41", "12\u202f345")


def bad_spans(record: DemoRecord, *spans: Span) -> DemoRecord:
    return replace(record, film=replace(record.film, spans=spans))


def bad_system(record: DemoRecord, **changes: Any) -> DemoRecord:
    return with_system(record, "gru", **changes)


OPENING, ADVERT = Span("opening", "a", 0, 5), Span("advert", "advert", 5, 9)

REFUSED: dict[str, tuple[Callable[[DemoRecord], DemoRecord], str]] = {
    "spans with a gap": (lambda r: bad_spans(r, OPENING, ADVERT, Span("rest", "b", 10, 50)), r"spans\[2\].*step 9"),
    "spans that overlap": (lambda r: bad_spans(r, OPENING, ADVERT, Span("rest", "b", 8, 50)), r"spans\[2\].*step 9"),
    "an empty span": (lambda r: bad_spans(r, OPENING, Span("advert", "advert", 5, 5)), r"at least one step"),
    "spans too short": (lambda r: bad_spans(r, OPENING, ADVERT), r"50 frames; got 9"),
    "no spans": (bad_spans, r"got none"),
    "no opening": (
        lambda r: bad_spans(r, replace(OPENING, kind="rest"), replace(ADVERT, stop=50)),
        r"'opening'; got 0",
    ),
    "an unknown kind": (lambda r: bad_spans(r, replace(OPENING, kind="news")), r"got 'news'"),
    "frames without colours": (
        lambda r: replace(r, film=replace(r.film, frames=np.zeros((50, 2, 2), np.uint8))),
        r"frames must be \(T, height, width, 3\)",
    ),
    "too few gates": (
        lambda r: bad_system(r, update=r.systems[3].update[:-1]),
        r"update of the system 'gru'.*\(50, 12\)",
    ),
    "too few shares": (
        lambda r: bad_system(r, memory=r.systems[3].memory[1:]),
        r"memory of the system 'gru'.*\(51, 12\)",
    ),
    "too few norms": (lambda r: bad_system(r, gradient_norms=np.ones(50, np.float32)), r"gradient_norms.*\(51,\)"),
    "too few losses": (lambda r: bad_system(r, losses=np.ones(3, np.float32)), r"losses.*\(80,\); got \(3,\)"),
    "a loss that is not finite": (lambda r: bad_system(r, losses=np.full(80, np.nan, np.float32)), r"losses.*finite"),
    "a gate above 1": (lambda r: bad_system(r, reset=r.systems[3].reset + 1), r"reset.*0\.\.1"),
    "shares that sum to less": (lambda r: bad_system(r, memory=r.systems[3].memory / 2), r"sum to 1"),
    "a norm below zero": (lambda r: bad_system(r, gradient_norms=np.full(51, -1, np.float32)), r"not be negative"),
    "a gradient below zero": (lambda r: bad_system(r, gradient=-1.0), r"gradient of the system 'gru'"),
    "an accuracy above 1": (lambda r: bad_system(r, accuracy=93.4), r"accuracy of the system 'gru'.*got 93.4"),
    "an accuracy that is no number": (lambda r: bad_system(r, accuracy=float("nan")), r"accuracy.*got nan"),
    "an unknown system": (lambda r: bad_system(r, system="lstm"), r"got 'lstm'"),
    "a system twice": (lambda r: bad_system(r, system="rnn"), r"every system once"),
    "no systems": (lambda r: replace(r, systems=()), r"at least one system"),
    "no test sequences": (lambda r: replace(r, test_sequences=0), r"test_sequences must be at least 1; got 0"),
    "elimination of 0": (lambda r: replace(r, elimination=0.0), r"elimination must lie between 0 and 1; got 0"),
    "elimination of 1": (lambda r: replace(r, elimination=1.0), r"elimination must lie between 0 and 1; got 1"),
    "no elimination": (lambda r: replace(r, elimination=float("nan")), r"elimination must lie between.*got nan"),
    "elimination below chance": (lambda r: replace(r, elimination=0.12), r"not be less than chance, 0.125.*got 0.12"),
    "an untrained gate that is no number": (
        lambda r: bad_system(r, untrained_update_on_opening=float("nan")),
        r"untrained_update_on_opening of the system 'gru'.*got nan",
    ),
    "a gate where there is none": (
        lambda r: with_system(r, "rnn", untrained_update_on_advert=0.5),
        r"untrained_update_on_advert of the system 'rnn' must be 1, by definition; got 0.5",
    ),
    "an untrained gate above 1": (
        lambda r: with_system(r, "gru", untrained_update_on_advert=1.5),
        r"untrained_update_on_advert of the system 'gru' must lie in 0\.\.1",
    ),
    "chance above 1": (lambda r: replace(r, chance=1.5), r"chance must lie in 0\.\.1"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_bad_records_are_refused_in_one_sentence(record, case):
    spoil, said = REFUSED[case]
    with pytest.raises(InputValueError, match=said) as refused:
        film_page(spoil(record))
    assert "\n" not in str(refused.value)


PLOTS = ("update", "reset", "memory", "share", "gradient-ungated", "gradient-gated", "loss", "accuracy")


def drawn(page: Page, plot: str) -> bool:
    """Whether a plot is seen and holds something of what it is made of."""
    marks = f"#plot-{plot} :is(.heatmaplayer image, .barlayer path, .scatterlayer path)"
    return page.locator(f"#plot-{plot}").is_visible() and page.locator(marks).count() > 0


def edges(page: Page, selector: str) -> list[tuple[float, float]]:
    """The left and right edge of every element, in pixels."""
    script = "all => all.map(one => one.getBoundingClientRect()).map(box => [box.left, box.right])"
    found: list[list[float]] = page.locator(selector).evaluate_all(script)
    return [(left, right) for left, right in found]


@pytest.mark.browser
@pytest.mark.parametrize("size", [(1280, 900), (390, 844)], ids=["desk", "phone"])
def test_a_browser_draws_the_page_whole(browser, html, tmp_path, size):
    file = tmp_path / "film.html"
    file.write_text(html, encoding="utf-8")
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    problems: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-drawn]")

    assert [plot for plot in PLOTS if not drawn(page, plot)] == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    cut = page.locator("main figure, main .plot, main table, main .note").evaluate_all(
        "all => all.filter(one => !one.closest('.scroll') && one.getBoundingClientRect().right > innerWidth).length"
    )
    assert cut == 0

    columns = edges(page, ".frames img")
    step = columns[0][1] - columns[0][0]
    for plot in ("update", "reset"):
        (left, right), *more = edges(page, f"#plot-{plot} .heatmaplayer image")
        assert not more
        assert left == pytest.approx(columns[0][0], abs=1.5)
        assert right == pytest.approx(columns[-1][1], abs=1.5)
    bars = edges(page, "#plot-share .barlayer .point path")
    for bar, column in zip(sorted(bars)[-len(columns) :], columns, strict=True):
        assert abs(sum(bar) - sum(column)) / 2 < 0.1 * step
    for (left, right), span in zip(edges(page, ".span"), sample_record().film.spans, strict=True):
        assert left == pytest.approx(columns[span.start][0], abs=1)
        assert right == pytest.approx(columns[span.stop - 1][1], abs=1)

    assert problems == []
    assert requests[0] == file.as_uri()
    assert all(request.startswith(("data:", "blob:")) for request in requests[1:])
    page.close()


@pytest.mark.browser
def test_a_box_that_scrolls_says_so(browser, html, tmp_path):
    file = tmp_path / "film.html"
    file.write_text(html, encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-drawn]")
    assert page.locator(".sideways").count() == page.locator(".scroll").count() == 3
    assert page.locator("[data-overflows]").count() == 0
    assert page.locator(".swipe:visible").count() == 0

    page.set_viewport_size({"width": 390, "height": 844})
    page.wait_for_function("document.querySelectorAll('[data-overflows]').length === 3")
    assert page.locator(".swipe:visible").count() == 3
    shade = "(box, side) => getComputedStyle(box.querySelector('.edges'), side).opacity"
    for box in page.locator(".sideways").all():
        assert [box.evaluate(shade, side) for side in ("::before", "::after")] == ["0", "1"]
        box.locator(".scroll").evaluate("one => { one.scrollLeft = one.scrollWidth }")
        page.wait_for_function("box => !box.hasAttribute('data-after')", arg=box.element_handle())
        assert [box.evaluate(shade, side) for side in ("::before", "::after")] == ["1", "0"]
    page.close()


@pytest.mark.browser
def test_switching_the_system_switches_the_film(browser, html, tmp_path):
    file = tmp_path / "film.html"
    file.write_text(html, encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-drawn]")
    assert page.locator("input[name=system]:checked").get_attribute("value") == "gru"
    before = page.locator("#plot-memory .heatmaplayer image").first.get_attribute("href")

    for system in TITLES:
        page.locator(f"input[value={system}]").check()
        gates = ("update", "reset") if system.startswith("gru") else ("update",) if system == "update-only" else ()
        for plot in ("update", "reset"):
            page.locator(f"#plot-{plot}").wait_for(state="visible" if plot in gates else "hidden")
            note = page.locator(f".note[data-system={system}]").filter(has_text=f"no {plot} gate")
            assert note.count() == (plot not in gates)
            assert note.count() == 0 or note.is_visible()
        assert page.locator(".film .note:visible").last.inner_text().startswith(f"In this film {TITLES[system]} ends")
        assert drawn(page, "memory")
        assert drawn(page, "share")
    page.locator("input[value=rnn]").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("input[name=system]:checked").get_attribute("value") == "update-only"
    page.wait_for_function(
        "before => document.querySelector('#plot-memory .heatmaplayer image').getAttribute('href') !== before",
        arg=before,
    )
    page.close()


@pytest.mark.browser
def test_the_plots_follow_the_dark_scheme(browser, html, tmp_path):
    file = tmp_path / "film.html"
    file.write_text(html, encoding="utf-8")
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-drawn]")
    bar = page.locator("#plot-share .barlayer .point path").nth(2)
    light = bar.evaluate("one => getComputedStyle(one).fill")
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(
        "light => getComputedStyle(document.querySelectorAll('#plot-share .barlayer .point path')[2]).fill !== light",
        arg=light,
    )
    page.close()
