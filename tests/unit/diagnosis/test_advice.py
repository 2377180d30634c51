"""Where a kernel's bugs are reported, by what it says of itself."""

from __future__ import annotations

import pytest

from kdumpy.diagnosis.advice import general_advice, tracker, tracking_advice
from kdumpy.diagnosis.facts.reading import Pointee, Track
from kdumpy.diagnosis.model import Culprit
from unit.diagnosis import kernel_logs


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


LOG = """\
[    7.700001] flaky: loading out-of-tree module taints kernel.
[    7.700004] Oops: 0000 [#1] PREEMPT SMP NOPTI
[    7.700005] CPU: 0 PID: 7 Comm: kworker/0:0 Tainted: G           OE      6.1.0 #1
[    7.700006] RIP: 0010:enqueue+0x23/0x5b [flaky]
[    7.700007] Modules linked in: other(OE) ext4 8021q(-) mbcache [last unloaded: gone]
"""


@pytest.mark.parametrize(("module", "foreign"), [
    ("flaky", True), ("other", True), ("ext4", False), ("8021q", False), ("mbcache", False), ("ext", None),
])
def test_the_log_tells_whose_a_module_is_where_the_list_of_modules_is_lost(module: str, foreign: bool | None) -> None:
    assert kernel_logs.crash(LOG).is_foreign(module) is foreign


def test_a_module_that_the_log_calls_out_of_tree_is_not_the_distributions() -> None:
    advice = " ".join(general_advice(kernel_logs.crash(LOG), Culprit("enqueue", "other", None)))
    assert "report this to its vendor" in advice
    assert "newer kernel" not in advice
    assert "newer kernel mends ext4" in " ".join(general_advice(kernel_logs.crash(LOG), Culprit("f", "ext4", None)))


def tracked(event: str) -> Pointee:
    return Pointee(1, "slab", "an object", tracks=(Track(event, 1, 0, None, ("f",)),))


@pytest.mark.parametrize(("place", "words"), [
    (None, "slub_debug=FZPU"), (tracked("allocated"), "slub_debug=FZPU"), (tracked("freed"), ""),
])
def test_tracking_is_not_advised_where_it_was_on(place: Pointee | None, words: str) -> None:
    assert words in " ".join(tracking_advice(kernel_logs.crash(LOG), place))
    assert bool(tracking_advice(kernel_logs.crash(LOG), place)) == bool(words)
