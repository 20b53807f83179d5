"""Image metrics: from synthetic images to FID, KID, IS, LPIPS and the rest, and the networks that they look through.

What a metric is called and means is declared in ``spec``; test scores belong to :mod:`bench.harness.evaluation`.
"""
