"""clihelper's consumer among faults that are caused for real: tables, and the bars it must reach.

``python -m faults`` runs all tables, ``python -m faults stop leaks`` two of them, and ``python -m
faults --quick soak`` the short form of one. Each table is a module.
"""
