"""Image metrics: from synthetic images to FID, KID, IS, LPIPS and the rest, and the networks that they look through.

Nothing here names or explains a metric, which ``spec`` does; test scores belong to :mod:`bench.harness.evaluation`.
"""
