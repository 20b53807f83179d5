"""A method in a process of its own: the judge keeps data, teacher, clock and counts, the method's process has the rest.

Nothing here decides what a method may do or what it is scored by: that is the harness's, in one process as in two.

The two share a piece of memory for tensors and two pipes for what is said about them (:mod:`channel`). :mod:`remote` is
what takes the teacher's and the real images' place in the method's process, :mod:`judge_side` what answers it;
:mod:`method_process` is that process, :mod:`template` where it comes from.
"""
