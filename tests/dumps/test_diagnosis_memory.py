"""Where the memory went: it adds up to the RAM, and to what the kernel itself said in the log."""

from __future__ import annotations

import re
import struct
import time
from functools import cache

import drgn
import pytest

import kdumpy
import lab
from diagnosed import diagnosed
from kdumpy.diagnosis.crash import Crash
from kdumpy.diagnosis.facts.memory import MemoryAccount
from kdumpy.diagnosis.memoryuse.account import memory_account, oom_kills
from kdumpy.diagnosis.memoryuse.allocsites import allocation_sites

KERNELS = sorted({kernel for kernel, _ in lab.panics("sysrq")})
SHORT = [pair for pair in lab.panics("out-of-memory", "memory-leak") if pair[0] != "newest" or lab.FULL]


@cache
def account(kernel: str, fault: str) -> tuple[MemoryAccount, tuple[str, ...]]:
    with kdumpy.open(lab.dump(kernel, fault).path) as opened:
        crash = Crash(opened.path, opened, opened.log)
        found = memory_account(opened, crash.lines, crash.seconds)
        assert found is not None
        return found, tuple(crash.lines)


def sizes(kernel: str, fault: str) -> dict[str, int]:
    return {share.name: share.size for share in account(kernel, fault)[0].shares}


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_shares_add_up_to_the_ram(kernel: str) -> None:
    found = account(kernel, "sysrq")[0]
    assert sum(share.size for share in found.shares) == found.ram
    assert found.ram == sum(zone.present for zone in found.zones)
    assert found.missing == ()


@pytest.mark.parametrize("kernel", KERNELS)
def test_little_is_left_unexplained(kernel: str) -> None:
    found = sizes(kernel, "sysrq")
    assert 0 <= found["other"] < 0.03 * sum(found.values())


@pytest.mark.parametrize(("kernel", "fault"), SHORT)
def test_it_is_what_the_kernel_said(kernel: str, fault: str) -> None:
    """mm/show_mem.c prints pages of RAM and reserved ones when memory runs out."""
    found, lines = account(kernel, fault)
    matches = (re.match(r"(\d+) pages (RAM|reserved)$", line) for line in lines)
    said = {match[2]: int(match[1]) * 4096 for match in matches if match}
    assert found.ram == said["RAM"]
    assert sizes(kernel, fault)["reserved"] == said["reserved"]


@pytest.mark.parametrize("kernel", KERNELS)
def test_free_blocks_are_the_free_memory(kernel: str) -> None:
    found = account(kernel, "sysrq")[0]
    for zone in found.zones:
        blocks = sum(count << order for order, count in enumerate(zone.free_blocks)) * 4096
        assert abs(blocks - zone.free) <= found.error
        assert 0 < zone.minimum <= zone.low < zone.managed <= zone.present


@pytest.mark.parametrize("kernel", sorted({kernel for kernel, _ in lab.panics("memory-leak")}))
def test_a_leak_is_seen_in_its_cache(kernel: str) -> None:
    found = account(kernel, "memory-leak")[0]
    largest = found.caches[0]
    assert largest.name == "flaky_sample"
    assert not largest.reclaimable
    assert largest.size > found.ram // 2
    assert largest.objects is not None
    assert largest.objects * largest.object_size <= largest.size
    assert found.shares[0].name == "slab unreclaimable"


@pytest.mark.parametrize("kernel", sorted({kernel for kernel, _ in lab.panics("out-of-memory")}))
def test_a_load_is_seen_in_its_process(kernel: str) -> None:
    found = account(kernel, "out-of-memory")[0]
    assert found.shares[0].name == "processes"
    assert found.processes[0].comm == "dd"
    assert abs(found.processes[0].anonymous - sizes(kernel, "out-of-memory")["processes"]) < 0.05 * found.ram


@pytest.mark.parametrize("kernel", KERNELS)
def test_the_processes_are_counted_to_the_page(kernel: str) -> None:
    """A guest at rest: what its processes hold is in the sum of them, pages that two share counted twice."""
    found = account(kernel, "sysrq")[0]
    total = sum(process.anonymous for process in found.processes)
    assert total > 0
    assert all(process.anonymous >= 4096 for process in found.processes[:3])


def test_it_is_fast() -> None:
    with kdumpy.open(lab.dump("6.1", "memory-leak").path) as opened:
        assert opened.system.cpus
        begin = time.monotonic()
        memory_account(opened)
        assert time.monotonic() - begin < 0.15


def test_a_limit_of_a_cgroup() -> None:
    """The root group of a real dump, given a limit."""
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as opened:
        prog = opened.prog
        root = drgn.Object(prog, "struct mem_cgroup *", prog.read_u64(prog.symbol("root_mem_cgroup").address))
        data = struct.pack("<Q", 1000)
        prog.add_memory_segment(root.memory.max.address_of_().value_(), 8,
                                lambda address, count, offset, physical: data[offset : offset + count])
        found = memory_account(opened)
        assert found is not None
        (group,) = found.cgroups
        assert (group.path, group.limit) == ("/", 4096 * 1000)
        assert group.used == root.memory.usage.counter.value_() * 4096


def test_missing_zones_give_no_account() -> None:
    with kdumpy.open(lab.dump("6.1", "sysrq").path) as opened:
        def refuse(address: int, count: int, offset: int, physical: bool) -> bytes:
            raise drgn.FaultError("excluded page", address)
        opened.prog.add_memory_segment(opened.prog.symbol("node_data").address, 8, refuse)
        assert memory_account(opened) is None


# Linux 6.1, from a cgroup at its limit, and from the whole machine.
KILLS = """\
oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=/,mems_allowed=0,oom_memcg=/a.slice/b.service,\
task_memcg=/a.slice/b.service,task=stress,pid=811,uid=0
Memory cgroup out of memory: Killed process 811 (stress) total-vm:264420kB, anon-rss:101036kB, file-rss:1024kB, \
shmem-rss:0kB, UID:0 pgtables:248kB oom_score_adj:0
oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/,task=dd,pid=90,uid=0
Out of memory: Killed process 90 (dd) total-vm:923520kB, anon-rss:370356kB, file-rss:0kB, shmem-rss:0kB, UID:0
""".splitlines()


def test_what_the_killer_did() -> None:
    one, other = oom_kills(KILLS, [1.0, 1.5, 2.0, 2.5])
    assert (one.pid, one.comm, one.constraint, one.cgroup) == (811, "stress", "memcg", "/a.slice/b.service")
    assert (one.anonymous, one.seconds, one.score_adjustment) == (101036 << 10, 1.5, 0)
    assert other.score_adjustment is None, "its line was cut"
    assert (other.pid, other.comm, other.constraint, other.cgroup) == (90, "dd", "none", "")


@pytest.mark.parametrize("kernel", [name for name, _ in lab.panics("memory-leak-tracked")])
def test_a_leak_is_told_by_who_allocates(kernel: str) -> None:
    with kdumpy.open(lab.dump(kernel, "memory-leak-tracked").path) as opened:
        first = allocation_sites(opened, "flaky_sample")[0]
        assert first.part > 0.9
        assert first.frames[0].function == "flaky_take_sample"
        verdict = diagnosed(kernel, "memory-leak-tracked").verdict
        assert verdict.culprit is not None
        assert (verdict.cause, verdict.culprit.module, verdict.confidence) == ("memory-leak", "flaky", "likely")
        assert any("100 % by flaky_take_sample" in item.detail for item in verdict.evidence)
        assert "slub_debug=U" in verdict.explanation


def test_who_allocates_the_objects_of_a_cache() -> None:
    """slub_debug=U for all caches, in a guest that used another object after it was freed."""
    with kdumpy.open(lab.dump("6.1", "use-after-free").path) as opened:
        sites = allocation_sites(opened, "task_struct")
        assert sites[0].frame.function == "dup_task_struct" or "copy_process" in str(sites[0].frames)
        assert 0.99 < sum(site.part for site in sites) < 1.01


def test_without_tracking_nobody_is_named() -> None:
    with kdumpy.open(lab.dump("6.1", "memory-leak").path) as opened:
        assert allocation_sites(opened, "flaky_sample") == []
        assert allocation_sites(opened, "no such cache") == []
        assert any("slub_debug=U,flaky_sample" in words for words in diagnosed("6.1", "memory-leak").verdict.next)


def test_what_is_in_no_cache_is_blamed_on_none() -> None:
    """kmalloc() of more than two pages counts as slabs, and is in no cache: as if that were what grew."""
    from kdumpy.diagnosis import diagnose

    with kdumpy.open(lab.dump("6.1", "memory-leak").path) as opened:
        prog = opened.prog
        counter = prog["vm_node_stat"][prog.constant("NR_SLAB_UNRECLAIMABLE_B")].counter
        more = struct.pack("<q", 3 * int(counter))
        prog.add_memory_segment(counter.address_, 8, lambda _at, count, offset, _: more[offset:offset + count])
        verdict = diagnose(opened).verdict
    assert verdict.title.startswith("Memory leak in the kernel: large kmallocs")
    assert "MiB are in no cache" in verdict.explanation
    assert "flaky_sample" not in verdict.explanation
    assert "slub_debug" not in " ".join(verdict.next)


@pytest.mark.skipif(not lab.FULL, reason="a dump of the full matrix")
@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_a_leak_of_large_kmallocs_is_told_as_one(kernel: str) -> None:
    verdict = diagnosed(kernel, "lost-frames").verdict
    assert verdict.title == "Memory leak in the kernel: large kmallocs, taken by hive_take_frames [hive]"
    assert "in no cache" in verdict.explanation
