"""The place of numpy.matrixlib in the capture image: no array is a matrix. numpy's own functions ask."""

from typing import Any


class matrix:  # noqa: N801
    """Nothing is one."""


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def left_out(*arguments: object, **options: object) -> None:
        raise RuntimeError(f"{__name__}.{name} is not in the capture image")

    return left_out
