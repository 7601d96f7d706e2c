"""``python -m clihelper`` is ``clihelper``."""

from clihelper.commands import main

main()
