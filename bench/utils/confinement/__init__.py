"""A process that can read code and nothing else: what the kernel enforces for the process of a method.

:mod:`view` says what such a process may see, :mod:`landlock` and :mod:`namespaces` are two ways to hold it to that, and
:mod:`seccomp` takes away the system calls that lead past both. Plain ctypes; nothing here imports torch.
"""

from bench.utils.confinement.confine import Way, available, confine, why_not
from bench.utils.confinement.view import View, view_of

__all__ = ["View", "Way", "available", "confine", "view_of", "why_not"]
