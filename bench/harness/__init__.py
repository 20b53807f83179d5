"""One trial as its method lives it: session, metered teacher, clock, counters, judge, checkpoint.

Nothing here knows about studies, executors or reports; a method reaches it only through :class:`bench.Session`.
"""
