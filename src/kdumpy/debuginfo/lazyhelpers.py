"""drgn's helpers one module at a time: its package loads all fifty, of which a start needs half.

With them come drgn's own prompt and commands: 35 of the 260 ms that a session took to start. For a process of our own
only: whoever looks into the package's `__dict__`, as `drgn.cli.default_globals` does, has to call `load_all` before.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

_PACKAGE = "drgn.helpers.linux"


class _Helpers(ModuleType):
    """The package, whose code runs when something is asked for by the package's name and not by a module's."""

    def __getattr__(self, name: str) -> Any:
        if name != "__all__":
            if name.startswith("_"):
                raise AttributeError(name)
            try:
                return importlib.import_module(f"{_PACKAGE}.{name}")
            except ModuleNotFoundError:
                pass
        self.__class__ = ModuleType     # type: ignore[assignment]  # it is complete from here on
        assert self.__spec__ is not None
        assert self.__spec__.loader is not None
        self.__spec__.loader.exec_module(self)
        return getattr(self, name)


def load_all() -> None:
    """Have all helpers in their package, as drgn leaves them."""
    _ = importlib.import_module(_PACKAGE).__all__


def load_on_demand() -> None:
    """Let modules of helpers be loaded as they are asked for; nothing changes where all are loaded already.

    To be called before anything imports one.
    """
    if _PACKAGE in sys.modules:
        return
    import drgn.helpers

    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None:
        return
    package = importlib.util.module_from_spec(spec)
    package.__class__ = _Helpers
    sys.modules[_PACKAGE] = package
    drgn.helpers.linux = package        # type: ignore[attr-defined]  # as the import of a module does
