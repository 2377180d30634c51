"""The faulting instruction's operands."""

from __future__ import annotations

from kdumpy.diagnosis import operands

BASE = 0x1000
# mov rax, [rdi+0x80]; mov ecx, [rsi+0x18]; mov edx, [rax]
CODE = bytes.fromhex("488b8780000000" "8b4e18" "8b10")
FAULT = BASE + 10


def reader(code: bytes) -> operands.Read:
    def read(address: int, size: int) -> bytes:
        if BASE <= address < BASE + len(code):
            return code[address - BASE:][:size]
        raise LookupError(hex(address))
    return read


def test_the_address_is_reckoned_from_the_registers() -> None:
    found = operands.decode(reader(CODE), FAULT, {"rax": 0x10})
    assert found is not None
    assert found.text == "movl (%rax), %edx"
    (operand,) = found.operands
    assert (operand.base, operand.address, operand.size, operand.access) == ("rax", 0x10, 4, "read")


def test_a_write_with_index_and_displacement() -> None:
    # mov qword ptr [rax+rbx*8+0x20], 0
    found = operands.decode(reader(bytes.fromhex("48c744d82000000000")), BASE, {"rax": 0x100, "rbx": 2})
    assert found is not None
    (operand,) = found.operands
    assert (operand.address, operand.access, operand.index) == (0x130, "write", "rbx")


def test_an_unknown_register_gives_no_operand() -> None:
    found = operands.decode(reader(CODE), FAULT, {})
    assert found is not None
    assert found.operands == ()


def test_code_that_is_not_there() -> None:
    assert operands.decode(reader(b""), BASE, {}) is None


def test_the_call_before_a_return_address() -> None:
    found = operands.decode_call(reader(bytes.fromhex("90" "ffd0")), BASE + 3, {})      # nop; call rax
    assert found is not None
    assert found.target == "rax"
    assert operands.decode_call(reader(bytes.fromhex("909090909090909090")), BASE + 9, {}) is None


def test_a_string_store_writes() -> None:
    found = operands.decode(reader(bytes.fromhex("f348ab")), BASE, {"rdi": 0x5000, "rax": 0, "rcx": 1})
    assert found is not None
    assert found.operands[0].access == "write"
