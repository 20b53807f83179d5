"""Numbers across commits: filed under the commit that gave them, compared, followed over time, bisected.

Nothing here runs a trial, but for asking other commits' code to, and nothing imports torch.
"""
