"""Link rewriting: by place, never by looks (controller.md §5), and equal to a literal reference."""

import gzip
import json
import re
from json.decoder import scanstring
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.core import links
from gateway.core.links import Rewriter

SHARED = Path(__file__).parents[2] / "../shared"
API = "https://api.internal.example.org"
PUBLIC = "https://cf.example.org/api"
REWRITER = Rewriter([API], PUBLIC)


# --- The reference: every string with its path and position, the law written as paths, the rest by the book. ---------


def strings_of(text):
    """(path, start, end) of the content of every string value of a valid JSON text."""
    found = []

    def blank(position):
        while text[position] in " \t\n\r":
            position += 1
        return position

    def value(position, path):
        position = blank(position)
        if text[position] == '"':
            _, end = scanstring(text, position + 1)
            found.append((path, position + 1, end - 1))
            return end
        if text[position] not in "{[":
            return re.compile(r"[^\s,\]}]+").match(text, position).end()
        is_object = text[position] == "{"
        position, index = blank(position + 1), 0
        while text[position] not in "]}":
            key = index
            if is_object:
                key, position = scanstring(text, position + 1)
                position = blank(position) + 1
            position = blank(value(position, (*path, key)))
            position, index = blank(position + (text[position] == ",")), index + 1
        return position + 1

    value(0, ())
    return found


def is_link(path):
    match path:
        case ("pagination", "first" | "last" | "next" | "previous", "href"):
            return True
        case ("resources", int(), *rest) | ("included", str(), int(), *rest):
            return is_own_link(rest)
        case _:
            return is_own_link(path)


def is_own_link(path):
    match path:
        case ("links", str(), "href") | ("links", str(), int(), "href"):
            return True
        case _:
            return False


def rewritten(raw, origins, public):
    """The content of a link's string, character by character."""
    spelled, position = [], 0
    while position < len(raw):
        length = 1 if raw[position] != "\\" else 6 if raw[position + 1] == "u" else 2
        spelled.append(raw[position : position + length])
        position += length
    plain = [scanstring(f'{unit}"', 0)[0] for unit in spelled]
    for origin in sorted(origins, key=len, reverse=True):
        if plain[: len(origin)] == list(origin) and (plain[len(origin) :] or ["/"])[0] in "/?#":
            old, new = "".join(spelled[: len(origin)]), "".join(spelled[len(origin) :])
            return (public.replace("/", "\\/") if "\\/" in old else public) + new
    if plain[:1] == ["/"] and plain[1:2] != ["/"]:
        return (public.replace("/", "\\/") if spelled[0] == "\\/" else public) + raw
    return raw


def refuse(constant):
    raise ValueError(constant)


def reference(body, origins=(API,), public=PUBLIC):
    try:
        text = body.decode()
        json.loads(text, parse_constant=refuse)
    except ValueError:
        return body
    for path, start, end in reversed(strings_of(f"{text} ")):
        if is_link(path):
            text = text[:start] + rewritten(text[start:end], origins, public) + text[end:]
    return text.encode()


# --- Tables -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("href", "expected"),
    [
        pytest.param(API, PUBLIC, id="the origin itself"),
        pytest.param(f"{API}/v3/apps", f"{PUBLIC}/v3/apps", id="path"),
        pytest.param(f"{API}?a", f"{PUBLIC}?a", id="query"),
        pytest.param(f"{API}#a", f"{PUBLIC}#a", id="fragment"),
        pytest.param(
            f"{API}/v3?a=1\\u0026b=2", f"{PUBLIC}/v3?a=1\\u0026b=2", id="controller.md §1 escaped ampersand stays"
        ),
        pytest.param("/v3/apps/", f"{PUBLIC}/v3/apps/", id="seed: relative becomes absolute"),
        pytest.param("/", f"{PUBLIC}/", id="relative root"),
        pytest.param(
            "https:\\/\\/api.internal.example.org\\/v3", "https:\\/\\/cf.example.org\\/api\\/v3", id="escaped slashes"
        ),
        pytest.param(
            "\\/v3\\/apps", "https:\\/\\/cf.example.org\\/api\\/v3\\/apps", id="relative with escaped slashes"
        ),
        pytest.param("http\\u0073://api.internal.example.org/x", f"{PUBLIC}/x", id="escaped letter in the origin"),
        pytest.param("\\u002Fv3", f"{PUBLIC}\\u002Fv3", id="escaped relative"),
        pytest.param(f"{API}.evil.example/x", None, id="longer host"),
        pytest.param(f"{API}:8443/x", None, id="other port"),
        pytest.param(f"{API}\\u002eevil.example", None, id="longer host behind an escape"),
        pytest.param("https://api.internal.example.or", None, id="shorter host"),
        pytest.param("//api.internal.example.org/x", None, id="network-path reference"),
        pytest.param("\\/\\/api.internal.example.org", None, id="network-path reference, escaped"),
        pytest.param("wss://doppler.internal.example.org:443", None, id="controller.md §5 logging"),
        pytest.param("ssh.internal.example.org:2222", None, id="controller.md §5 app_ssh"),
        pytest.param("", None, id="empty"),
        pytest.param(f"x{API}/v3", None, id="origin inside"),
        pytest.param(f"\\n{API}", None, id="behind a control escape"),
    ],
)
@pytest.mark.parametrize(
    "document",
    [
        '{"links":{"self":{"href":"%s","method":"POST"}}}',
        '{"links":{"self":[{"href":"%s"}]}}',
        '{ "pagination" : {\n"next" :{ "href"\t: "%s" } , "previous":null} }',
        '{"resources":[{"guid":"1","links":{"a":{"href":"%s"}}},{"links":{}}]}',
        '{"resources":[1,{"links":{"a":{"href":"%s"},"b":null}}]}',
        '{"resources":[{"href":"x","links":{"a":{"href":"%s"}}}]}',
        '{"included":{"spaces":[{"links":{"a":{"href":"%s"}}}]},"resources":[]}',
        r'{"l\u0069nks":{"self":{"\u0068ref":"%s"}}}',
        '{"links":{"self":{"href":1}},"links":{"self":{"href":"%s"}}}',
    ],
    ids=["links", "array", "pagination", "resource", "mixed", "href beside", "included", "escaped keys", "duplicate"],
)
def test_links(document, href, expected):
    body = (document % href).encode()
    changed = REWRITER.rewrite(body)
    if expected is None:
        assert changed is body
    else:
        assert changed == (document % expected).encode()
        assert REWRITER.rewrite(changed) is changed
    assert changed == reference(body)


IN_A_RESOURCE = [
    pytest.param({"metadata": {"annotations": {"href": f"{API}/v3"}}}, id="recordings lab-notebook: annotation href"),
    pytest.param({"metadata": {"annotations": {"billing": f"{API}/v3"}}}, id="recordings billing: annotation value"),
    pytest.param({"metadata": {"annotations": {"x": json.dumps({"links": {"a": {"href": API}}})}}}, id="JSON as text"),
    pytest.param({"name": API, "command": f'"href":"{API}/x"'}, id="look-alike in a string"),
    pytest.param({"environment_variables": {"links": {"a": {"href": API}}}}, id="links of the user"),
    pytest.param({"data": {"resources": [{"links": {"a": {"href": API}}}]}}, id="a page of the user"),
    pytest.param({"links": {"href": API, "self": {"meta": {"href": API}}}}, id="href at another depth"),
    pytest.param({"links": [{"href": API}]}, id="links is an array"),
    pytest.param({"links": {"a": [[{"href": API}]], "b": API, "c": {"hrefs": API, "Href": API}}}, id="near misses"),
]
AT_THE_TOP = [
    pytest.param(
        {"pagination": {"links": {"a": {"href": API}}, "href": API, "next": [{"href": API}]}}, id="pagination"
    ),
    pytest.param({"pagination": {"self": {"href": API}, "next": API}}, id="no member of pagination"),
    pytest.param({"resources": [{"pagination": {"next": {"href": API}}}]}, id="pagination in a resource"),
    pytest.param({"resources": [[{"links": {"a": {"href": API}}}]]}, id="array in resources"),
    pytest.param({"resources": {"links": {"a": {"href": API}}}}, id="resources is no array"),
    pytest.param({"included": [{"links": {"a": {"href": API}}}]}, id="included is an array"),
    pytest.param([{"links": {"self": {"href": API}}}], id="an array at the top"),
    pytest.param(
        {"next_url": "/v2/apps?page=2", "resources": [{"metadata": {"url": "/v2/apps/1"}}]}, id="v2 is relative"
    ),
    pytest.param({"error": "nothing here"}, id="no link at all"),
    pytest.param(f'"href":"{API}"', id="a string"),
]
STYLES = pytest.mark.parametrize("style", [{"separators": (",", ":")}, {"indent": 2}], ids=["compact", "indented"])


def assert_stays(document, style):
    body = json.dumps(document, **style).encode()
    assert REWRITER.rewrite(body) is body
    assert reference(body) == body


@STYLES
@pytest.mark.parametrize("document", [*IN_A_RESOURCE, *AT_THE_TOP])
def test_what_is_not_a_link_stays(document, style):
    assert_stays(document, style)


@STYLES
@pytest.mark.parametrize("resource", IN_A_RESOURCE)
def test_what_is_not_a_link_in_a_resource_stays(resource, style):
    assert_stays({"resources": [resource, {"links": {}}], "included": {"spaces": [resource]}}, style)


@pytest.mark.parametrize(
    "document",
    [
        pytest.param(
            r'{"resources":[{"metadata":{"annotations":{"href":"/user"}},"links":{"a":{"\u0068ref":"/v3"}}}]}',
            id="an escaped link and a literal look-alike count the same",
        ),
        pytest.param(
            '{"data":[{"links":{"a":{"href":"/user"}}}],"resources":[{"links":{"a":{"href":"/v3"}}}]}',
            id="user data that looks like the resources",
        ),
        pytest.param(
            '{"data":[{"links":{"a":{"href":"/v3"}}}],"resources":[{"links":{"a":{"href":"/v3"}}}]}',
            id="user data equal to the resources",
        ),
        pytest.param(
            '{"included":{"x":[{"links":{"a":{"href":"/v3"}}}]},"resources":[{"links":{"a":{"href":"/user"}}}],"resources":[]}',
            id="resources twice, the last one empty",
        ),
        pytest.param(
            '{"resources":[{"links":{"a":{"href":"/v3"}}},{"links":{"b":{"href":"/v3"}}}],'
            '"resources":[{"links":{"a":{"href":"/v3"}}}]}',
            id="resources twice, the first one longer",
        ),
    ],
)
def test_what_could_mislead_the_counting(document):
    body = document.encode()
    assert reference(body) != body
    assert REWRITER.rewrite(body) == reference(body)


def test_every_byte_outside_the_prefix_stays():
    body = (
        '{"n":1.50E+1,"n":-0,  "s":"\\u0026\\/\\u00e9é😀", "resources":[{"href":"%s","links":{}},{"links":{'
        '"a":{"href":"%s/1"},"a":{"href":"%s/2"}}},{"links":{"a":{"href":"%s/3"}}}],'
        '"links":{"x":{"href":"%s","meta":{"b":1 }}}}\n'
    )
    expected = body % (API, PUBLIC, PUBLIC, PUBLIC, PUBLIC)
    assert REWRITER.rewrite((body % (API, API, API, API, API)).encode()) == expected.encode()


@pytest.mark.parametrize("document", ['{"links":%s}', '{"resources":[{"links":%s}]}'], ids=["links", "resource"])
def test_several_origins(document):
    """The longest origin wins, wherever the link is."""
    origins = [API, f"{API}/cc/", "http://old.example.org"]
    rewriter = Rewriter(origins, "http://localhost:8080/")
    hrefs = document % '{"a":{"href":"%s/v3"},"b":{"href":"%s/v3"}}'
    expected = (hrefs % (("http://localhost:8080",) * 2)).encode()
    assert rewriter.rewrite((hrefs % (f"{API}/cc", API)).encode()) == expected
    assert rewriter.rewrite((hrefs % ("http://old.example.org", API)).encode()) == expected


def test_the_same_object_when_public_and_origin_are_one():
    link = f'{{"links":{{"self":{{"href":"{API}/v3"}}}}}}'
    body = f'{{"links":{{}},"resources":[{link}]}}'.encode()
    assert Rewriter([API], API).rewrite(body) is body


@pytest.mark.parametrize(
    "url", ["", "cf.example.org", "ftp://x", "https://", 'https://x/"', "https://x?a", "https://x y"]
)
def test_what_is_no_url_is_refused(url):
    with pytest.raises(ValueError, match="not an http"):
        Rewriter([API], url)
    with pytest.raises(ValueError, match="not an http"):
        Rewriter([url], PUBLIC)


# --- Location and Link ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(f"{API}/v3/jobs/1", f"{PUBLIC}/v3/jobs/1", id="controller.md §4 job"),
        pytest.param(API, PUBLIC, id="the origin itself"),
        pytest.param("/v3/jobs/1", "/api/v3/jobs/1", id="relative gains the prefix"),
        pytest.param(
            "https://blobs.example.org/x?sig=/v3", "https://blobs.example.org/x?sig=/v3", id="signed blobstore URL"
        ),
        pytest.param(f"{API}.evil.example/x", f"{API}.evil.example/x", id="longer host"),
        pytest.param(f"https://u@x/?r={API}/v3", f"https://u@x/?r={API}/v3", id="origin in a query"),
        pytest.param("//other.example.org/x", "//other.example.org/x", id="network-path reference"),
        pytest.param("?page=2", "?page=2", id="query only"),
        pytest.param("", "", id="empty"),
    ],
)
def test_location_and_link(value, expected):
    assert REWRITER.location(value) == expected
    assert REWRITER.link_field(f"<{value}>; rel=next") == f"<{expected}>; rel=next"


def test_relative_location_without_a_prefix_stays():
    rewriter = Rewriter([API], "https://cf.example.org")
    assert rewriter.location("/v3/jobs/1") == "/v3/jobs/1"
    assert rewriter.location(f"{API}/v3/jobs/1") == "https://cf.example.org/v3/jobs/1"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(
            f'<{API}/v3?page=2>; rel="next", <{API}/v3?page=9>;rel=last',
            f'<{PUBLIC}/v3?page=2>; rel="next", <{PUBLIC}/v3?page=9>;rel=last',
            id="RFC 8288 §3 list",
        ),
        pytest.param(f'<x>; title="<{API}>"', f'<x>; title="<{API}>"', id="RFC 8288 §3.4 quoted parameter"),
        pytest.param(f'<x>; title="\\"<{API}>"', f'<x>; title="\\"<{API}>"', id="escaped quote in a parameter"),
        pytest.param(f"<{API}", f"<{API}", id="unterminated"),
    ],
)
def test_link_field(value, expected):
    assert REWRITER.link_field(value) == expected


# --- Broken and hostile input -----------------------------------------------------------------------------------------

WHOLE = (
    b'{"pagination":{"next":{"href":"/v3?a=1"}},"resources":[{"a":[1,-2.5e3,true,null,"x"],"links":{"s":{"href":"%b/x"}}}]}'
    % API.encode()
)


@pytest.mark.parametrize("cut", range(len(WHOLE)))
def test_a_truncated_document_stays(cut):
    assert REWRITER.rewrite(WHOLE[:cut]) == WHOLE[:cut]


@pytest.mark.parametrize(
    "tail",
    [b"x", b",", b"{}", b"\x00", b"\xff"],
    ids=repr,
)
def test_something_behind_the_document(tail):
    assert REWRITER.rewrite(WHOLE + tail) == WHOLE + tail
    assert REWRITER.rewrite(WHOLE + b" \n") != WHOLE + b" \n"


@pytest.mark.parametrize(
    "value",
    [
        *(
            b"01",
            b"1.",
            b".5",
            b"+1",
            b"-",
            b"NaN",
            b"Infinity",
            b"nul",
            b"",
            b"'x'",
            b"[1,]",
            b"[,1]",
            b"[1 2]",
            b"[1}",
        ),
        *(b"{1:2}", b'{"a":1,}', b'{"a"}', b'"\\x"', b'"\\u12g4"', b'"\x01"', b'"\xff"', b'"\xed\xa0\x80"'),
        b"\xef\xbb\xbf1",
    ],
    ids=repr,
)
def test_what_is_no_json_stays(value):
    """RFC 8259: the document as a whole is not JSON, so nothing in it is a link."""
    body = b'{"links":{"self":{"href":"/v3"}},"resources":[{"links":{"a":{"href":"/v3"}}}],"x":%b}'
    assert REWRITER.rewrite(body % value) == body % value
    assert REWRITER.rewrite(body % b"1") != body % b"1"


def test_a_lone_surrogate_is_json():
    body = b'{"x":"\\ud800","resources":[{"links":{"a":{"href":"/v3"}}}]}'
    assert REWRITER.rewrite(body) == body.replace(b"/v3", PUBLIC.encode() + b"/v3")


@pytest.mark.parametrize("deep", [b"[", b'{"a":', b'{"links":', b'{"resources":[', b'[{"href":'], ids=repr)
def test_depth_does_not_matter(deep):
    times = 100_000
    closing = deep.decode().translate(str.maketrans("[{", "]}"))[::-1].encode()
    closing = bytes(byte for byte in closing if byte in b"]}")
    body = b'{"x":%b"/v3"%b,"links":{"self":{"href":"/v3"}}}' % (deep * times, closing * times)
    assert REWRITER.rewrite(body) == body[:-7] + PUBLIC.encode() + body[-7:]
    assert REWRITER.rewrite(body[:-1]) == body[:-1]


# --- The law ----------------------------------------------------------------------------------------------------------

KEYS = st.sampled_from(
    (
        *('"links"', '"href"', '"resources"', '"included"', '"pagination"', '"next"', '"self"', '"metadata"', '""'),
        *(
            r'"l\u0069nks"',
            r'"\u0068ref"',
            r'"hre\u0066"',
            '"hrefs"',
            r'"a \"href"',
            r'"\\href"',
            r'"\\u0068ref"',
            '"é"',
        ),
    )
)
TEXTS = st.sampled_from(
    (
        *(f'"{API}"', f'"{API}/v3"', f'"{API}/v3?a=b\\u0026c"', f'"{API}?q"', f'"{API}.evil"', f'"{API}:8443"'),
        *('"/v3/x"', '"//h/x"', r'"\/v3"', r'"\u002fv3"', r'"/\/x"', f'"wss{API[5:]}"', '"href"', '"links"', '""'),
        *(rf'"x \"href\":\"{API}/v3\""', r'"\"href"', r'"\\"', r'"\\u0068ref"', '"é😀"', r'"\ud800"'),
        *(r'"https:\/\/api.internal.example.org\/x"', r'"https://api.internal.example.org\/"'),
        r'"\u0068ttps://api.internal.example.org/x"',
    )
)
SCALARS = TEXTS | st.sampled_from(["0", "-1.5e3", "true", "null", "1e999"])


def objects(keys, values, most=4):
    """Objects as text; "¤" stands where whitespace may."""
    member = st.tuples(keys, values).map("¤:¤".join)
    return st.lists(member, max_size=most).map(lambda members: "{¤" + "¤,¤".join(members) + "¤}")


def arrays(values):
    return st.lists(values, max_size=4).map(lambda elements: "[¤" + "¤,¤".join(elements) + "¤]")


USER_DATA = st.recursive(SCALARS, lambda inner: objects(KEYS, inner) | arrays(inner), max_leaves=6)
LINK = st.one_of(
    TEXTS.map(lambda text: f'{{"href":{text}}}'),
    TEXTS.map(lambda text: f'{{"href":{text},"method":"POST"}}'),
    objects(st.sampled_from(['"href"', '"href"', r'"hre\u0066"', '"method"', '"meta"']), TEXTS | USER_DATA),
    USER_DATA,
)
LINKS = objects(st.sampled_from(['"self"', '"app"', '"space"', '"href"']), LINK | arrays(LINK))


def with_links(links, most):
    member = st.one_of(
        st.tuples(st.sampled_from(['"links"', '"links"', r'"l\u0069nks"']), links),
        st.tuples(KEYS, USER_DATA),
    ).map(":".join)
    return st.lists(member, max_size=most).map(lambda members: "{" + ",".join(members) + "}")


RESOURCE = st.one_of(LINKS.map(lambda links: f'{{"guid":"1","links":{links}}}'), with_links(LINKS, 3), USER_DATA)
RESOURCES = arrays(RESOURCE)
DOCUMENT = st.lists(
    st.one_of(
        RESOURCES.map('"resources":{}'.format),
        RESOURCES.map('"resources":{}'.format),
        objects(st.sampled_from(['"spaces"', '"links"']), RESOURCES).map('"included":{}'.format),
        objects(st.sampled_from(['"first"', '"next"', '"previous"', '"x"']), LINK).map('"pagination":{}'.format),
        LINKS.map('"links":{}'.format),
        st.tuples(KEYS, USER_DATA).map(":".join),
    ),
    min_size=1,
    max_size=4,
).map(lambda members: "{" + ",".join(members) + "}")
SPACED = st.builds(
    lambda text, space: text.replace("¤", space).encode(), DOCUMENT, st.sampled_from(["", "", " ", "\n\t"])
)


@settings(max_examples=400, deadline=None)
@given(body=SPACED)
def test_fast_is_the_reference(body):
    changed = REWRITER.rewrite(body)
    assert changed == reference(body)
    assert REWRITER.rewrite(changed) is changed
    if changed == body:
        assert changed is body


@settings(max_examples=200, deadline=None)
@given(
    body=SPACED,
    at=st.integers(0, 400),
    noise=st.sampled_from([b'"', b"\\", b"{", b"]", b",", b":", b"\xff", b"1", b" "]),
)
@example(body=WHOLE, at=0, noise=b" ")
def test_noise_makes_no_difference_to_that(body, at, noise):
    noisy = body[:at] + noise + body[at:]
    assert REWRITER.rewrite(noisy) == reference(noisy)


# --- Real input -------------------------------------------------------------------------------------------------------


def shared(name):
    path = SHARED / name
    if not path.exists():
        pytest.skip("recordings not beside the checkout")
    return path


@pytest.mark.parametrize("public", [PUBLIC, "http://localhost:8080", API], ids=["prefix", "local", "same"])
def test_every_recorded_body(public):
    rewriter = Rewriter([API], public)
    changed = 0
    for line in shared("recordings/exchanges.jsonl").read_text(encoding="utf-8").splitlines():
        response = json.loads(line)["response"]
        if response.get("body") and "body_encoding" not in response:
            body = response["body"].encode()
            assert rewriter.rewrite(body) == reference(body, public=public)
            changed += rewriter.rewrite(body) is not body
    assert changed > 400 or public == API


def test_the_seed():
    """controller.md §1: the 2015 form has relative hrefs, a space under /v2 and an empty app guid."""
    seed = shared("seeds/000_e2c34828e0103e71.txt").read_text(encoding="utf-8")
    body = seed.partition("\nBody\n\n")[2].partition("\n\nHeaders")[0].encode()
    changed = REWRITER.rewrite(body)
    assert changed == reference(body)
    assert changed == body.replace(b'"href": "/', b'"href": "https://cf.example.org/api/')
    page = json.loads(changed)
    assert page["pagination"]["next"]["href"] == f"{PUBLIC}/v3/processes?page=2&per_page=2"
    assert page["resources"][1]["links"]["app"]["href"] == f"{PUBLIC}/v3/apps/"


def test_root_links():
    """controller.md §5: what carries the API origin is rewritten, the other services are not."""
    lines = shared("recordings/exchanges.jsonl").read_text(encoding="utf-8").splitlines()
    first = next(exchange for exchange in map(json.loads, lines) if exchange["request"].get("target") == "/")
    root = json.loads(REWRITER.rewrite(first["response"]["body"].encode()))["links"]
    own = {name for name, link in root.items() if link["href"].startswith(PUBLIC)}
    assert own == {
        *("self", "cloud_controller_v2", "cloud_controller_v3", "network_policy_v0", "network_policy_v1", "routing")
    }


@pytest.fixture
def scanned(monkeypatch):
    """The length of every text that was scanned, in order."""
    lengths = []

    class Scan(links._Scan):
        def __init__(self, text, *rest):
            lengths.append(len(text))
            super().__init__(text, *rest)

        def _member(self):
            members.append(self)
            return super()._member()

    members = []
    monkeypatch.setattr(links, "_Scan", Scan)
    yield lengths
    assert len(members) < 2_000


def test_every_array_of_resources_is_taken_at_once(scanned):
    def array(kind):
        return ",".join([f'{{"a":[[]],"links":{{"self":{{"href":"{API}/v3/{kind}/1"}}}}}}'] * 1_000)

    included = f'{{"spaces":[{array("spaces")}],"none":[],"orgs":[{array("organizations")}]}}'
    body = f'{{"resources":[{array("apps")}],"included":{included}}}'.encode()
    assert REWRITER.rewrite(body).count(PUBLIC.encode()) == 3_000
    assert scanned == [len(body)]


def test_big_pages_are_not_scanned_token_by_token(scanned):
    """Only the page's frame and the resource with an annotation named `href` are."""
    for path in sorted(shared("recordings/big").glob("page-*.json.gz")):
        body = gzip.decompress(path.read_bytes())
        scanned.clear()
        changed = REWRITER.rewrite(body)
        assert scanned.pop() == len(body)
        assert sum(scanned) < 5_000
        if len(body) < 100_000:
            assert changed == reference(body)
        before, after = json.loads(body), json.loads(changed)
        for resource, original in zip(after["resources"], before["resources"], strict=True):
            for name, link in resource.pop("links").items():
                assert link["href"] == original["links"][name]["href"].replace(API, PUBLIC)
            del original["links"]
        assert after["resources"] == before["resources"]
