"""Checks of interrupts and of virtual devices.

Sources: kernel/irq/internals.h, include/linux/irqdesc.h, include/linux/virtio.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import drgn
from drgn.helpers.linux.device import bus_for_each_dev
from drgn.helpers.linux.list import list_for_each_entry

from kdumpy.diagnosis.findings.base import WARNING, Check, Found, Machine, text, with_symbol

_MOST_DEVICES, _MOST_QUEUES = 4096, 4096
_LONG_ENOUGH, _STORM = 30, 50_000
"""Seconds of uptime, and interrupts a second over all of it: one that is not answered comes so often."""


def interrupts(machine: Machine) -> Iterator[Found]:
    """An interrupt was given up because nobody answered it, or comes all the time."""
    from drgn.helpers.linux.irq import for_each_irq_desc

    prog, uptime = machine.kernel.prog, machine.kernel.system.uptime_s or 0
    given_up = _constant(prog, "IRQS_SPURIOUS_DISABLED", 2)
    for number, line in islice(for_each_irq_desc(prog), 65_536):
        names = _users(line)
        if int(line.core_internal_state__do_not_mess_with_it.value_()) & given_up:
            yield Found(WARNING, f"The kernel gave up interrupt {number}: nobody had answered it", names,
                        f"irq {number}")
        count = int(line.tot_count.value_())
        if uptime > _LONG_ENOUGH and count / uptime > _STORM:
            yield Found(WARNING, f"Interrupt {number} came {count / uptime:,.0f} times a second", names,
                        f"irq {number}")


def _constant(prog: drgn.Program, name: str, otherwise: int) -> int:
    try:
        return int(prog.constant(name).value_())
    except LookupError:
        return otherwise


def _users(line: drgn.Object) -> str:
    from drgn.helpers.linux.irq import irq_desc_action_names

    return ", ".join(name.decode("utf-8", "backslashreplace") for name in irq_desc_action_names(line)[:4])


def full_queues(machine: Machine) -> Iterator[Found]:
    """A virtual device takes nothing more: its host does not answer what is in its queue."""
    prog = machine.kernel.prog
    bus = drgn.Object(prog, "struct bus_type", address=prog.symbol("virtio_bus").address)
    for device in islice(bus_for_each_dev(bus.address_of_()), _MOST_DEVICES):
        virtual = drgn.container_of(device, "struct virtio_device", "dev")
        for queue in islice(list_for_each_entry("struct virtqueue", virtual.vqs.address_of_(), "list"), _MOST_QUEUES):
            name = text(queue.name) if queue.name else ""
            # What a device receives into is full of empty buffers when all is well.
            if not int(queue.num_free.value_()) and not name.startswith(_FILLED):
                yield Found(WARNING, f"The queue {name} of {text(drgn.cast('char *', device.kobj.name))} is full",
                            "the host does not answer what the machine asked of this device",
                            f"struct virtqueue {queue.value_():x}")


_FILLED = ("input", "event", "stats", "inflate", "control", "rx")
"""Queues that a driver fills with buffers for the device to use in its own time."""


CHECKS = (
    Check("interrupts", interrupts, ("struct irq_desc",)),
    Check("virtio queues", full_queues, ("struct virtio_device", "struct virtqueue"), with_symbol("virtio_bus")),
)
