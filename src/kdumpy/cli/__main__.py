"""`python -m kdumpy.cli`: the command line without the installed script."""

import sys

from kdumpy.cli.main import main

sys.exit(main())
