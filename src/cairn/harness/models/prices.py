"""What a response cost, from the price table that ships with `genai-prices`.

Laws. Offline: only the bundled table is read, it is never fetched or refreshed. Imported at the first use, not before.
An unknown model has no price (`None`), never a guessed one and never zero.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from cairn.harness.messages import Usage


def cost(usage: Usage, *, provider: str | None, models: Sequence[str]) -> float | None:
    """US dollars for `usage` under the first of `models` the table knows of `provider`; None when it knows none."""
    if provider is None:
        return None
    try:
        from genai_prices import Usage as Priced
        from genai_prices import calc_price
    except ImportError:
        return None
    # The table prices the sum of the prompt and takes the cached parts out itself; ours keeps the parts apart.
    priced = Priced(
        input_tokens=usage.input + usage.cache_read + usage.cache_write,
        cache_read_tokens=usage.cache_read,
        cache_write_tokens=usage.cache_write,
        output_tokens=usage.output,
    )
    for model in models:
        try:
            return float(calc_price(priced, model_ref=model, provider_id=provider).total_price)
        except (LookupError, ValueError):
            continue
    return None


@functools.lru_cache(maxsize=256)
def context_window(provider: str | None, model: str) -> int | None:
    """The model's window in tokens, when the table knows it."""
    if provider is None:
        return None
    try:
        from genai_prices import Usage as Priced
        from genai_prices import calc_price
    except ImportError:
        return None
    try:
        return calc_price(Priced(), model_ref=model, provider_id=provider).model.context_window
    except (LookupError, ValueError):
        return None
