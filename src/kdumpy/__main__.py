"""`python -m kdumpy`: the command line."""

import sys

from kdumpy.cli.main import main

sys.exit(main())
