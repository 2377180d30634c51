from __future__ import annotations

import pytest

from kdumpy.errors import HostError
from kdumpy.vm import programs
from kdumpy.vm.qemu import PROGRAM


@pytest.mark.parametrize(("manager", "mend"), [
    ("apt", "apt-get install qemu-system-x86 e2fsprogs"),
    ("dnf", "dnf install qemu-kvm e2fsprogs"),
    ("zypper", "zypper install qemu-x86 e2fsprogs"),
    ("pacman", "pacman -S qemu-system-x86 e2fsprogs"),
    (None, "install qemu-system-x86_64 (Debian: qemu-system-x86, Fedora: qemu-kvm), mke2fs"),
])
def test_what_is_missing_is_named_as_the_distribution_calls_it(manager: str | None, mend: str,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(programs, "find", lambda program: None)
    with pytest.raises(HostError) as caught:
        programs.need((PROGRAM, "mke2fs", "debugfs"), manager)
    assert caught.value.mend.startswith(mend)
    assert caught.value.why == f"{PROGRAM}, mke2fs, debugfs"


def test_what_is_there_is_not_asked_for() -> None:
    programs.need(("setpriv",), None)


def test_every_program_has_a_package_everywhere() -> None:
    assert all(packages.keys() == programs.MANAGERS.keys() for packages in programs.PACKAGES.values())
