"""Links the processes of one run on the host: they exchange values, and notice a lost peer.

Process 0 is linked to every other by TCP. A process that is killed takes its link down with it,
so that the others know at once, long before JAX's own heartbeats would tell.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, NoReturn

from netspec.errors import NetSpecError, SolverError, fail

# How long a computation that failed may have done so for want of a process that is then missed.
_SOON = 5
# How long one that waits for a lost process may hang before this process is ended from outside.
_GRACE = 20
# What is heard of a process after its last word.
_LOST = object()


class _LostError(SolverError):
    """A process is gone."""


class Peers:
    """The processes of one run; alone by default.

    process: which one this is, of ``processes``. lost: one that is gone before its time.
    """

    def __init__(
        self, process: int = 0, processes: int = 1, links: Sequence[socket.socket] = ()
    ) -> None:
        """links: to processes 1, 2, ... in process 0; to process 0 in the others."""
        self.process = process
        self.processes = processes
        self.lost: int | None = None
        self._known = threading.Event()
        self._leaving = False
        self._turn = threading.Lock()
        self._finding = threading.Lock()
        # What to say of the run when it is ended from outside; None where it must not be.
        self._last_words: Callable[[], str] | None = None
        numbers = range(1, processes) if process == 0 else (0,)
        self._links = dict(zip(numbers, links, strict=bool(links)))
        self._said: dict[int, SimpleQueue[Any]] = {number: SimpleQueue() for number in self._links}
        self._readers = [
            threading.Thread(target=self._read, args=(number,), name="peer", daemon=True)
            for number in self._links
        ]
        for reader in self._readers:
            reader.start()

    def exchange(self, value: Any) -> list[Any]:
        """Exchange a value, in JSON's types, with all peers; gives all in order. Each must call it.

        Raises SolverError where one is lost.
        """
        if self.processes == 1:
            return [value]
        if self.process:
            self._tell(0, value)
            found: list[Any] = self._hear(0)
            return found
        found = [value, *map(self._hear, self._links)]
        for number in self._links:
            self._tell(number, found)
        return found

    @contextmanager
    def needed(self, saved: Callable[[], str]) -> Iterator[None]:
        """Do work that needs all processes; raises SolverError where one is lost meanwhile.

        saved: says what is saved of the run. Where the work hangs then, the process is ended.
        """
        self._last_words = saved if self.processes > 1 else None
        try:
            yield
        except Exception as error:
            if not self._is_of_loss(error):
                raise
            self._last_words = None
            fail(f"{self._loss()}; {saved()}", SolverError)
        finally:
            self._last_words = None

    def close(self) -> None:
        """Close the links, once all know of a loss.

        Process 0 waits a while for the others: they may leave for the same reason, and should say
        so themselves.
        """
        self._leaving = True
        if self.lost is not None:
            self._known.wait(_SOON)
        elif self.process == 0:
            end = time.monotonic() + _SOON
            for reader in self._readers:
                reader.join(max(0, end - time.monotonic()))
        for link in self._links.values():
            with suppress(OSError):
                link.shutdown(socket.SHUT_RDWR)
        for reader in self._readers:
            reader.join()
        for link in self._links.values():
            link.close()

    def _is_of_loss(self, error: Exception) -> bool:
        """Whether work failed because a process is lost; waits a moment to learn of it."""
        if self.processes == 1 or isinstance(error, NetSpecError):
            return isinstance(error, _LostError)
        # How a computation under way fails without a lost process depends on the backend.
        self._known.wait(_SOON)
        return self.lost is not None

    def _loss(self) -> str:
        return (
            f"process {self.lost} of {self.processes} (counted from 0) is lost: it failed, as its "
            "own output tells, or was killed, or its machine cannot be reached"
        )

    def _tell(self, number: int, value: Any) -> None:
        try:
            self._send(number, {"said": value})
        except OSError:
            self._lose(number)
            self._fail()

    def _send(self, number: int, value: Any) -> None:
        with self._turn:
            send_line(self._links[number], value)

    def _hear(self, number: int) -> Any:
        heard = self._said[number].get()
        if heard is _LOST:
            # Whoever asks again is to hear it, too.
            self._said[number].put(_LOST)
            self._fail()
        return heard

    def _fail(self) -> NoReturn:
        fail(self._loss(), _LostError)

    def _read(self, number: int) -> None:
        """Read what a process says, until its link goes down."""
        with suppress(OSError, ValueError), self._links[number].makefile("rb") as lines:
            for line in lines:
                heard = json.loads(line)
                if "lost" in heard:
                    number = heard["lost"]
                    break
                self._said[number].put(heard["said"])
        self._lose(number)

    def _lose(self, number: int) -> None:
        with self._finding:
            if self.lost is not None:
                return
            self.lost = number
        if self.process:
            # First of all: if 0 is gone, so is JAX's own service, for want of which it crashes.
            self._end(0)
        # The others first: this process may leave as soon as it knows.
        elif not self._leaving:
            for other in self._links:
                with suppress(OSError):
                    self._send(other, {"lost": number})
        self._known.set()
        for queue in self._said.values():
            queue.put(_LOST)
        if self.process == 0:
            threading.Thread(target=self._end, args=(_GRACE,), daemon=True).start()

    def _end(self, seconds: float) -> None:
        """After some seconds, end this process if it still waits for the lost one."""
        time.sleep(seconds)
        if self._last_words is not None:
            print(f"netspec: {self._loss()}; {self._last_words()}", file=sys.stderr, flush=True)
            os._exit(1)


def send_line(link: socket.socket, value: Any) -> None:
    """Send a value, in JSON's types."""
    link.sendall(json.dumps(value).encode() + b"\n")
