"""The version: of the package, and in its first two numbers of the suite's rules."""

__version__ = "0.1.0"
