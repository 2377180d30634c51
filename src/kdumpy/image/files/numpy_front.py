"""numpy's face in the capture kernel: its core now, every other name from where numpy defines it when it is asked for.

The builder puts this in the place of numpy/__init__.py: half of an import's time and a fifth of its memory go into
what a capture never calls. `numpy._homes` is written by the builder out of the numpy that it trims.
"""

from importlib import import_module

from numpy import version  # noqa: F401
from numpy._globals import _CopyMode, _NoValue  # noqa: F401
from numpy._homes import HOMES  # type: ignore[import-not-found]
from numpy.version import version as __version__  # noqa: F401


def __getattr__(name: str) -> object:
    home = HOMES.get(name)
    if home is None:
        if name.startswith("_"):
            raise AttributeError(name)
        try:
            return import_module(f"numpy.{name}")
        except ModuleNotFoundError:
            raise AttributeError(f"numpy.{name} is not in the capture image") from None
    value = getattr(import_module(home), name)
    globals()[name] = value
    return value


from numpy import _core  # noqa: E402

# Memory is what a capture kernel has least of: no huge pages for a few bytes.
if hasattr(_core.multiarray, "_set_madvise_hugepage"):
    _core.multiarray._set_madvise_hugepage(False)
