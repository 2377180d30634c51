"""A guest with task groups that compete for its CPUs, real-time tasks among them, and neighbours on its network."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from kdumpy.vm import laboratory
from kdumpy.vm.laboratory import LabDump, Recipe

_TRIGGER = """
cd /sys/fs/cgroup; echo +cpu >cgroup.subtree_control; mkdir outer tight; echo +cpu >outer/cgroup.subtree_control
mkdir outer/inner outer/other; echo '1000 1000000' >tight/cpu.max
spin() { sh -c "echo 0 >/sys/fs/cgroup/$1/cgroup.procs; while :; do :; done" spin-$1 & }
spin outer/inner; spin outer/inner; spin outer/other; spin tight; spin tight
ifconfig dummy0 192.0.2.1 netmask 255.255.255.0 arp up
arp -i dummy0 -s 192.0.2.7 02:00:5e:00:53:07; ping -c 1 -W 1 192.0.2.9
sysctl -w kernel.sched_rt_runtime_us=500000
taskset 2 chrt -f 7 sh -c 'while :; do :; done' & taskset 2 chrt -f 7 sh -c 'while :; do :; done' &
sleep 3; echo c >/proc/sysrq-trigger
"""


@cache
def dump(kernel: str) -> LabDump:
    """Return the guest's dump."""
    def recipe(plain: Recipe) -> Recipe:
        return replace(plain, fault=replace(plain.fault, trigger=_TRIGGER.strip(), modules=("dummy",),
                                            programs=("chrt",)))

    return laboratory.dump(kernel, "sysrq", recipe=recipe, progress=lambda line: print(line, flush=True))
