"""``python -m netspec`` is the command ``netspec``."""

from netspec.cli import main

main()
