"""Settings: every field survives YAML; what is unknown, of another type or out of range is one sentence."""

import dataclasses
import math
import string
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.refusals import assert_refused
from tidegate.errors import FileError, FileMissingError, InputTypeError, InputValueError
from tidegate.train.settings import Settings, read_settings

pytestmark = pytest.mark.usefixtures("as_users_run_it")  # what comes from YAML has whatever type it has

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
SHARES = st.floats(0, 0.99)
COUNTS = st.integers(1, 2**31 - 1)
TEXTS = st.lists(TEXT, max_size=3)
FIELDS = {
    "data": TEXTS,
    "id": st.none() | TEXT,
    "time": st.none() | TEXT,
    "label": st.none() | TEXT,
    "features": st.none() | TEXTS,
    "categorical": TEXTS,
    "ignore": TEXTS,
    "level": st.sampled_from([None, "bytes", "characters"]),
    "per": st.sampled_from([None, "file", "line"]),
    "encoding": st.none() | TEXT,
    "grid": st.none() | st.from_regex("[0-9]{1,3}x[0-9]{1,3}", fullmatch=True),
    "hold": st.none() | TEXT,
    "hold_edl": st.none() | TEXT,
    "edl_rate": st.sampled_from([None, 24.0, 29.97, 23.976]),
    "test_data": TEXTS,
    "validation": st.floats(1e-9, 0.49),
    "test": st.floats(0, 0.49),
    "gaps": st.sampled_from(["auto", "on", "off"]),
    "task": st.sampled_from(["auto", "classify", "label-steps", "regress", "regress-steps"]),
    "loss": st.sampled_from(["auto", "cross-entropy", "mse", "mae", "huber", "pinball"]),
    "horizon": st.none(),
    "quantiles": st.just([0.1, 0.5, 0.9]),
    "class_weights": st.sampled_from(["none", "balanced"]),
    "variant": st.sampled_from(["dense", "rnn", "update-only", "gru", "gru-reset-before", "gru-layer-norm"]),
    "hidden_size": COUNTS,
    "num_layers": COUNTS,
    "bidirectional": st.just(False),
    "dropout": SHARES,
    "recurrent_dropout": SHARES,
    "input_dropout": SHARES,
    "candidate_dropout": SHARES,
    "weight_dropout": SHARES,
    "zoneout": SHARES,
    "memory_steps": st.sampled_from(["auto", "0", "2", "17.5", "1e3"]),
    "hold_weight": st.floats(0, 1e300),
    "write_budget": st.none() | SHARES,
    "budget_weight": st.floats(0, 1e300),
    "epochs": COUNTS,
    "patience": COUNTS,
    "batch_size": COUNTS,
    "learning_rate": st.floats(1e-300, 1e5),
    "schedule": st.sampled_from(["constant", "cosine"]),
    "weight_decay": st.none() | st.floats(0, 1e5),
    "clip_norm": st.floats(0, 1e300),
    "seed": st.integers(0, 2**63 - 1),
    "precision": st.sampled_from(["32", "bf16"]),
    "threads": st.none() | st.integers(1, 1024),
    "chunk": st.none() | COUNTS,
    "lanes": st.sampled_from(["auto", "1", "17"]),
    "recompute": st.booleans(),
}


def test_every_field_is_drawn_below():
    assert list(FIELDS) == [one.name for one in dataclasses.fields(Settings)]


@given(st.fixed_dictionaries(FIELDS))
def test_yaml_brings_back_every_field(tmp_path_factory, values):
    held = None if values["hold"] is not None else values["hold_edl"]  # one or the other
    unused: dict[str, Any] = {} if held is not None else {"edl_rate": None}
    unused |= {} if values["hold"] is not None or held is not None else {"hold_weight": 1.0}
    unused |= {"test": 0.15} if values["test_data"] else {}
    unused |= {} if values["write_budget"] is not None else {"budget_weight": 1.0}
    settings = Settings(**{**values, "variant": "gru", "hold_edl": held, **unused})
    path = tmp_path_factory.getbasetemp() / "settings.yaml"
    path.write_bytes(settings.to_yaml().encode())
    assert Settings.from_dict(read_settings(path)) == settings
    assert Settings.from_dict(settings.to_dict()) == settings


def test_the_defaults_survive(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_text(Settings().to_yaml())
    assert Settings.from_dict(read_settings(path)) == Settings()
    path.write_text("")
    assert Settings.from_dict(read_settings(path)) == Settings()


def told(tmp_path, text) -> Settings:
    (tmp_path / "settings.yaml").write_text(text, encoding="utf-8")
    return Settings.from_dict(read_settings(tmp_path / "settings.yaml"))


@given(COUNTS, st.sampled_from([[0.5], [0.05, 0.5], [1e-9, 0.5, 0.75]]))
def test_yaml_brings_back_a_forecast(tmp_path_factory, horizon, quantiles):
    settings = Settings(task="forecast", horizon=horizon, quantiles=quantiles)
    path = tmp_path_factory.getbasetemp() / "forecast.yaml"
    path.write_text(settings.to_yaml(), encoding="utf-8")
    assert Settings.from_dict(read_settings(path)) == settings
    assert settings.quantiles == tuple(quantiles)


@pytest.mark.parametrize("number", ["3e-3", "3.0e-3", "0.003", "3E-3", "'3e-3'", "+.3e-2"])
def test_numbers_as_people_write_them(tmp_path, number):
    assert told(tmp_path, f"learning_rate: {number}").learning_rate == 0.003


def test_what_yaml_makes_of_words(tmp_path):
    settings = told(tmp_path, "precision: 32\nid: 7\nmemory-steps: 100\nclip_norm: 1\ndata: one.csv\nfeatures: [a, b]")
    assert (settings.precision, settings.id, settings.memory_steps) == ("32", "7", "100")
    assert settings.clip_norm == 1.0
    assert (settings.data, settings.features) == (("one.csv",), ("a", "b"))


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("lerning_rate", "learning_rate"),
        ("batch-sise", "batch_size"),
        ("hidden", "hidden_size"),
        ("feature", "features"),
    ],
)
def test_an_unknown_option_is_told_the_nearest(name, near):
    assert_refused(
        lambda: Settings.from_dict({name: 1}), InputValueError, f"there is no option '{name}': did you mean '{near}'"
    )


def test_an_option_like_no_other_is_told_them_all():
    assert_refused(
        lambda: Settings.from_dict({"xyzzy": 1}), InputValueError, "no option 'xyzzy'; known are data, id, t"
    )


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("epochs", 1.5, "a whole number; got 1.5"),
        ("epochs", "many", "a whole number; got 'many'"),
        ("epochs", True, "a whole number; got True"),
        ("epochs", None, "a whole number; got None"),
        ("chunk", "ten", "a whole number; got 'ten'"),
        ("bidirectional", 1, "true or false; got 1"),
        ("recompute", "yes", "true or false; got 'yes'"),
        ("dropout", "some", "a number; got 'some'"),
        ("dropout", False, "a number; got False"),
        ("dropout", [0.1], r"a number; got \[0.1\]"),
        ("id", True, "text; got True"),
        ("label", ["a"], "text"),
        ("task", {"classify": 1}, "text"),
        ("data", 5, "a list of names; got 5"),
        ("data", [5], r"a list of names; got \[5\]"),
        ("features", {"a": 1}, "a list of names"),
    ],
)
def test_a_wrong_type_is_refused(name, value, words):
    assert_refused(lambda: Settings(**{name: value}), InputTypeError, f"^{name} must be {words}")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("dropout", 1.0, "at least 0 and below 1; got 1.0"),
        ("dropout", -0.1, "at least 0 and below 1"),
        ("recurrent_dropout", math.nan, "at least 0 and below 1; got nan"),
        ("validation", 0, "above 0 and below 1; got 0"),
        ("test", 1, "at least 0 and below 1"),
        ("epochs", 0, r"at least 1 and below 2\*\*31; got 0"),
        ("horizon", 2**31, r"at least 1 and below 2\*\*31; got 2147483648"),
        ("lanes", "2147483648", "auto or a whole number, at least 1 and below"),
        ("batch_size", -3, "at least 1"),
        ("chunk", 0, "at least 1"),
        ("threads", 0, "in 1..1024; got 0"),
        ("threads", 1025, "in 1..1024; got 1025"),
        ("learning_rate", 0, "above 0 and below 1e6"),
        ("learning_rate", 1e6, "above 0 and below 1e6"),
        ("learning_rate", math.nan, "above 0 and below 1e6"),
        ("weight_decay", -1, "at least 0 and below 1e6"),
        ("clip_norm", math.inf, "at least 0 and finite"),
        ("seed", -1, "in 0..2"),
        ("seed", 2**63, "in 0..2"),
        ("memory_steps", "1", "auto, 0 or at least 2; got '1'"),
        ("memory_steps", "long", "auto, 0 or at least 2"),
        ("memory_steps", "nan", "auto, 0 or at least 2"),
        ("variant", "lstm", "one of dense, rnn, update-only, gru"),
        ("precision", 16, "one of 32, bf16; got '16'"),
        ("zoneout", 1, "at least 0 and below 1; got 1"),
        ("write_budget", 1.5, "at least 0 and below 1; got 1.5"),
        ("hold_weight", -1, "at least 0 and finite"),
        ("level", "words", "one of bytes, characters; got 'words'"),
        ("per", "page", "one of file, line; got 'page'"),
        ("grid", "11", "columns x rows, such as 11x9; got '11'"),
        ("grid", "11 x 9", "columns x rows, such as 11x9"),
    ],
)
def test_a_value_out_of_range_is_refused(name, value, words):
    assert_refused(lambda: Settings(**{name: value}), InputValueError, f"^{name} must be {words}")


def test_options_that_do_not_go_together_are_refused():
    words = "validation and test must leave something to train on; got 0.5 . 0.5"
    assert_refused(lambda: Settings(validation=0.5, test=0.5), InputValueError, words)
    words = "chunk must not be given with bidirectional, .*; got 20"
    assert_refused(lambda: Settings(bidirectional=True, chunk=20), InputValueError, words)
    words = "hold_weight must be given with hold or hold_edl, or not at all; got 2"
    assert_refused(lambda: Settings(hold_weight=2), InputValueError, words)
    words = "budget_weight must be given with write_budget, or not at all; got 0"
    assert_refused(lambda: Settings(budget_weight=0), InputValueError, words)
    words = "edl_rate must be given with hold_edl or the label edl, or not at all; got 25"
    assert_refused(lambda: Settings(edl_rate=25), InputValueError, words)
    words = "edl_rate must be a whole number of frames a second"
    assert_refused(lambda: Settings(edl_rate=12.5, label="edl"), InputValueError, words)
    words = "quantiles must be given with task 'forecast' alone; got 0.2, 0.5"
    assert_refused(lambda: Settings(quantiles=(0.2, 0.5)), InputValueError, words)
    words = "test must not be given with test_data; got 0.3"
    assert_refused(lambda: Settings(test=0.3, test_data=("more.csv",)), InputValueError, words)
    Settings(test=0, test_data=("more.csv",))
    assert_refused(lambda: Settings(hold="a", hold_edl="b"), InputValueError, "hold_edl must not be given with hold")


@pytest.mark.parametrize("variant", ["dense", "rnn"])
@pytest.mark.parametrize(
    ("name", "value"), [("hold", "a"), ("hold_edl", "beside"), ("write_budget", 0.0), ("memory_steps", "20")]
)
def test_a_variant_without_an_update_gate_cannot_be_taught(variant, name, value):
    words = f"{name} must not be given with variant '{variant}', which has no update gate; got "
    assert_refused(lambda: Settings(variant=variant, **{name: value}), InputValueError, words)
    assert Settings(variant=variant, memory_steps="0").memory_steps == "0"


def test_readers_are_told_what_was_given():
    assert Settings().reader_options == {}
    assert Settings(level="characters", per="line", encoding="latin-1", grid="4x3").reader_options == {
        "level": "characters",
        "per": "line",
        "encoding": "latin-1",
        "grid": (4, 3),
    }


# ---------------------------------------------------------------------------------------------------------------------
# files


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "is not YAML: "),
        ("a: b: c", "is not YAML: "),
        ("\tepochs: 1", "is not YAML: "),
        ("epochs: 1\nepochs: 2", "is not YAML: 'epochs' is given twice"),
        ("batch-size: 1\nbatch_size: 2", "must name each option once; it names 'batch_size' twice"),
        ("id: !!python/object/apply:os.system ['echo']", "is not YAML: "),
        ("id: !!python/name:os.system ''", "is not YAML: "),
        ("id: 2020-13-45", "is not YAML: "),
        ("id: !!int x", "is not YAML: "),
        ("id: !!bool x", "is not YAML: "),
        ("id: !!timestamp x", "is not YAML: "),
        ("id: *nowhere", "is not YAML: "),
        ("{[a]: 1}", "is not YAML: "),
        ("epochs: " + "9" * 5000, "is not YAML: "),
        ("id: " + "[" * 5000, "is not YAML: "),
        ("a: \x07", "is not YAML: "),
        ("- epochs", "must hold options by their names; it holds a list"),
        ("just words", "must hold options by their names; it holds a str"),
        ("1: 2", "must hold options by their names; it holds a dict"),
    ],
)
def test_damaged_yaml_is_one_sentence(tmp_path, text, words):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert_refused(lambda: read_settings(path), FileError, f"settings.yaml' {words}")


def test_yaml_of_another_encoding_and_no_file(tmp_path):
    path = tmp_path / "settings.yaml"
    path.write_bytes("label: größe".encode("latin-1"))
    assert_refused(lambda: read_settings(path), FileError, "is not YAML")
    for missing in (tmp_path / "other.yaml", tmp_path):
        assert_refused(partial(read_settings, missing), FileMissingError, "there is no file")


@given(
    st.text(string.printable, max_size=60)
    | st.from_regex(
        r"(?a)[a-z_]{1,9}: !!(int|float|bool|null|set|omap|pairs|binary|timestamp|merge|value|seq|map) \w{0,4}",
        fullmatch=True,
    )
)
def test_any_text_is_options_or_one_refusal(tmp_path_factory, text):
    path = tmp_path_factory.getbasetemp() / "any.yaml"
    path.write_text(text)
    told = ""
    try:
        Settings.from_dict(read_settings(path))
    except (FileError, InputValueError, InputTypeError) as error:
        told = str(error)
    assert "\n" not in told


def test_reading_builds_no_objects(tmp_path):
    mark = tmp_path / "mark"
    (tmp_path / "evil.yaml").write_text(f"id: !!python/object/apply:pathlib.Path.touch [{mark}]")
    with pytest.raises(FileError):
        read_settings(tmp_path / "evil.yaml")
    assert not mark.exists()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("labell: x", "there is no option 'labell': did you mean 'label'"),
        ("hidden-size: many", "hidden_size must be a whole number; got 'many'"),
    ],
)
def test_a_wrong_option_is_told_with_its_file(tmp_path, text, words):
    path = tmp_path / "settings.yaml"
    path.write_text(text)
    assert_refused(lambda: read_settings(path), FileError, f"settings.yaml': {words}")
