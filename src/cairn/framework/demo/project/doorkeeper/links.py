"""The link in the mail: what is in it, and how it is read again when somebody opens it."""

from urllib.parse import parse_qs, urlsplit


def make_link(base: str, address: str, token: str, page: str) -> str:
    """The link that logs in the owner of the address and then shows them the page."""
    return f"{base}/login?address={address}&token={token}&page={page}"


def read_link(link: str) -> tuple[str, str, str]:
    """Address, token and page of a link. Raises ValueError when one is missing."""
    fields = parse_qs(urlsplit(link).query)
    try:
        return fields["address"][0], fields["token"][0], fields["page"][0]
    except KeyError as missing:
        raise ValueError(f"the link has no {missing}") from None
