"""A failing net made as small as it goes while the same check still fails."""

import time
from collections.abc import Mapping

from . import checks
from .campaign import BUILDS, Failure, outcomes
from .drafts import Draft


def shrink(
    failure: Failure, seconds: float = 60, more: Mapping[str, checks.Check] | None = None
) -> Failure:
    """The same failure at a smaller net, the smallest that is found in the time."""
    until = time.monotonic() + seconds
    found = failure
    while True:
        for smaller in found.draft.smaller():
            if time.monotonic() > until:
                return found
            again = _fails(failure, smaller, {**checks.CHECKS, **(more or {})})
            if again is not None:
                found = again
                break
        else:
            return found


def _fails(failure: Failure, draft: Draft, known: Mapping[str, checks.Check]) -> Failure | None:
    """The failure of the same check, in the same manner, at another net."""
    wanted = {failure.check: known[failure.check]} if failure.check != BUILDS else {}
    try:
        state, what, kind = outcomes(draft, wanted).get(failure.check, ("", "", None))
    except Exception:  # a draft that cannot be spelled
        return None
    alike = what.split()[:2] == failure.what.split()[:2]
    if state != "failed" or kind is not None or not alike:
        return None
    return Failure(failure.seed, failure.check, what, draft)
