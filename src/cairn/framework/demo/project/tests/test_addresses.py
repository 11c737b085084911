"""Which addresses are the same mailbox."""

import unittest

from doorkeeper.addresses import canonical


class Addresses(unittest.TestCase):
    def test_a_domain_ignores_upper_and_lower_case(self) -> None:
        self.assertEqual(canonical("Ana@Example.COM"), "Ana@example.com")

    def test_a_tag_is_part_of_the_address(self) -> None:
        self.assertNotEqual(canonical("ana+news@example.com"), canonical("ana@example.com"))

    def test_what_is_no_address_is_refused(self) -> None:
        for text in ("", "ana", "@example.com", "ana@localhost"):
            with self.subTest(text), self.assertRaises(ValueError):
                canonical(text)
