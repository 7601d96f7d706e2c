"""Whole programs of clihelper 1.x, in the style of each version, and their configurations."""
