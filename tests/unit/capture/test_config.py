"""The capture's configuration: every wrong key is told with its mend, and what is written is read back."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from kdumpy.capture import declared
from kdumpy.capture.config import CaptureConfig, from_values, load, parse, render
from kdumpy.errors import HostError, UsageError


def test_the_least_that_is_needed_is_a_target() -> None:
    found = parse('targets = ["/var/crash"]')
    assert found.targets == ("/var/crash",)
    assert (found.level, found.compress, found.final_action, found.sha256) == (31, "zstd", "reboot", False)


@pytest.mark.parametrize(("text", "told"), [
    ("level = 31", "targets is missing"),
    ("targets = []", "targets is empty"),
    ('targets = "/var/crash"', "targets is '/var/crash'"),
    ('targets = ["/a"]\nlevl = 3', "did you mean level?"),
    ('targets = ["/a"]\nlevel = 32', "from 0 to 31"),
    ('targets = ["/a"]\nlevel = "31"', "a number is right"),
    ('targets = ["/a"]\nlevel = true', "a number is right"),
    ('targets = ["/a"]\nsha256 = 1', "true or false is right"),
    ('targets = ["/a"]\ncompress = "ztsd"', "did you mean zstd?"),
    ('targets = ["/a"]\nfinal_action = "explode"', "known: reboot, poweroff, halt, shell"),
    ('targets = ["/a"]\ntime_budget_s = -1', "0 is the least"),
    ('targets = ["/a"]\nencrypt = "AGE-SECRET-KEY-1QQQ"', "is a private key"),
    ('targets = ["/a"]\nencrypt = "gpg:"', "age public key starts with age1"),
    ('targets = ["/a"]\npath_name = "../up"', "path_name is '../up'"),
    ('targets = ["/a"]\nnfs_options = "a\\nb"', "control characters"),
    ('targets = ["dsk:UUID=1"]', "did you mean disk?"),
    ('targets = ["var/crash"]', "no such kind of target"),
    ('targets = ["file://host/var"]', "names a host"),
    ('targets = ["disk:sda1/dir"]', "not a device"),
    ('targets = ["disk:UUID="]', "names nothing"),
    ('targets = ["disk:UUID=1/../dir"]', "may not hold"),
    ("targets = [", "not TOML"),
])
def test_what_is_wrong_is_named(text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text, where="the-file")
    assert told in str(caught.value)
    assert caught.value.where == "the-file"


def test_a_file_that_cannot_be_read_is_an_error_of_the_host(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="cannot read"):
        load(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b"\xff")
    with pytest.raises(HostError, match="cannot read"):
        load(tmp_path / "latin.toml")


@pytest.mark.parametrize("documented", [False, True])
def test_what_is_rendered_is_read_back(documented: bool) -> None:
    made = from_values({"targets": ["/var/crash", "disk:LABEL=a b%22\\/dir"], "level": 17, "sha256": True,
                        "path_name": "web-3.example", "nfs_options": 'a="b",c=\\d'})
    assert parse(render(made, documented=documented)) == made


def test_every_key_is_documented() -> None:
    text = render(CaptureConfig(targets=("/var/crash",)), documented=True)
    for key in fields(CaptureConfig):
        assert len(key.metadata["doc"]) > 15
        assert f"# {key.metadata['doc']}\n{key.name} = " in text


def test_the_image_can_check_a_configuration_without_numpy() -> None:
    code = ("import sys; from kdumpy.capture import config; config.parse('targets = [\"/var/crash\"]'); "
            "sys.exit(bool({'numpy', 'subprocess', 'difflib', 'ssl'} & set(sys.modules)))")
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_nearest_name_is_offered_only_when_one_is_near() -> None:
    assert declared.nearest("targts", ["targets", "level"]) == "did you mean targets? "
    assert declared.nearest("xyz", ["targets", "level"]) == ""
