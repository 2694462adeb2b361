"""How each system and each kind of span looks, and which gates a system has; the colours themselves are in film.css."""

from dataclasses import dataclass

__all__ = ["LOOKS", "SPAN_COLORS", "Look"]


@dataclass(frozen=True)
class Look:
    """A system's line in the plots, and the value of each gate that it lacks by definition (None: it has that gate)."""

    color: str  # a custom property of film.css
    dash: str  # lengths as SVG writes them; "" is a solid line
    update: float | None
    reset: float | None

    @property
    def gated(self) -> bool:
        """Whether the system can hold its state at all."""
        return self.update is None


#: In this order a system that is missing changes nothing for the others: line and colour belong to the name.
LOOKS = {
    "dense": Look("var(--dense)", "2px 3px", update=1.0, reset=0.0),
    "rnn": Look("var(--rnn)", "", update=1.0, reset=1.0),
    "update-only": Look("var(--update-only)", "8px 4px", update=None, reset=1.0),
    "gru": Look("var(--gru)", "", update=None, reset=None),
    "gru-default-init": Look("var(--gru-default-init)", "4px 3px", update=None, reset=None),
}

#: One colour each, everywhere on the page.
SPAN_COLORS = {"opening": "var(--opening)", "advert": "var(--advert)", "rest": "var(--rest)"}
