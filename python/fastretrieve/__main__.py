"""``python -m fastretrieve`` is the command ``fastretrieve``."""

from fastretrieve.cli import main

if __name__ == "__main__":
    main()
