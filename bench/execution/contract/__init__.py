"""The contract battery: what every method must hold, ours and yours.

``dfkd check my_method.py`` runs it on a file; our own tests run it over every built-in method. No check here knows a
method by its name.
"""

from bench.execution.contract.battery import CHECKS, Finding, run_battery

__all__ = ["CHECKS", "Finding", "run_battery"]
