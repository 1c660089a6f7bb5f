"""`python -m taskd` is the command line."""

from taskd.cli.main import main

main()
