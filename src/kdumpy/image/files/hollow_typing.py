"""The place of numpy.typing in the capture image: annotations are read by nobody."""

from typing import Any

ArrayLike = DTypeLike = Any


class NDArray:
    """NDArray[…] is itself."""

    def __class_getitem__(cls, item: object) -> type:
        return cls
