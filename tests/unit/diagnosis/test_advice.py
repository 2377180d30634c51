"""Where a kernel's bugs are reported, by what it says of itself."""

from __future__ import annotations

import pytest

from kdumpy.diagnosis.advice import tracker


@pytest.mark.parametrize(("release", "build", "where"), [
    ("6.1.0-57-cloud-amd64", "#1 SMP PREEMPT_DYNAMIC Debian 6.1.192-3 (2026-11-02)",
     "Debian (reportbug linux-image-6.1.0-57-cloud-amd64)"),
    ("6.8.0-45-generic", "#45-Ubuntu SMP PREEMPT_DYNAMIC Fri Aug 30 12:02:04 UTC 2024", "Ubuntu (ubuntu-bug linux)"),
    ("6.10.6-200.fc40.x86_64", "#1 SMP PREEMPT_DYNAMIC Mon Aug 19", "Fedora (bugzilla.redhat.com, component kernel)"),
    ("5.14.0-427.13.1.el9_4.x86_64", "#1 SMP PREEMPT_DYNAMIC Wed Apr 10",
     "the distribution (Red Hat's is issues.redhat.com)"),
    ("6.4.0-150600.23.17-default", "#1 SMP PREEMPT_DYNAMIC Tue Jul 30",
     "SUSE (bugzilla.suse.com; openSUSE: bugzilla.opensuse.org)"),
    ("6.10.7-arch1-1", "#1 SMP PREEMPT_DYNAMIC Thu, 29 Aug 2024", "Arch Linux (gitlab.archlinux.org, package linux)"),
    ("6.19.0", "#7 SMP", "the distribution, or bugzilla.kernel.org for a kernel of your own"),
    ("", "", "the distribution, or bugzilla.kernel.org for a kernel of your own"),
])
def test_where_to_report(release: str, build: str, where: str) -> None:
    assert tracker(release, build) == where
