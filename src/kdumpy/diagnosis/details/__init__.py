"""What a report shows beside the diagnosis; gathered only when a report wants it."""

from kdumpy.diagnosis.details.gather import gather, gather_log
from kdumpy.diagnosis.details.model import Details

__all__ = ["Details", "gather", "gather_log"]
