"""Measure fastretrieve beside its peers: ``fastretrieve bench``, and the base of ``benchmarks/``.

``cases`` makes the data, ``oracle`` the right answers, ``peers`` the other libraries. ``timing``
is the clock, ``limits`` the machine's ceilings; ``measure`` and ``operations`` join them into
benchmarks, ``suite`` into a run. ``bars`` judges, ``report`` and ``plots`` show. Every answer is
checked before it is timed: wrong answers have no speed.
"""
