"""Login without passwords: a person asks for a link, receives it by mail, opens it, and is in."""

from doorkeeper.accounts import Account, Accounts
from doorkeeper.door import Door, LinkRefused

__all__ = ["Account", "Accounts", "Door", "LinkRefused"]
