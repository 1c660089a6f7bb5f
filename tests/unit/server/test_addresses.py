"""Addresses: read from what people write, and never open where they did not ask."""

import socket

import pytest
import trio

from taskd.server import addresses
from taskd.server.addresses import Address, bind, close_sockets, open_sockets, parse_address, port_of, reachable
from taskd_protocol.errors import AddressInsecure, AddressInUse, ConfigInvalid


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:7070", Address("127.0.0.1", 7070)),
        (" box.example:0 ", Address("box.example", 0)),
        ("[::1]:65535", Address("::1", 65535)),
    ],
)
def test_an_address_is_read(text: str, address: Address) -> None:
    """And written back as it was."""
    assert parse_address(text, "--listen") == address
    assert str(address) == text.strip()


@pytest.mark.parametrize(
    "text", ["", "7070", "box", "box:", "box:70000", "box:-1", "box:7_0", "::1:70", "box:٣", "b:" + "9" * 9999]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """With the place where it was written, and an example."""
    with pytest.raises(ConfigInvalid, match=r"^TASKD_HTTP .* is no address; write HOST:PORT"):
        parse_address(text, "TASKD_HTTP")


def test_all_addresses_must_be_asked_for() -> None:
    """An empty host means everything elsewhere; here it means that somebody forgot it."""
    with pytest.raises(ConfigInvalid, match=r"names no host; write 127\.0\.0\.1:7070, or 0\.0\.0\.0:7070"):
        parse_address(":7070", "--listen")


async def test_all_sockets_of_a_name_share_a_free_port() -> None:
    """Port 0 is one port, on IPv4 and on IPv6, where the machine has both."""
    listeners = await open_sockets("localhost", 0, 5)
    assert port_of(listeners) != 0
    assert {listener.socket.getsockname()[1] for listener in listeners} == {port_of(listeners)}
    close_sockets(listeners)


async def test_a_port_in_use_is_named() -> None:
    """One line that says what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = Address("127.0.0.1", taken.getsockname()[1])
        with pytest.raises(AddressInUse, match=f"--http 127.0.0.1:{address.port}: the port is in use; stop what"):
            await bind(address, "--http", open_sockets, secured=True)


@pytest.mark.parametrize("host", ["192.0.2.1", "no.such.host.invalid"])
async def test_an_address_of_another_machine_is_refused(host: str) -> None:
    """Told at the start."""
    with pytest.raises(ConfigInvalid, match="choose an address of this machine"):
        await bind(Address(host, 0), "--listen", open_sockets, secured=True)


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])  # noqa: S104 - that is what is refused
async def test_plain_tcp_stays_on_loopback(host: str) -> None:
    """Where others could reach it, and the port is free again after the refusal."""
    ports: list[int] = []

    async def remember(host: str, port: int, backlog: int, /) -> list[trio.SocketListener]:
        listeners = list(await open_sockets(host, port, backlog))
        ports.append(port_of(listeners))
        return listeners

    with pytest.raises(AddressInsecure, match="leave it on or use 127"):
        await bind(Address(host, 0), "--listen", remember, secured=False)
    listeners, address = await bind(Address("127.0.0.1", ports[0]), "--listen", open_sockets, secured=False)
    assert address.port == ports[0]
    close_sockets(listeners)


def test_all_addresses_are_told_as_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can connect to 0.0.0.0: who is invited gets the machine's own addresses, of the kind listened on."""
    monkeypatch.setattr(addresses, "machine_addresses", lambda: ["10.0.0.5", "2001:db8::7", "192.0.2.1"])
    assert list(map(str, reachable(Address("0.0.0.0", 7)))) == ["10.0.0.5:7", "192.0.2.1:7"]  # noqa: S104
    assert list(map(str, reachable(Address("::", 7)))) == ["[2001:db8::7]:7"]
    assert reachable(Address("box", 7)) == [Address("box", 7)]
    monkeypatch.undo()
    for host in addresses.machine_addresses():
        assert not host.startswith(("127.", "::1", "fe80"))
