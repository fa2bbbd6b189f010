"""A differential fuzzer: random nets, each run in several ways that must agree.

``python -m tests.fuzz`` runs it; ``tests/test_fuzz.py`` runs a small part of it. A net is a
`drafts.Draft` that `generator.draft` makes of a seed; `trial.Trial` is that net compiled and fed;
``checks`` holds a function a check. No package hypothesis: a net grows a layer at a time, as
netspec's own shape rules accept them, and is minimised by layers and fields.
"""

import sys
from pathlib import Path

# The tests' own modules (the numpy reference) are imported as pytest imports them.
_TESTS = str(Path(__file__).resolve().parents[1])
if _TESTS not in sys.path:
    sys.path.insert(0, _TESTS)
