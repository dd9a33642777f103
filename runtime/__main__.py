"""`python -m certlut` is the command `certlut`."""

from .cli.main import main

main()
