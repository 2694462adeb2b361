"""Files and recordings -> sequences, as plain NumPy records."""

from tidegate.data.arrays import read_array, read_arrays
from tidegate.data.film import Film, FilmBatch, open_film
from tidegate.data.read import read
from tidegate.data.sequences import Columns, Feature, Label, Sequences
from tidegate.data.table import read_table
from tidegate.data.video import Video, read_video

__all__ = [
    "Columns",
    "Feature",
    "Film",
    "FilmBatch",
    "Label",
    "Sequences",
    "Video",
    "open_film",
    "read",
    "read_array",
    "read_arrays",
    "read_table",
    "read_video",
]
