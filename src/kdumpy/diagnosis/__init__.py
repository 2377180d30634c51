"""From an opened dump to a `Diagnosis`: the cause, the culprit, the evidence, what to do next."""

from kdumpy.diagnosis.diagnose import diagnose, diagnose_log
from kdumpy.diagnosis.model import Diagnosis, as_json

__all__ = ["Diagnosis", "as_json", "diagnose", "diagnose_log"]
