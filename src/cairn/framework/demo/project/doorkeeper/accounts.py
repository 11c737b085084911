"""Who has an account."""

from dataclasses import dataclass

from doorkeeper.addresses import canonical


@dataclass(frozen=True)
class Account:
    """A person who may log in."""

    address: str
    name: str = ""


class Accounts:
    """Accounts by mail address."""

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def open(self, address: str, name: str = "") -> Account:
        """A new account. Raises ValueError for an address that is none, or is taken."""
        key = canonical(address)
        if key in self._accounts:
            raise ValueError(f"{key} has an account")
        self._accounts[key] = Account(key, name)
        return self._accounts[key]

    def find(self, address: str) -> Account | None:
        """The account of that mailbox, in whatever spelling."""
        return self._accounts.get(canonical(address))
