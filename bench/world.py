"""What the servers of the benchmark work with: pages, a key, tokens good and bad, load scripts, configurations."""

from __future__ import annotations

import copy
import json
import random
import shutil
import time
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import jwt
import trustme
import yaml
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

HERE: Final = Path(__file__).parent
ISSUER: Final = "https://uaa.example.org/oauth/token"
TOKENS: Final = 1000
BAD_TOKENS: Final = 100
PAGES: Final = 50
BIG_ROWS: Final = 5000
MANY: Final = (100, 10_000, 100_000)  # pages that are asked for in turn

# Gateways that differ from gateway.yaml: file, port, settings.
VARIANTS: Final[tuple[tuple[str, int, dict[str, Any]], ...]] = (
    (
        "valkey.yaml",
        18086,
        {
            "shared_store": {
                "url": "valkey://127.0.0.1:18379",
                "hmac_key": "of the benchmark alone, and of nothing else",
            }
        },
    ),
    ("workers.yaml", 18088, {"workers": 2}),
    ("single.yaml", 18092, {}),
    ("idle.yaml", 18094, {}),
    ("unrecorded.yaml", 18096, {}),
    ("many.yaml", 18098, {}),
    ("tls.yaml", 18090, {"listen": {"tls": {"certificate_file": "cert.pem", "key_file": "key.pem"}}}),
)

# How every script asks: another request id each time. The fields stand in one order, as a client's do; wrk's own way of
# writing them down has another one in each run.
_LUA: Final = """
local n = 0
local function words(name)
  local found = {}
  for line in io.lines(name) do found[#found + 1] = line end
  return found
end
local function ask(token, more, path)
  n = n + 1
  return table.concat({'GET ', path or wrk.path, ' HTTP/1.1\\r\\nHost: ', wrk.host, ':', wrk.port,
    '\\r\\nUser-Agent: cf/8.7.1 (go1.21; amd64 linux)\\r\\nAccept: application/json\\r\\nAuthorization: bearer ', token,
    '\\r\\nX-Forwarded-For: 10.0.0.1\\r\\nX-Forwarded-Proto: https\\r\\nX-Vcap-Request-Id: ',
    string.format('%08x-0000-4000-8000-%012x', n, n), more or '', '\\r\\n\\r\\n'})
end
local token = words('./tokens.txt')[1]
"""
_SCRIPTS: Final = {
    "ids.lua": "function request() return ask(token) end",
    "conditional.lua": "local etag = io.open('./etag'):read('*a')\n"
    "function request() return ask(token, '\\r\\nIf-None-Match: ' .. etag) end",
    "gzip.lua": "function request() return ask(token, '\\r\\nAccept-Encoding: gzip') end",
    # Tokens and pages in the order of zipf.txt, made with a fixed seed: the same for every peer.
    "zipf.lua": """local tokens, order, at = words('./tokens.txt'), words('./zipf.txt'), 0
function request()
  at = at % #order + 1
  local who, page = order[at]:match('(%d+) (%d+)')
  return ask(tokens[tonumber(who)], nil, '/v3/processes?page=' .. page .. '&per_page=2')
end""",
    # Every fifth request has a token that does not count: half of them expired, half forged.
    "bad.lua": """local bad, at = words('./bad.txt'), 0
function request()
  at = at + 1
  return ask(at % 5 == 0 and bad[(at / 5) % #bad + 1] or token)
end""",
    # So many pages in turn, neighbours of which are not neighbours in time.
    **{
        f"turns{count}.lua": f"""local at = 0
function request()
  at = (at + 7919) % {count}
  return ask(token, nil, '/v3/processes?page=' .. at + 1 .. '&per_page=2')
end"""
        for count in MANY
    },
}


def processes_page(rows: int) -> bytes:
    """A list page of the controller's shape with `rows` processes."""
    origin = "https://api.internal.example.org/v3"
    link = f"{origin}/processes?page=1\\u0026per_page={rows}"
    resource = {
        "guid": "cd25bd73-52be-4198-ad49-5fd85f570d87",
        "created_at": "2024-03-19T06:20:17Z",
        "updated_at": "2025-03-03T03:03:03Z",
        "type": "web",
        "command": "[PRIVATE DATA HIDDEN IN LISTS]",
        "instances": 3,
        "memory_in_mb": 512,
        "disk_in_mb": 2048,
        "health_check": {"type": "port", "data": {"timeout": None, "invocation_timeout": None}},
        "relationships": {"app": {"data": {"guid": "cd25bd73-52be-4198-ad49-5fd85f570d87"}}, "revision": None},
        "metadata": {"labels": {}, "annotations": {}},
        "links": {
            "self": {"href": f"{origin}/processes/cd25bd73-52be-4198-ad49-5fd85f570d87"},
            "scale": {
                "href": f"{origin}/processes/cd25bd73-52be-4198-ad49-5fd85f570d87/actions/scale",
                "method": "POST",
            },
            "app": {"href": f"{origin}/apps/cd25bd73-52be-4198-ad49-5fd85f570d87"},
            "space": {"href": f"{origin}/spaces/6f5e2b1c-2ec9-4b71-9d7e-f9a0d2a1c1a1"},
            "stats": {"href": f"{origin}/processes/cd25bd73-52be-4198-ad49-5fd85f570d87/stats"},
        },
    }
    page = {
        "pagination": {"total_results": rows, "total_pages": 1, "first": {"href": "LINK"}, "next": None},
        "resources": [resource] * rows,
    }
    return json.dumps(page, separators=(",", ":")).replace("LINK", link).encode()


def _token(key: RSAPrivateKey, number: int, expires: float) -> str:
    claims = {
        "iss": ISSUER,
        "jti": f"bench-{number}",
        "user_id": f"a0000000-0000-4000-8000-{number:012d}",
        "client_id": "cf",
        "scope": ["cloud_controller.read", "cloud_controller.admin_read_only"],
        "aud": ["cloud_controller"],
        "exp": int(expires),
    }
    return jwt.encode(claims, key, algorithm="RS256", headers={"kid": "bench"})


def _zipf(chance: random.Random, count: int, length: int) -> list[int]:
    weights = list(accumulate(1 / rank for rank in range(1, count + 1)))
    return chance.choices(range(1, count + 1), cum_weights=weights, k=length)


def prepare(folder: Path) -> None:
    """Write everything into a folder."""
    key, other = (generate_private_key(65537, 2048) for _ in range(2))
    public = key.public_key()
    (folder / "pub.pem").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    jwk = jwt.algorithms.RSAAlgorithm.to_jwk(public, as_dict=True)
    (folder / "jwks.json").write_text(json.dumps({"keys": [{**jwk, "kid": "bench", "alg": "RS256", "use": "sig"}]}))
    now = time.time()
    tokens = [_token(key, number, now + 7200) for number in range(TOKENS)]
    bad = [_token(other, n, now + 7200) if n % 2 else _token(key, n, now - 60) for n in range(BAD_TOKENS)]
    (folder / "tokens.txt").write_text("\n".join(tokens) + "\n")
    (folder / "bad.txt").write_text("\n".join(bad) + "\n")
    chance = random.Random(1)
    drawn = zip(_zipf(chance, TOKENS, 20_000), _zipf(chance, PAGES, 20_000), strict=True)
    (folder / "zipf.txt").write_text("".join(f"{who} {page}\n" for who, page in drawn))
    (folder / "page.json").write_bytes(processes_page(1))
    (folder / "page5000.json").write_bytes(processes_page(BIG_ROWS))
    (folder / "etag").write_text('"none"')
    certificate = trustme.CA().issue_cert("127.0.0.1", "localhost")
    certificate.private_key_pem.write_to_path(folder / "key.pem")
    (folder / "cert.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (folder / "run").mkdir()
    for name, script in _SCRIPTS.items():
        (folder / name).write_text(_LUA + script + "\n")
    for source in (HERE / "peers").iterdir():
        if source.is_file():
            shutil.copy(source, folder / source.name)
    _variants(folder)


def _variants(folder: Path) -> None:
    """Configurations that differ from another in a few lines."""
    envoy = yaml.safe_load((folder / "envoy.yaml").read_text())
    listeners = envoy["static_resources"]["listeners"]
    passing = copy.deepcopy(listeners[0])
    passing["address"]["socket_address"]["port_value"] = 18183
    manager = passing["filter_chains"][0]["filters"][0]["typed_config"]
    manager["http_filters"] = [one for one in manager["http_filters"] if not one["name"].endswith(".cache")]
    listeners.append(passing)
    (folder / "envoy.yaml").write_text(json.dumps(envoy))
    plain = yaml.safe_load((folder / "gateway.yaml").read_text())
    for name, port, changes in VARIANTS:
        settings = {**copy.deepcopy(plain), **changes, "admin": {"port": port + 1}}
        settings["listen"] = {**plain["listen"], "port": port, **changes.get("listen", {})}
        (folder / name).write_text(yaml.safe_dump(settings))
