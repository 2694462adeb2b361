"""Sound: log-mel frames against a computation of its own, whole files in pieces, and what is damaged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data_writers import read, survives, write_sound
from tests.refusals import assert_refused
from tidegate.data import Columns
from tidegate.data.mel import log_mel, mel_filters
from tidegate.errors import FileError, InputValueError


def tone(hertz, seconds=1.0, rate=16_000, height=0.5):
    return (np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate) * height * 32767).astype(np.int16)


def plain_log_mel(samples):
    """The same by the definition: one frame, one frequency and one band at a time, in float64."""
    samples = np.asarray(samples, np.float64)
    mel = lambda hertz: 1127.0 * np.log1p(hertz / 700)  # noqa: E731 - 2595*log10 to four digits
    scale = 2595 / np.log(10) / 1127.0
    window = np.sin(np.pi * np.arange(400) / 400) ** 2
    turns = np.exp(-2j * np.pi * np.outer(np.arange(400), np.arange(257)) / 512)
    frames = []
    for start in range(0, len(samples) - 399, 160):
        spectrum = (samples[start : start + 400] * window) @ turns
        energy = spectrum.real**2 + spectrum.imag**2
        bands = []
        for band in range(40):
            total = 0.0
            for line in range(257):
                # corners are equally far apart in mel, and a band rises and falls linearly in hertz between them
                low, middle, high = (
                    700 * np.expm1(corner * scale * mel(8000) / 41 / (1127.0 * scale))
                    for corner in range(band, band + 3)
                )
                hertz = line * 16000 / 512
                if low < hertz <= middle:
                    total += energy[line] * (hertz - low) / (middle - low)
                elif middle < hertz < high:
                    total += energy[line] * (high - hertz) / (high - middle)
            bands.append(np.log(max(total, 1e-10)))
        frames.append(bands)
    return np.array(frames).reshape(-1, 40)


def test_frames_are_those_of_the_definition():
    samples = np.random.default_rng(0).normal(size=400 + 160 * 2 + 159).astype(np.float32)
    found = log_mel(samples)
    assert found.shape == (3, 40)
    np.testing.assert_allclose(found, plain_log_mel(samples), rtol=1e-6, atol=1e-6)
    assert (log_mel(np.zeros(400, np.float32)) == np.float32(np.log(1e-10))).all()
    assert log_mel(samples[:399]).shape == (0, 40)


def test_the_comparison_rejects_other_frames():
    samples = np.random.default_rng(0).normal(size=400).astype(np.float32)
    shifted = np.roll(samples, 1)
    assert not np.allclose(log_mel(shifted), plain_log_mel(samples), rtol=1e-6, atol=1e-6)


def test_bands_rise_and_fall_between_their_neighbours():
    filters = mel_filters()
    assert filters.shape == (257, 40)
    assert (filters.max(axis=0) > 0).all()
    inside = slice(int(np.argmax(filters[:, 0])) + 1, int(np.argmax(filters[:, -1])))
    np.testing.assert_allclose(filters[inside].sum(axis=1), 1)  # two neighbours share every frequency


@pytest.mark.parametrize(("suffix", "codec"), [(".wav", "pcm_s16le"), (".flac", "flac")])
def test_a_recording_is_its_frames_with_their_times(tmp_path, suffix, codec):
    samples = tone(440, 0.5)
    sequences = read(write_sound(tmp_path / f"a{suffix}", samples, codec=codec))
    assert sequences.values.dtype == np.float32
    np.testing.assert_allclose(
        sequences.values, log_mel(samples.astype(np.float32) / np.float32(32768)), rtol=1e-6, atol=1e-6
    )
    np.testing.assert_allclose(sequences.times, 0.0125 + 0.01 * np.arange(48))
    assert [feature.name for feature in sequences.features][::39] == ["mel0", "mel39"]
    assert sequences.ids == [f"a{suffix}"]


@given(count=st.integers(1, 3000), piece=st.integers(400, 900))
def test_pieces_make_no_difference(tmp_path_factory, count, piece):
    samples = np.random.default_rng(count).integers(-3000, 3000, count).astype(np.int16)
    path = write_sound(tmp_path_factory.mktemp("sound") / "a.wav", samples)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tidegate.data.audio._PIECE", piece)
        found = read(path)
    padded = np.pad(samples, (0, max(0, 400 - count))).astype(np.float32) / np.float32(32768)
    np.testing.assert_allclose(found.values, log_mel(padded), rtol=1e-6, atol=1e-6)


def test_other_rates_and_channels_become_one_at_16_kilohertz(tmp_path):
    both = np.stack([tone(1000, rate=44_100, height=0.75), tone(1000, rate=44_100, height=0.25)])
    found = read(write_sound(tmp_path / "a.wav", both, rate=44_100)).values
    expected = log_mel(tone(1000).astype(np.float32) / 32768)
    assert abs(len(found) - len(expected)) <= 1
    assert (found[:90].argmax(axis=1) == expected[:90].argmax(axis=1)).all()
    np.testing.assert_allclose(found[5:90].max(axis=1), expected[5:90].max(axis=1), atol=0.05)


def test_folders_are_labels(tmp_path):
    for name in ("cat/1.wav", "dog/1.wav", "cat/2.flac"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        write_sound(tmp_path / name, tone(300, 0.1), codec="flac" if name.endswith("flac") else "pcm_s16le")
    sequences = read(tmp_path, label="folder")
    assert sequences.ids == ["cat/1.wav", "cat/2.flac", "dog/1.wav"]
    assert sequences.label.categories == ("cat", "dog")
    assert sequences.label.values.tolist() == [0, 0, 1]
    assert read(tmp_path, columns=Columns(label="folder")).label.categories == ("cat", "dog")
    assert sequences.times[sequences.offsets[:-1]].tolist() == [0.0125] * 3


@pytest.mark.parametrize(("suffix", "codec"), [(".wav", "pcm_s16le"), (".flac", "flac")])
def test_empty_truncated_and_other_files_are_one_sentence(tmp_path, suffix, codec):
    path = write_sound(tmp_path / f"a{suffix}", tone(440) // 2 + np.arange(16_000, dtype=np.int16) % 97, codec=codec)
    whole = path.read_bytes()
    for kept in (0, 10, 44, 100, len(whole) // 2, len(whole) - 200, len(whole) - 2):
        path.write_bytes(whole[:kept])
        assert_refused(
            lambda: read(path), FileError, rf"a\{suffix}' (is empty|is truncated|cannot be decoded as sound)"
        )
    path.write_text("no sound here, only words")
    assert_refused(lambda: read(path), FileError, rf"a\{suffix}' (cannot be decoded as sound|must hold sound)")


def test_names_in_a_recording_may_be_in_any_encoding(tmp_path):
    path = write_sound(tmp_path / "a.wav", tone(440, 0.1))
    whole = path.read_bytes()
    assert b"Lavf" in whole  # the writer's name
    path.write_bytes(whole.replace(b"Lavf", b"L\xe4vf"))
    assert len(read(path)) == 1


def test_a_codec_that_is_not_known_is_one_sentence(tmp_path):
    path = write_sound(tmp_path / "a.wav", tone(440, 0.1))
    whole = bytearray(path.read_bytes())
    whole[20:22] = b"\x77\x77"  # the format's number
    path.write_bytes(whole)
    assert_refused(lambda: read(path), FileError, "cannot be decoded as sound: its codec is not known")


def test_sound_without_samples_is_one_sentence(tmp_path):
    path = write_sound(tmp_path / "a.wav", tone(440, 0.1))
    path.write_bytes(path.read_bytes()[:40] + b"\0\0\0\0")
    assert_refused(lambda: read(path), FileError, "a.wav' (must hold sound; it has no samples|cannot be decoded)")


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e38])
def test_samples_that_are_not_finite_are_one_sentence(tmp_path, bad):
    samples = np.zeros(8000, np.float32)
    samples[5000] = bad
    path = write_sound(tmp_path / "a.wav", samples, codec="pcm_f32le")
    assert_refused(
        lambda: read(path), FileError, "must hold finite samples; in second 0.[0-9]+ or soon after one is not"
    )


def test_there_are_no_columns(tmp_path):
    path = write_sound(tmp_path / "a.wav", tone(440, 0.1))
    assert_refused(lambda: read(path, columns=Columns(label="y")), InputValueError, "audio files have no columns")


@pytest.mark.parametrize(("suffix", "codec"), [(".wav", "pcm_s16le"), (".flac", "flac")])
def test_damaged_files_are_read_or_refused(tmp_path, suffix, codec):
    path = write_sound(tmp_path / f"a{suffix}", tone(440, 0.05), codec=codec)
    counts = survives(read, path.read_bytes(), tmp_path / f"damaged{suffix}", 1)
    assert counts["FileError"] > 5
