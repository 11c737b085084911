"""The two things a visitor can do: ask for a link, and open it."""

from doorkeeper.accounts import Account, Accounts
from doorkeeper.links import make_link, read_link
from doorkeeper.tokens import is_genuine, sign


class LinkRefused(Exception):
    """The link does not let anybody in."""


class Door:
    """Lets people in who can read the mail of their account."""

    def __init__(self, accounts: Accounts, base: str, key: bytes) -> None:
        self._accounts = accounts
        self._base = base
        self._key = key

    def link_for(self, address: str, page: str = "/") -> str:
        """The link to mail to the address. Raises LinkRefused for one without an account."""
        account = self._accounts.find(address)
        if account is None:
            raise LinkRefused(f"{address} has no account")
        return make_link(self._base, account.address, sign(account.address, self._key), page)

    def enter(self, link: str) -> tuple[Account, str]:
        """Whom the link lets in, and the page to show them. Raises LinkRefused."""
        address, token, page = read_link(link)
        if not is_genuine(token, address, self._key):
            raise LinkRefused(f"the link for '{address}' is not valid")
        account = self._accounts.find(address)
        if account is None:
            raise LinkRefused(f"'{address}' has no account")
        return account, page
