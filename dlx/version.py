"""The version, where every file may ask for it."""

__version__ = "0.1.0"
