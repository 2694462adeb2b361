"""`torch.compile` with `fullgraph=True`: leave given for what PyTorch's compiler refuses by its class alone.

The compiler refuses every instance of `torch.nn.GRU` and `torch.nn.RNN`, Tidegate's among them, unless its setting
`allow_rnn` says otherwise; it never looks at their `forward`. The setting is made when the compiler is loaded, for
loading it here would take `import tidegate` most of a second.
"""

import importlib.util
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["allow_compiling"]

_SETTINGS = "torch._dynamo.config"


class _Finder(MetaPathFinder):
    """Finds one module as everybody else does, and has something done once it is loaded; then it is gone."""

    def find_spec(
        self,
        fullname: str,
        path: Any = None,  # noqa: ARG002 - the interface's own; a namespace's path is not even a sequence
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """The module's spec, whose loader also makes the setting."""
        if fullname != _SETTINGS:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        load = spec.loader.exec_module

        def load_and_allow(module: ModuleType) -> None:
            load(module)
            _allow(module)

        spec.loader.exec_module = load_and_allow  # type: ignore[method-assign]
        return spec


def _allow(settings: Any) -> None:
    if hasattr(settings, "allow_rnn"):
        settings.allow_rnn = True


def allow_compiling() -> None:
    """Let `torch.compile` into recurrent layers, now or when it is first used."""
    if _SETTINGS in sys.modules:
        _allow(sys.modules[_SETTINGS])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
