"""/etc/kdumpy.toml: what is written reads back, and what is wrong is named with its mend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdumpy.errors import UsageError
from kdumpy.host.settings import PATH, Image, Settings, load, parse, render, update
from kdumpy.host.system import System


def test_the_defaults_are_written_with_every_key_s_meaning_and_read_back() -> None:
    text = render(Settings())
    assert parse(text) == Settings()
    keys = [line for line in text.splitlines() if "=" in line and not line.startswith("#")]
    assert len(keys) > 30
    lines = text.splitlines()
    assert all(lines[lines.index(key) - 1].startswith("# ") for key in keys)


def test_what_was_changed_reads_back() -> None:
    changed = replace(Settings(), crashkernel="512M,high",
                      image=Image(modules=("xfs", "nvme"), cmdline_append='a="b c"'))
    assert parse(render(changed)) == changed


def test_a_table_may_name_some_keys_only() -> None:
    settings = parse("[capture]\nlevel = 1\n[panic]\non_oops = false\n")
    assert settings.capture.level == 1
    assert settings.capture.targets == ("/var/crash",)
    assert not settings.panic.on_oops
    assert settings.panic.reboot_s == 10


@pytest.mark.parametrize(("text", "said"), [
    ("crashkernl = 'auto'", "did you mean crashkernel?"),
    ("[capture]\nlevle = 3", "did you mean level?"),
    ("[panic]\non_oops = 1", "true or false is right"),
    ("capture = 3", "it is a table: [capture]"),
    ("[retention]\nkeep = -1", "from 0 to 100000"),
    ("[image]\nbuilder = 'drakut'", "did you mean dracut?"),
    ("crashkernel = '1 G'", "a size such as 256M"),
    ("crashkernel = '512M,high  128M,low'", "a size such as 256M"),
    ("crashkernel = '512M,high 128M'", "a size such as 256M"),
    ("[capture", "not TOML"),
])
def test_a_wrong_key_is_named(text: str, said: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(text)
    assert said in str(caught.value)
    assert PATH in str(caught.value)


def test_a_host_without_the_file_has_the_defaults(tmp_path: Path) -> None:
    assert load(System(tmp_path)) == Settings()


@pytest.mark.parametrize("text", [
    "", "# mine\ncrashkernel = '256M'   # why\n", "[capture]\nlevel = 1\n# mine\n\n[panic]\non_oops = false\n",
    "[capture]\ntargets = [\n  '/a',\n]\n", render(Settings())])
def test_an_update_changes_the_keys_that_differ_and_no_other_line(text: str) -> None:
    before = parse(text)
    after = replace(before, crashkernel="512M", capture=replace(before.capture, level=17, targets=("/srv/crash",)),
                    retention=replace(before.retention, keep=2))
    changed = update(text, after)
    assert parse(changed) == after
    assert update(changed, after) == changed
    for line in text.splitlines():
        if line.startswith("#") and "targets = [\n" not in text:
            assert line in changed.splitlines()
    if "on_oops" in text and "reboot_s" not in text:
        assert "on_oops = false" in changed
