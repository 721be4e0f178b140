"""`gateway top`: fetches `/metrics` again and again, draws what changed, reads single keys.

Works on any terminal that rich can draw on, over ssh too; resizing draws anew. Without a terminal it prints one view.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
import urllib.error
import urllib.request
from collections import deque
from typing import TYPE_CHECKING, Final, TextIO

from rich.live import Live
from rich.panel import Panel

from gateway.live.samples import Change, Snapshot
from gateway.live.summary import Summary, summarize
from gateway.live.view import HELP, screen

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console, RenderableType

_PATIENCE: Final = 5.0
_HISTORY: Final = 60
_MOST_BYTES: Final = 32 * 1024 * 1024


class Source:
    """An admin listener.

    Args:
        url: its address, e.g. `http://127.0.0.1:9090`.
        token: its bearer token, None when it asks for none.

    Raises:
        ValueError: the address is not one of HTTP.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        if not url.startswith(("http://", "https://")):
            raise ValueError(f"{url}: expected a URL such as http://127.0.0.1:9090")
        self.url: Final = url.rstrip("/")
        self._headers: Final = {} if token is None else {"Authorization": f"Bearer {token}"}

    def look(self) -> Snapshot:
        """Fetch the metrics.

        Raises:
            OSError: nothing answers, or not with 200.
            ValueError: what answers is not a gateway.
        """
        request = urllib.request.Request(f"{self.url}/metrics", headers=self._headers)  # noqa: S310 - HTTP, see above
        with urllib.request.urlopen(request, timeout=_PATIENCE) as response:  # noqa: S310
            text = response.read(_MOST_BYTES).decode("utf-8", "replace")
        snapshot = Snapshot.parse(text, time.monotonic())
        if "gateway_info" not in snapshot.series:
            raise ValueError(f"{self.url}/metrics is not a gateway's")
        return snapshot


class Top:
    """What is on the screen, and what keys do to it.

    Args:
        source: where numbers come from.
    """

    def __init__(self, source: Source) -> None:
        self._source: Final = source
        self._history: Final[deque[float]] = deque(maxlen=_HISTORY)
        self._last = source.look()
        self._summary: Summary = summarize(Change(self._last, self._last))
        self._note = "waiting for the first interval"
        self.paused = False
        self.helping = False
        self.left = False

    def refresh(self) -> None:
        """Look again; what does not answer is said, and the last numbers stay."""
        try:
            seen = self._source.look()
        except (OSError, ValueError) as error:
            self._note = f"no answer: {error}"
            return
        self._summary, self._last, self._note = summarize(Change(self._last, seen)), seen, ""
        self._history.append(self._summary.requests)

    def key(self, pressed: str) -> None:
        """Do what a key stands for."""
        match pressed:
            case "q" | "\x03" | "\x04":
                self.left = True
            case "p" | " ":
                self.paused = not self.paused
            case "h" | "?":
                self.helping = not self.helping
            case _:
                self.helping = False

    def __rich__(self) -> RenderableType:
        """The view."""
        if self.helping:
            return Panel(HELP, title="gateway top", title_align="left")
        note = "paused" if self.paused else self._note
        return screen(self._summary, list(self._history), source=self._source.url, note=note)


def once(source: Source, interval: float, console: Console) -> None:
    """Print one view of one interval.

    Args:
        source: where numbers come from.
        interval: seconds between the two looks.
        console: where to print.

    Raises:
        OSError, ValueError: as `Source.look`.
    """
    top = Top(source)
    time.sleep(interval)
    top.refresh()
    console.print(top)


def watch(source: Source, interval: float, console: Console, keys: TextIO = sys.stdin) -> None:
    """Draw until somebody presses `q`.

    Args:
        source: where numbers come from.
        interval: seconds between two looks.
        console: where to draw.
        keys: the terminal that keys are pressed on.

    Raises:
        OSError, ValueError: as `Source.look`, for the first look.
    """
    top = Top(source)
    with _single_keys(keys), Live(top, console=console, screen=True, auto_refresh=False) as live:
        due = time.monotonic() + interval
        while not top.left:
            ready, _, _ = select.select([keys], [], [], max(0.0, due - time.monotonic()))
            if ready:
                pressed = os.read(keys.fileno(), 1)
                top.key(pressed.decode("latin-1") if pressed else "q")
            if time.monotonic() >= due:
                if not top.paused:
                    top.refresh()
                due = time.monotonic() + interval
            live.update(top, refresh=True)


@contextlib.contextmanager
def _single_keys(keys: TextIO) -> Iterator[None]:
    """Keys as they are pressed, without echo; the terminal is as before afterwards."""
    import termios
    import tty

    descriptor = keys.fileno()
    before = termios.tcgetattr(descriptor)
    try:
        tty.setcbreak(descriptor)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
