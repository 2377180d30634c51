"""Where a crash can be saved: one file a kind, chosen by the URL's scheme and imported only when asked for."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from kdumpy.capture.targets.base import ByteStream, Target, incomplete
from kdumpy.errors import UsageError

if TYPE_CHECKING:
    from kdumpy.capture.config import CaptureConfig

__all__ = ["SCHEMES", "ByteStream", "Target", "check_url", "incomplete", "programs", "target_of"]

SCHEMES = {"file": "directory", "disk": "disk", "nfs": "nfs", "ssh": "ssh", "raw": "raw", "http": "http",
           "https": "http"}
"""URL scheme -> the module of this package that serves it.

Such a module has `check(url, config)` (UsageError), `make(url, config, directory)` and `PROGRAMS`.
"""


def _module_of(url: str) -> str:
    scheme, colon, _rest = url.partition(":")
    if url.startswith("/"):
        return "directory"
    if not colon or scheme not in SCHEMES:
        from kdumpy.capture.declared import nearest

        raise UsageError(f"no such kind of target: {url!r}",
                         mend=f"{nearest(scheme, SCHEMES)}known: a directory's path, {', '.join(SCHEMES)}")
    return SCHEMES[scheme]


def check_url(url: str, config: CaptureConfig) -> None:
    """Raise UsageError when a URL cannot be right, or lacks a setting that it needs; touches no device."""
    importlib.import_module(f"{__name__}.{_module_of(url)}").check(url, config)


def target_of(url: str, config: CaptureConfig, directory: str = "") -> Target:
    """Return the target behind a URL; nothing is mounted or reached before `prepare()`.

    Args:
        url: see docs/targets.md.
        config: settings such as the ssh key.
        directory: name of the crash's own directory on the target; empty: the URL's own.
    """
    module = importlib.import_module(f"{__name__}.{_module_of(url)}")
    module.check(url, config)
    target: Target = module.make(url, config, directory)
    if config.encrypt:
        from kdumpy.capture.targets.encrypted import EncryptedTarget

        target = EncryptedTarget(target, config.encrypt)
    return target


def programs(config: CaptureConfig) -> list[str]:
    """Return the programs that the image must hold for a configuration's targets and its encryption."""
    wanted = {program for url in config.targets
              for program in importlib.import_module(f"{__name__}.{_module_of(url)}").PROGRAMS}
    if config.encrypt:
        wanted.add("gpg" if config.encrypt.startswith("gpg:") else "age")
    return sorted(wanted)
