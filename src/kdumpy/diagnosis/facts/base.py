"""What the parts of the diagnosis value share."""

from __future__ import annotations

HEX = {"hex": True}
"""Metadata of a field that holds an address, or addresses by name."""
