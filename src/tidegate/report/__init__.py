"""Records in, one self-contained HTML page out: what a network let into memory, for people to look at."""

from tidegate.report.page import film_page
from tidegate.report.records import DemoRecord, FilmRecord, Span, SystemRecord

__all__ = ["DemoRecord", "FilmRecord", "Span", "SystemRecord", "film_page"]
