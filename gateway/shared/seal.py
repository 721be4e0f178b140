"""Authenticated bytes: what is read back from a place that others can write to is believed only with our own seal.

HMAC-SHA256 (RFC 2104) over the content *and* what it is said to be, so that a record which is genuine elsewhere is none
here. No encryption: who may read the store may read the pages in it. Knows nothing of what the content means.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

MAC_BYTES: Final = 32
_MAGIC: Final = b"gw1\n"  # the version of this framing
OVERHEAD: Final = len(_MAGIC) + MAC_BYTES


class Sealer:
    """Seals and opens.

    Args:
        key: the operator's, the same in every process; at least 32 bytes.
        namespace: what this gateway calls its part of the store; the same bytes under another one do not open.

    Raises:
        ValueError: the key is too short.
    """

    __slots__ = ("_key", "_namespace")

    def __init__(self, key: bytes, namespace: str) -> None:
        if len(key) < MAC_BYTES:
            raise ValueError(f"the key must have at least {MAC_BYTES} bytes")
        self._key: Final = hashlib.sha256(b"gateway shared store\0" + key).digest()
        self._namespace: Final = namespace.encode()

    def seal(self, purpose: bytes, subject: bytes, content: bytes) -> bytes:
        """The content with its seal.

        Args:
            purpose: what kind of record it is; has no bearing on its form.
            subject: which one of them, such as a cache key.
            content: any bytes.
        """
        return b"".join((_MAGIC, self._mac(purpose, subject, content), content))

    def open(self, purpose: bytes, subject: bytes, sealed: bytes) -> bytes | None:
        """The content, or None when it was not sealed by this key for this very purpose and subject."""
        if len(sealed) < OVERHEAD or sealed[: len(_MAGIC)] != _MAGIC:
            return None
        content = sealed[OVERHEAD:]
        given = sealed[len(_MAGIC) : OVERHEAD]
        return content if hmac.compare_digest(given, self._mac(purpose, subject, content)) else None

    def name(self, purpose: bytes, subject: bytes) -> str:
        """A name for a record in the store that tells nothing about its subject."""
        return self._mac(purpose, subject, b"")[:20].hex()

    def _mac(self, purpose: bytes, subject: bytes, content: bytes) -> bytes:
        parts = (self._namespace, purpose, subject)
        head = b"".join(len(part).to_bytes(8, "big") + part for part in parts)
        if len(content) < 1 << 16:
            return hmac.digest(self._key, head + content, "sha256")
        mac = hmac.new(self._key, head, "sha256")
        mac.update(content)  # large enough for hashlib to let other threads run meanwhile
        return mac.digest()
