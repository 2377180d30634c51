"""What the ladder starts: the capture program, without the import system's detours of `-m`."""

import gc
import sys

# Imports make thousands of objects that live on: no use in looking for rubbish among them time and again.
gc.set_threshold(50_000, 20, 20)

from kdumpy.capture.__main__ import main  # noqa: E402

sys.exit(main())
