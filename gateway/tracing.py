"""Puts traces together: the recorder that makes spans, and where they are sent. The only module that needs `otel`."""

from __future__ import annotations

import os
import random
import socket
from typing import TYPE_CHECKING

from gateway import __version__, derived

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.pipeline.ports import Recorder
    from gateway.settings import Settings
    from gateway.telemetry.traces import Traces

_PATIENCE = 5.0  # seconds for one attempt to send; it holds nobody up but the end of the process


def traces(settings: Settings, following: Recorder, clock: Callable[[], float]) -> Traces | None:
    """The recorder that makes spans; None when these settings ask for none.

    Args:
        settings: valid settings; with an endpoint the extra is there.
        following: the next recorder.
        clock: epoch seconds.
    """
    endpoint = settings.tracing.endpoint
    if endpoint is None:
        return None
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    from gateway.telemetry.traces import Traces

    named = {
        "service.name": "gateway",
        "service.version": __version__,
        "service.instance.id": f"{socket.gethostname()}:{os.getpid()}",
    }
    return Traces(
        following,
        BatchSpanProcessor(OTLPSpanExporter(endpoint, timeout=_PATIENCE)),
        Resource.create(named),
        sample=settings.tracing.sample,
        trusted=derived.trusted_proxies(settings),
        clock=clock,
        chance=random.random,
    )
