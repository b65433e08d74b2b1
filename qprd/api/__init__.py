"""The Python API: a function for each step of the work; `import qprd` gives all of them.

Settings are keyword arguments named like the options of the command line, with underscores:
``--patch-px 128`` is ``patch_px=128``. What they mean is said by ``qprd train --help`` and
``qprd predict --help``. Every function that takes long shows bars unless ``progress=False``, and
every error that a user can mend is a `QprdError`.
"""
