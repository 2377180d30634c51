"""The faulting instruction's operands, and where a pointer came from."""

from __future__ import annotations

from kdumpy.diagnosis import operands

BASE = 0x1000
# mov rax, [rdi+0x80]; mov ecx, [rsi+0x18]; mov edx, [rax]
CODE = bytes.fromhex("488b8780000000" "8b4e18" "8b10")
FAULT = BASE + 10


def reader(code: bytes, memory: dict[int, int] | None = None) -> operands.Read:
    def read(address: int, size: int) -> bytes:
        if BASE <= address < BASE + len(code):
            return code[address - BASE:][:size]
        if memory and address in memory:
            return memory[address].to_bytes(8, "little")[:size]
        raise LookupError(hex(address))
    return read


def test_the_address_is_reckoned_from_the_registers() -> None:
    found = operands.decode(reader(CODE), FAULT, {"rax": 0x10})
    assert found is not None
    assert found.text == "mov edx, dword ptr [rax]"
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


def test_the_origin_of_a_pointer() -> None:
    found = operands.origin(reader(CODE, {0x5080: 0}), BASE, FAULT, "rax", {"rax": 0, "rdi": 0x5000})
    assert found is not None
    assert (found.register, found.address) == ("rax", 0x5080)


def test_no_origin_when_memory_holds_something_else() -> None:
    assert operands.origin(reader(CODE, {0x5080: 7}), BASE, FAULT, "rax", {"rax": 0, "rdi": 0x5000}) is None


def test_no_origin_when_the_base_has_changed_since() -> None:
    # mov rax, [rdi+0x80]; xor edi, edi; mov edx, [rax]
    code = bytes.fromhex("488b8780000000" "31ff" "8b10")
    assert operands.origin(reader(code, {0x80: 0}), BASE, BASE + 9, "rax", {"rax": 0, "rdi": 0}) is None


def test_no_origin_across_a_call() -> None:
    # mov rax, [rdi+0x80]; call next; mov edx, [rax]
    code = bytes.fromhex("488b8780000000" "e800000000" "8b10")
    assert operands.origin(reader(code, {0x5080: 0}), BASE, BASE + 12, "rax", {"rax": 0, "rdi": 0x5000}) is None


def test_the_call_before_a_return_address() -> None:
    found = operands.decode_call(reader(bytes.fromhex("90" "ffd0")), BASE + 3, {})      # nop; call rax
    assert found is not None
    assert found.target == "rax"
    assert operands.decode_call(reader(bytes.fromhex("909090909090909090")), BASE + 9, {}) is None
