"""People get in with the link they were sent, and with no other."""

import unittest

from doorkeeper import Accounts, Door, LinkRefused


class EnteringWithALink(unittest.TestCase):
    def setUp(self) -> None:
        self.accounts = Accounts()
        self.accounts.open("ana@example.com", "Ana")
        self.accounts.open("ana+news@example.com", "Ana's newsletters")
        self.accounts.open("bob@example.com", "Bob")
        self.door = Door(self.accounts, "https://example.com", key=b"a key for tests")

    def test_the_link_lets_its_owner_in(self) -> None:
        account, page = self.door.enter(self.door.link_for("ana@example.com", "/inbox"))

        self.assertEqual((account.name, page), ("Ana", "/inbox"))

    def test_an_address_with_a_plus_gets_in(self) -> None:
        account, _ = self.door.enter(self.door.link_for("ana+news@example.com"))

        self.assertEqual(account.name, "Ana's newsletters")

    def test_a_page_with_spaces_is_shown_as_it_was_asked_for(self) -> None:
        _, page = self.door.enter(self.door.link_for("ana@example.com", "/search for/a b"))

        self.assertEqual(page, "/search for/a b")

    def test_a_link_for_somebody_else_is_refused(self) -> None:
        link = self.door.link_for("ana@example.com").replace("ana", "bob")

        with self.assertRaises(LinkRefused):
            self.door.enter(link)

    def test_without_an_account_there_is_no_link(self) -> None:
        with self.assertRaises(LinkRefused):
            self.door.link_for("eve@example.com")
