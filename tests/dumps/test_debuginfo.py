"""The dump explains itself as well as DWARF does: frames, types, variables, modules, on real dumps."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import drgn
import pytest

import lab
from kdumpy.debuginfo import kallsyms
from kdumpy.debuginfo.attach import attach
from kdumpy.debuginfo.btf import Kind
from kdumpy.debuginfo.variables import DECLARATIONS
from withdwarf import alone, every_task, frames, same_type, with_dwarf


@pytest.fixture(autouse=True)
def _without_the_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRGN_DISABLE_PLUGINS", "*")


@pytest.mark.parametrize(("kernel", "fault"), lab.panics())
def test_all_frames_of_all_tasks_equal_those_with_dwarf(kernel: str, fault: str) -> None:
    ours, info = alone(kernel, fault)
    assert info.missing == {}
    theirs = with_dwarf(kernel, fault)
    tasks, reference = every_task(ours), every_task(theirs)
    assert len(reference) > 40
    assert tasks.keys() == reference.keys()
    wrong = {f"{task.comm.string_().decode()} {address:#x}": (frames(ours, tasks[address]), expected)
             for address, task in reference.items()
             if frames(ours, tasks[address]) != (expected := frames(theirs, task))}
    assert wrong == {}
    crashed, expected = ours.crashed_thread(), theirs.crashed_thread()
    assert frames(ours, crashed.object) == frames(theirs, expected.object)
    # After a jump to an address without code drgn knows one frame; kdumpy goes on (test_kernel.py).
    innermost = frames(ours, crashed.object)[0]
    assert isinstance(innermost, int)
    assert len(frames(ours, crashed.object)) > 1 or not is_code(ours, innermost)


def is_code(prog: drgn.Program, address: int) -> bool:
    try:
        return bool(prog.symbol(address).kind == drgn.SymbolKind.FUNC)
    except LookupError:
        return False


def members(made: drgn.Type) -> Iterator[tuple[str | None, int, int | None]]:
    for member in made.members or ():
        yield member.name, member.bit_offset, member.bit_field_size


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_every_struct_has_the_layout_that_dwarf_says(kernel: str) -> None:
    ours, info = alone(kernel, "sysrq")
    theirs = with_dwarf(kernel, "sysrq")
    assert info.types is not None
    equal, different = 0, []
    for name in info.types.btf.index.names[Kind.STRUCT]:
        try:
            expected = theirs.type(f"struct {name}")
        except LookupError:
            continue
        if not expected.is_complete():
            continue
        made = ours.type(f"struct {name}")
        if made.size == expected.size and list(members(made)) == list(members(expected)):
            equal += 1
        else:
            different.append(name)
    # A few names stand for different structs in different files; which one is "the" struct is arbitrary.
    assert len(different) < 25, different
    assert equal > 5000


SHORTER = {"swapper_spaces", "nr_swapper_spaces"}
"""Arrays as long as the kernel's configuration makes them (MAX_SWAPFILES): declared with the least length."""


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_every_declared_variable_has_the_address_and_type_that_dwarf_says(kernel: str) -> None:
    ours, _ = alone(kernel, "sysrq")
    theirs = with_dwarf(kernel, "sysrq")
    wrong, equal = {}, 0
    for name in DECLARATIONS:
        try:
            expected = theirs.variable(name)
        except LookupError:
            continue
        try:
            found = ours.variable(name)
        except LookupError:
            wrong[name] = f"missing; DWARF: {expected.type_.type_name()}"
            continue
        ours_type, its_type = found.type_, expected.type_
        if name in SHORTER and ours_type.length <= its_type.length:
            ours_type, its_type = ours_type.type, its_type.type
        if found.address_ == expected.address_ and same_type(ours_type, its_type):
            equal += 1
        else:
            wrong[name] = f"{found.type_.type_name()}; DWARF: {expected.type_.type_name()}"
    assert wrong == {}
    assert equal > 80


def test_before_6_0_the_tables_are_found_by_their_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDUMPY_CACHE", "")
    ours = drgn.Program()
    ours.set_core_dump(str(lab.dump("5.10", "sysrq").path))
    info = attach(ours)
    assert info.symbols is not None
    assert info.symbols.source.startswith("a search")
    theirs = with_dwarf("5.10", "sysrq")
    for name in ("init_task", "__per_cpu_offset", "panic", "linux_banner", "__start_BTF", "sysrq_handle_crash"):
        assert ours.symbol(name).address == theirs.symbol(name).address


def test_an_address_that_is_a_per_cpu_offset_names_no_symbol() -> None:
    ours, _ = alone("6.1", "sysrq")
    for address in (0, 8, 0x1000):
        with pytest.raises(LookupError):
            ours.symbol(address)


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_a_module_has_its_symbols_with_btf_or_without(kernel: str) -> None:
    ours, info = alone(kernel, "null-workqueue")
    names = [frame.symbol().name.split(".")[0] for frame in list(ours.crashed_thread().stack_trace())[:2]]
    assert names == ["flaky_poll_channel", "flaky_poll_work"]
    assert info.module_symbols is not None
    assert info.module_symbols.module_at(ours.symbol("flaky_poll_work").address) == "flaky"
    assert info.types is not None
    if kernel in ("5.10", "6.1"):       # the headers of the later kernels bring what gives the driver BTF
        assert "flaky" not in info.types.modules
        with pytest.raises(LookupError):
            ours.type("struct flaky_channel")
    else:
        assert ours.type("struct flaky_channel").has_member("rate_hz")


@pytest.mark.parametrize("kernel", ["6.1", "6.12", "newest"])
def test_types_of_a_module_come_from_its_split_btf(kernel: str) -> None:
    ours, info = alone(kernel, "sysrq")
    made = ours.type("struct virtnet_info")             # known to virtio_net only
    assert info.types is not None
    assert "virtio_net" in info.types.modules
    assert made.has_member("vdev")
    expected = with_dwarf(kernel, "sysrq").type("struct virtnet_info")
    assert made.size == expected.size
    assert list(members(made)) == list(members(expected))


def test_plain_drgn_opens_a_bare_dump_with_the_plugin() -> None:
    code = "print(prog['init_task'].comm.string_().decode()); print(prog.crashed_thread().stack_trace())"
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(Path.home())}
    done = subprocess.run([sys.executable, "-m", "drgn", "-q", "-c", str(lab.dump("6.1", "null-workqueue").path),
                           "--no-default-symbols", "-e", code],
                          env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith("swapper/0\n")
    assert "flaky_poll_channel" in done.stdout
    assert "process_one_work" in done.stdout


def test_a_damaged_symbol_count_is_refused() -> None:
    prog = drgn.Program()
    prog.set_core_dump(str(lab.dump("6.1", "sysrq").path))
    address = int(dict(line.split("=") for line in prog["VMCOREINFO"].string_().decode().splitlines()
                       if "=" in line)["SYMBOL(kallsyms_num_syms)"], 16)
    prog.add_memory_segment(address, 4, lambda at, count, offset, physical: b"\xff" * count)
    info = attach(prog)
    assert "claims" in info.missing["symbols"]


UNKNOWABLE = {
    "5.10": {
        "BLK_MQ_NO_TAG": "-1U in an enum of small numbers",
        "BLK_MQ_TAG_MAX": "BLK_MQ_NO_TAG - 1",
        "BLK_SEG_BOUNDARY_MASK": "0xFFFFFFFFUL in an enum of small numbers",
        "RT_TABLE_MAX": "0xFFFFFFFF in an enum of small numbers",
        "NVME_AEN_CFG_DISC_CHANGE": "1 << 31, an int",
        "__NETDEV_TX_MIN": "INT_MIN without other negative numbers",
    },
}
"""Enumerators whose value cannot be had from a BTF that does not say which enums are signed (before 6.0)."""


@pytest.mark.parametrize("kernel", lab.KERNELS)
def test_every_enumerator_has_the_value_that_dwarf_says(kernel: str) -> None:
    _, info = alone(kernel, "sysrq")
    theirs = with_dwarf(kernel, "sysrq")
    assert info.types is not None
    btf = info.types.btf
    records = [btf.type(type_id) for type_id in range(1, btf.end_id)]
    ours = {frozenset(btf.enumerator_values(record)) for record in records if record.kind in (Kind.ENUM, Kind.ENUM64)}
    names = {name for pairs in ours for name, _ in pairs}
    assert names == btf.index.enumerators.keys()
    equal, different, unknown = 0, set(), 0
    for name in names:
        try:
            enum = theirs.constant(name).type_
        except LookupError:
            unknown += 1
            continue
        # A few names (Opt_uid) stand in several enums: the one that DWARF gives must be among ours, value by value.
        expected = frozenset((item.name, item.value) for item in enum.enumerators)
        if expected in ours:
            equal += 1
        else:
            closest = max(ours, key=lambda pairs: len({name for name, _ in pairs} & {name for name, _ in expected}))
            different |= {item for item, _ in expected ^ closest}
    assert different == UNKNOWABLE.get(kernel, {}).keys()
    assert equal > 11_500
    assert unknown < 40


def test_an_enum_that_pahole_truncated_has_no_constants() -> None:
    ours, _ = alone("5.10", "sysrq")
    theirs = with_dwarf("5.10", "sysrq")
    for name in ("BPF_F_CTXLEN_MASK", "PERF_SAMPLE_IP", "HMM_PFN_VALID"):
        assert drgn.sizeof(theirs.constant(name).type_) == 8
        with pytest.raises(LookupError):
            ours.constant(name)
    assert ours.constant("PROC_IPC_INIT_INO").value_() == 0xEFFFFFFF


def test_a_missing_page_near_the_symbol_tables_does_not_hide_them() -> None:
    prog = drgn.Program()
    prog.set_core_dump(str(lab.dump("5.10", "sysrq").path))
    found = re.search(r"^SYMBOL\(_stext\)=([0-9a-f]+)$", prog["VMCOREINFO"].string_().decode(), re.M)
    assert found
    tables = kallsyms.find_tables(prog, int(found[1], 16))

    def missing(address: int, count: int, offset: int, physical: bool) -> bytes:
        raise drgn.FaultError("page is missing", address)

    behind = (tables["kallsyms_token_index"] + 512 + 0xFFF) & ~0xFFF
    prog.add_memory_segment(behind, 4096, missing)
    with pytest.raises(drgn.FaultError):
        prog.read(tables["kallsyms_token_table"], 8192)
    info = attach(prog)
    assert "symbols" not in info.missing
    assert prog.symbol("init_task").address == with_dwarf("5.10", "sysrq").symbol("init_task").address
