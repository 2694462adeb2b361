"""What every refusal is held to: the right error, one sentence, a ValueError or a TypeError."""

from collections.abc import Callable

import pytest

__all__ = ["assert_refused"]


def assert_refused(call: Callable[[], object], error: type[Exception], sentence: str) -> None:
    """`call` raises `error` with one line that matches `sentence`."""
    with pytest.raises(error, match=sentence) as caught:
        call()
    assert "\n" not in str(caught.value), "more than one line"
    assert isinstance(caught.value, ValueError | TypeError)
