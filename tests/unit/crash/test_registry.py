"""What holds for every command of the shell."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil

import pytest

import kdumpy.crash.commands
from kdumpy.crash import registry
from kdumpy.crash.command import Command
from kdumpy.crash.parser import parse
from kdumpy.errors import UsageError

NAMES = sorted(registry.COMMANDS)


@pytest.mark.parametrize("name", NAMES)
def test_help_has_a_summary_and_an_example_session(name: str) -> None:
    command = registry.command(name)
    text = inspect.cleandoc(command.__doc__ or "")
    assert registry.summary(name)
    assert len(text.splitlines()[0]) < 115
    assert "Example:" in text
    assert f"crash> {command.names[0]}" in text or command.names[0] == "struct"
    assert "usage:" in registry.help_of(name)


@pytest.mark.parametrize("name", NAMES)
def test_a_command_says_what_it_is_called_and_what_its_rows_are(name: str) -> None:
    command = registry.command(name)
    assert isinstance(command, Command)
    assert name in command.names
    assert dataclasses.is_dataclass(command.row)
    assert command.row.__dataclass_params__.frozen      # type: ignore[attr-defined]
    assert parse(command.example)[0].name in command.names


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_has_help(name: str) -> None:
    for argument in registry.command(name).args:
        assert argument.keywords.get("help"), argument.names


@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_option_is_a_usage_error_and_leaves_nobody(name: str) -> None:
    # They take every word.
    if name in ("alias", "foreach", "gdb", "info", "list", "map", "py", "repeat", "rustfilt", "s390dbf", "wr"):
        return
    with pytest.raises(UsageError):
        registry.command(name).parse(name, ["--no-such-option"])


def test_every_file_of_commands_is_in_the_registry() -> None:
    files = {module.name for module in pkgutil.iter_modules(kdumpy.crash.commands.__path__)}
    assert files == set(registry.COMMANDS.values())
    for file in files:
        module = importlib.import_module(f"kdumpy.crash.commands.{file}")
        assert set(module.COMMAND.names) <= set(registry.COMMANDS)


def test_aliases_stand_for_commands() -> None:
    for meant in registry.BUILT_IN_ALIASES.values():
        assert meant.split()[0] in registry.COMMANDS


@pytest.mark.parametrize(("name", "words", "expected"), [
    ("bt", ["-f"], False), ("bt", ["-a"], False), ("bt", ["-c", "0"], False), ("bt", ["-FF"], False),
    ("bt", ["-V"], True),
    ("ps", ["-k"], False), ("ps", ["-p", "1"], False), ("kmem", ["-i"], False), ("kmem", ["-s"], False),
    ("kmem", ["-z"], False),
    ("kmem", ["ffff888000000000"], False), ("kmem", ["-i", "--json"], False), ("rd", ["-8", "x"], False),
    ("rd", ["-S", "x"], False), ("sys", ["config"], True), ("sys", ["-t"], False), ("mod", ["-t"], False),
])
def test_what_only_drgn_knows_goes_to_drgn(name: str, words: list[str], expected: bool) -> None:
    assert registry.command(name).for_engine(words) is expected


def test_no_option_has_the_name_of_what_the_shell_adds_to_a_call() -> None:
    for name in NAMES:
        for argument in registry.command(name).args:
            assert argument.keywords.get("dest", argument.names[0].lstrip("-")) not in ("typed", "command", "render")


def test_every_alias_of_crash_is_there() -> None:
    """Source: crash 8.0.2, `alias` without a crashrc; q is a name of its own here."""
    theirs = {"man": "help", "?": "help", "sf": "set scroll off", "sn": "set scroll on", "hex": "set radix 16",
              "dec": "set radix 10", "g": "gdb", "px": "p -x", "pd": "p -d", "for": "foreach", "size": "*",
              "dmesg": "log", "lsmod": "mod", "last": "ps -l"}
    assert theirs.items() <= registry.BUILT_IN_ALIASES.items()
