"""The first question to an agent, on a stream that a test has opened itself."""

from __future__ import annotations

from cloudsend_cli.agent.client import AgentChannel, ChannelClosed, Frame, ProtocolError
from cloudsend_cli.core.ports import ByteStream
from cloudsend_cli.engine.asking import Ask, ask_now
from cloudsend_cli.errors import UnreachableError


def ask_hello(stream: ByteStream) -> Frame:
    """The agent's facts, asked over a fresh stream that is of no other use. UnreachableError: no agent answered."""
    try:
        return ask_now(AgentChannel(stream), Ask("hello", {"owner": "check", "epoch": 0}), lambda: False)[0]
    except (ChannelClosed, ProtocolError, OSError) as problem:
        raise UnreachableError(f"the agent does not answer: {problem}", hint="`cloudsend maestro logs`") from problem
