"""How the world talks to agents over HTTP. Start with `routes.py` (what there is) and `asgi.py` (the way of a request)."""
