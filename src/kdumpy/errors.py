"""The one tree of errors: each says what went wrong, where, why, and the mend."""

from __future__ import annotations

from typing import Any


class KdumpyError(Exception):
    """An expected failure, told in one line; the command line turns it into an exit code.

    Library code raises these and never exits. The fields are the error's JSON.
    """

    exit_code = 3
    """What the command line exits with: 1 the answer is "no" or "bad", 3 could not."""

    def __init__(self, what: str, *, where: str = "", why: str = "", mend: str = "") -> None:
        super().__init__(what, where, why, mend)
        self.what = what
        """The failure, in a few words, without a full stop."""
        self.where = where
        """File and offset, or address, or empty."""
        self.why = why
        """The reason, or empty."""
        self.mend = mend
        """What the user can do about it, or empty."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.why, self.mend))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.why:
            text += f": {self.why}"
        if self.mend:
            text += f" ({self.mend})"
        return text

    def as_json(self) -> dict[str, str]:
        """Return the fields that are not empty, with the class's name under `error`."""
        fields = {"error": type(self).__name__, "what": self.what, "where": self.where,
                  "why": self.why, "mend": self.mend}
        return {key: value for key, value in fields.items() if value}


def _rebuild(kind: type[KdumpyError], what: str, where: str, why: str, mend: str) -> KdumpyError:
    return kind(what, where=where, why=why, mend=mend)


class UsageError(KdumpyError):
    """The command line or a shell command was used wrongly."""

    exit_code = 2


class DumpFormatError(KdumpyError):
    """The file is not a dump, or not of a format (or machine) that is supported."""


class DamagedDump(KdumpyError):
    """The file is a dump, and what was asked cannot be had because it is damaged or cut short."""

    exit_code = 1


class MissingPage(KdumpyError):
    """The dump does not hold a page: it was filtered out, or lies outside of memory."""

    exit_code = 1


class NotInDump(KdumpyError):
    """The dump lacks a symbol, a type or a table that is needed."""

    exit_code = 1


class HostError(KdumpyError):
    """This machine lacks a program, a right or a device."""


class NoSpace(HostError):
    """The place that is written to is full: the disk, the quota, or the largest file it can hold."""


class LaboratoryError(KdumpyError):
    """A virtual machine did not do what the recipe expected."""
