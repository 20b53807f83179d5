"""``python -m bench`` is ``dfkd``."""

from bench.cli import main

main()
