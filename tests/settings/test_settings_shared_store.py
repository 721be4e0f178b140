"""The section `shared_store`: every form of address, and every fault with its place."""

from __future__ import annotations

import pytest

from gateway.settings import ConfigError, parse

KEY = "a-key-of-thirty-two-bytes-or-more"


def text(section: str) -> str:
    return f"""
public_url: https://api.example.org
upstream: {{url: http://cc.example.org}}
auth: {{keys: [{{url: https://uaa.example.org/token_keys}}]}}
shared_store:
  {section}
"""


@pytest.mark.parametrize(
    ("section", "mode", "addresses", "database"),
    [
        ("url: valkey://a", "standalone", (("a", 6379),), 0),
        ("url: redis://a.example.org:7000/3", "standalone", (("a.example.org", 7000),), 3),
        ("url: valkeys://[::1]:7000", "standalone", (("::1", 7000),), 0),
        ("url: unix:///run/valkey.sock", "standalone", (), 0),
        ("url: valkey://a:26379\n  sentinel_master: main", "sentinel", (("a", 26379),), 0),
        ("url: valkey://a/2\n  nodes: ['b:1']\n  sentinel_master: main", "sentinel", (("a", 6379), ("b", 1)), 2),
        ("url: valkey://a:7\n  nodes: ['b:8', '[::1]:9']", "cluster", (("a", 7), ("b", 8), ("::1", 9)), 0),
        ("url: valkey://a:7000\n  mode: cluster", "cluster", (("a", 7000),), 0),
    ],
)  # fmt: skip
def test_addresses(section: str, mode: str, addresses: tuple[tuple[str, int], ...], database: int) -> None:
    given = parse(text(f"{section}\n  hmac_key: {KEY}"), {}).shared_store
    assert given is not None
    assert (given.stands, given.addresses, given.database) == (mode, addresses, database)
    assert given.encrypted == section.startswith("url: valkeys")
    assert given.unix_path == ("/run/valkey.sock" if "unix" in section else None)


@pytest.mark.parametrize(
    ("section", "fault"),
    [
        (f"hmac_key: {KEY}", "shared_store.url"),
        ("url: valkey://a", "shared_store.hmac_key"),
        ("url: valkey://a\n  hmac_key: short", "shared_store.hmac_key: expected at least 32 bytes"),
        (f"url: valkey://me:secret@a\n  hmac_key: {KEY}", "must not carry a user or password"),
        (f"url: http://a\n  hmac_key: {KEY}", "shared_store.url"),
        (f"url: valkey://a:0\n  hmac_key: {KEY}", "shared_store.url"),
        (f"url: valkey://a:70000\n  hmac_key: {KEY}", "shared_store.url"),
        (f"url: valkey://a\n  nodes: [b]\n  hmac_key: {KEY}", "shared_store.nodes[0]"),
        (f"url: valkey://a\n  mode: sentinel\n  hmac_key: {KEY}", "shared_store.sentinel_master"),
        (f"url: valkey://a\n  mode: cluster\n  sentinel_master: m\n  hmac_key: {KEY}", "shared_store.sentinel_master"),
        (f"url: valkey://a\n  mode: standalone\n  nodes: ['b:1']\n  hmac_key: {KEY}", "shared_store.nodes"),
        (f"url: unix:///s\n  mode: cluster\n  hmac_key: {KEY}", "shared_store.url"),
        (f"url: valkey://a/1\n  mode: cluster\n  hmac_key: {KEY}", "shared_store.url"),
        (f"url: valkey://a\n  lease: 10ms\n  hmac_key: {KEY}", "shared_store.lease"),
        (f"url: valkey://a\n  grace: 500ms\n  hmac_key: {KEY}", "shared_store.grace"),
        (f"url: valkey://a\n  max_added_latency: 0\n  hmac_key: {KEY}", "shared_store.max_added_latency"),
        (f"url: valkey://a\n  connect_timeout: 0\n  hmac_key: {KEY}", "shared_store.connect_timeout"),
        (f"url: valkeys://a\n  tls: {{cert_file: {__file__}}}\n  hmac_key: {KEY}", "shared_store.tls.key_file"),
        (f"url: valkey://a\n  tls: {{ca_file: {__file__}}}\n  hmac_key: {KEY}", "shared_store.tls"),
    ],
)
def test_faults_name_their_key(section: str, fault: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse(text(section), {})
    assert fault in str(error.value)
    assert "secret" not in str(error.value).replace("a user or password", "")


def test_secrets_come_from_the_environment_and_are_not_shown() -> None:
    settings = parse(
        text("url: valkey://a\n  username: gw\n  password: ${PASSWORD}\n  hmac_key: ${KEY}"),
        {"PASSWORD": "pass-from-outside", "KEY": KEY},
    )
    assert settings.shared_store is not None
    assert settings.shared_store.password is not None
    assert settings.shared_store.password.get_secret_value() == "pass-from-outside"
    assert "pass-from-outside" not in str(settings.redacted())
    assert KEY not in str(settings.redacted())
