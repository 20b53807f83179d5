"""Teachers: trained by a recipe, cached with a passport, imported, followed along their training.

Nothing here is seen by a method, which asks a teacher through :mod:`bench.harness.teacher_view` alone.
"""
