"""The benchmark that ``snm bench`` runs: what is timed, the rivals, the record and its tables.

``suite`` runs everything, the modules of ``timed`` say what is timed, ``peers`` has the rivals, and
``record``, ``tables`` and ``picture`` are what comes out.
"""
