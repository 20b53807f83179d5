"""The built-in methods: one file each, against the public names of ``bench``.

``losses``, ``pools`` and ``optimizers`` hold what several of them share.
"""
