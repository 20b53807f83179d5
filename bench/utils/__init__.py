"""What every other package may use and what knows nothing of distillation: YAML, paths, git, hardware, random streams.

Nothing here imports another package of ``bench`` but ``errors``.
"""
