"""The schema and its documentation are those of the model."""

from __future__ import annotations

import json

import jsonschema  # type: ignore[import-untyped]

from kdumpy.diagnosis import schema


def test_the_files_are_up_to_date() -> None:
    made = "run python -m kdumpy.diagnosis.schema"
    assert json.loads(schema.SCHEMA_FILE.read_text()) == schema.json_schema(), made
    assert schema.DOCUMENT.read_text() == schema.document(), made


def test_it_is_a_valid_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(schema.json_schema())


def test_every_field_is_described() -> None:
    whole = schema.json_schema()
    for name, definition in {**whole["$defs"], "Diagnosis": whole}.items():
        for field, described in definition["properties"].items():
            assert described["description"], f"{name}.{field}"
