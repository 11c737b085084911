"""Models: what the loop asks (`protocol`), and the providers that answer (`resolve`).

Importing this package is cheap; a provider's library is loaded by `Model.warm` or by its first request.
"""

from cairn.harness.models.provider import Provider
from cairn.harness.models.resolve import resolve

__all__ = ["Provider", "resolve"]
