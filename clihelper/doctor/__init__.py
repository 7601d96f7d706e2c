"""What would keep a daemon from running, or lose messages: the checks of ``clihelper doctor``.

Each module checks one subject and yields findings. ``subject`` finds out which daemon it is, how
it is started and from which configuration; ``examination`` goes through all checks in order.
"""
