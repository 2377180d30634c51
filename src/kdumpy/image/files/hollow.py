"""The place of a part of numpy that is not in the capture image: its names exist, calling one says what is missing."""

from typing import Any


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)

    def left_out(*arguments: object, **options: object) -> None:
        raise RuntimeError(f"{__name__}.{name} is not in the capture image")

    return left_out
