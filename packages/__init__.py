"""How the Debian packages are made and tried: ``make deb``, ``make deb-check``."""
