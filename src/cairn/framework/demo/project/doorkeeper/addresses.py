"""Mail addresses: which spellings are the same mailbox."""


def canonical(address: str) -> str:
    """One spelling per mailbox. Domains ignore upper and lower case; what is before the @ belongs to its owner, who
    may use tags (`name+tag`) as different addresses."""
    name, at, domain = address.strip().rpartition("@")
    if not (name and at and "." in domain):
        raise ValueError(f"{address!r} is not a mail address")
    return f"{name}@{domain.lower()}"
