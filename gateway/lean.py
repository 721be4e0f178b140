"""What a process that serves does without, settled before anything that would bring it in is imported.

The law: nothing is taken away that somebody uses. A module that is put off is there for whoever imports it, and is read
when somebody first asks it for something; what stands here is what others import for what most processes never do.
Certificates are read for the contexts that the gateway makes, each of which says whom it trusts; the one that aiohttp
makes for itself trusts nobody (docs/decisions.md). Zstandard is there for pages, and not for aiohttp, which takes it by
its parts, so that it cannot be put off: nothing that aiohttp decodes here is asked for in it.
"""

from __future__ import annotations

import mimetypes
import os
import sys
from contextlib import contextmanager
from importlib import import_module
from importlib.machinery import PathFinder
from threading import RLock
from types import ModuleType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from importlib.abc import Loader  # which itself would bring in shutil
    from importlib.machinery import ModuleSpec

PUT_OFF: Final = frozenset(
    {
        "cryptography.x509",  # for keys in certificates, and for shared secrets, which must not be any
        "zipfile",  # importlib.metadata, for packages in archives; with it go lzma and bz2
        "csv",  # importlib.metadata
        "shutil",  # tempfile and http.server
        "locale",  # calendar and subprocess
        "gzip",  # prometheus_client, for whoever reads metrics compressed
        "msgspec.inspect",  # msgspec, for JSON schemas
        "brotli",  # aiohttp, and gateway.store.compression for the first page that is stored compressed
    }
)
# Where OpenSSL looks for the system's certificates, unless these say otherwise.
_TRUST: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
_READING: Final = RLock()


def begin() -> None:
    """Do without from here on; for a process that serves, before it imports what it serves with."""
    sys.meta_path.insert(0, _Finder())
    mimetypes.knownfiles.clear()  # a thousand types of files, none of which is ever served
    from gateway.telemetry.structured import without  # not before: it brings in structlog

    with trusting_nobody(), without("backports.zstd"), without("compression.zstd"):
        import_module("aiohttp")


@contextmanager
def trusting_nobody() -> Iterator[None]:
    """Have contexts that are made meanwhile find no certificate of the system, so that they accept no server."""
    before = {name: os.environ.get(name) for name in _TRUST}
    os.environ.update(dict.fromkeys(_TRUST, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Finder:
    """Finds what is put off."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in PUT_OFF else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Later(spec.loader)  # type: ignore[assignment] # in all but name
        return spec


class _Later:
    """Puts off what another loader does. Python's own LazyLoader reads a module that is imported a second time."""

    def __init__(self, loader: Loader) -> None:
        self.loader: Final = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Unread


class _Unread(ModuleType):
    """A module until somebody asks it for something that is not there yet."""

    def __getattr__(self, name: str) -> object:
        if name.startswith("__"):  # the import system looks for these
            raise AttributeError(name)
        with _READING:
            later: object = self.__loader__
            if isinstance(later, _Later):
                self.__loader__ = later.loader  # it may ask itself for something while it is read
                try:
                    later.loader.exec_module(self)
                except BaseException:
                    self.__loader__ = later  # type: ignore[assignment]
                    raise
                self.__class__ = ModuleType  # type: ignore[assignment]
        return ModuleType.__getattribute__(self, name)
