"""Print the completion script of a shell, to be put where that shell looks for it.

examples:
  kdumpy completion bash > /etc/bash_completion.d/kdumpy
  kdumpy completion zsh > /usr/local/share/zsh/site-functions/_kdumpy
  kdumpy completion fish > /usr/share/fish/vendor_completions.d/kdumpy.fish
"""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the shell."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish", "tcsh"),
                        help="the shell that is to complete kdumpy's words")


def run(arguments: argparse.Namespace) -> int:
    """Print the script."""
    import shtab

    from kdumpy.cli.main import build_parser

    parser = build_parser("*")
    for command in next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices.values():
        for action in command._actions:
            if action.type is Path:
                action.complete = shtab.FILE    # shtab reads this attribute
    print(shtab.complete(parser, arguments.shell))
    return 0
