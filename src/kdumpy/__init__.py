"""kdump, whole, in Python: arm a host, capture its panic, and say why it crashed."""

__version__ = "0.1.0"
