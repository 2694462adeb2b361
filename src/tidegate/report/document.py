"""What all pages share: one HTML document that needs no network, no server and no other file."""

import json
from importlib.resources import files
from typing import Any

from tidegate.extras import require

__all__ = ["document", "template"]


def document(name: str, scripts: tuple[str, ...], styles: tuple[str, ...], figures: Any, words: dict[str, Any]) -> str:
    """The template `name` filled with `words`, with plotly, our scripts and styles, and the figures as JSON, inside it.

    Raises `MissingExtraError` without the extra "report".
    """
    jinja2 = require("jinja2", "report")
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page: str = environment.get_template(name).render(
        **words,
        css=_verbatim("".join(map(template, styles))),
        script=_verbatim("".join(map(template, scripts))),
        plotly=_verbatim(require("plotly.offline", "report").get_plotlyjs()),
        figures=_verbatim(_embedded(figures)),
    )
    return page


def template(name: str) -> str:
    """The text of a file beside the templates."""
    return files("tidegate.report").joinpath("template", name).read_text(encoding="utf-8")


def _embedded(data: Any) -> str:
    """JSON that may stand inside a script element, whatever the names in it are."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _verbatim(text: str) -> Any:
    """Text that the template must not escape: ours, plotly's, or already safe."""
    return require("markupsafe", "report").Markup(text)
