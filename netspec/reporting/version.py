"""The version that commands and logs state; `netspec.__version__` is the same."""

__version__ = "0.1.0"
