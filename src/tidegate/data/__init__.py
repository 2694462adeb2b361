"""Files and recordings -> sequences, as plain NumPy records."""

from tidegate.data.arrays import read_array, read_arrays
from tidegate.data.film import Film, FilmBatch, open_film
from tidegate.data.video import Video, read_video

__all__ = ["Film", "FilmBatch", "Video", "open_film", "read_array", "read_arrays", "read_video"]
