"""``python -m fastretrieve`` is the command ``fastretrieve``."""

from fastretrieve.cli import main

main()
