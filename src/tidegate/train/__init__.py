"""Training: models, the loop, folders of results, and the demo; needs the extra `train`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tidegate.train.model_file import load_model, save_model

__all__ = ["load_model", "save_model"]


def __getattr__(name: str) -> Any:
    """Both load with torch, which the command line does not need to tell its options."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tidegate.train import model_file  # noqa: PLC0415

    return getattr(model_file, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
