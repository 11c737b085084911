"""The sentences that keep what WebSockets and objects over the wire rely on, and what each becomes when it is broken.

See run.py.
"""

from __future__ import annotations

from tests.mutations.run import Mutation

HTTP = "src/cairn/framework/http"
SOCKETS = f"{HTTP}/sockets.py"
OBJECTS = f"{HTTP}/objects.py"
LINES = f"{HTTP}/lines.py"
ASGI = f"{HTTP}/asgi.py"

COMING = "tests/objects/test_wire_sockets.py"
TALKING = "tests/objects/test_wire_objects.py"
BYTES = "tests/objects/test_wire_protocol.py"

MUTATIONS = [
    # --- coming in
    Mutation(
        name="a socket's origin is checked",
        promise="X6",
        file=ASGI,
        old="        check(scope, headers, peer, self.rules)\n",
        new="",
        tests=("tests/security/test_browser_api.py::test_x6_no_websocket_is_opened_for_another_site",),
    ),
    Mutation(
        name="a token is taken from a URL only where that is allowed",
        promise="X8",
        file=ASGI,
        old="in_query=self.app.takes_token_in_query",
        new="in_query=True",
        tests=(f"{COMING}::test_a_token_in_the_url_has_to_be_allowed",),
    ),
    Mutation(
        name="two tokens are none",
        promise="X13",
        file=SOCKETS,
        old="if len(tokens) > 1 or any(",
        new="if any(",
        tests=(f"{COMING}::test_two_credentials_are_none",),
    ),
    Mutation(
        name="the token is not what is chosen",
        promise="X8",
        file=SOCKETS,
        old="    if SUBPROTOCOL in offered:\n        return SUBPROTOCOL\n    harmless",
        new="    harmless",
        tests=(f"{COMING}::test_what_is_chosen_of_the_subprotocols_is_the_token_only_if_nothing_else_is_there",),
    ),
    Mutation(
        name="a revoked credential ends a socket",
        promise="X11",
        file=SOCKETS,
        old='                socket.finish(POLICY, "unauthorized: the credential does not hold any more")\n',
        new="                pass\n",
        tests=(f"{COMING}::test_a_revoked_token_ends_its_sockets_within_five_seconds",),
    ),
    Mutation(
        name="a connection's id is its first caller's",
        promise="X11",
        file="src/cairn/runtime/activation.py",
        old="            if known.by != call.by:\n",
        new="            if False:\n",
        tests=(f"{TALKING}::test_nobody_takes_the_connection_of_another",),
    ),
    # --- how much
    Mutation(
        name="a large message needs a place",
        promise="X7",
        file=f"{HTTP}/connection_upgraded.py",
        old="and not self._has_place and not self._take():",
        new="and not self._has_place and self._take() and False:",
        tests=(f"{BYTES}::test_only_so_many_large_messages_arrive_at_a_time",),
    ),
    Mutation(
        name="nothing is compressed",
        promise="X7",
        file=f"{HTTP}/serving.py",
        old="ws_per_message_deflate=False",
        new="ws_per_message_deflate=True",
        tests=(f"{BYTES}::test_nothing_is_compressed",),
    ),
    Mutation(
        name="a caller's messages keep its rate",
        promise="X7",
        file=SOCKETS,
        old="while wait := self.service.quota.wait(self.identity, self.request.peer):",
        new="while wait := 0.0:",
        tests=(f"{COMING}::test_who_says_too_much_is_heard_more_slowly",),
    ),
    # --- what one may do
    Mutation(
        name="calling needs the grant to send",
        promise="X5",
        file=LINES,
        old="""                raise problems.forbidden("Calling needs the grant 'send'.")\n""",
        new="                pass\n",
        tests=(f"{TALKING}::test_who_may_only_read_sees_and_does_nothing_else",),
    ),
    Mutation(
        name="a message needs the grant to send",
        promise="X5",
        file=LINES,
        old="""            raise problems.forbidden("Sending needs the grant 'send'.")\n""",
        new="            pass\n",
        tests=(f"{TALKING}::test_who_may_only_read_sees_and_does_nothing_else",),
    ),
    Mutation(
        name="a sub-object is reached where its parent leads",
        promise="X5",
        file=OBJECTS,
        old="        if not await _answered(said, service.objects.opens(",
        new="        if None is await _answered(said, service.objects.opens(",
        tests=(f"{TALKING}::test_a_parent_says_where_a_url_may_lead",),
    ),
    Mutation(
        name="a sub-object's own id leads nowhere",
        promise="X5",
        file=OBJECTS,
        old="    if parent is not None and parent.kind in service.objects.applications:\n",
        new="    if False:\n",
        tests=(f"{TALKING}::test_no_url_makes_a_sub_object_or_goes_around_its_parent",),
    ),
    # --- what goes through
    Mutation(
        name="credentials end before the object",
        promise="X8",
        file=OBJECTS,
        old=" if name not in WITHHELD_HEADERS",
        new="",
        tests=(f"{TALKING}::test_a_request_is_the_objects_own",),
    ),
    Mutation(
        name="an object's page is in no origin of ours",
        promise="X6",
        file=OBJECTS,
        old="{**HARDENING, **SANDBOX}",
        new="{**HARDENING}",
        tests=(f"{TALKING}::test_an_answer_cannot_become_a_page_of_ours",),
    ),
    Mutation(
        name="an object's header is one line",
        promise="X6",
        file=OBJECTS,
        old='not any(character in value for character in "\\r\\n\\0")',
        new="True",
        tests=(f"{TALKING}::test_an_answer_cannot_become_a_page_of_ours",),
    ),
    Mutation(
        name="what a client said before it left is done",
        promise="S1",
        file=LINES,
        old="            if task in self._streams:\n",
        new="            if True:\n",
        tests=(f"{TALKING}::test_what_a_client_said_before_it_left_is_done",),
    ),
    Mutation(
        name="what fails while a socket is open is no second handshake",
        promise="X7",
        file=SOCKETS,
        old='self.is_open = self.is_open or message["type"] == "websocket.accept"',
        new="self.is_open = False",
        tests=(f"{COMING}::test_what_fails_while_it_is_open_closes_it_once",),
    ),
]
