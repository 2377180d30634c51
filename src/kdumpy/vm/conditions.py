"""What several sets of faults share: how a guest is set to panic, and the kernel's words when it does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

HANG = {"kernel.hung_task_panic": "1", "kernel.hung_task_timeout_secs": "3"}
WARN = {"kernel.panic_on_warn": "1"}
NULL = ("NULL pointer dereference",)
NOT_CANONICAL = ("general protection fault",)

WAITS: Mapping[str, Any] = {"sysctls": HANG, "seconds": 90, "symptoms": ("hung_task: blocked tasks",)}
"""Of a fault that lets tasks hang."""
LOOPS: Mapping[str, Any] = {
    "sysctls": {"kernel.softlockup_panic": "1", "kernel.watchdog_thresh": "3"}, "seconds": 90,
    "symptoms": ("softlockup: hung tasks",)}
"""Of one that lets a CPU loop, which takes interrupts."""
STALLS: Mapping[str, Any] = {
    "sysctls": {"kernel.panic_on_rcu_stall": "1", "kernel.soft_watchdog": "0"}, "seconds": 90,
    "boot": "rcupdate.rcu_cpu_stall_timeout=5", "symptoms": ("RCU Stall",)}
"""Of one that holds RCU up."""
