"""`python -m pyldfusion VERB ...`, the same program as the installed `pyldfusion` command."""

from .cli import main

if __name__ == "__main__":
    raise SystemExit(main())
