"""The page of a run: one file, every number in words too, whatever the task and variant, drawn whole by a browser."""

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Browser, Page

from tests.test_forecast_inspection import data_of as forecast_data
from tests.test_forecast_inspection import model_of as forecast_model
from tests.test_forecast_inspection import task_of as forecast_task
from tests.test_inspection import CLASSES, FACTS, NUMBER, NUMBERS, STEPS, data_of, model_of
from tests.test_report import Elements
from tests.train_helpers import sequences_of
from tidegate.data.sequences import Feature
from tidegate.errors import InputValueError
from tidegate.report.numbers import count, percent
from tidegate.report.run_page import run_page
from tidegate.report.run_records import Check, Checked, RunRecord
from tidegate.report.run_words import finding_sentences, rows, verdict
from tidegate.train.inspection import Asked, inspect


def record_of(task, lengths=(9, 14, 6), width=2, **config) -> RunRecord:
    rng = np.random.default_rng(4)
    times = np.concatenate([np.cumsum(rng.uniform(0.5, 1.5, length)) for length in lengths])
    return inspect(
        model_of(task, width, **config), task, FACTS, data_of(task, lengths, width, times=times), name="r", time="at"
    )


@pytest.fixture(scope="module")
def record() -> RunRecord:
    return record_of(CLASSES)


@pytest.fixture(scope="module")
def html(record) -> str:
    return run_page(record)


@pytest.fixture(scope="module")
def elements(html) -> Elements:
    return Elements(html)


def test_the_page_is_one_file(html, elements):
    for tag, attributes in elements.elements:
        assert tag not in ("link", "iframe", "object", "embed", "base"), tag
        for name in ("src", "href", "srcset", "poster", "data", "action"):
            assert attributes.get(name) is None, (tag, name)
    policies = [a["content"] for tag, a in elements.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert len(policies) == 1
    assert "default-src 'none'" in (policies[0] or "")
    own = html.split("/**\n* plotly.js")[0] + html.split('id="figures">')[1]
    assert not re.search(r"@import|https?://|url\((?!#)", own)


def test_the_page_says_what_it_is_to_machines(elements):
    assert dict(elements.elements)["html"]["lang"] == "en"
    levels = [int(tag[1]) for tag, _ in elements.elements if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    ids = [a["id"] for _, a in elements.elements if "id" in a]
    assert len(ids) == len(set(ids))
    plots = [a for tag, a in elements.elements if (a.get("id") or "").startswith("plot-")]
    assert all(a["role"] == "img" and a["aria-label"] for a in plots)


def test_every_number_is_in_words_too(elements, record):
    def bare(text: str) -> str:
        return "".join(text.split())

    text = bare(elements.text)
    for row in rows(record):
        assert bare(f"{row.name} {row.why} {row.steps} {row.said} {row.label}") in text
        assert bare(f"{row.update} {row.half} {row.initial} {row.gradient}") in text
    for sentence in finding_sentences(record):
        assert bare(sentence) in text
    assert bare(verdict(record.check).numbers) in text
    for one in record.health:
        assert f"{one.update:.3f}" in text
        assert all(bare(sentence[1:]) in text and bare(advice[1:]) in text for sentence, advice in one.findings)
    for name, value in record.facts:
        assert bare(f"{name} {value}") in text


def test_the_table_is_of_the_shares(record):
    for row, one in zip(rows(record), record.sequences, strict=True):
        (direction,) = one.directions
        back = np.cumsum(direction.share[::-1])
        assert int(row.half) == int(np.searchsorted(back, 0.5)) + 1
        assert row.initial == percent(direction.initial)


def test_the_same_record_gives_the_same_page(record, html):
    assert run_page(record) == html
    assert run_page(record_of(CLASSES)) == html


def test_hostile_names_are_text(record):
    name = "<script>alert('&')</script>"
    bad = replace(record, name=name, label=name, files=(name,), versions={name: name}, facts=((name, name),))
    one = bad.sequences[0]
    lines = tuple(replace(line, name=name) for line in one.lines)
    answer = replace(one.answer, said=name, label=name, classes=(name, name), probabilities=((name, 0.5),))
    axis = replace(one.axis, title=name)
    bad = replace(bad, sequences=(replace(one, name=name, lines=lines, answer=answer, axis=axis),))
    page = run_page(bad)
    scripts = [tag for tag, _ in Elements(page).elements if tag == "script"]
    assert len(scripts) == len([tag for tag, _ in Elements(run_page(record)).elements if tag == "script"])
    assert "<script>alert" not in page
    assert name in Elements(page).text


def test_a_record_without_sequences_is_refused(record):
    with pytest.raises(InputValueError, match="at least one sequence"):
        run_page(replace(record, sequences=()))
    other = record_of(CLASSES, num_layers=2).sequences
    with pytest.raises(InputValueError, match="same layers"):
        run_page(replace(record, sequences=(*record.sequences, *other)))


def check_of(forgotten: float, remembered: float, *, classes: bool = True, without: int = 0) -> Check:
    one = Checked("s", forgotten, remembered, forgotten > 0.4, remembered > 0.4, 0.03, 0.9, 0.5)
    return Check((one,) * 10, without, 0.05, classes, "the answer")


@pytest.mark.parametrize(
    ("forgotten", "remembered", "word"),
    [
        (0.01, 0.6, "honest"),
        (0.3, 0.6, "not honest"),
        (0.3, 0.0, "not honest"),
        (0.01, 0.02, "nothing to tell"),
        (0.04, 0.06, "nothing to tell"),
    ],
)
def test_the_verdict_follows_the_numbers(forgotten, remembered, word):
    found = verdict(check_of(forgotten, remembered))
    assert found.word == word
    text = found.sentence.replace("\u202f", " ")
    assert f"moved the answer by {100 * forgotten:.1f} % of its probability" in text
    assert f"(90 % of the state): {100 * remembered:.1f} % and {10 * (remembered > 0.4)}." in text
    number = verdict(check_of(forgotten, remembered, classes=False))
    assert number.word == word
    assert f"{forgotten:.3f} of the label's spread" in number.sentence


def test_numbers_that_are_not_finite_make_a_page_that_says_so():
    model = model_of(CLASSES)
    with torch.no_grad():
        dict(model.layer.named_parameters())["weight_ih_l0"][0, 0] = float("nan")
    record = inspect(model, CLASSES, FACTS, data_of(CLASSES))
    text = Elements(run_page(record)).text
    assert "could not be checked" in text
    assert "States are NaN or infinite" in text


def test_layers_that_are_too_many_are_told():
    record = record_of(CLASSES, num_layers=5, bidirectional=True)
    assert record.sequences[0].directions[0].place == "layer 1, forward"
    assert "2 more layers and directions are not shown; --layer shows others." in Elements(run_page(record)).text
    one = inspect(model_of(CLASSES, num_layers=9), CLASSES, FACTS, data_of(CLASSES), Asked(layers=(0, 2)))
    assert [direction.place for direction in one.sequences[0].directions] == ["layer 0", "layer 2"]
    assert one.left_out == 0


def test_what_could_not_be_checked_is_said(record):
    assert "In 3 more the map calls no step forgotten." in verdict(check_of(0.0, 0.5, without=3)).sentence
    page = run_page(replace(record, check=Check((), 4, 0.05, True, "the answer")))
    assert "could not be checked: the map calls no step forgotten" in Elements(page).text


KINDS = {
    "classes": lambda: record_of(CLASSES),
    "one step": lambda: record_of(CLASSES, (1, 1)),
    "classes, both ways": lambda: record_of(CLASSES, num_layers=2, bidirectional=True),
    "steps": lambda: record_of(STEPS),
    "steps, both ways": lambda: record_of(STEPS, bidirectional=True),
    "number": lambda: record_of(NUMBER),
    "numbers": lambda: record_of(NUMBERS),
    "long": lambda: record_of(NUMBERS, (1000, 30)),
    "many inputs": lambda: record_of(CLASSES, width=30),
    "many units": lambda: record_of(CLASSES, hidden=150),
    "rnn": lambda: record_of(CLASSES, variant="rnn"),
    "dense": lambda: record_of(STEPS, variant="dense"),
    "update-only": lambda: record_of(CLASSES, variant="update-only"),
    "layer-norm": lambda: record_of(CLASSES, variant="gru-layer-norm"),
    "text": lambda: of_features([Feature("byte", "category", tuple(f"0x{byte:02x}" for byte in range(256)))]),
    "categories and gaps": lambda: of_features([Feature("x"), Feature("kind", "category", ("a", "b", "c"))]),
    "frames": lambda: of_features([Feature(f"row0_column0_{colour}") for colour in ("red", "green", "blue")]),
    "forecast": lambda: forecast_record((14, 30, 9), 4),
    "forecast, next": lambda: forecast_record((14, 1), 1, (0.5,)),
    "forecast, long": lambda: forecast_record((900, 30), 600, (0.05, 0.2, 0.5, 0.8, 0.95)),
    "no label": lambda: inspect(
        model_of(CLASSES), CLASSES, FACTS, replace(data_of(CLASSES), label=None), Asked(sequences=2)
    ),
}


def forecast_record(
    lengths: tuple[int, ...], horizon: int, quantiles: tuple[float, ...] = (0.1, 0.5, 0.9)
) -> RunRecord:
    task, data = forecast_task(horizon, quantiles), forecast_data(lengths, horizon, 0.1, "even")
    return inspect(forecast_model(task, data), task, FACTS, data, time="at")


def of_features(features: list[Feature]) -> RunRecord:
    from tidegate.train.model import ModelConfig, SequenceModel  # noqa: PLC0415

    rng = np.random.default_rng(0)
    pieces = []
    for _ in range(3):
        columns = []
        for feature in features:
            if feature.name == "byte":
                columns.append(np.frombuffer(b"some text to be read", np.uint8).astype(float))
            elif feature.kind == "category":
                columns.append(np.repeat([0.0, 1, 2, np.nan], 5))
            else:
                columns.append(np.where(rng.random(20) < 0.2, np.nan, rng.random(20)))
        pieces.append(np.stack(columns, -1))
    data = sequences_of(pieces, features=features, label=[0, 1, 0], categories=("a", "b"))
    config = ModelConfig(tuple(features), (False,) * len(features), 2, False, hidden_size=4)
    return inspect(SequenceModel(config).eval(), CLASSES, FACTS, data)


def opened(browser: Browser, html: str, folder: Path, size=(1280, 900), **options) -> tuple[Page, list[str]]:
    """The page drawn, and what it complained of or asked for beside itself."""
    file = folder / "run.html"
    file.write_text(html, encoding="utf-8")
    page = browser.new_page(viewport={"width": size[0], "height": size[1]}, **options)
    problems: list[str] = []
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on(
        "request",
        lambda request: (
            None
            if request.url == file.as_uri() or request.url.startswith(("data:", "blob:"))
            else problems.append(request.url)
        ),
    )
    page.goto(file.as_uri())
    page.wait_for_selector("html[data-drawn]")
    return page, problems


MARKS = ":is(.heatmaplayer image, .barlayer path, .scatterlayer path, .scatterlayer text, .layer-above image)"


def empty_plots(page: Page) -> list[str]:
    """The plots that are seen and hold nothing."""
    plots = page.locator(".plot:visible").all()
    return [plot.get_attribute("id") or "" for plot in plots if plot.locator(MARKS).count() == 0]


@pytest.mark.browser
@pytest.mark.parametrize("kind", KINDS)
def test_a_browser_draws_every_kind_of_page_whole(browser, tmp_path, kind):
    record = KINDS[kind]()
    page, problems = opened(browser, run_page(record), tmp_path, (390, 844) if "both" in kind else (1280, 900))
    assert problems == []
    assert empty_plots(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    seen = {plot.get_attribute("id") for plot in page.locator(".plot:visible").all()}
    gated = kind not in ("rnn", "dense")
    assert ({"plot-gates", "plot-update", "plot-memory", "plot-share"} <= seen) == gated
    assert ("plot-reset" in seen) == (gated and kind != "update-only")
    assert ("plot-flow" in seen) == (kind != "dense")
    assert ("plot-held" in seen) == (record.per_step and gated)
    assert ("plot-tail" in seen) == ("long" in kind)
    assert ("plot-ahead" in seen) == kind.startswith("forecast")
    assert ("plot-answer" in seen) == (kind != "classes, both ways")
    inputs = {"many inputs": "map", "text": "text", "frames": "pictures"}.get(kind, "lines")
    assert f"plot-{inputs}" in seen
    if kind == "categories and gaps":
        assert page.get_by_text("missing", exact=True).is_visible()
    page.close()


@pytest.mark.browser
def test_choosing_a_sequence_and_a_layer_shows_it(browser, tmp_path):
    record = record_of(CLASSES, num_layers=2)
    page, problems = opened(browser, run_page(record), tmp_path)
    assert page.locator("input[name=layer]:checked").get_attribute("value") == "1"
    picture = page.locator("#plot-memory .heatmaplayer image").first
    seen = {picture.get_attribute("href")}
    for layer in ("0", "1"):
        for sequence in ("1", "2"):
            page.locator(f"input[name=sequence][value='{sequence}']").check()
            page.locator(f"input[name=layer][value='{layer}']").check()
            href = "document.querySelector('#plot-memory .heatmaplayer image').getAttribute('href')"
            page.wait_for_function(f"seen => !seen.includes({href})", arg=list(seen))
            seen.add(picture.get_attribute("href"))
            visible = page.locator(f"[data-of='{sequence}-{layer}']:visible")
            assert visible.count() >= 2
            assert page.locator("[data-of]:visible").count() == visible.count()
            steps = count(record.sequences[int(sequence)].axis.steps)
            assert (
                f"of the {steps} steps that this direction read" in visible.filter(has_text="half of it").inner_text()
            )
    page.locator("input[name=sequence][value='2']").focus()
    page.keyboard.press("ArrowLeft")
    assert page.locator("input[name=sequence]:checked").get_attribute("value") == "1"
    assert problems == []
    page.close()


@pytest.mark.browser
def test_the_maps_hold_the_numbers(browser, html, record, tmp_path):
    page, _ = opened(browser, html, tmp_path)
    (direction,) = record.sequences[0].directions
    drawn = page.evaluate("document.getElementById('plot-memory').data[0].customdata.map((row) => [...row])")
    np.testing.assert_allclose(drawn, direction.memory.T, atol=1e-4)
    shade = page.evaluate("document.getElementById('plot-memory').data[0].z.map((row) => [...row])")
    np.testing.assert_allclose(shade, np.sqrt(direction.memory.T), atol=1e-2)
    edges = page.evaluate("[...document.getElementById('plot-update').data[0].x]")
    np.testing.assert_allclose(edges, record.sequences[0].axis.edges)
    page.close()


@pytest.mark.browser
def test_the_plots_follow_the_dark_scheme(browser, html, tmp_path):
    page, _ = opened(browser, html, tmp_path, color_scheme="light")
    color = "() => getComputedStyle(document.querySelector('#plot-share .barlayer .point path')).fill"
    light = page.evaluate(color)
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"light => ({color})() !== light", arg=light)
    page.close()
