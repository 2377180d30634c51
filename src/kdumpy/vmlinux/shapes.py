"""The shapes of the entries in .debug_info: which attributes each kind of thing is given."""

from __future__ import annotations

from kdumpy.debuginfo.btf import Kind
from kdumpy.vmlinux.dwarf import At, Form, Shape, Tag

_NAME = (At.NAME, Form.STRING)
_TYPE = (At.TYPE, Form.REFERENCE)
_SIZE = (At.BYTE_SIZE, Form.DATA4)
_SMALL_SIZE = (At.BYTE_SIZE, Form.DATA1)
_EXTERNAL = (At.EXTERNAL, Form.PRESENT)
_PROTOTYPED = (At.PROTOTYPED, Form.PRESENT)
_CODE = ((At.LOW_PC, Form.ADDRESS), (At.HIGH_PC, Form.DATA4))

UNIT = Shape(Tag.COMPILE_UNIT, ((At.PRODUCER, Form.STRING), (At.LANGUAGE, Form.DATA1), _NAME), children=True)
"""No low_pc, high_pc or ranges: with them drgn looks through all entries for each frame."""
BASE = Shape(Tag.BASE, (_NAME, _SMALL_SIZE, (At.ENCODING, Form.DATA1)))
POINTER = Shape(Tag.POINTER, (_SMALL_SIZE,))
ARRAY = Shape(Tag.ARRAY, (_TYPE,), children=True)
BOUNDED = Shape(Tag.SUBRANGE, (_TYPE, (At.COUNT, Form.DATA4)))
UNBOUNDED = Shape(Tag.SUBRANGE, (_TYPE,))
ENUMERATION = Shape(Tag.ENUMERATION, (_SMALL_SIZE,), children=True)
ENUMERATOR = Shape(Tag.ENUMERATOR, (_NAME, (At.CONST_VALUE, Form.SDATA)))
LARGE_ENUMERATOR = Shape(Tag.ENUMERATOR, (_NAME, (At.CONST_VALUE, Form.UDATA)))
"""Of a value from 1 << 63 on."""
MEMBER = Shape(Tag.MEMBER, (_TYPE, (At.MEMBER_LOCATION, Form.DATA4)))
BIT_FIELD = Shape(Tag.MEMBER, (_TYPE, (At.BIT_SIZE, Form.DATA1), (At.BIT_OFFSET, Form.DATA4)))
PROTOTYPE = Shape(Tag.SUBROUTINE_TYPE, (_PROTOTYPED,), children=True)
PARAMETER = Shape(Tag.FORMAL_PARAMETER, (_TYPE,))
VARIADIC = Shape(Tag.UNSPECIFIED_PARAMETERS)
FUNCTION = Shape(Tag.SUBPROGRAM, (_PROTOTYPED, _NAME, *_CODE), children=True)
VARIABLE = Shape(Tag.VARIABLE, (_EXTERNAL, _NAME, _TYPE, (At.LOCATION, Form.EXPRESSION)))
CONSTANT = Shape(Tag.VARIABLE, (_NAME, _TYPE, (At.CONST_VALUE, Form.SDATA)))

STRUCTURES = {Kind.STRUCT: Shape(Tag.STRUCTURE, (_SIZE,), children=True),
              Kind.UNION: Shape(Tag.UNION, (_SIZE,), children=True)}
FORWARDS = {Kind.STRUCT: Shape(Tag.STRUCTURE, ((At.DECLARATION, Form.PRESENT),)),
            Kind.UNION: Shape(Tag.UNION, ((At.DECLARATION, Form.PRESENT),))}
QUALIFIERS = {Kind.TYPEDEF: Shape(Tag.TYPEDEF), Kind.CONST: Shape(Tag.CONST), Kind.VOLATILE: Shape(Tag.VOLATILE),
              Kind.RESTRICT: Shape(Tag.RESTRICT)}


def named(shape: Shape) -> Shape:
    """Return the shape with a name."""
    return shape._replace(attributes=(*shape.attributes, _NAME))


def typed(shape: Shape) -> Shape:
    """Return the shape with a type; without, void is meant."""
    return shape._replace(attributes=(*shape.attributes, _TYPE))


def external(shape: Shape) -> Shape:
    """Return the shape with the mark of what other files can name."""
    return shape._replace(attributes=(*shape.attributes, _EXTERNAL))
