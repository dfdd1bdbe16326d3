"""The benchmark that ``snm bench`` runs: what it times, its rivals, its record and its tables.

``suite`` runs everything, the modules of ``timed`` say what is timed, ``peers`` has the rivals, and
``record``, ``tables`` and ``picture`` are what comes out.
"""
