"""The causes: one file each, and the list of them.

To add one: write the file, name it in CAUSES, add its three tests.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module

from kdumpy.diagnosis.causes.base import Cause, Finding, Unjudged

__all__ = ["CAUSES", "Cause", "Finding", "Unjudged", "causes"]

CAUSES = (
    "sysrq", "machine_check", "nmi", "stack_corruption", "stack_overflow", "double_free", "list_corruption",
    "refcount", "use_after_free", "jump_to_null", "nx_execute", "user_access", "write_to_readonly",
    "null_dereference", "general_protection", "bad_address", "divide_error", "bug", "invalid_opcode", "warn",
    "deadlock", "hung_task", "soft_lockup", "hard_lockup", "rcu_stall", "memory_leak", "out_of_memory",
    "init_exit", "no_root", "driver_panic", "unknown",
)
"""Every cause by its file's name, the more specific ones first: the order decides between equals."""


@cache
def causes() -> tuple[Cause, ...]:
    """Return one of each cause."""
    found: list[Cause] = []
    for name in CAUSES:
        module = import_module(f"kdumpy.diagnosis.causes.{name}")
        found += [made() for made in vars(module).values()
                  if isinstance(made, type) and issubclass(made, Cause) and made is not Cause
                  and made.__module__ == module.__name__]
    return tuple(found)
