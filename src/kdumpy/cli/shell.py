"""Open a dump in Python: at a prompt, or for a script.

`prog` is the dump as a drgn.Program, `kernel` as kdumpy sees it (kernel.panic, kernel.tasks(), kernel.log …), and
the names of drgn and drgn.helpers.linux are there, as in drgn's own prompt.

examples:
  kdumpy shell vmcore                                 a prompt; IPython where it is installed
  kdumpy shell vmcore -c 'print(kernel.panic.fault)'  a line of code
  kdumpy shell vmcore script.py a b                   a script, with sys.argv ['script.py', 'a', 'b']

Exits with 1 when the script or code raised an exception, else as the script says.
"""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import CodeType
from typing import TYPE_CHECKING, Any

from kdumpy.cli.common import add_dump, open_from
from kdumpy.errors import UsageError

if TYPE_CHECKING:
    from kdumpy.kernel import Kernel


_WITH_VALUE = ("-c", "--code", "--vmlinux", "--dwarf")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_dump(parser)
    parser.add_argument("-c", "--code", metavar="CODE", help="run this code and leave")
    parser.add_argument("words", nargs=argparse.REMAINDER, metavar="SCRIPT [ARGS…]",
                        help="run this file with its arguments and leave")


def run(arguments: argparse.Namespace) -> int:
    """Open the dump and run what is asked for; 1 when it raised an exception."""
    words = _without_options(arguments)
    if words and arguments.code is None and not Path(words[0]).is_file():
        raise UsageError("no such script", where=words[0])
    with open_from(arguments) as kernel:
        names = names_for(kernel)
        if arguments.code is not None:
            return execute(arguments.code, "<-c>", names, ["-c", *words])
        if words:
            sys.path.insert(0, str(Path(words[0]).resolve().parent))
            names["__file__"] = words[0]
            return execute(Path(words[0]).read_text(), words[0], names, words)
        if not sys.stdin.isatty():
            return execute(sys.stdin.read(), "<stdin>", names, [""])
        return converse(kernel, names)


def _without_options(arguments: argparse.Namespace) -> list[str]:
    """Take our own options that stand between the dump and the script; what follows the script is the script's.

    argparse gives everything behind the dump to the remainder.
    """
    words: list[str] = arguments.words
    at = 0
    while at < len(words) and words[at].startswith("-") and words[at] != "--":
        at += 2 if words[at] in _WITH_VALUE else 1
    own = argparse.ArgumentParser(prog="kdumpy shell", exit_on_error=False, add_help=False, allow_abbrev=False)
    own.add_argument("-c", "--code")
    own.add_argument("--vmlinux", type=Path, action="append")
    own.add_argument("--dwarf", choices=("auto", "fetch", "no"))
    own.add_argument("--debug", action="store_true", default=None)
    try:
        found, unknown = own.parse_known_args(words[:at])
    except argparse.ArgumentError as error:
        raise UsageError(str(error), mend="see 'kdumpy shell --help'") from None
    if unknown:
        raise UsageError(f"there is no option {unknown[0]!r}", mend="see 'kdumpy shell --help'")
    for name, value in vars(found).items():
        if value is not None:
            setattr(arguments, name, value)
    rest = words[at:]
    return rest[1:] if rest[:1] == ["--"] else rest


def names_for(kernel: Kernel) -> dict[str, Any]:
    """Return the names that code finds: drgn's own, `prog` and `kernel`."""
    import drgn
    from drgn.cli import default_globals

    from kdumpy.debuginfo.lazyhelpers import load_all

    load_all()
    drgn.set_default_prog(kernel.prog)
    return {**default_globals(kernel.prog), "kernel": kernel}


def execute(source: str, filename: str, names: dict[str, Any], argv: list[str]) -> int:
    """Run the user's code; its exceptions are the user's and are shown whole."""
    sys.argv = argv
    try:
        code: CodeType = compile(source, filename, "exec")
        exec(code, names)
    except SystemExit as leaving:
        return _exit_code(leaving)
    except BrokenPipeError:
        raise
    except Exception as error:
        own = error.__traceback__.tb_next if error.__traceback__ else None     # without the frame of `execute`
        traceback.print_exception(type(error), error, own)
        return 1
    return 0


def _exit_code(leaving: SystemExit) -> int:
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code
    print(leaving.code, file=sys.stderr)
    return 1


def converse(kernel: Kernel, names: dict[str, Any]) -> int:
    """Show a prompt until the user leaves."""
    banner = (f"{kernel.system.release}, from {kernel.path}\n"
              "prog: the dump as a drgn.Program; kernel: kernel.panic, kernel.tasks(), kernel.log, kernel.modules")
    start = _ipython()
    if start is not None:
        print(banner)
        start(argv=["--no-banner"], user_ns=names)
        return 0
    import code
    import readline
    import rlcompleter

    readline.set_completer(rlcompleter.Completer(names).complete)
    readline.parse_and_bind("tab: complete")
    sys.displayhook = display
    code.interact(banner=banner, local=names, exitmsg="")
    return 0


def display(value: object) -> None:
    """Show a value as drgn's own prompt does: an object of the dump by what it holds."""
    if value is None:
        return
    import builtins

    import drgn

    from kdumpy.crash.commands.py import text_of

    builtins._ = value      # type: ignore[attr-defined]  # as Python's own prompt has it
    try:
        print(text_of(value))
    except drgn.FaultError as error:
        print(f"{value!r}: {error}")


def _ipython() -> Callable[..., None] | None:
    try:
        module = import_module("IPython")       # a convenience of this machine, never a requirement
    except ImportError:
        return None
    starter: Callable[..., None] = module.start_ipython
    return starter
