"""What holds for every kind of target: it is documented, light to import, and says what it needs."""

from __future__ import annotations

import importlib
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from kdumpy.capture.config import CaptureConfig
from kdumpy.capture.targets import SCHEMES, programs, target_of
from kdumpy.capture.targets.base import Target
from kdumpy.errors import UsageError
from saving import config

DOCUMENT = (Path(__file__).parents[4] / "docs" / "targets.md").read_text()
EXAMPLES = {"file": "file:///var/crash", "disk": "disk:UUID=1-2/var/crash", "nfs": "nfs://server/export/dir",
            "ssh": "ssh://user@host/dir", "raw": "raw:/dev/vdb", "http": "http://host/path",
            "https": "https://host/path"}


@pytest.mark.parametrize("scheme", sorted(SCHEMES))
def test_every_kind_is_made_and_documented(scheme: str) -> None:
    settings = config(ssh_key="/key", ssh_known_hosts="/known")
    target: Target = target_of(EXAMPLES[scheme], settings, "here")
    assert target.url == EXAMPLES[scheme]
    assert target.seekable is (scheme in ("file", "disk", "nfs", "raw"))
    for member in ("prepare", "free_bytes", "open", "stream", "keep", "abandon", "discard", "digest", "put", "place",
                   "close"):
        assert callable(getattr(target, member))
    assert f"`{scheme}:" in DOCUMENT
    module = importlib.import_module(f"kdumpy.capture.targets.{SCHEMES[scheme]}")
    assert isinstance(module.PROGRAMS, tuple)
    assert (module.__doc__ or "").count(".") >= 1


def test_every_setting_is_documented() -> None:
    for key in fields(CaptureConfig):
        assert f"`{key.name}`" in DOCUMENT, key.name
        if key.name in ("path_name", "encrypt", "ssh_key", "ssh_known_hosts", "http_ca", "http_token_file", "targets"):
            continue
        row = next(line for line in DOCUMENT.splitlines() if line.startswith(f"| `{key.name}`"))
        assert str(key.default).lower() in row.lower()


def test_the_image_learns_which_programs_it_needs() -> None:
    wanted = config(targets=["/var/crash", "disk:/dev/vda1", "nfs://a/b", "ssh://u@h/d", "raw:/dev/vdb",
                             "https://h/p"], ssh_key="/k", ssh_known_hosts="/h", encrypt="gpg:/key")
    assert programs(wanted) == ["gpg", "mount", "mount.nfs", "ssh", "umount"]
    assert programs(config()) == []


def test_a_kind_is_imported_only_when_it_is_asked_for() -> None:
    code = ("import sys; from kdumpy.capture.config import CaptureConfig; "
            "from kdumpy.capture.targets import target_of; "
            "target_of('/var/crash', CaptureConfig(targets=('/var/crash',))); "
            "print([name for name in sys.modules if name.startswith('kdumpy.capture.targets.') or "
            "name in ('http.client', 'subprocess', 'ssl', 'numpy')])")
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert sorted(eval(out)) == ["kdumpy.capture.targets.base", "kdumpy.capture.targets.directory",
                                 "kdumpy.capture.targets.files"]


def test_an_unknown_kind_is_told_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean nfs"):
        target_of("nsf://a/b", config())
