"""A diagnosis as a JSON document (docs/diagnosis-schema.md)."""

from __future__ import annotations

import json

from kdumpy.diagnosis.model import Diagnosis, as_json


def render(diagnosis: Diagnosis) -> str:
    """Return the document, indented, with a newline at its end.

    Text out of the dump may hold what is not Unicode (lone surrogates do not survive UTF-8): it is escaped.
    """
    text = json.dumps(as_json(diagnosis), indent=2, ensure_ascii=False) + "\n"
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
