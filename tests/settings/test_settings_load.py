"""Loading settings: files, the environment, secrets that stay hidden, and no way to fail but by faults."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.settings import ConfigError, Settings, load, parse

if TYPE_CHECKING:
    from pathlib import Path

PUBLIC = "public_url: https://api.example.org\n"
UPSTREAM = "upstream: {url: http://cc.internal}\n"
GOOD = PUBLIC + UPSTREAM + "auth: {keys: [{url: https://uaa.example.org/token_keys}]}\n"


def faults(text: str, **environ: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        parse(text, environ, name="f.yaml")
    return str(caught.value).splitlines()


def test_equal_ports_are_fine_when_the_system_chooses():
    assert parse(GOOD + "listen: {port: 0}\nadmin: {port: 0}", {}).admin.port == 0


def test_environment_reaches_every_kind_of_value():
    text = (
        "public_url: ${URL}/cf\nupstream: {url: 'http://${HOST:-cc}'}\nlisten:\n  port: ${PORT}\n"
        "drain: ${DRAIN:-5s}\nauth:\n  keys:\n    - secret: ${SECRET}\n      allow_short_secret: ${SHORT}\n"
        "cache:\n  max_bytes: ${SIZE:-1GiB}\n"
    )
    environ = {"URL": "https://x", "PORT": "81", "SECRET": "123", "SHORT": "true"}
    settings = parse(text, environ)
    assert settings.public_url == "https://x/cf"
    assert settings.upstream.url == "http://cc"
    assert (settings.listen.port, settings.drain, settings.cache.max_bytes) == (81, 5.0, 1 << 30)
    assert settings.auth is not None
    (key,) = settings.auth.keys
    assert key.secret is not None
    assert (key.secret.get_secret_value(), key.allow_short_secret) == ("123", True)
    assert faults(text, **{**environ, "PORT": "80a"}) == [
        'f.yaml:4: listen.port: expected a port number from 0 to 65535, found "80a"'
    ]
    unset = "in the environment, found none; give it, or a default with :-"
    assert faults(text) == [
        f"f.yaml:1: public_url: expected a value for ${{URL}} {unset}",
        f"f.yaml:4: listen.port: expected a value for ${{PORT}} {unset}",
        f"f.yaml:8: auth.keys[0].secret: expected a value for ${{SECRET}} {unset}",
        f"f.yaml:9: auth.keys[0].allow_short_secret: expected a value for ${{SHORT}} {unset}",
    ]


SECRET = "hunter2-hunter2"
LEAKY = [
    "auth: {keys: [{secret: hunter2-hunter2}]}",
    "auth: {keys: [{secret: ['hunter2-hunter2']}]}",
    "auth: {keys: [{secret: {hunter2-hunter2: 1}}]}",
    "auth: {keys: [{secrt: hunter2-hunter2}]}",
    "auth: {keys: [{hunter2-hunter2}]}",
    "auth: {keys: [{secret:hunter2-hunter2}]}",
    "auth: {keys: ['secret:hunter2-hunter2']}",
    "auth: {keys: hunter2-hunter2}",
    "auth: hunter2-hunter2",
    "auth: {keys: [{secret: hunter2-hunter2, secret: hunter2-hunter2}]}",
    "auth: {keys: [{secret: '${hunter2-hunter2}'}]}",
    "auth: {keys: [{secret: '${A}${'}]}",
    "auth: {keys: [{secret: *hunter2-hunter2}]}",
    "auth: {keys: [{secret: !hunter2-hunter2 x}]}",
    "auth: {keys: [{secret: @hunter2-hunter2}]}",
    "auth: {keys: [{secret: %hunter2-hunter2}]}",
    "auth: {keys: [{secret: 'hunter2-hunter2}]}",
    'auth: {keys: [{secret: "\\qhunter2-hunter2"}]}',
    "auth: {keys: [{secret: hunter2-hunter2: x}]}",
    "auth: {keys: [{secret: ${A}}]}",
    "auth: {keys: [{secret: '${A}', allow_short_secret: maybe}]}",
    "auth: {keys: [{secret: '${A}', url: http://uaa}]}",
    "auth: {keys: [{url: 'https://uaa:hunter2-hunter2@uaa.example.org'}]}",
]


@pytest.mark.parametrize("auth", LEAKY)
def test_faults_never_show_a_secret(auth):
    with pytest.raises(ConfigError) as caught:
        parse(PUBLIC + UPSTREAM + auth, {"A": SECRET})
    shown = f"{caught.value}{caught.value!r}{caught.value.faults!r}{caught.value.__cause__!r}"
    assert "hunter" not in shown
    assert ":3: " in str(caught.value)


def test_a_file_names_itself_and_its_neighbours(tmp_path: Path, monkeypatch):
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "key.pem").write_text("not read here")
    (tmp_path / "conf" / "gateway.yaml").write_text(
        PUBLIC + UPSTREAM + "auth: {keys: [{pem_file: key.pem}]}\nroutes: [{match: x}]"
    )
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError) as caught:
        load("conf/gateway.yaml", {})
    assert [fault.key for fault in caught.value.faults] == ["routes[0].match"]
    assert str(caught.value).startswith("conf/gateway.yaml:4: routes[0].match: expected ")


def test_a_public_key_never_serves_as_a_shared_secret(tmp_path: Path):
    """PyJWT CVE-2022-29217, APISIX CVE-2026-39999: algorithm confusion."""
    (tmp_path / "key.pem").write_text("not read here")
    file = tmp_path / "gateway.yaml"
    file.write_text(f"{PUBLIC}{UPSTREAM}auth: {{keys: [{{pem_file: key.pem, algorithms: [RS256, HS256]}}]}}")
    with pytest.raises(ConfigError) as caught:
        load(file, {})
    (fault,) = caught.value.faults
    assert (fault.key, fault.found) == ("auth.keys[0].algorithms[1]", '"HS256"')


def test_the_environment_of_the_process_is_the_default(tmp_path: Path, monkeypatch):
    file = tmp_path / "gateway.yaml"
    file.write_text(GOOD + "via: ${SETTINGS_TEST_VIA}\n")
    monkeypatch.setenv("SETTINGS_TEST_VIA", "edge-7")
    assert load(file).via == "edge-7"


def test_files_that_cannot_be_read(tmp_path: Path):
    large = tmp_path / "large"
    with large.open("wb") as file:
        os.truncate(file.fileno(), (4 << 20) + 1)
    for path, expected in {
        tmp_path / "none": "expected a readable file, found none (no such file or directory)",
        tmp_path: "expected a readable file, found none (is a directory)",
        tmp_path / "\0": "expected a readable file, found none (no file has such a name)",
        large: "expected a file of at most 4MiB, found a larger one",
    }.items():
        with pytest.raises(ConfigError) as caught:
            load(path, {})
        assert str(caught.value) == f"{path}: {expected}"


_WORDS = ["", "5s", "GET /x", "public", "policy", "*", "http://x", "1MiB", "none"]
_KEYS = ["keys", "secret", "url", "match", "access", "cache", "mode", "ttl", "port", "zzz"]
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(_WORDS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from([*Settings.model_fields, "zzz"]), _VALUES))
def test_whatever_is_written_ends_in_settings_or_in_faults(data):
    try:
        settings = parse(json.dumps(data), {})
    except ConfigError as error:
        places = {(fault.line, fault.file) for fault in error.faults}
    else:
        places = {(1, "settings")} if isinstance(settings, Settings) else set()
    assert places == {(1, "settings")}
