"""The opened dump: `Kernel` and its values."""

from kdumpy.kernel.kernel import Kernel
from kdumpy.kernel.opening import open_kernel
from kdumpy.kernel.values import Cpu, Frame, Module, Panic, Stack, System, Task

__all__ = ["Cpu", "Frame", "Kernel", "Module", "Panic", "Stack", "System", "Task", "open_kernel"]
