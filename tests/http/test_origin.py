"""Host and Origin: which names this server answers to, whose pages may call it, and what a proxy may say (X6)."""

from __future__ import annotations

from typing import Any

import pytest

from cairn.errors import UsageError
from cairn.framework.http.origin import (
    LOOPBACK_ORIGINS,
    OriginRules,
    Peer,
    check,
    headers_of,
    is_allowed_origin,
    is_loopback,
    peer_of,
    preflight,
)
from cairn.framework.http.problems import Problem

NOBODY = OriginRules()
APP = OriginRules(hosts=("agents.example.com", "*.internal.example.com"), origins=("https://app.example.com",))


def scope_of(*headers: tuple[str, str], client: str | None = "127.0.0.1", server: str = "10.0.0.5") -> dict[str, Any]:
    return {
        "type": "http",
        "scheme": "http",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers],
        "client": (client, 5_000) if client else None,
        "server": (server, 8_000),
    }


def peer(*headers: tuple[str, str], rules: OriginRules = NOBODY, client: str | None = "127.0.0.1") -> Peer:
    scope = scope_of(*headers, client=client)
    return peer_of(scope, headers_of(scope), rules)


def allowed(*headers: tuple[str, str], rules: OriginRules = NOBODY, is_page: bool = False) -> dict[str, str]:
    names = {name.lower() for name, _ in headers}
    given = headers if "host" in names else (("host", "localhost:8000"), *headers)
    scope = scope_of(*given)
    found = headers_of(scope)
    return check(scope, found, peer_of(scope, found, rules), rules, is_page=is_page)


def refused(*headers: tuple[str, str], rules: OriginRules = NOBODY, is_page: bool = False) -> int:
    with pytest.raises(Problem) as caught:
        allowed(*headers, rules=rules, is_page=is_page)
    return caught.value.status


# --- host -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["localhost", "localhost:3000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST", "10.0.0.5:80"])
def test_the_names_of_this_machine_and_the_address_that_was_called_are_ours(host: str) -> None:
    allowed(("host", host))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "127.0.0.2",
        "0.0.0.0",
        "10.0.0.6",
        "[::2]",
        "localhost@evil.example",
        "evil.example/localhost",
        "agents.example.com.evil.example",
        "internal.example.com",
        "xinternal.example.com",
    ],
)
def test_a_name_that_is_not_ours_is_misdirected(host: str) -> None:
    """X6, DNS rebinding: a page whose name now points here sends that name, whatever address it has."""
    assert refused(("host", host)) == 421
    assert refused(("host", host), rules=APP) == 421


@pytest.mark.parametrize(
    "host", ["agents.example.com", "agents.example.com:443", "a.internal.example.com", "AGENTS.example.com"]
)
def test_a_name_the_application_gave_is_ours(host: str) -> None:
    allowed(("host", host), rules=APP)


def test_any_name_is_ours_only_when_that_is_said() -> None:
    allowed(("host", "evil.example"), rules=OriginRules(hosts=("*",)))


@pytest.mark.parametrize("headers", [[("host", "")], [("host", "localhost"), ("host", "evil.example")]])
def test_one_host_is_needed(headers: list[tuple[str, str]]) -> None:
    """X14: two Host headers are two readers who disagree."""
    assert refused(*headers) == 400


# --- origin ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", ["http://localhost:8000", "https://localhost:8000"])
def test_our_own_pages_may_call(origin: str) -> None:
    assert "access-control-allow-origin" not in allowed(("origin", origin))


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000",
        "http://evil.example",
        "https://app.example.com.evil.example",
        "https://app.example.com:444",
        "http://app.example.com",
        "null",
        "",
        "file://",
        "http://localhost:8000.evil.example",
        "https://APP.example.com/",
    ],
)
@pytest.mark.parametrize("site", [None, "same-origin", "none", "cross-site"])
def test_pages_of_other_origins_may_not(origin: str, site: str | None) -> None:
    """X6: whatever else a request claims, an Origin that is not allowed is refused; for reads and streams alike."""
    headers = [("origin", origin), *([("sec-fetch-site", site)] if site else [])]

    assert refused(*headers, rules=APP) == 403


def test_a_page_of_an_allowed_origin_may_call_and_read_the_answer() -> None:
    headers = allowed(("origin", "https://app.example.com"), rules=APP)

    assert headers["access-control-allow-origin"] == "https://app.example.com"
    assert headers["vary"] == "Origin"
    for name in ("Stream-Next-Offset", "Stream-Up-To-Date", "Location", "flue-error-ref", "Retry-After"):
        assert name in headers["access-control-expose-headers"]
    assert "access-control-allow-credentials" not in headers


@pytest.mark.parametrize("origin", ["http://localhost:3000", "http://127.0.0.1:1", "http://[::1]:65535", "http://localhost"])
def test_any_port_of_this_machine_may_be_allowed(origin: str) -> None:
    assert is_allowed_origin(origin, OriginRules(origins=LOOPBACK_ORIGINS))


@pytest.mark.parametrize(
    "origin",
    [
        "http://localhost:3000.evil.example",
        "http://localhost:",
        "http://localhost.evil",
        "https://localhost:1",
        "http://localhost:x",
    ],
)
def test_a_name_that_only_begins_like_this_machine_is_not(origin: str) -> None:
    rules = OriginRules(origins=LOOPBACK_ORIGINS)

    assert not is_allowed_origin(origin, rules)


@pytest.mark.parametrize("site", ["cross-site", "same-site", "garbage"])
def test_what_a_page_of_another_site_embeds_is_refused(site: str) -> None:
    """X6: an image or a script carries no Origin; the browser says that it is another site's."""
    assert refused(("sec-fetch-site", site), ("sec-fetch-mode", "no-cors")) == 403
    assert refused(("sec-fetch-site", site), ("referer", "https://evil.example/"), rules=APP) == 403


def test_what_a_page_of_an_allowed_origin_embeds_is_not() -> None:
    allowed(("sec-fetch-site", "cross-site"), ("referer", "https://app.example.com/chat?a=b"), rules=APP)


def test_a_link_on_any_site_may_lead_to_the_page_and_to_nothing_else() -> None:
    """X6: following a link is harmless where it shows a page, and only there."""
    link = [("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document")]

    allowed(*link, is_page=True)
    assert refused(*link) == 403
    assert refused(link[0], link[1], ("sec-fetch-dest", "iframe"), is_page=True) == 403


def test_a_program_says_nothing_of_that_and_may_call() -> None:
    assert allowed() == {}


# --- preflight ------------------------------------------------------------------------------------------------------

ASKING = {"origin": "https://app.example.com", "access-control-request-method": "POST"}


def test_a_browser_that_asks_for_an_allowed_origin_is_told_what_it_may() -> None:
    granted = preflight("OPTIONS", ASKING, APP)

    assert granted is not None
    assert granted["access-control-allow-origin"] == "https://app.example.com"
    assert granted["access-control-allow-methods"] == "GET, HEAD, POST, PUT, PATCH, DELETE"
    for name in ("content-type", "authorization", "traceparent", "tracestate"):
        assert name in granted["access-control-allow-headers"]


@pytest.mark.parametrize(
    ("method", "change"),
    [("GET", {}), ("OPTIONS", {"origin": "https://evil.example"}), ("OPTIONS", {"origin": "null"})],
)
def test_nobody_else_is(method: str, change: dict[str, str]) -> None:
    assert preflight(method, {**ASKING, **change}, APP) is None
    assert preflight("OPTIONS", ASKING, NOBODY) is None
    assert preflight("OPTIONS", {"origin": "https://app.example.com"}, APP) is None


# --- proxies --------------------------------------------------------------------------------------------------------


def test_a_trusted_proxy_says_who_called_and_under_which_address() -> None:
    found = peer(
        ("host", "10.1.1.1:8000"),
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-host", "agents.example.com"),
        rules=APP,
    )

    assert (found.client, found.url, found.is_local) == ("203.0.113.9", "https://agents.example.com", False)


def test_the_standard_header_says_the_same() -> None:
    found = peer(("host", "x"), ("forwarded", 'for="[2001:db8::7]:4711";proto=https;host=agents.example.com'), rules=APP)

    assert (found.client, found.url) == ("2001:db8::7", "https://agents.example.com")


def test_nobody_else_is_believed() -> None:
    """X13: whoever could name their own address could be somebody else at every try."""
    found = peer(("host", "localhost"), ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "https"), client="203.0.113.9")

    assert (found.client, found.scheme, found.host, found.is_local) == ("203.0.113.9", "http", "localhost", False)


def test_what_a_client_wrote_before_the_proxy_did_is_not_believed() -> None:
    """X13: only what our own proxy appended counts."""
    found = peer(("host", "localhost"), ("x-forwarded-for", "198.51.100.1, 203.0.113.9"))

    assert found.client == "203.0.113.9"


def test_behind_two_trusted_proxies_the_outer_ones_word_counts() -> None:
    rules = OriginRules(proxies=("127.0.0.1", "10.0.0.0/8"))
    found = peer(("host", "x"), ("x-forwarded-for", "6.6.6.6, 203.0.113.9, 10.2.3.4"), rules=rules)

    assert found.client == "203.0.113.9"


def test_a_forwarded_host_that_is_not_ours_is_not_used() -> None:
    """X6: what addresses are built from is a name we answer to."""
    found = peer(("host", "localhost"), ("x-forwarded-for", "203.0.113.9"), ("x-forwarded-host", "evil.example"), rules=APP)

    assert found.host == "localhost"


def test_a_forwarded_host_does_not_replace_the_one_that_was_sent() -> None:
    """X6, DNS rebinding: a page can add headers to requests to its own name, but it cannot change Host."""
    assert refused(("host", "evil.example"), ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-host", "localhost")) == 421


@pytest.mark.parametrize(
    "headers",
    [
        [("x-forwarded-for", "203.0.113.9")],
        [("x-forwarded-for", "203.0.113.9, 127.0.0.1")],
        [("x-forwarded-for", "127.0.0.1, 203.0.113.9")],
        [("x-forwarded-for", "unknown")],
        [("x-forwarded-for", "")],
        [("x-forwarded-proto", "https")],
        [("x-real-ip", "203.0.113.9")],
        [("via", "1.1 proxy")],
        [("forwarded", "for=127.0.0.1"), ("x-forwarded-for", "203.0.113.9")],
        [("forwarded", "for=203.0.113.9"), ("x-forwarded-for", "127.0.0.1")],
        [("forwarded", "for=_hidden")],
        [("forwarded", "garbage")],
    ],
)
def test_what_came_through_a_proxy_is_not_this_machine(headers: list[tuple[str, str]]) -> None:
    """X5: without authentication only this machine is answered; a proxy on it does not make everybody local."""
    assert not peer(("host", "localhost"), *headers).is_local


def test_this_machine_through_its_own_proxy_is_this_machine() -> None:
    assert peer(("host", "localhost"), ("x-forwarded-for", "127.0.0.1"), ("x-forwarded-proto", "http")).is_local
    assert peer(("host", "localhost")).is_local


@pytest.mark.parametrize("client", [None, "testclient", "203.0.113.9", "fe80::1%eth0"])
def test_an_address_that_is_not_this_machines_is_not_local(client: str | None) -> None:
    assert not peer(("host", "localhost"), client=client).is_local


def test_loopback_is_recognised_in_every_spelling() -> None:
    assert all(is_loopback(each) for each in ("127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"))
    assert not any(is_loopback(each) for each in ("", "localhost", "0.0.0.0", "::", "10.0.0.1", "::ffff:10.0.0.1"))


# --- what cannot be meant -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "origin", ["*", "app.example.com", "https://*.example.com", "https://app.example.com/", "ftp://a", "null"]
)
def test_what_is_no_origin_cannot_be_allowed(origin: str) -> None:
    with pytest.raises(UsageError, match="origin"):
        OriginRules(origins=(origin,))


@pytest.mark.parametrize("host", ["", "https://a.example", "a/b", "a*.example"])
def test_what_is_no_host_cannot_be_ours(host: str) -> None:
    with pytest.raises(UsageError, match="host"):
        OriginRules(hosts=(host,))


def test_what_is_no_network_cannot_be_trusted() -> None:
    with pytest.raises(UsageError, match="proxies"):
        OriginRules(proxies=("proxy.example",))
