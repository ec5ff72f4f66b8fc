"""
Broadcast: who is connected over WebSockets, to what they listen, and how it reaches them.

    tickets       a connection opens with a one-use ticket, since a browser cannot send a token with it
    connections   who is connected, and which topics they listen to
    posting       frames, and the door of API Gateway that they leave by
    door          one Lambda function behind a WebSocket API: connect, message, disconnect

Delivery is at most once and in no order that could be relied on: API Gateway acknowledges a frame when it has taken it,
not when it has arrived. What must not be lost carries its place, so that its reader sees a gap (`holdfast.tailing`).
"""

from holdfast.broadcast.connections import Broadcast, Connection, Delivery, Member
from holdfast.broadcast.door import Door
from holdfast.broadcast.posting import ApiGatewayPost, Gone, Post, Undelivered, frames
from holdfast.broadcast.tickets import TICKET_SECONDS, Tickets

__all__ = [
    "TICKET_SECONDS",
    "ApiGatewayPost",
    "Broadcast",
    "Connection",
    "Delivery",
    "Door",
    "Gone",
    "Member",
    "Post",
    "Tickets",
    "Undelivered",
    "frames",
]
