"""From records to verdicts: statistics, regressions across commits, and reports.

Nothing here runs a trial or imports torch: the same records give the same bytes.
"""
