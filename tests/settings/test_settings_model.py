"""The settings as values: defaults, conversion to the core's words, dumps without secrets, schema, examples, page."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from gateway.core.cf_routes import CLOUD_FOUNDRY
from gateway.core.routes import Access, CacheMode, CacheRule, RouteOverride, RouteTable, Share
from gateway.settings import Settings, load, parse
from gateway.settings.document import document
from gateway.settings.meanings import meanings
from gateway.settings.schema import json_schema
from gateway.settings.shape import Shape, shape_of
from gateway.settings.source import read

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "config").glob("*.yaml"))
SECRET = "hunter2-hunter2-hunter2-hunter2-hunter2"

FULL = f"""
listen:
  {{host: 0.0.0.0, port: 8443, backlog: 5, send_buffer: 2MiB, keepalive: 10s, max_connections: 50,
   max_connections_per_address: 5}}
admin: {{host: "::1", port: 9091}}
public_url: https://api.example.org/cf
upstream:
  url: https://cc.internal:9024
  advertised_urls: [https://api.internal.example.org]
  host_header: api.internal.example.org
  timeouts: {{connect: 1s, head: 2s, idle: 1m30s, total: 1h}}
  connections: 7
  max_rewrite_bytes: 1MiB
auth:
  issuer: https://uaa.example.org/oauth/token
  audiences: [a]
  leeway: 250ms
  keys:
    - {{secret: {SECRET}, kid: k, algorithms: [HS256]}}
    - {{url: https://uaa.example.org/token_keys, refresh_interval: 5m}}
  max_token_bytes: 8KiB
  memo_entries: 10
routes:
  - {{match: GET /v3/processes, cache: {{mode: policy, ttl: 5s, stale_if_error: 1m, share: global}}, rate: list}}
  - {{match: "GET,POST /v3/x/:guid", access: scopes, scopes_any: [a.b, c.d], rewrite: false}}
  - {{match: "* /secret/*", access: deny}}
  - {{match: GET /open, access: public, cache: {{mode: origin, share: public}}}}
  - {{match: GET /live, cache: {{mode: off}}}}
cache: {{max_bytes: 64MiB, max_entry_bytes: 1MB}}
trusted_proxies: [10.0.0.0/8, "::1"]
limits:
  {{max_line_bytes: 8KiB, max_header_bytes: 16KiB, max_header_count: 99, max_body_bytes: 2GiB,
   head_timeout: 5s, body_idle_timeout: 20s, min_transfer_rate: 1KiB, request_timeout: 30m}}
drain: 5s
log: {{format: console, level: debug}}
via: edge-1
"""


def _data() -> dict[str, Any]:
    data = read(FULL.encode(), {}).data
    assert isinstance(data, dict)
    return data


def test_defaults():
    """What the issue and controller.md promise when the file says nothing."""
    settings = parse("public_url: http://p\nupstream: {url: http://u}\nauth: {keys: [{url: http://k}]}", {})
    assert settings.admin.host == "127.0.0.1"
    assert settings.listen.port != settings.admin.port
    assert settings.upstream.advertised_urls == ()
    assert settings.upstream.timeouts.total == 0
    assert settings.upstream.max_rewrite_bytes == 256 * 1024 * 1024
    assert settings.auth is not None
    assert settings.auth.audiences == ("cloud_controller", "cloud_controller_service_permissions")
    assert (settings.auth.leeway, settings.auth.issuer) == (0, None)
    assert settings.route_table == "cloud_foundry"
    assert settings.limits.max_line_bytes == settings.limits.max_header_bytes == 65_536
    assert (settings.limits.max_body_bytes, settings.drain, settings.via) == (None, 30, "gateway")
    assert settings.trusted_proxies == ()


def test_routes_in_the_words_of_the_core():
    assert parse(FULL, {}).route_rows() == (
        RouteOverride(
            "/v3/processes",
            frozenset({"GET"}),
            cache=CacheRule(CacheMode.POLICY, 5.0, 0.0, 60.0, Share.GLOBAL),
            rate="list",
        ),
        RouteOverride("/v3/x/:guid", frozenset({"GET", "POST"}), Access.SCOPES, ("a.b", "c.d"), rewrite=False),
        RouteOverride("/secret/*", frozenset(), Access.DENY),
        RouteOverride(
            "/open", frozenset({"GET"}), Access.PUBLIC, cache=CacheRule(CacheMode.ORIGIN, share=Share.PUBLIC)
        ),
        RouteOverride("/live", frozenset({"GET"}), cache=CacheRule(CacheMode.OFF)),
    )


def test_every_row_this_file_accepts_is_one_the_core_accepts():
    table = CLOUD_FOUNDRY.with_overrides(parse(FULL, {}).route_rows())
    row = table.match("GET", "/v3/processes")
    assert row is not None
    assert (row.operator, row.cache.ttl, row.resource) == (True, 5.0, "processes")
    denied = table.match("PATCH", "/secret/a/b")
    assert denied is not None
    assert denied.access is Access.DENY


def test_settings_are_frozen():
    settings = parse(FULL, {})
    with pytest.raises(ValidationError):
        settings.drain = 1.0
    with pytest.raises(ValidationError):
        settings.listen.port = 1
    assert hash(settings.routes) == hash(parse(FULL, {}).routes)


def test_the_secret_is_there_and_nowhere_to_be_seen():
    settings = parse(FULL, {})
    assert settings.auth is not None
    assert settings.auth.keys[0].secret is not None
    assert settings.auth.keys[0].secret.get_secret_value() == SECRET
    shown = [repr(settings), str(settings), f"{settings.auth!r}", json.dumps(settings.redacted())]
    shown += [settings.model_dump_json(), str(settings.model_dump()), yaml.safe_dump(settings.redacted())]
    assert [text for text in shown if "hunter2" in text] == []
    assert settings.redacted()["auth"]["keys"][0]["secret"] == "**********"


def test_pydantic_itself_does_not_show_a_secret_either():
    data = _data()
    data["auth"]["keys"][0]["kid"] = 5
    with pytest.raises(ValidationError) as caught:
        Settings.model_validate(data)
    assert "hunter2" not in f"{caught.value}{caught.value!r}"


def test_a_dump_is_a_file_that_loads_to_the_same():
    settings = parse(FULL, {})
    data = settings.redacted()
    data["auth"]["keys"][0]["secret"] = SECRET
    assert parse(yaml.safe_dump(data), {}) == settings
    assert data["upstream"]["timeouts"] == {"connect": "1s", "head": "2s", "idle": "1m30s", "total": "1h"}
    assert data["routes"][1]["match"] == "GET,POST /v3/x/:guid"


def test_contradictions_are_refused_without_a_file_too():
    with pytest.raises(ValidationError, match=r"expected another port than listen\.port"):
        Settings.model_validate({**_data(), "listen": {"port": 9091}})


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_load(path):
    settings = load(
        path, {"VALKEY_PASSWORD": "secret", "SHARED_STORE_KEY": SECRET}
    )  # those no example has a default for
    builtin = CLOUD_FOUNDRY if settings.route_table == "cloud_foundry" else RouteTable(())
    assert builtin.with_overrides(settings.route_rows()).conflicts() == []


def test_the_examples_are_those_promised():
    assert [path.name for path in EXAMPLES] == ["cluster.yaml", "gateway.yaml", "http-cache.yaml", "minimal.yaml"]
    assert len((ROOT / "config/minimal.yaml").read_text().splitlines()) <= 12


def test_examples_take_their_hosts_from_the_environment():
    environ = {"UAA_URL": "https://login.test", "CC_URL": "https://cc.test", "PUBLIC_URL": "https://api.test"}
    for name in ("gateway.yaml", "minimal.yaml"):
        settings = load(ROOT / "config" / name, environ)
        assert settings.auth is not None
        assert settings.auth.issuer == "https://login.test/oauth/token"
        assert settings.auth.keys[0].url == "https://login.test/token_keys"
        assert (settings.upstream.url, settings.public_url) == ("https://cc.test", "https://api.test")


def test_the_http_cache_asks_for_no_tokens_and_follows_the_origin():
    settings = load(ROOT / "config/http-cache.yaml", {})
    row = RouteTable(()).with_overrides(settings.route_rows()).match("GET", "/any/thing")
    assert settings.auth is None
    assert row is not None
    assert (row.access, row.cache.mode, row.cache.share) == (Access.PUBLIC, CacheMode.ORIGIN, Share.PUBLIC)


# --- JSON Schema -----------------------------------------------------------------------------------------------------


def _obeys(schema: dict[str, Any], value: Any, root: dict[str, Any]) -> bool:
    """Whether a value obeys a schema, for the keywords that the schema of the settings uses."""
    if "$ref" in schema:
        return _obeys(root["$defs"][schema["$ref"].removeprefix("#/$defs/")], value, root)
    kinds = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict}
    kinds["null"] = type(None)
    checks = {
        "type": lambda kind: isinstance(value, kinds[kind]) and (kind == "boolean" or not isinstance(value, bool)),
        "const": lambda only: value == only,
        "enum": lambda several: value in several,
        "pattern": lambda pattern: re.search(pattern, value) is not None,
        "minimum": lambda low: value >= low,
        "maximum": lambda high: value <= high,
        "minItems": lambda least: len(value) >= least,
        "items": lambda item: all(_obeys(item, each, root) for each in value),
        "required": lambda keys: set(keys) <= value.keys(),
        "properties": lambda keys: all(_obeys(keys[key], value[key], root) for key in value.keys() & keys.keys()),
        "additionalProperties": lambda open_: open_ or value.keys() <= schema["properties"].keys(),
        "anyOf": lambda several: any(_obeys(one, value, root) for one in several),
    }
    silent = {"title", "description", "default", "$defs", "$schema"}
    assert schema.keys() <= checks.keys() | silent, schema.keys()
    ordered = sorted(schema.keys() - silent, key=lambda keyword: keyword != "type")
    return all(checks[keyword](schema[keyword]) for keyword in ordered)


class _Echo(dict[str, str]):
    """An environment in which each variable stands for itself."""

    def get(self, name, default=None):
        return f"${{{name}}}"


def _as_written(path: Path) -> Any:
    return read(path.read_bytes(), _Echo()).data


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_obey_the_schema_as_written(path):
    schema = json_schema()
    assert _obeys(schema, _as_written(path), schema)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_examples_obey_the_schema_resolved_with_all_defaults(path):
    schema = json_schema()
    environ = {"VALKEY_PASSWORD": "secret", "SHARED_STORE_KEY": SECRET}
    assert _obeys(schema, load(path, environ).redacted(), schema)


@pytest.mark.parametrize(
    "fault",
    [
        {"drian": "5s"},
        {"drain": 5},
        {"drain": "soon"},
        {"listen": {"port": 70_000}},
        {"cache": {"max_bytes": "1G"}},
        {"routes": [{"match": "get /x"}]},
        {"routes": [{"match": "GET /x", "cache": {"ttl": "5s"}}]},
        {"log": {"level": "loud"}},
        {"public_url": "x"},
        {"auth": {"keys": []}},
    ],
    ids=json.dumps,
)
def test_the_schema_refuses_what_the_loader_refuses(fault):
    schema = json_schema()
    good = _as_written(ROOT / "config/minimal.yaml")
    assert _obeys(schema, good, schema)
    assert not _obeys(schema, {**good, **fault}, schema)


def test_the_schema_of_pydantic_works_as_well():
    assert json.dumps(Settings.model_json_schema())
    assert json_schema()["properties"]["drain"]["default"] == "30s"


# --- the page --------------------------------------------------------------------------------------------------------


def test_the_page_is_current():
    committed = (ROOT / "docs/settings.md").read_text()
    assert committed == document(), "run: python -m gateway.settings.document > docs/settings.md"


def _keys(shape: Shape, path: str = "") -> list[tuple[str, str, str]]:
    assert shape.section is not None
    found = []
    for name, kind in shape.keys().items():
        found.append((path, name, meanings(shape.section).get(name, "")))
        below = kind.items or kind
        if below.section is not None:
            found += _keys(below, f"{path}.{name}{'[]' if kind.items else ''}".removeprefix("."))
    return found


def test_the_page_describes_every_key():
    sections = dict(re.findall(r"^## (?:`(.+?)`|Top level)\n(.*?)(?=^## |\Z)", document(), re.MULTILINE | re.DOTALL))
    keys = _keys(Shape(section=Settings))
    assert len(keys) > 50
    for path, name, description in keys:
        assert description.endswith("."), name
        (row,) = re.findall(rf"^\| `{name}` \|.*$", sections[path], re.MULTILINE)
        assert description in row.replace("\\|", "|")


def test_a_type_that_no_setting_has():
    with pytest.raises(TypeError):
        shape_of(dict[str, int])
    assert Shape(section=Settings).at(("via", "x", "y")) is None
