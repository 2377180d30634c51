"""What `make man` makes the man page of: the parser with every command's arguments."""

from __future__ import annotations

import argparse


def parser() -> argparse.ArgumentParser:
    """Return kdumpy's whole parser."""
    from kdumpy.cli.main import build_parser

    return build_parser("*")
