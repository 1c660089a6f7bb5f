"""Agents: who does the work; sending some to rest, and inviting more."""

from collections.abc import Sequence
from typing import Annotated, Final

import msgspec

from taskd.http.routes import AnyRoute, Call, Nothing, get, post
from taskd.text.documents import AgentDocument, MemoryDocument, agent_document, memory_document
from taskd_protocol.access_messages import Invitation, Invite
from taskd_protocol.connection_messages import Done
from taskd_protocol.errors import AgentUnknown
from taskd_protocol.house_messages import AgentDrain, AgentList, AgentPage, MemoryList, MemoryPage
from taskd_protocol.join import format_join_code


class AgentAsked(msgspec.Struct, forbid_unknown_fields=True):
    """An agent."""

    name: str


class Agents(msgspec.Struct):
    """The agents that are connected, still hold work, or are drained, by name."""

    agents: list[AgentDocument]


class Memory(msgspec.Struct):
    """What was learned of each task name that asks for memory."""

    names: list[MemoryDocument]


class InviteBody(msgspec.Struct, forbid_unknown_fields=True):
    """For how long, and to where."""

    expires_in_ms: Annotated[int, msgspec.Meta(ge=1, le=600_000)] = 600_000
    addresses: list[str] = []
    """Where the agent reaches the server, if not where that says that it listens."""


class InvitationDocument(msgspec.Struct):
    """A one-time code: ``taskd agent --join CODE``."""

    code: str
    addresses: list[str]


async def list_agents(call: Call[Nothing, Nothing]) -> Agents:
    """List the agents."""
    return Agents([agent_document(view) for view in (await call.ask(AgentList(0), AgentPage)).agents])


async def show_agent(call: Call[AgentAsked, Nothing]) -> AgentDocument:
    """Show an agent: what it has, what of it is free, and what it can run."""
    return await _agent(call)


async def learned_memory(call: Call[Nothing, Nothing]) -> Memory:
    """Show how much memory tasks have come to need, and what they get that ask for ``memory=auto``."""
    return Memory([memory_document(view) for view in (await call.ask(MemoryList(0), MemoryPage)).names])


async def drain_agent(call: Call[AgentAsked, Nothing]) -> AgentDocument:
    """Have an agent finish what it runs and take nothing new."""
    await call.ask(AgentDrain(0, call.asked.name), Done)
    return await _agent(call)


async def resume_agent(call: Call[AgentAsked, Nothing]) -> AgentDocument:
    """Have an agent work again that was drained, or is in quarantine."""
    await call.ask(AgentDrain(0, call.asked.name, resume=True), Done)
    return await _agent(call)


async def invite_agent(call: Call[Nothing, InviteBody]) -> InvitationDocument:
    """Make a one-time code with which an agent on another machine joins."""
    invitation = await call.ask(Invite(0, call.body.expires_in_ms), Invitation)
    said = call.body.addresses
    reachable = [*said, *(address for address in invitation.addresses if address not in said)]
    return InvitationDocument(format_join_code(reachable, invitation.ca_sha256, invitation.secret), reachable)


async def _agent(call: Call[AgentAsked, Nothing]) -> AgentDocument:
    name = call.asked.name
    for view in (await call.ask(AgentList(0), AgentPage)).agents:
        if view.name == name:
            return agent_document(view)
    raise AgentUnknown(f"no agent named {name[:64]!r} is here")


ROUTES: Final[Sequence[AnyRoute]] = (
    get("/agents", list_agents, Nothing, Agents, AgentList),
    get("/memory", learned_memory, Nothing, Memory, MemoryList),
    get("/agents/{name:path}", show_agent, AgentAsked, AgentDocument, AgentList),
    post("/agents/{name:path}/drain", drain_agent, AgentAsked, Nothing, AgentDocument, AgentDrain, AgentList),
    post("/agents/{name:path}/resume", resume_agent, AgentAsked, Nothing, AgentDocument, AgentDrain, AgentList),
    post("/invitations", invite_agent, Nothing, InviteBody, InvitationDocument, Invite),
)
