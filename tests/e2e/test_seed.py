"""The document this project began with: the experimental processes list of 2015, relative links and all."""

from __future__ import annotations

import json
from pathlib import Path

import aiohttp
import jwt

SEED = Path(__file__).parents[2] / "../shared/seeds/000_e2c34828e0103e71.txt"
PUBLIC = "https://gateway.example.org"
# Signed with a secret nobody has, and long expired: the test signs the same header and claims again.
CLAIMS = {
    "user_id": "uaa-id-432",
    "email": "email-300@somedomain.com",
    "scope": ["cloud_controller.read", "cloud_controller.write"],
    "aud": ["cloud_controller"],
    "exp": 4102444800,
}
SECRET = "a-secret-that-is-long-enough-for-hs256-and-its-tests"

BODY = """{
  "pagination": {
    "total_results": 3,
    "first": {
      "href": "/v3/processes?page=1&per_page=2"
    },
    "last": {
      "href": "/v3/processes?page=2&per_page=2"
    },
    "next": {
      "href": "/v3/processes?page=2&per_page=2"
    },
    "previous": null
  },
  "resources": [
    {
      "guid": "c9c7b5d9-af9f-40ba-99a3-d21ab89e3e59",
      "type": "web",
      "command": null,
      "instances": 1,
      "memory_in_mb": 1024,
      "disk_in_mb": 1024,
      "created_at": "2015-11-13T17:02:53Z",
      "updated_at": "2015-11-13T17:02:53Z",
      "links": {
        "self": {
          "href": "/v3/processes/c9c7b5d9-af9f-40ba-99a3-d21ab89e3e59"
        },
        "scale": {
          "href": "/v3/processes/c9c7b5d9-af9f-40ba-99a3-d21ab89e3e59/scale",
          "method": "PUT"
        },
        "app": {
          "href": "/v3/apps/guid-44cd9a3d-3f86-40de-8a5d-8494035a5c1c"
        },
        "space": {
          "href": "/v2/spaces/db3a1c9b-492f-4777-9d2a-388120241b2a"
        }
      }
    },
    {
      "guid": "e640beae-2d59-498e-bb52-46eb0c9cddc8",
      "type": "web",
      "command": null,
      "instances": 1,
      "memory_in_mb": 1024,
      "disk_in_mb": 1024,
      "created_at": "2015-11-13T17:02:53Z",
      "updated_at": "2015-11-13T17:02:53Z",
      "links": {
        "self": {
          "href": "/v3/processes/e640beae-2d59-498e-bb52-46eb0c9cddc8"
        },
        "scale": {
          "href": "/v3/processes/e640beae-2d59-498e-bb52-46eb0c9cddc8/scale",
          "method": "PUT"
        },
        "app": {
          "href": "/v3/apps/"
        },
        "space": {
          "href": "/v2/spaces/db3a1c9b-492f-4777-9d2a-388120241b2a"
        }
      }
    }
  ]
}"""


def bearer(**changes: object) -> dict[str, str]:
    token = jwt.encode(CLAIMS | changes, SECRET, algorithm="HS256", headers={"typ": "JWT"})
    assert jwt.get_unverified_header(token) == {"typ": "JWT", "alg": "HS256"}
    return {"Authorization": f"bearer {token}", "Host": "example.org", "Cookie": ""}


def upstream_answers(stub) -> None:
    fields = ("X-Frame-Options: SAMEORIGIN", "X-XSS-Protection: 1; mode=block", "X-Content-Type-Options: nosniff")
    stub.answers_json(BODY.encode(), *fields, "X-Runtime: 0.017292")


def expected(public: str) -> str:
    """Every relative link made absolute, every other byte as it came."""
    return BODY.replace('"href": "/', f'"href": "{public}/')


async def ask(http: aiohttp.ClientSession, url: str, headers: dict[str, str]):
    async with http.get(f"{url}/v3/processes?page=1&per_page=2", headers=headers) as response:
        return response.status, response.headers, (await response.read()).decode()


def test_the_body_is_that_of_the_document() -> None:
    if SEED.exists():
        assert BODY in SEED.read_text()


async def test_the_documents_request_and_response_pass(stub, start_gateway, http) -> None:
    upstream_answers(stub)
    gateway = await start_gateway(stub.url)
    status, fields, body = await ask(http, gateway.url, bearer())
    assert (status, body) == (200, expected(PUBLIC))
    assert fields["X-Frame-Options"] == "SAMEORIGIN"
    assert fields["X-Runtime"] == "0.017292"
    request = stub.received[-1]
    assert request.line == "GET /v3/processes?page=1&per_page=2 HTTP/1.1"
    assert request.field("host") == "api.internal.example.org"
    assert request.field("authorization") == bearer()["Authorization"]
    document = json.loads(body)
    assert document["pagination"]["next"]["href"] == f"{PUBLIC}/v3/processes?page=2&per_page=2"
    assert document["resources"][1]["links"]["app"]["href"] == f"{PUBLIC}/v3/apps/"
    assert document["resources"][0]["links"]["space"]["href"].startswith(f"{PUBLIC}/v2/spaces/")


async def test_it_is_served_again_from_the_cache(stub, start_gateway, http) -> None:
    upstream_answers(stub)
    gateway = await start_gateway(stub.url)
    _, _, first = await ask(http, gateway.url, bearer())
    asked = len(stub.received)
    status, fields, second = await ask(http, gateway.url, bearer())
    assert (status, second, fields["Cache-Status"].split(";")[1]) == (200, first, "hit")
    assert len([each for each in stub.received[asked:] if "/v3/processes" in each.line]) == 0


async def test_links_lead_below_a_path_prefix(stub, start_gateway, http) -> None:
    upstream_answers(stub)
    gateway = await start_gateway(stub.url, public_url="https://cf.example.org/api")
    _, _, body = await ask(http, f"{gateway.url}/api", bearer())
    assert body == expected("https://cf.example.org/api")


async def test_the_token_is_judged(stub, start_gateway, http) -> None:
    upstream_answers(stub)
    gateway = await start_gateway(stub.url)
    for headers, code in ((bearer(exp=1448038974), 1000), ({"Host": "example.org"}, 10002)):
        status, _, body = await ask(http, gateway.url, headers)
        assert (status, json.loads(body)["errors"][0]["code"]) == (401, code)
