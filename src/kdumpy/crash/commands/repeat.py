"""`repeat`: run a command again and again."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Sequence

from kdumpy.crash.command import Arg, Line, Options, TextCommand
from kdumpy.crash.session import Session
from kdumpy.errors import UsageError

_LONGEST = 86400


class Repeat(TextCommand):
    """Run a command again and again until Ctrl-C, or as often as `-n` says.

    A dump does not change: what changes is what the command reads besides, such as a file with `<`.

    Example:
        crash> repeat -n 2 set -p
    """

    names = ("repeat",)
    example = "repeat -n 1 sys -t"
    args = (Arg("words", nargs="...", metavar="[-SECONDS] [-n COUNT] COMMAND",
                help="-SECONDS waits in between; -n COUNT ends it"),)

    def parse(self, name: str, words: Sequence[str]) -> Options:
        """Take every word: those with a dash in front too are the command's."""
        return Options(words=list(words), json=False, help=False)

    def rows(self, session: Session, options: Options) -> Iterator[Line]:
        """Run the command; what it says goes where the output goes."""
        words = list(options.words)
        seconds, count = 0, None
        while words and words[0].startswith("-"):
            word = words.pop(0)
            if word == "-n" and words and words[0].isdecimal():
                count = int(words.pop(0))
            elif word[1:].isdecimal() and int(word[1:]) <= _LONGEST:
                seconds = int(word[1:])
            else:
                raise UsageError(f"{word!r} is neither -SECONDS nor -n COUNT", where="repeat")
        if not words:
            raise UsageError("repeat wants a command", mend="see 'help repeat'")
        if count is None and not session.interactive:
            raise UsageError("this would not end", where="repeat", why="nobody is there to press Ctrl-C",
                             mend="repeat -n COUNT COMMAND")
        for number in itertools.count(1):
            if count is not None and number > count:
                return
            if number > 1 and seconds:
                time.sleep(seconds)
            if not session.run(" ".join(words)):
                raise UsageError("the command failed", where=" ".join(words))
            yield from ()


COMMAND = Repeat()
