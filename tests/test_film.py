"""The interrupted film: its sequences keep the rules of the game, and test frames are never trained on."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.test_video import make_video
from tidegate.data.film import ADVERT, FEATURES, OPENING, REST, SHOTS, STEPS, open_film
from tidegate.errors import FileError, FileMissingError


@pytest.fixture(scope="module")
def film():
    return open_film()


def draw(film, seed, part, batch=8, **options):
    return film.draw(np.random.default_rng(seed), part, batch, **options)


def test_the_film_holds_both_clips(film):
    assert film.frames.shape == (1441 + 127, 72, 88, 3)
    assert film.features.shape == (1441 + 127, FEATURES)
    assert film.features.min() >= 0
    assert film.features.max() <= 1


def test_features_are_the_mean_colours_of_tiles(film):
    tile = film.frames[700, 8:16, 16:24].mean(axis=(0, 1)) / 255
    np.testing.assert_allclose(film.features[700].reshape(9, 11, 3)[1, 2], tile, atol=1e-6)


def test_every_shot_is_split_70_to_30_in_the_order_of_time(film):
    for shot, ranges in enumerate([*SHOTS.values(), ((1441, 1568),)]):
        frames = [frame for piece in ranges for frame in range(*piece)]
        train = [frame for piece in film.pieces["train"][shot] for frame in range(*piece)]
        test = [frame for piece in film.pieces["test"][shot] for frame in range(*piece)]
        assert train + test == frames
        assert len(test) / len(frames) == pytest.approx(0.3, abs=0.02)


@given(seed=st.integers(0, 2**32 - 1))
def test_a_test_film_is_an_opening_an_advert_and_runs_of_other_shots(film, seed):
    batch = draw(film, seed, "test")
    assert batch.index.shape == batch.kind.shape == batch.shot.shape == batch.run.shape == (STEPS, 8)
    assert (batch.kind[:5] == OPENING).all()
    assert (batch.kind[5:9] == ADVERT).all()
    assert (batch.kind[9:] == REST).all()
    assert (batch.shot[:5] == batch.label).all()
    assert (batch.shot[5:9] == len(SHOTS)).all()
    assert (batch.shot[9:] != batch.label).all()
    same_run = np.diff(batch.run, axis=0) == 0
    assert (np.diff(batch.index, axis=0)[same_run] == 1).all()


@given(seed=st.integers(0, 2**32 - 1))
def test_a_training_film_has_one_advert_of_3_to_8_frames_anywhere_from_5_to_40(film, seed):
    batch = draw(film, seed, "train", any_advert=True)
    for film_number in range(batch.kind.shape[1]):
        advert = np.flatnonzero(batch.kind[:, film_number] == ADVERT)
        assert 5 <= advert[0] <= 40
        assert 3 <= len(advert) <= 8
        assert (np.diff(advert) == 1).all()
    assert (batch.kind[:5] == OPENING).all()
    assert ((batch.kind == OPENING).sum(0) == 5).all()


@given(seed=st.integers(0, 2**32 - 1), part=st.sampled_from(["train", "test"]))
def test_frames_come_from_the_shot_that_is_named_and_from_the_part_that_is_asked(film, seed, part):
    batch = draw(film, seed, part)
    for frame, shot in zip(batch.index.ravel(), batch.shot.ravel(), strict=True):
        assert any(start <= frame < stop for start, stop in film.pieces[part][shot])


def test_every_shot_opens_about_equally_often(film):
    counts = np.bincount(draw(film, 0, "test", 2000).label, minlength=len(SHOTS))
    assert counts.min() > 150
    assert counts.max() < 250


def test_the_same_seed_draws_the_same_films(film):
    assert (draw(film, 3, "train").index == draw(film, 3, "train").index).all()
    assert (draw(film, 3, "train").index != draw(film, 4, "train").index).any()


def test_a_missing_clip_is_one_sentence(tmp_path):
    with pytest.raises(FileMissingError, match=r"there is no video file '.*programme\.mp4'"):
        open_film(tmp_path)


def test_a_clip_that_is_too_short_for_its_shots_is_one_sentence(tmp_path):
    for name in ("programme.mp4", "advert.mp4"):
        make_video(tmp_path / name, 40)
    with pytest.raises(FileError, match="must hold at least 1432 and 30 frames; they hold 40 and 40"):
        open_film(tmp_path)
