"""Matching and overriding: gateway/core/routes.py and gateway/core/templates.py."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.routes import Access, CacheMode, CacheRule, Route, RouteOverride, RouteTable, Share
from gateway.core.templates import covers, shape, template_segments

GET = frozenset({"GET"})


def table(*rows: str) -> RouteTable:
    """Rows as "METHODS /template"; "*" is any method."""
    made = []
    for row in rows:
        methods, template = row.split()
        made.append(Route(template, frozenset() if methods == "*" else frozenset(methods.split(","))))
    return RouteTable(made)


def matched(routes: RouteTable, method: str, path: str) -> str | None:
    row = routes.match(method, path)
    return None if row is None else f"{','.join(sorted(row.methods)) or '*'} {row.template}"


@pytest.mark.parametrize(
    ("rows", "method", "path", "expected"),
    [
        pytest.param(["GET /a"], "GET", "/a", "GET /a", id="literal"),
        pytest.param(["GET /a"], "GET", "/b", None, id="nothing"),
        pytest.param(["GET /a"], "POST", "/a", None, id="other method"),
        pytest.param(["GET /a"], "get", "/a", None, id="RFC 9110 §9.1 methods are case-sensitive"),
        pytest.param(["GET /a"], "GET", "/A", None, id="paths are case-sensitive"),
        pytest.param(["* /"], "GET", "/", "* /", id="root"),
        pytest.param(["* /"], "GET", "/a", None, id="root is not everything"),
        pytest.param(["* /*"], "GET", "/", "* /*", id="rest of root"),
        pytest.param(["* /a/*"], "GET", "/a", "* /a/*", id="rest of none"),
        pytest.param(["* /a/*"], "GET", "/a/b/c", "* /a/*", id="rest of two"),
        pytest.param(["* /a/*"], "GET", "/ab", None, id="rest is by segments, not by characters"),
        pytest.param(["GET /a/:x"], "GET", "/a", None, id="a parameter is one segment, not none"),
        pytest.param(["GET /a/:x"], "GET", "/a/b/c", None, id="a parameter is one segment, not two"),
        pytest.param(["* /*", "* /a/*", "* /a/:x", "* /a/b"], "GET", "/a/b", "* /a/b", id="literal first"),
        pytest.param(["* /*", "* /a/*", "* /a/:x"], "GET", "/a/b", "* /a/:x", id="parameter before rest"),
        pytest.param(["* /*", "* /a/*"], "GET", "/a/b", "* /a/*", id="longer rest first"),
        pytest.param(["* /a", "* /a/*"], "GET", "/a", "* /a", id="end before rest"),
        pytest.param(["* /a/b/c", "* /a/:x/d"], "GET", "/a/b/d", "* /a/:x/d", id="backtrack from a literal"),
        pytest.param(["* /a/b/c/d", "* /a/*"], "GET", "/a/b/c", "* /a/*", id="backtrack to a rest"),
        pytest.param(["GET /a/b", "* /a/:x"], "PUT", "/a/b", "* /a/:x", id="backtrack from a method, literal"),
        pytest.param(["GET /a/:x", "* /a/*"], "PUT", "/a/b", "* /a/*", id="backtrack from a method, parameter"),
        pytest.param(["GET /a", "* /a"], "GET", "/a", "GET /a", id="named method before any"),
        pytest.param(["GET /a", "* /a"], "PURGE", "/a", "* /a", id="any for an unheard-of method"),
        pytest.param(["* /a/b", "GET /a/:x"], "GET", "/a/b", "* /a/b", id="template before method"),
        pytest.param(["GET /a"], "HEAD", "/a", "GET /a", id="RFC 9110 §9.3.2 GET covers HEAD"),
        pytest.param(["GET /a/:x"], "HEAD", "/a/b", "GET /a/:x", id="GET covers HEAD below a parameter"),
        pytest.param(["GET /a", "HEAD /a"], "HEAD", "/a", "HEAD /a", id="unless HEAD has its own"),
        pytest.param(["GET /a", "* /a"], "HEAD", "/a", "GET /a", id="GET covers HEAD before any"),
        pytest.param(["GET /v3/processes"], "GET", "//v3/processes", "GET /v3/processes", id="controller.md §1 //"),
        pytest.param(["GET /v3/processes"], "GET", "/v3/processes/", "GET /v3/processes", id="controller.md §1 end /"),
        pytest.param(["GET /v3/processes"], "GET", "/v3/%70rocesses", None, id="nothing is decoded (protocol-078)"),
        pytest.param(["GET /a/:x"], "GET", "/a/:x", "GET /a/:x", id="a path that looks like a template"),
    ],
)
@pytest.mark.parametrize("order", [1, -1], ids=["as written", "reversed"])
def test_match(rows, method, path, expected, order):
    assert matched(table(*rows[::order]), method, path) == expected


SEGMENT = st.sampled_from(["a", "b", "c", ":x", ":y"])
TEMPLATE = st.builds(
    lambda segments, rest: "/" + "/".join([*segments, "*"] if rest else segments),
    st.lists(SEGMENT, max_size=3),
    st.booleans(),
)
ROW = st.builds(Route, TEMPLATE, st.sampled_from([frozenset(), GET, frozenset({"POST"}), frozenset({"GET", "PUT"})]))


def reference(rows, method, path):
    """The law in other words: a regular expression a row, and a sort over those that match."""
    found = []
    for position, row in enumerate(rows):
        pattern = re.sub(r":\w", "[^/]+", row.template.removesuffix("/*"))
        if row.template.endswith("/*"):
            pattern += "(?:/.*)?"
        own = method in row.methods or (method == "HEAD" and "GET" in row.methods)
        if re.fullmatch(pattern or "/", path if pattern else "/") and (own or not row.methods):
            kinds = ["2" if s == "*" else "1" if s[0] == ":" else "0" for s in row.template.split("/")[1:] if s]
            found.append(("".join(kinds), not own, -position, row))
    return min(found, key=lambda one: one[:3])[3] if found else None


@settings(max_examples=300, deadline=None)
@given(st.lists(ROW, max_size=6), st.sampled_from(["GET", "HEAD", "POST", "DELETE"]), st.lists(st.sampled_from("abcd")))
def test_match_equals_a_sorted_list_of_patterns(rows, method, segments):
    path = "/" + "/".join(segments)
    assert RouteTable(rows).match(method, path) == reference(rows, method, path)


@pytest.mark.parametrize(
    "template", ["", "a", "/a//b", "/a/", "/*/a", "/a*", "/:", "/a/:", "/a?b", "/a#b", "/a b", "/é", "/a\n"]
)
def test_malformed_templates_are_refused(template):
    with pytest.raises(ValueError, match="template"):
        RouteTable([Route(template)])


def test_segments_of_the_root():
    assert template_segments("/") == ()
    assert shape("/a/:guid/*") == ("a", ":", "*")


@pytest.mark.parametrize(
    ("wide", "narrow", "expected"),
    [
        ("/a/*", "/a", True),
        ("/a/*", "/a/b/:x", True),
        ("/a/*", "/a/*", True),
        ("/*", "/", True),
        ("/a/:x", "/a/b", True),
        ("/a/:x", "/a/:y", True),
        ("/a/b", "/a/:x", False),
        ("/a/:x", "/a/*", False),
        ("/a/:x/*", "/a/*", False),
        ("/a/:x/*", "/a/b/*", True),
        ("/a/b", "/a", False),
    ],
)
def test_covers(wide, narrow, expected):
    assert covers(shape(wide), shape(narrow)) is expected


# -- what is denied stays denied, however it is spelled

DENYING = RouteTable([Route("/*", access=Access.PUBLIC), Route("/internal/*", access=Access.DENY), Route("/v3/:any")])


@pytest.mark.parametrize(
    "path",
    [
        "/internal",
        "/internal/v4/staging_jobs",
        "//internal//x",
        "/%69nternal/x",
        "/v3/../internal",
        "/v3/%2e%2e/internal",
        "/v3/..%2finternal",
        "/./internal",
        "/x\\..\\internal",
        "/..%5Cinternal/",
        "/v3/..",
    ],
)
def test_deny_holds_in_disguise(path):
    row = DENYING.match("GET", path)
    assert row is not None
    assert (row.access is Access.DENY) == (path != "/v3/..")


# -- the operator's rows

READ, WRITE = ("cloud_controller.read",), ("cloud_controller.write",)
RULE = CacheRule(CacheMode.POLICY, ttl=5, share=Share.GLOBAL)
BUILTIN = RouteTable(
    [
        Route("/v3/processes", GET, scopes_any=READ, cache=RULE, rate="list", resource="processes"),
        Route("/v3/processes/:guid", GET, scopes_any=READ, rate="read", resource="processes"),
        Route("/v3/processes/:guid", frozenset({"PATCH", "PUT"}), scopes_any=WRITE, rate="write"),
        Route("/v3/info", GET, access=Access.PUBLIC, rate="public"),
        Route("/v3/*", GET, scopes_any=READ, rate="read", lenient=True),
        Route("/v3/*", scopes_any=WRITE, rate="write", lenient=True),
        Route("/internal/*", access=Access.DENY),
    ]
)


def test_an_override_changes_what_it_says_and_inherits_the_rest():
    routes = BUILTIN.with_overrides([RouteOverride("/v3/processes", GET, rate="dear")])
    assert routes.match("GET", "/v3/processes") == Route(
        "/v3/processes", GET, scopes_any=READ, cache=RULE, rate="dear", resource="processes", operator=True
    )
    assert routes.match("POST", "/v3/processes") == BUILTIN.match("POST", "/v3/processes")
    assert BUILTIN.match("GET", "/v3/processes").rate == "list", "the built-in table is not changed"
    assert {id(row) for row in routes.rows if not row.operator} < {id(row) for row in BUILTIN.rows}, "no copies"


def test_every_part_can_be_overridden():
    routes = BUILTIN.with_overrides(
        [
            RouteOverride(
                "/v3/processes",
                GET,
                access=Access.SCOPES,
                scopes_any=("x",),
                cache=CacheRule(),
                rate="r",
                rewrite=False,
            )
        ]
    )
    assert routes.match("GET", "/v3/processes") == Route(
        "/v3/processes", GET, scopes_any=("x",), rate="r", resource="processes", rewrite=False, operator=True
    )


def test_an_override_without_methods_inherits_method_by_method():
    routes = BUILTIN.with_overrides([RouteOverride("/v3/processes/:id", rate="own")])
    rows = {
        method: routes.match(method, "/v3/processes/1") for method in ("GET", "HEAD", "PATCH", "PUT", "DELETE", "FOO")
    }
    assert {row.rate for row in rows.values()} == {"own"}
    assert [row.scopes_any for row in rows.values()] == [READ, READ, WRITE, WRITE, WRITE, WRITE]
    assert [row.lenient for row in rows.values()] == [False, False, False, False, True, True]


def test_an_override_of_one_method_leaves_the_others_of_its_row():
    routes = BUILTIN.with_overrides([RouteOverride("/v3/processes/:guid", frozenset({"PUT"}), rate="own")])
    assert routes.match("PUT", "/v3/processes/1").rate == "own"
    assert routes.match("PATCH", "/v3/processes/1").rate == "write"


@pytest.mark.parametrize(
    ("template", "inherits"),
    [
        pytest.param("/v3/processes/special", "/v3/processes/:guid", id="a literal of a parameter"),
        pytest.param("/v3/new_thing", "/v3/*", id="an unknown path"),
        pytest.param("/v3/processes/*", "/v3/*", id="a rest builds on a rest only"),
        pytest.param("/v3/:anything", "/v3/*", id="a parameter does not build on a literal"),
    ],
)
def test_a_new_template_inherits_from_the_row_its_requests_had(template, inherits):
    kept = [row for row in BUILTIN.rows if row.methods != GET or row.template != inherits]
    marked = RouteTable([*kept, Route(inherits, GET, scopes_any=("marker",))])
    row = marked.with_overrides([RouteOverride(template, GET)]).match(
        "GET", template.replace(":", "").replace("*", "x/y")
    )
    assert (row.template, row.scopes_any, row.operator) == (template, ("marker",), True)


def test_in_an_empty_table_a_row_asks_for_a_token():
    routes = RouteTable(()).with_overrides(
        [RouteOverride("/*", rate="r"), RouteOverride("/open", access=Access.PUBLIC)]
    )
    assert routes.match("GET", "/x") == Route("/*", rate="r", operator=True)
    assert routes.match("PUT", "/open").access is Access.PUBLIC


@pytest.mark.parametrize("order", [1, -1])
def test_the_override_that_names_the_method_wins(order):
    given_ = [RouteOverride("/v3/processes", rate="all"), RouteOverride("/v3/processes", GET, rate="get")][::order]
    routes = BUILTIN.with_overrides(given_)
    assert routes.match("GET", "/v3/processes").rate == "get"
    assert routes.match("POST", "/v3/processes").rate == "all"
    assert routes.conflicts() == []


def test_saying_access_or_scopes_makes_a_lenient_row_strict():
    for override in (RouteOverride("/v3/x", GET, access=Access.SCOPES), RouteOverride("/v3/x", GET, scopes_any=("s",))):
        assert BUILTIN.with_overrides([override]).match("GET", "/v3/x").lenient is False
    assert BUILTIN.with_overrides([RouteOverride("/v3/x", GET, rate="r")]).match("GET", "/v3/x").lenient is True


def test_scopes_on_a_public_row_ask_for_a_token():
    row = BUILTIN.with_overrides([RouteOverride("/v3/info", GET, scopes_any=("s",))]).match("GET", "/v3/info")
    assert (row.access, row.scopes_any) == (Access.SCOPES, ("s",))


def test_scopes_do_not_open_a_denied_row():
    routes = BUILTIN.with_overrides([RouteOverride("/internal/v4/x", scopes_any=("s",))])
    assert routes.match("GET", "/internal/v4/x").access is Access.DENY
    assert routes.conflicts() == []


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        pytest.param([], [], id="none"),
        pytest.param([RouteOverride("/v3/processes", GET, rate="a")], [], id="a plain override"),
        pytest.param(
            [RouteOverride("/v3/processes", GET, rate="a"), RouteOverride("/v3/processes", GET, rate="b")],
            ["GET /v3/processes is given twice: the later one (GET /v3/processes) wins"],
            id="twice",
        ),
        pytest.param(
            [RouteOverride("/v3/a/:b", rate="a"), RouteOverride("/v3/a/:c", rate="b")],
            ["any method /v3/a/:b is given twice: the later one (any method /v3/a/:c) wins"],
            id="twice, with another parameter name",
        ),
        pytest.param(
            [RouteOverride("/v3/a/:x/c", GET), RouteOverride("/v3/a/b/:y", GET)],
            ["GET /v3/a/:x/c and GET /v3/a/b/:y both match /v3/a/b/c: /v3/a/b/:y wins"],
            id="crossing templates",
        ),
        pytest.param(
            [RouteOverride("/v3/:x/s", GET)],
            ["GET /v3/:x/s and GET /v3/processes/:guid both match /v3/processes/s: /v3/processes/:guid wins"],
            id="crossing a built-in row",
        ),
        pytest.param(
            [RouteOverride("/v3/a/:x/c", GET), RouteOverride("/v3/a/b/:y", frozenset({"PUT"}))],
            [],
            id="crossing templates of different methods",
        ),
        pytest.param([RouteOverride("/v3/a/*", GET), RouteOverride("/v3/a/b", GET)], [], id="one within the other"),
    ],
)  # fmt: skip
def test_conflicts(overrides, expected):
    assert BUILTIN.with_overrides(overrides).conflicts() == expected


def test_what_opens_a_denied_path_is_named():
    table = BUILTIN.with_overrides([RouteOverride("/internal/v4/x", GET, access=Access.PUBLIC)])
    assert table.opened() == ["GET /internal/v4/x opens what /internal/* denies"]
    assert BUILTIN.with_overrides([RouteOverride("/internal/v4/x", GET, rate="list")]).opened() == []


@settings(max_examples=100, deadline=None)
@given(
    st.lists(ROW, max_size=5),
    st.lists(ROW, max_size=3),
    st.sampled_from(["GET", "POST"]),
    st.lists(st.sampled_from("abcd")),
)
def test_overriding_changes_nothing_that_the_overrides_do_not_win(builtin, given_, method, segments):
    path = "/" + "/".join(segments)
    before = RouteTable(builtin)
    row = before.with_overrides(RouteOverride(one.template, one.methods, rate="own") for one in given_).match(
        method, path
    )
    if row is None or not row.operator:
        assert (row is None) == (before.match(method, path) is None)
        assert row is None or row.template == before.match(method, path).template
    else:
        assert row.rate == "own"
        assert row.template in {one.template for one in given_}
