"""The version of netspec, apart from `netspec` so that every package may import it."""

__version__ = "0.1.0"
