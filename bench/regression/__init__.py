"""Numbers across commits: filed under the commit that gave them, compared, followed over time. Imports no torch."""
