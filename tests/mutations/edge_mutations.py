"""The sentences that keep the edge of the server, and what each becomes when it is broken. See `tests/mutations/`."""

from __future__ import annotations

from tests.mutations.run import Mutation

HTTP = "src/cairn/framework/http"
ORIGINS = "tests/http/test_origin.py"
AUTH = "tests/http/test_auth.py"
TOKENS = "tests/http/test_tokens.py"
BODIES = "tests/http/test_body.py"
CONNECTIONS = "tests/http/test_connection.py"
MATRIX = "tests/security/test_authorization.py"

MUTATIONS = [
    # --- who asks from where
    Mutation(
        name="only our own names are answered",
        promise="X6",
        file=f"{HTTP}/origin.py",
        old="if not allows_host(peer.sent_host, scope, rules):",
        new="if not allows_host(peer.host, scope, rules) and False:",
        tests=(f"{ORIGINS}::test_a_name_that_is_not_ours_is_misdirected",),
    ),
    Mutation(
        name="a page of another origin is refused",
        promise="X6",
        file=f"{HTTP}/origin.py",
        old="if authority and authority in (peer.host, peer.sent_host):",
        new="if authority:",
        tests=(f"{ORIGINS}::test_pages_of_other_origins_may_not",),
    ),
    Mutation(
        name="only a trusted proxy is believed",
        promise="X13",
        file=f"{HTTP}/origin.py",
        old="if not hops or not _is_within(address, rules.networks):",
        new="if not hops:",
        tests=(f"{ORIGINS}::test_nobody_else_is_believed",),
    ),
    Mutation(
        name="a proxy on this machine makes nobody local",
        promise="X5",
        file=f"{HTTP}/origin.py",
        old="is_local = all(is_loopback(each.address) for each in hops)",
        new="is_local = is_loopback(address)",
        tests=(f"{ORIGINS}::test_what_came_through_a_proxy_is_not_this_machine",),
    ),
    # --- who may
    Mutation(
        name="without authentication only this machine is answered",
        promise="X5",
        file=f"{HTTP}/auth.py",
        old="if peer.is_local:",
        new="if True:",
        tests=(f"{AUTH}::test_without_authentication_only_this_machine_is_answered",),
    ),
    Mutation(
        name="what is not seen does not exist",
        promise="S12",
        file=f"{HTTP}/auth.py",
        old="if not identity.sees(kind, id):",
        new="if False:",
        tests=(f"{MATRIX}::test_what_is_not_ones_own_is_as_if_it_were_not_there",),
    ),
    Mutation(
        name="what is not granted is forbidden",
        promise="X5",
        file=f"{HTTP}/auth.py",
        old="if grant not in identity.grants:",
        new="if False:",
        tests=(f"{MATRIX}::test_a_grant_opens_no_other_routes",),
    ),
    Mutation(
        name="a guess is counted before it is looked at",
        promise="X13",
        file=f"{HTTP}/auth.py",
        old="if is_guess:\n            self._failures.take(peer)\n        self._pending",
        new="self._pending",
        tests=(f"{AUTH}::test_a_thousand_guesses_at_once_are_a_thousand",),
    ),
    Mutation(
        name="a credential that was right once is counted when it is wrong",
        promise="X13",
        file=f"{HTTP}/auth.py",
        old="if was_accepted:",
        new="if False:",
        tests=(f"{AUTH}::test_a_token_that_was_right_and_is_revoked_is_a_guess_like_any_other",),
    ),
    Mutation(
        name="a credential in a URL is refused",
        promise="X8",
        file=f"{HTTP}/auth.py",
        old="found = sorted(names & CREDENTIAL_PARAMETERS)",
        new="found = sorted(names & {'token'})",
        tests=(f"{AUTH}::test_a_credential_in_a_url_is_refused_and_not_repeated",),
    ),
    Mutation(
        name="a revoked token ends streams",
        promise="X11",
        file=f"{HTTP}/tokens.py",
        old="return identity.token is not None and await self._identity(identity.token) == identity",
        new="return identity.token is not None",
        tests=(f"{TOKENS}::test_a_revoked_token_ends_requests_and_streams_within_five_seconds",),
    ),
    # --- how much
    Mutation(
        name="a body is counted as it arrives",
        promise="X7",
        file=f"{HTTP}/body.py",
        old="if count > limit:",
        new="if False:",
        tests=(f"{BODIES}::test_a_body_that_says_less_than_it_is_is_refused_at_the_limit",),
    ),
    Mutation(
        name="large bodies have few places",
        promise="X7",
        file=f"{HTTP}/body.py",
        old="if self._taken >= self._places:",
        new="if False:",
        tests=(f"{BODIES}::test_only_a_few_large_bodies_are_taken_at_a_time",),
    ),
    Mutation(
        name="a place is kept until the request is over",
        promise="X7",
        file=f"{HTTP}/body.py",
        old="                if count == len(piece) and not more:",
        new="                self._is_large = False\n                if count == len(piece) and not more:",
        tests=(f"{BODIES}::test_only_a_few_large_bodies_are_taken_at_a_time",),
    ),
    Mutation(
        name="JSON is bounded in depth",
        promise="X7",
        file=f"{HTTP}/body.py",
        old="default=0) > limits.json_depth_max:",
        new="default=0) > limits.json_parts_max:",
        tests=(f"{BODIES}::test_what_is_nested_too_deeply_is_malformed",),
    ),
    Mutation(
        name="the fields of a head are counted",
        promise="X7",
        file=f"{HTTP}/connection.py",
        old="if len(self.headers) >= self._limits.headers_max:",
        new="if False:",
        tests=(f"{CONNECTIONS}::test_a_head_that_is_too_large_is_refused_before_it_is_kept",),
    ),
]
