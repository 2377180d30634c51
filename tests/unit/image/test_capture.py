"""The capture image: what the shell is told, and that its scripts are what busybox's shell takes."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from kdumpy.errors import UsageError
from kdumpy.image import capture, cpio
from kdumpy.image.capture import Contents
from kdumpy.image.modules import ModuleTree
from kdumpy.image.stdlib import FILES

SCRIPTS = ("init", "ladder", "final-action")


@pytest.mark.parametrize("script", SCRIPTS)
def test_the_scripts_are_posix(script: str) -> None:
    subprocess.run(["busybox", "sh", "-n", FILES / script], check=True)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", "-s", "sh", FILES / script], check=True)


def values(text: str, tmp_path: Path) -> list[str]:
    path = tmp_path / "settings"
    path.write_text(text)
    code = f'set -u; . {path}; printf "%s|" "$targets" "$name" "$final_action" "$raw_copy"'
    return subprocess.run(["sh", "-c", code], capture_output=True, text=True, check=True).stdout.split("|")[:4]


def test_the_shell_reads_the_same_settings(tmp_path: Path) -> None:
    config = 'targets = ["/var/crash", "raw:/dev/vdb"]\npath_name = "web-3"\nfinal_action = "halt"\n'
    assert values(capture.settings(config), tmp_path) == ["/var/crash raw:/dev/vdb", "web-3", "halt", "yes"]
    nasty = "targets = ['/a$(touch /tmp/x)`b`', '''/it's''']\n"
    assert values(capture.settings(nasty), tmp_path)[0] == "/a$(touch /tmp/x)`b` /it's"


@pytest.mark.parametrize("line", ['encrypt = "age1x"', "time_budget_s = 60"])
def test_memory_is_not_copied_in_the_clear_or_for_hours(line: str, tmp_path: Path) -> None:
    assert values(capture.settings(f'targets = ["/x"]\n{line}\n'), tmp_path)[3] == "no"


@pytest.mark.parametrize("config", ["targets = [", 'final_action = "explode"'])
def test_a_wrong_configuration_builds_no_image(config: str) -> None:
    with pytest.raises(UsageError):
        capture.settings(config)


def test_an_image_holds_the_ladder_and_the_modules(installed_tree: ModuleTree, tmp_path: Path) -> None:
    contents = Contents('targets = ["/var/crash"]\n', modules=("virtio_blk",),
                        files={"etc/kdumpy/pre.d/x": b"#!/bin/sh\n", "etc/key": b"secret"})
    built = capture.build(installed_tree, None, contents, tmp_path / "image", compression="gzip")
    assert built.bytes == built.path.stat().st_size
    held = {entry.name: entry for entry in cpio.read(gzip.decompress(built.path.read_bytes()))}
    assert held["usr/lib/kdumpy/ladder"].mode & 0o777 == 0o755
    assert held["etc/kdumpy-capture.toml"].contents() == contents.config.encode()
    assert held["etc/kdumpy/pre.d/x"].mode & 0o777 == 0o700
    assert held["etc/key"].mode & 0o777 == 0o600
    assert held["bin/dd"].contents() == b"busybox"
    assert any(name.endswith("virtio_blk.ko") for name in held)
    assert built.unpacked >= sum(entry.size() for entry in held.values())
