"""Opens listening sockets: TCP by address or name, and unix sockets by path."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def open_tcp(host: str, port: int, *, backlog: int, send_buffer: int = 0) -> list[socket.socket]:
    """Listening sockets, one for each address that a name stands for.

    Args:
        host: address or name to bind.
        port: port to bind, 0 for one that is free.
        backlog: how many connections may wait to be accepted.
        send_buffer: bytes of answers that the kernel is asked to take in ahead of each client, of which it makes twice
            as many; 0 lets it choose and change that (tcp(7)). What is sent is in the processor's cache still when a
            near client reads it, and a write does not hold the event loop up for long; but it is all that is under way
            to a far client, too.

    Raises:
        OSError: one of them cannot be bound; none stays open then.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    with contextlib.ExitStack() as opened:
        sockets = []
        for family, kind, protocol, _, address in dict.fromkeys(found):
            listening = opened.enter_context(socket.socket(family, kind, protocol))
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if send_buffer:  # as it is, connections are
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            if family == socket.AF_INET6:
                listening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                listening.bind(address)
                listening.listen(backlog)
            except OSError as error:
                raise OSError(error.errno, f"{host} port {port}: {error.strerror}") from error
            listening.settimeout(0)
            sockets.append(listening)
        opened.pop_all()
    return sockets


def open_unix(path: Path, mode: int, *, backlog: int) -> socket.socket:
    """A listening unix socket; one that a process left behind gives way, one that somebody listens on does not.

    Args:
        path: where it is to be.
        mode: who may connect, as file permissions.
        backlog: how many connections may wait to be accepted.

    Raises:
        OSError: it cannot be made there.
    """
    _clear(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        before = os.umask(0o777 & ~mode)  # nobody may connect in between
        try:
            listening.bind(str(path))
        finally:
            os.umask(before)
        path.chmod(mode)
        listening.listen(backlog)
        listening.settimeout(0)
    except BaseException:
        listening.close()
        raise
    return listening


def _clear(path: Path) -> None:
    try:
        left = stat.S_ISSOCK(path.lstat().st_mode)
    except FileNotFoundError:
        return
    if not left:
        raise FileExistsError(errno.EEXIST, f"{path} is there and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, f"somebody listens on {path}")
