"""Conversations of a server, over its URL: what `App.conversation` gives inside of the process, from anywhere.

    async with Client("https://agents.example.com", token=token) as client:
        conversation = client.conversation("support", "issue-17307")
        receipt = await conversation.send("Any update?", key="evt-1")
        async for chunk in receipt.follow():
            …
        print((await receipt.reply()).text)

Laws. What waits (`follow`, `reply`) survives restarts of the server and of the network: it comes back with its offset until it
has what it waits for. A message without a key is sent once, whatever becomes of the connection. Every failure is an error of
`cairn.errors` with the server's own words.
"""

from cairn.client.chunks import Chunk
from cairn.client.client import AgentCard, Client, Listed
from cairn.client.conversation import Conversation, Receipt
from cairn.client.history import Attachment, History, Message, Reply
from cairn.client.inside import inside

__all__ = [
    "AgentCard", "Attachment", "Chunk", "Client", "Conversation", "History", "Listed", "Message", "Receipt", "Reply", "inside",
]  # fmt: skip
