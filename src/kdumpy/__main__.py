"""`python -m kdumpy`: the command line."""

from kdumpy.cli.main import program

program()
