"""Each failure of other systems that this one defends against has a test that says so: the index, held by the machine.

Advisories are found by their id in the name of a test or of one of its cases; classes of failures without an id by the
test named here. The rest of this module are the two that stand nowhere else.
"""

from __future__ import annotations

import ast
import gzip
from pathlib import Path

import pytest

from tests.conftest import token
from tests.edge.framing_cases import CASES

TESTS = Path(__file__).parent

ADVISORIES = (
    # tokens
    *("CVE-2022-29217", "CVE-2026-39999", "CVE-2026-32597", "GHSA-75c5-xw7c-p5pm", "CVE-2018-0114", "CVE-2026-35039"),
    # path, headers
    *("CVE-2025-66490", "GHSA-6jwx-7vp4-9847", "VSV00018", "CVE-2024-45410", "CVE-2025-48865", "CVE-2025-64484"),
    # framing, cache
    *("CVE-2025-4366", "CVE-2026-2836", "CVE-2023-28858"),
)
CLASSES = {
    "a head without end (slowloris)": "edge/test_deadlines.py::test_slowloris_a_head_begun_and_not_ended_is_408",
    "thousands of them": "faults/test_clients.py::test_slowloris_hundreds_of_slow_heads_cost_nobody_an_answer",
    "unbounded label values": "admin/test_admin.py::test_label_sets_are_closed_against_hostile_clients",
    "unbounded waiters on one fetch": "pipeline/test_origin_fetch.py::test_a_waiter_does_not_wait_for_ever",
    "bucket tables that attackers fill": (
        "limits/test_memory.py::test_attacker_chosen_keys_never_make_a_table_grow_beyond_its_bound"
    ),
    "token memos that attackers fill": "identity/test_verifier.py::test_the_memo_is_bounded",
    "decompression bombs": "test_advisories.py::test_decompression_bombs_pass_unopened_in_both_directions",
    "links from the request's Host": "test_advisories.py::test_cve_2026_2836_a_page_depends_on_nobodys_host",
    "cache deception by suffix": "core/test_target.py::test_deception_by_suffix_keeps_the_bytes_it_is_judged_by",
    "unkeyed fields": "e2e/test_visibility.py::test_every_answer_is_one_the_controller_gave_that_principal",
    "ranges of a cached page": "e2e/test_http_cache.py::test_ranges",
    "pickled entries": "store/test_codec.py::test_sealed_garbage_is_no_page_and_no_error",
}
FRAMING = {
    "length and coding": "RFC9112-6.1-CL-and-TE",
    "chunk extensions": "RFC9112-7.1.1-extension",
    "trailers": "trailer-is-no-field-of-the-next-request",
    "bare LF": "RFC9112-2.2-bare-LF-line",
    "undrained content": "CVE-2025-4366-content-of-a-denied-request",
    "pipelining": "pipelined-behind-a-length",
    "duplicate Host": "RFC9112-3.2-two-hosts",
    "empty Host": "empty-host",
    "Host with path": "host-with-path",
    "Host with userinfo": "host-with-userinfo",
    "Host with a comma list": "host-comma-list",
    "empty Transfer-Encoding": "coding-empty",
    "CONNECT": "CONNECT-authority",
    "OPTIONS *": "OPTIONS-asterisk",
    "CRLF in what is reflected": "reflected-request-id",
    "spoofed X-Forwarded-For": "spoofed-x-forwarded-for",
}


def modules() -> list[Path]:
    return sorted(path for path in TESTS.rglob("*.py") if path.name != Path(__file__).name)


def names(path: Path) -> set[str]:
    """The names of a module's tests, and the texts that can be ids of their cases, in one spelling."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}
    documentation = {ast.get_docstring(node, clean=False) for node in ast.walk(tree) if isinstance(node, _DOCUMENTED)}
    texts = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return {text.lower().replace("-", "_") for text in found | (texts - documentation)}


_DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@pytest.fixture(scope="module")
def known() -> set[str]:
    own = {node.name for node in ast.walk(ast.parse(Path(__file__).read_text("utf-8"))) if isinstance(node, _FUNCTIONS)}
    return own.union(*map(names, modules()))


_FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef


@pytest.mark.parametrize("advisory", ADVISORIES)
def test_every_advisory_has_a_test_that_is_named_by_it(advisory: str, known: set[str]) -> None:
    wanted = advisory.lower().replace("-", "_")
    assert any(wanted in name for name in known)


@pytest.mark.parametrize("node", CLASSES.values(), ids=CLASSES)
def test_every_class_of_failures_has_a_test(node: str) -> None:
    path, _, name = node.partition("::")
    tree = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    assert name in {one.name for one in ast.walk(tree) if isinstance(one, _FUNCTIONS)}


def test_every_ambiguity_of_a_message_has_a_case() -> None:
    assert set(FRAMING.values()) <= {case.id for case in CASES}


async def test_cve_2026_2836_a_page_depends_on_nobodys_host(stub, start_gateway, connect) -> None:
    """The key has no Host, so nothing that a Host says may get into a page, or to the controller that makes it."""
    stub.answers_json(
        b'{"pagination":{"next":{"href":"https://api.internal.example.org/v3/apps?page=2"}},"resources":[]}'
    )
    gateway = await start_gateway(
        stub.url, "routes: [{match: GET /v3/apps, cache: {mode: policy, ttl: 1h, share: principal}}]"
    )
    stub.received.clear()
    client = await connect(gateway.url)
    bodies = []
    for host in ("evil.example.org", "api.example.org", "evil.example.org:8443"):
        await client.request(
            "GET /v3/apps",
            f"Host: {host}",
            f"X-Forwarded-Host: {host}",
            f"Forwarded: host={host}",
            f"Authorization: bearer {token()}",
            host=False,
        )
        answer = await client.answer()
        assert answer.status == 200
        bodies.append(answer.body)
    assert len(set(bodies)) == 1
    assert b'"https://gateway.example.org/v3/apps?page=2"' in bodies[0]
    (request,) = stub.received
    assert request.field("host") == "api.internal.example.org"
    assert b"evil" not in request.head


async def test_decompression_bombs_pass_unopened_in_both_directions(stub, start_gateway, connect) -> None:
    bomb = gzip.compress(bytes(20_000_000))
    coded = f"Content-Encoding: gzip\r\nContent-Length: {len(bomb)}"
    stub.answers(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + coded.encode() + b"\r\n\r\n" + bomb)
    gateway = await start_gateway(stub.url)
    client = await connect(gateway.url)
    answer = await client.ask("POST /staging/x", *coded.split("\r\n"), body=bomb)
    assert stub.received[-1].body == bomb
    assert (answer.status, answer.body, answer.field("content-encoding")) == (200, bomb, "gzip")
