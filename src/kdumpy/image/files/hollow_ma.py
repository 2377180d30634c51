"""The place of numpy.ma in the capture image: no array is masked. numpy's own functions ask."""


class MaskedArray:
    """Nothing is one."""


def is_masked(value: object) -> bool:
    """Return that it is not."""
    return False


isMaskedArray = isMA = isarray = is_masked  # noqa: N816
