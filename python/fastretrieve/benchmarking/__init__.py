"""Measure fastretrieve beside its peers: ``fastretrieve bench``, and the base of ``benchmarks/``.

``cases`` makes the data, ``oracle`` the right answer, ``peers`` the other libraries, ``timing``
the clock, ``limits`` the machine's ceilings; ``measure`` and ``operations`` put them together,
``suite`` says what a run is, ``bars`` judges, ``report`` and ``plots`` show. Nothing is timed
before its answer was checked: wrong answers have no speed.
"""
