"""What a signal or a callback asks of a run while it goes on."""

from __future__ import annotations

from collections.abc import Mapping

from netspec.solving.distributed.mesh import Mesh


class Requests:
    """Whether a run is to stop, or to write a snapshot, after the update under way.

    Where several processes run, each heeds a request only once all know of it.
    """

    def __init__(self, mesh: Mesh) -> None:
        self.stopping = False
        self._snapshot = False
        self._mesh = mesh

    def stop(self) -> None:
        """Ask for the end of the run."""
        self.stopping = True

    def snapshot(self) -> None:
        """Ask for a snapshot."""
        self._snapshot = True

    @property
    def wanted(self) -> Mapping[str, bool]:
        """What this process has been asked for: see `Mesh.feed`."""
        return {"stop": self.stopping, "snapshot": self._snapshot}

    @property
    def ends(self) -> bool:
        """Whether the run ends now."""
        return self._mesh.wants("stop", self.stopping)

    def takes_snapshot(self, due: bool) -> bool:
        """Whether a snapshot is written now; it meets all requests. due: whether one is anyway."""
        taken = due or self._mesh.wants("snapshot", self._snapshot)
        if taken:
            self._snapshot = False
        return taken
