"""``python -m bench.cli`` is ``dfkd``."""

from bench.cli import main

main()
