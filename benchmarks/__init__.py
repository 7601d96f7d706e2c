"""clihelper beside other programs, measured from outside: tables, and the bars it must reach.

``python -m benchmarks`` runs all tables, ``python -m benchmarks stop wakeups`` two of them. Each
table is a module; the programs that are measured are in ``peers/``.
"""
