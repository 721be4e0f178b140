"""Each fault of a settings file, in the words the operator reads."""

from __future__ import annotations

import pytest

from gateway.settings import ConfigError, Settings, parse

PUBLIC = "public_url: https://api.example.org\n"
UPSTREAM = "upstream: {url: http://cc.internal}\n"
AUTH = "auth: {keys: [{url: https://uaa.example.org/token_keys}]}\n"
GOOD = PUBLIC + UPSTREAM + AUTH
OPEN = PUBLIC + UPSTREAM + "route_table: none\n"

NO_AUTH = "auth: expected a mapping with keys, since the cloud_foundry routes ask for tokens, found nothing"
ROOT = "expected a mapping with public_url and upstream"
CHECK = "check indentation, colons, quotes and brackets"
URL = "expected a URL such as https://api.example.org"
ONCE = "expected each method and path once"
ISSUER = "auth.issuer: expected the token issuer's URL such as https://uaa.example.org/oauth/token"
UNIT = "a number needs its unit: ms, s, m, h or d"
DURATION = "expected a duration such as 30s"
KNOWN_KEY = "expected a known key, found an unknown one"
SOURCES = "url, secret, pem_file, jwks_file"
RARE = "a query, a fragment, spaces and backslashes do not belong there"


def faults(text: str | bytes, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, environ, name="f.yaml")
    lines = str(caught.value).splitlines()
    assert lines == [str(fault) for fault in caught.value.faults]
    return lines


def test_the_bases_of_these_tests_are_good():
    assert parse(GOOD, {}) == Settings.model_validate(
        {
            "public_url": "https://api.example.org",
            "upstream": {"url": "http://cc.internal"},
            "auth": {"keys": [{"url": "https://uaa.example.org/token_keys"}]},
        }
    )
    assert parse(OPEN + "routes: [{match: GET /*, access: public}]", {}).auth is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("", [f"f.yaml:1: {ROOT}, found nothing"], id="empty"),
        pytest.param("# nothing\n", [f"f.yaml:1: {ROOT}, found nothing"], id="comment"),
        pytest.param("\n- a\n", [f"f.yaml:2: {ROOT}, found a list"], id="list"),
        pytest.param("hello", [f"f.yaml:1: {ROOT}, found text"], id="text"),
        pytest.param(
            "a: [",
            [f"f.yaml:1: expected valid YAML, found something that is not; {CHECK} up to here"],
            id="yaml",
        ),
        pytest.param(
            GOOD + "log:\n\tlevel: info", ["f.yaml:5: expected valid YAML, found a tab; indent with spaces"], id="tab"
        ),
        pytest.param(GOOD.encode() + b"via: caf\xe9", ["f.yaml:4: expected UTF-8, found other bytes"], id="latin-1"),
        pytest.param(
            "drain: 1s\n",
            [
                f"f.yaml:1: {NO_AUTH}",
                "f.yaml:1: public_url: expected a URL such as https://api.example.org, found nothing",
                "f.yaml:1: upstream: expected a mapping, found nothing",
            ],
            id="missing",
        ),
        pytest.param(
            GOOD + "listen:\n  port: 1\n  port: 2\n",
            ["f.yaml:6: listen.port: expected each key once (also on line 5), found it again"],
            id="twice",
        ),
        pytest.param(GOOD + "drian: 5s", [f"f.yaml:4: drian: {KNOWN_KEY}; did you mean drain?"], id="did-you-mean"),
        pytest.param(
            GOOD + "log: {zzz: 5}",
            [f"f.yaml:4: log.zzz: {KNOWN_KEY}; known are format, level, access_sample"],
            id="unknown-key",
        ),
        pytest.param(
            GOOD + 'log: {"a b\\e[1m": 5}',
            [f"f.yaml:4: log[…]: {KNOWN_KEY}; known are format, level, access_sample"],
            id="strange-key",
        ),
        pytest.param(GOOD + "listen: 8080", ["f.yaml:4: listen: expected a mapping, found a number"], id="no-mapping"),
        pytest.param(GOOD + "listen:", ["f.yaml:4: listen: expected a mapping, found nothing"], id="null-mapping"),
        pytest.param(GOOD + "routes: {a: 1}", ["f.yaml:4: routes: expected a list, found a mapping"], id="no-list"),
        pytest.param(
            GOOD + "trusted_proxies: 10.0.0.1", ["f.yaml:4: trusted_proxies: expected a list, found text"], id="one"
        ),
        pytest.param(
            GOOD + "listen: {host: a b, port: 70000, backlog: none}",
            [
                'f.yaml:4: listen.backlog: expected a whole number from 1 to 1000000000, found "none"',
                'f.yaml:4: listen.host: expected an IP address or host name, found "a b"',
                "f.yaml:4: listen.port: expected a port number from 0 to 65535, found 70000",
            ],
            id="listen",
        ),
        pytest.param(
            GOOD + "listen: {send_buffer: 8KiB}",
            ["f.yaml:4: listen.send_buffer: expected a size from 16KiB to 64MiB, or 0, found 8KiB"],
            id="small-buffer",
        ),
        pytest.param(
            GOOD + "listen: {send_buffer: 1GiB}",
            ["f.yaml:4: listen.send_buffer: expected a size from 16KiB to 64MiB, or 0, found 1GiB"],
            id="large-buffer",
        ),
        pytest.param(
            GOOD + "listen: {port: 80}\nadmin:\n  port: 80",
            ["f.yaml:6: admin.port: expected another port than listen.port, found 80"],
            id="same-port",
        ),
        pytest.param(GOOD + "drain: 30", [f"f.yaml:4: drain: {DURATION}, found 30; {UNIT}"], id="bare-number"),
        pytest.param(GOOD + "drain: '30'", [f'f.yaml:4: drain: {DURATION}, found "30"; {UNIT}'], id="bare-text"),
        pytest.param(GOOD + "drain: soon", [f'f.yaml:4: drain: {DURATION}, found "soon"'], id="duration"),
        pytest.param(GOOD + "drain: [1s]", [f"f.yaml:4: drain: {DURATION}, found a list"], id="duration-list"),
        pytest.param(GOOD + "drain:", [f"f.yaml:4: drain: {DURATION}, found nothing"], id="duration-null"),
        pytest.param(
            GOOD + f"via: {'x y' * 60}",
            [f'f.yaml:4: via: expected a name without spaces such as gateway, found "{("x y" * 60)[:79]}…"'],
            id="long-value",
        ),
        pytest.param(
            GOOD + 'via: "a\\e[1m"',
            ['f.yaml:4: via: expected a name without spaces such as gateway, found "a\\u001b[1m"'],
            id="escape-sequence",
        ),
        pytest.param(
            GOOD + "log: {format: xml, level: 5}",
            [
                'f.yaml:4: log.format: expected json, console or rfc5424, found "xml"',
                "f.yaml:4: log.level: expected debug, info, warning or error, found 5",
            ],
            id="choices",
        ),
        pytest.param(
            PUBLIC + AUTH + "upstream:\n  url: https://cc/v3\n  timeouts: {head: 5m, idle: 1}\n  connections: 0",
            [
                (
                    "f.yaml:4: upstream.url: expected an origin such as https://api.example.org, "
                    'found "https://cc/v3"; '
                    "it must not have a path"
                ),
                f"f.yaml:5: upstream.timeouts.idle: {DURATION}, found 1; {UNIT}",
                "f.yaml:6: upstream.connections: expected a whole number from 1 to 1000000000, found 0",
            ],
            id="upstream",
        ),
        pytest.param(
            PUBLIC + AUTH + "upstream: {url: http://cc, timeouts: {connect: 0}}",
            ["f.yaml:3: upstream.timeouts.connect: expected a duration above 0, found 0"],
            id="no-time",
        ),
        pytest.param(
            UPSTREAM + AUTH + "public_url: https://x/?a",
            [f'f.yaml:3: public_url: expected a URL such as https://api.example.org, found "https://x/?a"; {RARE}'],
            id="public-url",
        ),
        pytest.param(
            UPSTREAM + AUTH + "public_url: https://me:hunter2@x",
            [
                (
                    'f.yaml:3: public_url: expected a URL such as https://api.example.org, found "https://***@x"; '
                    "it must not carry a user or password"
                )
            ],
            id="userinfo",
        ),
        pytest.param(
            GOOD + "cache: {max_bytes: 1MiB}",
            ["f.yaml:4: cache.max_entry_bytes: expected at most cache.max_bytes (1MiB), found 32MiB"],
            id="entry-above-cache",
        ),
        pytest.param(
            GOOD + "limits: {max_line_bytes: 5B, max_body_bytes: 1G}",
            ['f.yaml:4: limits.max_body_bytes: expected a size such as 64KiB or 1GB, found "1G"'],
            id="sizes",
        ),
        pytest.param(
            GOOD + "limits: {max_line_bytes: 5B}",
            ["f.yaml:4: limits.max_line_bytes: expected a size of at least 1KiB, found 5B"],
            id="small-limit",
        ),
        pytest.param(
            GOOD + "trusted_proxies:\n  - 10.0.0.0/8\n  - 10.0.0.1/8\n  - x\n",
            [
                (
                    "f.yaml:6: trusted_proxies[1]: expected an IP address, a network such as 10.0.0.0/8, or unix, "
                    'found "10.0.0.1/8"; the network of that address is 10.0.0.0/8'
                ),
                (
                    "f.yaml:7: trusted_proxies[2]: expected an IP address, a network such as 10.0.0.0/8, or unix, "
                    'found "x"'
                ),
            ],
            id="networks",
        ),
    ],
)
def test_faults(text, expected):
    assert faults(text) == expected


@pytest.mark.parametrize(
    ("auth", "expected"),
    [
        ("{}", ["auth.keys: expected a list, found nothing"]),
        ("{keys: []}", ["auth.keys: expected a list with at least one item, found an empty list"]),
        (
            "{audiences: [], keys: [{url: http://uaa}]}",
            ["auth.audiences: expected a list with at least one item, found an empty list"],
        ),
        (
            "{issuer: '', keys: [{url: http://uaa}]}",
            [f"{ISSUER}, found empty text"],
        ),
        ("{leeway: 10m, keys: [{url: http://uaa}]}", ["auth.leeway: expected a duration from 0s to 5m, found 600s"]),
        (
            "{max_token_bytes: 1B, keys: [{url: http://uaa}]}",
            ["auth.max_token_bytes: expected a size of at least 1KiB, found 1B"],
        ),
        ("{keys: [{}]}", [f"auth.keys[0]: expected exactly one of {SOURCES}, found none of them"]),
        (
            f"{{keys: [{{url: http://uaa, secret: {'x' * 32}}}]}}",
            [f"auth.keys[0]: expected exactly one of {SOURCES}, found url and secret"],
        ),
        (
            "{keys: [{secret: short}]}",
            [
                (
                    "auth.keys[0].secret: expected a secret of at least 32 bytes, found a shorter one; "
                    "allow_short_secret: true accepts it"
                )
            ],
        ),
        (
            f"{{keys: [{{secret: {'x' * 63}, algorithms: [HS256, HS512]}}]}}",
            [
                (
                    "auth.keys[0].secret: expected a secret of at least 64 bytes, found a shorter one; "
                    "allow_short_secret: true accepts it"
                )
            ],
        ),
        (
            f"{{keys: [{{secret: {'x' * 32}, algorithms: [RS256, none]}}]}}",
            [
                (
                    "auth.keys[0].algorithms[1]: expected HS256, HS384, HS512, RS256, RS384, RS512, "
                    "PS256, PS384, PS512, "
                    'ES256 or ES384, found "none"'
                )
            ],
        ),
        (
            f"{{keys: [{{secret: {'x' * 32}, algorithms: [RS256]}}]}}",
            ['auth.keys[0].algorithms[0]: expected HS256, HS384 or HS512 for a secret, found "RS256"'],
        ),
        (
            "{keys: [{url: http://uaa, algorithms: []}]}",
            ["auth.keys[0].algorithms: expected at least one algorithm, found an empty list"],
        ),
        ("{keys: [{url: http://uaa, kid: a}]}", ["auth.keys[0].kid: expected no such key beside url, found one"]),
        (
            "{keys: [{url: http://uaa, refresh_interval: 5ms}]}",
            ["auth.keys[0].refresh_interval: expected a duration of at least 1s, found 0.005s"],
        ),
        (
            f"{{keys: [{{secret: {'x' * 32}, refresh_interval: 5s}}]}}",
            ["auth.keys[0].refresh_interval: expected no such key beside secret, found one"],
        ),
        (
            f"{{keys: [{{secret: {'x' * 32}, kid: a}}, {{secret: {'y' * 32}, kid: a}}]}}",
            ["auth.keys[1].kid: expected each key id once (also in auth.keys[0]), found the same again"],
        ),
        (
            "{keys: [{pem_file: nowhere.pem}]}",
            ['auth.keys[0].pem_file: expected a readable file, found "nowhere.pem"; there is no such file'],
        ),
        (
            f"{{keys: [{{secret: {'x' * 32}, kid: 7}}]}}",
            ["auth.keys[0].kid: expected text that is not empty, found 7; put quotes around it"],
        ),
    ],
)
def test_faults_of_auth(auth, expected):
    assert faults(f"{PUBLIC}{UPSTREAM}auth: {auth}") == [f"f.yaml:3: {line}" for line in expected]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ("{}", ["match: expected methods and a path such as GET /v3/processes, found nothing"]),
        (
            "{match: get /x, acess: public}",
            [
                f"acess: {KNOWN_KEY}; did you mean access?",
                (
                    'match: expected methods and a path such as GET /v3/processes, found "get /x"; '
                    "methods are upper-case and separated by commas, * is any"
                ),
            ],
        ),
        (
            "{match: 'GET /x?page=1'}",
            [
                (
                    'match: expected methods and a path such as GET /v3/processes, found "GET /x?page=1"; '
                    "'x?page=1' is not a path segment"
                )
            ],
        ),
        ("{match: GET /x, access: open}", ['access: expected public, scopes or deny, found "open"']),
        (
            "{match: GET /x, access: public, scopes_any: [a]}",
            ["scopes_any: expected no scopes with access public, found a list"],
        ),
        (
            "{match: GET /x, access: deny, scopes_any: []}",
            ["scopes_any: expected no scopes with access deny, found a list"],
        ),
        ("{match: GET /x, cache: {ttl: 5s}}", ["cache.mode: expected off, policy or origin, found nothing"]),
        (
            "{match: GET /x, cache: {mode: policy}}",
            ["cache.ttl: expected a duration above 0, which mode policy needs, found nothing"],
        ),
        (
            "{match: GET /x, cache: {mode: policy, ttl: 0}}",
            ["cache.ttl: expected a duration above 0, which mode policy needs, found 0"],
        ),
        (
            "{match: GET /x, cache: {mode: off, ttl: 5s, share: global}}",
            [
                "cache.share: expected no such key with mode off, found one",
                "cache.ttl: expected no such key with mode off, found one",
            ],
        ),
        (
            "{match: GET /x, cache: {mode: origin, stale_if_error: 5s}}",
            ["cache.stale_if_error: expected no such key with mode origin, found one"],
        ),
        (
            "{match: GET /x, cache: {mode: origin, share: public}}",
            [
                (
                    "cache.share: expected global or principal, unless the row says access: public, found public; "
                    "one user's page would be shown to everyone"
                )
            ],
        ),
        (
            "{match: GET /x, access: scopes, cache: {mode: policy, ttl: 5s, share: public}}",
            [
                (
                    "cache.share: expected global or principal, unless the row says access: public, found public; "
                    "one user's page would be shown to everyone"
                )
            ],
        ),
        (
            "{match: 'GET,POST /x', cache: {mode: policy, ttl: 5s, share: global}}",
            ["cache.share: expected public or principal, unless the row matches GET alone, found global"],
        ),
        (
            "{match: 'GET /x/:guid', cache: {mode: policy, ttl: 5s, share: global}}",
            [
                (
                    "cache.share: expected public or principal, unless the path names a list, found global; "
                    "auditors are shown less of a single resource than administrators"
                )
            ],
        ),
        (
            "{match: POST /x, cache: {mode: policy, ttl: 5s}}",
            ["cache.mode: expected off, since only GET and HEAD are cached, found policy"],
        ),
        (
            "{match: GET /x, rate: Fast}",
            ['rate: expected a rate class: exempt, public, read, list, write, upload or default, found "Fast"'],
        ),
        ("{match: GET /x, rewrite: yes}", ['rewrite: expected true or false, found "yes"']),
    ],
)
def test_faults_of_a_route(row, expected):
    assert faults(f"{GOOD}routes:\n  - {{match: PUT /, access: deny}}\n  - {row}") == [
        f"f.yaml:6: routes[1].{line}" for line in expected
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(
            GOOD + "routes:\n  - match: GET /a/:x\n  - match: GET /b\n  - match: GET,POST /a/:y\n",
            [f'f.yaml:7: routes[2].match: {ONCE} (also in routes[0]), found "GET,POST /a/:y"'],
            id="repeated",
        ),
        pytest.param(
            OPEN,
            ["f.yaml:1: routes: expected at least one route, since route_table is none, found none; all would be 404"],
            id="no-routes",
        ),
        pytest.param(
            OPEN + "routes:\n  - {match: GET /a, access: public}\n  - {match: GET /b}\n",
            [
                (
                    "f.yaml:1: auth: expected a mapping with keys, "
                    "since routes[1] does not say access: public, found nothing"
                )
            ],
            id="unjudged-tokens",
        ),
        pytest.param(
            PUBLIC + UPSTREAM,
            [f"f.yaml:1: {NO_AUTH}"],
            id="no-auth",
        ),
        pytest.param(
            UPSTREAM + "public_url: x\nlisten: {port: 90}\nadmin: {port: 90}\nroutes: [{match: GET /}, {match: GET /}]",
            [
                f"f.yaml:1: {NO_AUTH}",
                'f.yaml:2: public_url: expected a URL such as https://api.example.org, found "x"',
                "f.yaml:4: admin.port: expected another port than listen.port, found 90",
                f'f.yaml:5: routes[1].match: {ONCE} (also in routes[0]), found "GET /"',
            ],
            id="contradictions-beside-a-broken-section",
        ),
        pytest.param(
            GOOD + "listen: {port: 90}\nadmin: {port: 90, port: 91}",
            ["f.yaml:5: admin.port: expected each key once (also on line 5), found it again"],
            id="one-fault-a-place",
        ),
    ],
)
def test_contradictions_between_sections(text, expected):
    assert faults(text) == expected


@pytest.mark.parametrize(
    "routes",
    [
        "[{match: GET /a}, {match: POST /a}]",
        "[{match: GET /a}, {match: '* /a'}]",
        "[{match: GET /a}, {match: GET /a/*}]",
    ],
)
def test_routes_that_differ(routes):
    assert len(parse(f"{GOOD}routes: {routes}", {}).routes) == 2
