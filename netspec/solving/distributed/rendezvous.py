"""The rendezvous: lets the processes of one run find each other.

They meet before JAX connects them: JAX ends a process that finds nobody by a crash, minutes later.
"""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from netspec.errors import SolverError, counted, fail
from netspec.solving.distributed.peers import Peers, send_line

# Where process 0 is: names and addresses of its machine, and the port there.
Where = tuple[Sequence[str], int]

# How long processes may take to find each other, in seconds, and how often they try.
_PATIENCE = 300
_AGAIN = 0.5
# How long one that is there may take to say who it is.
_GREETING = 10
# The longest such line, in bytes.
_LINE = 256
# When a machine that is silent counts as gone: after how many seconds it is asked, how often, and
# how many times; and the milliseconds that what was sent may stay without an answer.
_LASTING = (
    ("TCP_KEEPIDLE", 10),
    ("TCP_KEEPINTVL", 5),
    ("TCP_KEEPCNT", 4),
    ("TCP_USER_TIMEOUT", 30_000),
)


def meet(
    process: int, processes: int, where: Where, tell: Callable[[Where], Where] = lambda where: where
) -> Peers:
    """Link the processes of a run.

    where: the address at which process 0 listens; port 0 means any. tell: tells all processes the
    address, where they do not know it beforehand. Raises SolverError.
    """
    if process == 0:
        return _gather(processes, where, tell)
    hosts, port = tell(where)
    return Peers(process, processes, [_connect(process, processes, hosts, port)])


def here() -> list[str]:
    """Names and addresses at which others may find this machine."""
    name = socket.gethostname()
    with suppress(OSError):
        address = socket.gethostbyname(name)
        if not address.startswith("127."):
            return [address, name]
    return [name]


def free_port() -> int:
    """A port that nobody listens at."""
    with _listening(0) as server:
        port: int = server.getsockname()[1]
        return port


def _gather(processes: int, where: Where, tell: Callable[[Where], Where]) -> Peers:
    """Wait for all other processes; gives process 0 linked to them."""
    hosts, port = where
    try:
        server = _listening(port)
    except OSError as error:
        fail(f"process 0 cannot listen at port {port}: {error.strerror or error}", SolverError)
    links: dict[int, socket.socket] = {}
    with server:
        tell((hosts, server.getsockname()[1]))
        end = time.monotonic() + _PATIENCE
        while len(links) < processes - 1:
            server.settimeout(max(_AGAIN, end - time.monotonic()))
            try:
                link, _ = server.accept()
            except TimeoutError:
                missing = [str(i) for i in range(1, processes) if i not in links]
                fail(
                    f"after {_PATIENCE} s process {', '.join(missing)} of {processes} is not here "
                    f"({counted(len(links), 'other')} came): each needs the same --coordinator and "
                    "--processes, and a --process of its own",
                    SolverError,
                )
            _welcome(link, processes, links)
    return Peers(0, processes, [links[number] for number in range(1, processes)])


def _welcome(link: socket.socket, processes: int, links: dict[int, socket.socket]) -> None:
    """Add the link of a process that introduces itself rightly; tell others why not."""
    link.settimeout(_GREETING)
    try:
        said = _read_line(link)
        process, of = said["process"], said["processes"]
    except (OSError, ValueError, TypeError, KeyError):
        said = None
    if said is None or process not in range(1, processes):
        # Some other program.
        link.close()
        return
    refused = ""
    if of != processes:
        refused = f"process 0 is one of {processes}, and this one of {of}"
    elif process in links and not _is_gone(links[process]):
        refused = f"there is a process {process} already"
    with suppress(OSError):
        send_line(link, {"refused": refused})
    if refused:
        link.close()
        return
    if process in links:
        links[process].close()
    links[process] = _lasting(link)


def _connect(process: int, processes: int, hosts: Sequence[str], port: int) -> socket.socket:
    """Link to process 0, once it is there."""
    end = time.monotonic() + _PATIENCE
    said = {"process": process, "processes": processes}
    while True:
        for host in hosts:
            try:
                return _introduced(socket.create_connection((host, port), _GREETING), said)
            except OSError as error:
                why = f"{host}:{port}: {error.strerror or error}"
        if time.monotonic() > end:
            fail(
                f"process {process} of {processes} did not find process 0 within {_PATIENCE} s: "
                f"{why}",
                SolverError,
            )
        time.sleep(_AGAIN)


def _introduced(link: socket.socket, said: Mapping[str, int]) -> socket.socket:
    """Introduce this process to process 0; raises SolverError where that refuses it."""
    try:
        send_line(link, said)
        link.settimeout(_PATIENCE)
        refused = _read_line(link)["refused"]
        if refused:
            fail(f"process {said['process']} of {said['processes']}: {refused}", SolverError)
        return _lasting(link)
    except (ValueError, TypeError, KeyError):
        link.close()
        raise OSError("what answers there is not process 0") from None
    except BaseException:
        link.close()
        raise


def _is_gone(link: socket.socket) -> bool:
    """Whether a process that waited for the others has ended."""
    poll = select.poll()
    # Not every system tells of one end alone.
    poll.register(link, getattr(select, "POLLRDHUP", select.POLLHUP))
    return bool(poll.poll(0))


def _listening(port: int) -> socket.socket:
    """Listen to IPv6 and IPv4, or to IPv4 where there is nothing else."""
    with suppress(OSError, ValueError):
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
    return socket.create_server(("", port))


def _read_line(link: socket.socket) -> Any:
    # Unbuffered: what follows the line is for later.
    with link.makefile("rb", 0) as lines:
        return json.loads(lines.readline(_LINE))


def _lasting(link: socket.socket) -> socket.socket:
    """Remove the link's time limit, and let it break if the other machine is gone."""
    link.settimeout(None)
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    link.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _LASTING:
        if hasattr(socket, name):
            link.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    return link
