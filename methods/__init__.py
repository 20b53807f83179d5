"""The built-in methods: one file each, against the public names of ``bench``. What they share is in ``common``."""
