"""What a signal or a callback asks of a run."""

import pytest

from netspec.solving.distributed.mesh import Mesh
from netspec.solving.requests import Requests


@pytest.mark.parametrize("due", [True, False])
def test_one_snapshot_meets_all_requests(due: bool) -> None:
    """One that is due anyway meets them, too."""
    requests = Requests(Mesh())
    assert not requests.takes_snapshot(due=False)
    requests.snapshot(), requests.snapshot()
    assert requests.wanted == {"stop": False, "snapshot": True}
    assert requests.takes_snapshot(due)
    assert not requests.takes_snapshot(due=False)
    assert requests.wanted == {"stop": False, "snapshot": False}


def test_a_run_that_was_asked_to_stop_ends() -> None:
    requests = Requests(Mesh())
    assert not requests.ends
    requests.stop()
    assert requests.ends
    assert requests.stopping
    assert requests.wanted == {"stop": True, "snapshot": False}
