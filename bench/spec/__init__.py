"""What is asked for: methods as they declare themselves, tasks, studies, budgets, trials and the names of metrics.

Nothing here runs anything or imports torch; what a value means when it runs belongs to ``harness`` or ``execution``.
"""
