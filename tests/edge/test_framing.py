"""Every row of the framing table, over real sockets, before a recording upstream."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.edge.framing_cases import CASES, GROUPS, Case, document

if TYPE_CHECKING:
    from tests.conftest import Answer, Received

GENERIC = "route_table: none\nroutes: [{match: '* /*', access: public}]"


def shown(request: Received) -> bytes:
    """A request as the table writes it."""
    line = request.head.split(b"\r\n", 1)[0].removesuffix(b" HTTP/1.1")
    return line + (b"\r\n\r\n" + request.body if request.body else b"")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
async def test_framing(stub, start_gateway, connect, caplog, capfd, case: Case) -> None:
    gateway = await start_gateway(stub.url, GENERIC if case.generic else "")
    stub.received.clear()
    client = await connect(gateway.url)
    with caplog.at_level(logging.WARNING):
        await client.send(case.sent)
        answers: list[Answer] = [await client.answer() for _ in case.statuses]
        assert tuple(answer.status for answer in answers) == case.statuses
        assert all(answer.complete for answer in answers)
        if case.closes:
            assert await client.ended()
        else:  # the connection is in step: what is asked next is answered next
            assert (await client.ask("GET /staging/in-step")).status == 200
            assert shown(stub.received.pop()) == b"GET /staging/in-step"
    assert tuple(shown(request) for request in stub.received) == case.forwarded
    for name, value in case.fields:
        assert stub.received[-1].field(name) == value
    if case.statuses[-1] >= 400:
        refusal = answers[-1]
        assert refusal.field("x-gateway-error")
        assert json.loads(refusal.body)["errors" if b"errors" in refusal.body else "error_code"]
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("generic", [False, True], ids=["strict", "generic"])
async def test_heads_sent_byte_by_byte_get_the_same_verdict(stub, start_gateway, connect, generic: bool) -> None:
    gateway = await start_gateway(stub.url, GENERIC if generic else "")
    groups = ("Request line", "Target", "Host", "Fields", "Content-Length", "Transfer-Encoding", "What is forwarded")
    cases = [case for name in groups for case in GROUPS[name] if len(case.sent) < 500 and case.generic is generic]
    assert cases
    for case in cases:
        stub.received.clear()
        client = await connect(gateway.url)
        answering = asyncio.ensure_future(client.answer())
        for byte in case.sent:
            client.writer.write(bytes((byte,)))
            await asyncio.sleep(0)
            if answering.done():
                break  # it was refused before its end
        assert (await answering).status == case.statuses[0], case.id
        assert tuple(shown(request) for request in stub.received) == case.forwarded, case.id
        client.writer.close()


def test_the_table_is_a_table() -> None:
    assert len({case.id for case in CASES}) == len(CASES) >= 150
    assert all(case.reason for case in CASES)


def test_the_page_is_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "framing.md").read_text(encoding="utf-8")
    assert page == document(), "run: python -m tests.edge.framing_cases > docs/framing.md"
