"""`python fuzz/api.py SECONDS`: schemathesis against the sandbox's API, through the gateway.

Each request goes through the gateway, and reads also to the controller itself: whatever the controller would have said,
the gateway says, links aside; an answer that the gateway made itself is only ever one of those it may make. What comes
out is held to the API's description in `tests/sandbox/openapi.yaml`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT)]

from gateway.app import Gateway  # noqa: E402 - from the repository this file is in
from gateway.sandbox.controller import Controller  # noqa: E402
from gateway.sandbox.people import person  # noqa: E402
from gateway.sandbox.uaa import Uaa  # noqa: E402
from gateway.sandbox.world import World  # noqa: E402
from gateway.settings import parse  # noqa: E402
from gateway.telemetry import log  # noqa: E402

ADVERTISED = "https://api.sandbox.example.org"
PUBLIC = "https://gateway.example.org"
WHO = ("admin", "global_auditor", "space_developer", "space_auditor", "no_roles", "openid_only", "", "garbage")
CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]
# What the gateway may answer by itself while the controller is well: refusals before the controller is asked.
OWN = {400, 401, 403, 404}


class Site:
    """The sandbox and a gateway before it, in a thread of their own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(60)

    async def _start(self) -> None:
        self.uaa = Uaa(lifetime=7200)
        uaa = await self.uaa.start()
        self.controller = Controller(
            world=World.seeded(24), verify=self.uaa.verify, external_url=ADVERTISED, uaa_url=uaa, job_delay=None
        )
        self.direct = await self.controller.start()
        self.gateway = Gateway(
            parse(
                f"""
listen: {{port: 0}}
admin: {{port: 0}}
public_url: {PUBLIC}
upstream: {{url: "{self.direct}", advertised_urls: ["{ADVERTISED}"], host_header: api.sandbox.example.org}}
auth: {{issuer: "{self.uaa.issuer}", keys: [{{url: "{uaa}/token_keys"}}]}}
""",
                {},
            )
        )
        await self.gateway.start()

    def headers(self, who: str) -> dict[str, str]:
        """The Authorization of one of `WHO`."""
        if not who:
            return {}
        token = self.uaa.mint(person(who)) if who != "garbage" else who
        return {"Authorization": f"bearer {token}"}


def main() -> None:  # noqa: C901 - a script with its tests inside
    budget = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    log.configure(level="warning", json=False)
    site = Site()
    schema = schemathesis.openapi.from_path(ROOT / "tests" / "sandbox" / "openapi.yaml")
    schema.config.update(base_url=site.gateway.url)
    operations = [found.ok() for found in schema.get_all_operations()]
    tokens = {who: site.headers(who) for who in WHO}
    apps, processes = list(site.controller.world.apps), list(site.controller.world.processes)
    known = st.sampled_from([*apps[:4], *processes[:4], "00000000-0000-4000-8000-000000000000"])
    session, counted = requests.Session(), {"requests": 0, "compared": 0, "hits": 0}
    ends = time.monotonic() + budget

    def hold(operation, mode: GenerationMode, examples: int) -> None:
        @settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None)
        @given(case=operation.as_strategy(generation_mode=mode), who=st.sampled_from(WHO), guid=known)
        def holds(case, who: str, guid: str) -> None:
            if time.monotonic() > ends:
                return
            if "guid" in (case.path_parameters or {}) and mode is GenerationMode.POSITIVE:
                case.path_parameters["guid"] = guid
            case.headers = {}
            response = case.call(headers=tokens[who], session=session, allow_redirects=False)
            counted["requests"] += 1
            counted["hits"] += any(";hit" in value for value in response.headers.get("cache-status", []))
            if mode is GenerationMode.POSITIVE:
                case.validate_response(response, checks=CHECKS)
            assert response.status_code not in {502, 503, 504}, response.text
            path = urlsplit(response.request.url).path
            if "%" in path and response.status_code in {400, 404}:
                return  # encoded separators, dots and controls end at the gateway (core/target.py)
            if case.method == "GET":
                counted["compared"] += 1
                compare(case, who, response)

        def compare(case, who: str, response) -> None:
            direct = case.call(base_url=site.direct, headers=tokens[who], session=session, allow_redirects=False)
            said, told = response.text.replace(PUBLIC, ADVERTISED), direct.text
            if response.status_code in OWN and response.status_code == direct.status_code:
                said, told = codes(said), codes(told)
            assert (response.status_code, said) == (direct.status_code, told), case.as_curl_command()

        with contextlib.suppress(Unsatisfiable):
            holds()

    rounds = 0
    while time.monotonic() < ends:
        rounds += 1
        for operation in operations:
            hold(operation, GenerationMode.POSITIVE, 10)
            if list(operation.iter_parameters()) or operation.body:  # or it cannot be asked for wrongly
                hold(operation, GenerationMode.NEGATIVE, 10)
    print(f"api: {len(operations)} operations, {rounds} rounds; {counted}: ok")


def codes(body: str) -> str:
    """The error codes of a refusal: the same wherever it was made; details may name the gateway's reason."""
    try:
        found = json.loads(body)
    except ValueError:
        return body
    errors = found.get("errors", [found]) if isinstance(found, dict) else [found]
    return repr([each.get("code") if isinstance(each, dict) else each for each in errors])


if __name__ == "__main__":
    main()
