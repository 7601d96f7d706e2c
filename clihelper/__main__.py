"""Make ``python -m clihelper`` run the ``clihelper`` command."""

from clihelper.commands import main

main()
