"""Where a register's value came from, over small pieces of machine code."""

from __future__ import annotations

import pytest

from kdumpy.diagnosis.crashed import dataflow
from kdumpy.diagnosis.crashed.assembly import Immediate, Memory, Register, line, operand
from kdumpy.diagnosis.crashed.values import Argument, Constant, Loaded, Made, Met, PerCpu, Plus, Returned, Value, leaves

BASE = 0x1000


def values(code: str, pc: int | None = None, beside: str = "") -> dict[str, Value]:
    """Return the values before the last instruction (`pc`: offset of another one) of code in hexadecimal."""
    data = bytes.fromhex(code)
    cold = bytes.fromhex(beside)

    def read(address: int, size: int) -> bytes:
        if address == BASE:
            return data[:size]
        if address == 0x2000 and cold:
            return cold[:size]
        raise LookupError(hex(address))

    parts = {0x2000: 0x2000 + len(cold)} if cold else {}
    return dataflow.trace(read, BASE, BASE + len(data), BASE + (len(data) - 1 if pc is None else pc),
                          beside=parts).registers


RET = "c3"


def test_an_argument_stays_until_it_is_overwritten() -> None:
    found = values("89d0" + RET)                                # mov %edx,%eax
    assert found["rdi"] == Argument("rdi")
    assert found["rax"] == Made(frozenset({Argument("rdx")}), BASE)     # half of it is lost


def test_a_computed_value_tells_what_it_was_made_of() -> None:
    # movzbl 4(%rdi),%eax; shl $3,%rax; mov 0x100(,%rax,8),%rcx; add (%rsi),%rax; ret
    found = values("0fb64704" "48c1e003" "488b0cc500010000" "480306" + RET)
    state, other = Loaded(Argument("rdi"), 4, 1, 0, BASE), Loaded(Argument("rsi"), 0, 8, 0, BASE + 16)
    assert found["rax"] == Made(frozenset({state, other}), BASE + 16)
    assert found["rcx"] == Loaded(Constant(0x100), 0, 8, 8, BASE + 8, Made(frozenset({state}), BASE + 8))
    assert set(leaves(found["rcx"])) == {found["rcx"], state}
    assert set(leaves(found["rax"])) == {state, other}


def test_what_is_made_of_ever_more_is_given_up() -> None:
    # xor (%rdi),%rax; mov (%rsi,%rax,8),%rax, again and again: a checksum
    assert len(list(leaves(values(("483307" "488b04c6") * 200 + RET).get("rax")))) < 24


def test_an_entry_of_a_list_is_known_by_its_link() -> None:
    # mov 0x28(%rdi),%rax; sub $0x18,%rax; here: mov 0x18(%rax),%rax; sub $0x18,%rax; test %rax,%rax; jne here; ret
    found = values("488b4728" "4883e818" "488b4018" "4883e818" "4885c0" "75f3" + RET, 8)
    assert found["rax"] == Met("rax", BASE + 8, -0x18)


def test_a_chain_of_loads() -> None:
    found = values("488b8780000000" "488b4018" "488b4008" + RET)    # 0x80(%rdi), 0x18(%rax), 8(%rax) -> %rax
    inner = Loaded(Argument("rdi"), 0x80, 8, 0, BASE)
    assert found["rax"] == Loaded(Loaded(inner, 0x18, 8, 0, BASE + 7), 8, 8, 0, BASE + 11)


def test_a_call_leaves_only_what_it_preserves() -> None:
    found = values("4889fb" "e8f8ffffff" + RET)                 # mov %rdi,%rbx; call BASE
    assert found["rbx"] == Argument("rdi")
    assert "rdi" not in found
    assert found["rax"] == Returned(BASE + 3, BASE)


def test_what_paths_bring_differently_is_known_by_where_they_meet() -> None:
    # test %rdi,%rdi; je +3; mov %rsi,%rdi; ret
    found = values("4885ff" "7403" "4889f7" + RET)
    assert found["rdi"] == Met("rdi", BASE + 8)
    assert found["rsi"] == Argument("rsi")


def test_what_one_path_does_not_know_is_not_known() -> None:
    # test %rdi,%rdi; je +4; mov %gs:(%rdi),%rdi; ret
    assert "rdi" not in values("4885ff" "7404" "65488b3f" + RET)


def test_paths_that_agree_keep_the_value() -> None:
    # je +3; mov %rsi,%rax; jmp +3; mov %rsi,%rax -- both sides leave rsi in rax
    found = values("4885ff" "7405" "4889f0" "eb03" "4889f0" + RET)
    assert found["rax"] == Argument("rsi")


def test_a_loop_that_moves_a_pointer_leaves_no_argument() -> None:
    # add $8,%rdi; dec %rsi; jne BASE; ret
    assert values("4883c708" "48ffce" "75f7" + RET)["rdi"] == Met("rdi", BASE + 9, 8)


def test_a_value_of_an_earlier_turn_is_not_taken_for_this_turns() -> None:
    # mov %rdi,%rax; here: mov (%rdi),%rbx; mov %rdi,%rax; mov (%rdi),%rdi; test %rdi,%rdi; jne here; ret
    code = "4889f8" "488b1f" "4889f8" "488b3f" "4885ff" "75f2" + RET
    begin = values(code, 3)
    assert (begin["rdi"], begin["rax"]) == (Met("rdi", BASE + 3), Met("rax", BASE + 3))
    inside = values(code, 9)
    assert inside["rbx"] == Loaded(Met("rdi", BASE + 3), 0, 8, 0, BASE + 3)
    assert inside["rax"] == inside["rdi"] == Met("rdi", BASE + 3)


def test_what_was_pushed_comes_back() -> None:
    # push %rdi; call; pop %rax
    found = values("57" "e8faffffff" "58" + RET)
    assert found["rax"] == Argument("rdi")
    assert found["rsp"] == Argument("rsp")


def test_a_slot_whose_address_was_handed_on_is_forgotten() -> None:
    # sub $16,%rsp; mov %rdi,(%rsp); lea (%rsp),%rdi; call; mov (%rsp),%rax; ret
    found = values("4883ec10" "48893c24" "488d3c24" "e8efffffff" "488b0424" + RET)
    assert "rax" not in found


def test_a_slot_that_nobody_else_knows_is_kept() -> None:
    # sub $16,%rsp; mov %rdi,(%rsp); call; mov (%rsp),%rax
    found = values("4883ec10" "48893c24" "e8f3ffffff" "488b0424" + RET)
    assert found["rax"] == Argument("rdi")


def test_a_vector_store_covers_its_neighbours() -> None:
    # sub $32,%rsp; mov %rdi,8(%rsp); movups %xmm0,(%rsp); mov 8(%rsp),%rax
    found = values("4883ec20" "48897c2408" "0f110424" "488b442408" + RET)
    assert "rax" not in found


def test_the_cold_part_is_a_path_too() -> None:
    # jne 0x2000 (cold); mov (%rdi),%rax   cold: xor %edi,%edi; jmp back
    hot = "4885ff" "0f85f70f0000" "488b07" + RET
    back = (BASE + 9 - (0x2000 + 7)) & 0xFFFFFFFF
    cold = "31ff" "e9" + back.to_bytes(4, "little").hex()
    assert values(hot, 9)["rdi"] == Argument("rdi")
    assert values(hot, 9, cold)["rdi"] == Met("rdi", BASE + 9)


def test_a_table_of_jumps_is_not_followed() -> None:
    assert values("ff24fd00000000" + RET) == {}                 # jmp *0(,%rdi,8)


def test_an_increment_is_no_input() -> None:
    assert values("48ffc7" + RET)["rdi"] == Plus(Argument("rdi"), 1)
    assert values("48ffc7" + RET)["rax"] == Argument("rax")


def test_an_instruction_that_is_not_known_leaves_nothing() -> None:
    assert "rdi" not in values("0f01f8" + RET)                  # swapgs


def test_this_cpus_memory() -> None:
    found = values("65488b0425c0fb0100" + RET)                  # mov %gs:0x1fbc0,%rax
    assert found["rax"] == PerCpu(0x1FBC0, 8)


def test_a_variable_of_the_kernel() -> None:
    found = values("488b0510000000" + RET)                      # mov 0x10(%rip),%rax
    assert found["rax"] == Loaded(Constant(BASE + 7 + 0x10), 0, 8, 0, BASE)


def test_a_zeroed_register_is_a_constant() -> None:
    assert values("31c0" + RET)["rax"] == Constant(0)


def test_code_that_is_not_in_the_dump() -> None:
    def read(address: int, size: int) -> bytes:
        raise LookupError(hex(address))
    assert dataflow.trace(read, BASE, BASE + 8, BASE).registers == {}


def test_a_function_that_is_too_large_is_left_alone() -> None:
    assert dataflow.trace(lambda address, size: b"\x90" * size, 0, dataflow.LARGEST + 1, 4).registers == {}


@pytest.mark.parametrize(("text", "made"), [
    ("%eax", Register("rax", 4)), ("$0x10", Immediate(16)), ("0x18(%rax, %rbx, 8)", Memory("", "rax", "rbx", 8, 0x18)),
    ("-8(%rbp)", Memory("", "rbp", "", 1, -8)), ("%gs:0x28", Memory("gs", "", "", 1, 0x28)),
    ("*0x18(%rax)", Memory("", "rax", "", 1, 0x18)), ("(, %rdi, 8)", Memory("", "", "rdi", 8, 0)), ("%xmm0", None),
])
def test_operands_are_taken_apart(text: str, made: object) -> None:
    assert operand(text) == made


def test_a_direct_jump_has_a_target() -> None:
    assert line(BASE, 5, "callq", "0xffffffff81000000").target == 0xFFFFFFFF81000000
    assert line(BASE, 2, "callq", "*%rax").indirect
