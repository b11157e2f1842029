"""TLS and gossip keys in the configuration: refused with the reason, and no key is ever shown."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from coterie.actors.config import Config
from coterie.actors.config_security import gossip_security, open_tls, parse_keys
from coterie.actors.errors import ConfigError
from tests.authority import HOUR, Authority, Files, Pair

KEYS = st.sampled_from((16, 24, 32)).flatmap(lambda size: st.binary(min_size=size, max_size=size))


@given(st.lists(st.tuples(KEYS, st.booleans()), min_size=1, max_size=4))
def test_keys_in_both_notations_in_their_order(keys: list[tuple[bytes, bool]]) -> None:
    assume(all(hexed or not set(base64.b64encode(key)) <= set(b"0123456789abcdefABCDEF") for key, hexed in keys))  # such a text is hex
    text = " , ".join(key.hex() if hexed else base64.b64encode(key).decode() for key, hexed in keys)
    assert parse_keys(text) == tuple(key for key, _ in keys)


@pytest.mark.parametrize(
    "bad", ["x", "secret-words", "MDEy", "00" * 15, "00" * 17, "MDEyMzQ1Njc4OWFiY2RlZg==,short", ",", "é" * 16, " ", 7, None, b"0" * 16]
)
def test_a_bad_key_is_refused_and_not_shown(bad: Any) -> None:
    with pytest.raises(ConfigError, match=r"^gossip_key='\(hidden\)': .*16, 24 or 32") as raised:
        Config(node_id="n1", gossip_key=bad)
    if isinstance(bad, str) and len(bad) > 3:
        assert bad not in str(raised.value)


def test_a_key_is_in_no_repr() -> None:
    key = "MDEyMzQ1Njc4OWFiY2RlZg=="
    config = Config(node_id="n1", gossip_key=key, cluster_name="blue")
    assert key not in repr(config) + str(config)
    security = gossip_security(config)
    assert security is not None
    assert (security.label, security.keys) == (b"blue", (b"0123456789abcdef",))
    assert "0123456789abcdef" not in repr(security)
    assert gossip_security(Config(node_id="n1")) is None


@pytest.mark.parametrize("name", ["x" * 256, "я" * 128, "a\nb", "\x00", 5, None])
def test_a_bad_cluster_name_is_refused(name: Any) -> None:
    with pytest.raises(ConfigError, match=r"^cluster_name="):
        Config(node_id="n1", cluster_name=name)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"tls_ca": "ca.pem"}, r"^tls_ca='ca.pem': TLS is off"),
        ({"tls_skip_verify": True}, r"^tls_skip_verify=True: TLS is off"),
        ({"tls_enable": True}, r"^tls_enable=True: tls_cert and tls_key missing"),
        ({"tls_enable": True, "tls_cert": "c"}, r"^tls_enable=True: tls_key missing"),
        ({"tls_enable": True, "tls_key": "k"}, r"^tls_enable=True: tls_cert missing"),
        ({"tls_enable": 1}, r"^tls_enable=1: give True or False"),
        ({"tls_enable": True, "tls_cert": "c", "tls_key": "k", "tls_server_name": "a b"}, r"^tls_server_name='a b': give a DNS name"),
    ],
)
def test_fields_that_do_not_go_together(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Config(node_id="n1", **fields)


def test_files_are_judged_at_the_start_by_the_names_of_their_fields(tmp_path: Path) -> None:
    authority = Authority()
    pair = authority.issue()
    assert open_tls(Config(node_id="n1")) is None
    for name, files, says in (
        ("missing", Files(tmp_path / "1", authority.pem, None), None),
        ("key", Files(tmp_path / "2", authority.pem, Pair(pair.cert, authority.issue().key)), r"^tls_key='.*key.pem': does not fit"),
        (
            "expired",
            Files(tmp_path / "3", authority.pem, authority.issue(begins=-2 * HOUR, ends=-HOUR)),
            r"^tls_cert='.*cert.pem': expired",
        ),
        (
            "no CA",
            Files(tmp_path / "4", b"nothing", pair),
            r"^tls_ca='.*ca.pem': holds no certificate in PEM \('-----BEGIN CERTIFICATE-----'\)$",
        ),
    ):
        fields = files.config()
        if says is None:
            fields |= {"tls_cert": str(tmp_path / "none.pem"), "tls_key": str(tmp_path / "none.key")}
            says = r"^tls_cert='.*none.pem': cannot be read: No such file"
        with pytest.raises(ConfigError, match=says):
            open_tls(Config(node_id="n1", **fields))
        assert name
    tls = open_tls(Config(node_id="n1", tls_server_name="node.test", **Files(tmp_path / "5", authority.pem, pair).config()))
    assert tls is not None
    assert tls.mutual and tls.name_of("127.0.0.1") == "node.test"
    tls.close()
