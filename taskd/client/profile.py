"""Connection profiles: which server, by which address, with which CA and token.

A server writes one when it starts; CLI, client and agent of the same user read it. One JSON file
each in ``$XDG_CONFIG_HOME/taskd/profiles`` (else ``~/.config/taskd/profiles``), holding all that is
needed, and a file ``current`` beside the folder that names the one in use.

Invariants:
- Files are 0600 in folders of 0700, and are replaced whole: a reader sees the old or the new one.
- A profile belongs to a data directory: another server's profile gets another name.
"""

import contextlib
import ipaddress
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from taskd_protocol.errors import AddressInsecure, ConfigInvalid

SCHEME = "taskd"
SCHEME_PLAIN = "taskd+tcp"
"""Without TLS; to this machine's own loopback only."""

START_ONE = "start one with `taskd dev` or `taskd server`"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach one server."""

    name: str = ""
    """Of the profile; empty when it came from a URL."""
    address: str
    """``HOST:PORT``, an IPv6 address in brackets."""
    token: str
    agent_token: str = ""
    """What agents of this machine show; empty: ``token`` too."""
    ca_pem: str = ""
    """The CA that signed the server's certificate; empty: those that the system trusts."""
    http: str = ""
    """URL of the HTTP API; empty: not known."""
    data_dir: str = ""
    """Of the server that wrote it, on this machine; empty: the server is elsewhere."""
    tls: bool = True

    @property
    def host(self) -> str:
        """The address's host, without brackets."""
        return self.address.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        """The address's port."""
        return int(self.address.rpartition(":")[2])

    def __repr__(self) -> str:
        """Show what it reaches, and not the token."""
        return f"Profile({self.name!r}, {SCHEME if self.tls else SCHEME_PLAIN}://{self.address})"


def config_dir() -> Path:
    """Return the folder of taskd's configuration; it may not exist.

    Raises:
        ConfigInvalid: This user has no home.
    """
    return user_dir("XDG_CONFIG_HOME", "~/.config") / "taskd"


def user_dir(variable: str, below_home: str) -> Path:
    """Return a folder of this user: the one that the variable names, else the one below their home.

    Raises:
        ConfigInvalid: There is neither: no HOME is set, and the system does not know this user.
    """
    root = os.environ.get(variable, "")
    if not Path(root).is_absolute():  # the specification says to pass over a relative one
        root = os.path.expanduser(below_home)  # noqa: PTH111 - Path.expanduser raises where there is no home
    if not Path(root).is_absolute():
        raise ConfigInvalid(f"this user has no home: set HOME, or {variable} to a folder of yours")
    return Path(root)


def resolve(url: str | None = None, *, name: str | None = None) -> Profile:
    """Find the server to talk to: the URL given, else the profile named, else ``TASKD_URL``, else the current profile.

    Raises:
        ConfigInvalid: There is none, or it cannot be read; the message says what to do.
    """
    if url:
        return from_url(url, "the URL given")
    if name:
        return load(name)
    from_environment = os.environ.get("TASKD_URL")
    if from_environment:
        return from_url(from_environment, "TASKD_URL")
    current = current_name()
    if current is None:
        raise ConfigInvalid(
            f"no taskd server is known here: {START_ONE}, or set TASKD_URL=taskd://TOKEN@HOST:PORT?ca=FILE"
        )
    return load(current)


def from_url(url: str, source: str = "the URL") -> Profile:
    """Read ``taskd://TOKEN@HOST:PORT?ca=FILE``.

    Args:
        url: With the scheme ``taskd+tcp`` for plain TCP to loopback.
        source: Where it was found, for messages. The URL itself holds a secret and is never shown.

    Raises:
        ConfigInvalid: A part is wrong or missing; it is named.
        AddressInsecure: Plain TCP to another machine.
    """
    form = "write taskd://TOKEN@HOST:PORT?ca=FILE"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ConfigInvalid(f"{source} is no URL of a taskd server: {form}") from None
    if parts.scheme not in {SCHEME, SCHEME_PLAIN}:
        raise ConfigInvalid(f"{source} has the scheme {parts.scheme[:16]!r}: {form}")
    if not host or not port:
        raise ConfigInvalid(f"{source} names no host and port: {form}")
    if not parts.username:
        raise ConfigInvalid(f"{source} holds no token: {form}")
    tls = parts.scheme == SCHEME
    if not tls and not _is_loopback(host):
        raise AddressInsecure(f"{source} asks for plain TCP to {host}: use taskd://, plain is for loopback only")
    options = parse_qs(parts.query)
    ca_file = options.get("ca", [""])[-1]
    return Profile(
        address=f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        token=unquote(parts.username),
        ca_pem=_read_ca(Path(ca_file), source) if ca_file else "",
        http=options.get("http", [""])[-1],
        tls=tls,
    )


def load(name: str) -> Profile:
    """Read one profile.

    Raises:
        ConfigInvalid: There is none of that name, or its file cannot be read.
    """
    path = _path(name)
    try:
        profile = msgspec.json.decode(path.read_bytes(), type=Profile)
    except FileNotFoundError:
        known = ", ".join(sorted(_names())) or "none"
        raise ConfigInvalid(f"no profile {name!r}: known are {known}; choose with `taskd context use`") from None
    except OSError as error:
        raise ConfigInvalid(f"profile {path} cannot be read: {error.strerror}") from None
    except msgspec.DecodeError as error:
        raise ConfigInvalid(f"profile {path} is damaged ({error}): remove it and restart its server") from None
    _check(profile, str(path))
    return msgspec.structs.replace(profile, name=name)


def profiles() -> list[Profile]:
    """Read all profiles that can be read, by name."""
    found: list[Profile] = []
    for name in sorted(_names()):
        with contextlib.suppress(ConfigInvalid, AddressInsecure):
            found.append(load(name))
    return found


def current_name() -> str | None:
    """Return the name of the profile in use, or None when none was chosen."""
    try:
        return (config_dir() / "current").read_text().strip() or None
    except OSError:
        return None


def use(name: str) -> Profile:
    """Make this the profile in use.

    Raises:
        ConfigInvalid: There is none of that name, or the choice cannot be written.
    """
    profile = load(name)
    write_whole(config_dir() / "current", f"{name}\n".encode())
    return profile


def save(profile: Profile) -> Profile:
    """Write a server's profile, if that says something new; use it if none is in use.

    One with the same data directory is replaced, under its own name. Else ``profile.name`` is the
    name, or ``default`` for the first and one made from the data directory for others; when it is
    taken, a number is added. One whose data directory is gone is no longer in use, nor one of this
    machine that had the same address: this server listens there now.

    Returns:
        The profile under the name it got.

    Raises:
        ConfigInvalid: A field is wrong, or the file cannot be written.
    """
    _check(profile, "the profile")
    known = {other.name: other for other in profiles()}
    name = _name_for(profile, known)
    profile = msgspec.structs.replace(profile, name=name)
    if profile != known.get(name):
        write_whole(_path(name), msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n")
    current = known.get(current_name() or "")
    if current is None or (current.name != name and _is_over(current, profile)):
        use(name)
    return profile


def _is_over(other: Profile, profile: Profile) -> bool:
    """Return whether another server of this machine cannot be there any more, now that this one is."""
    return bool(other.data_dir) and (other.address == profile.address or not Path(other.data_dir).exists())


def _name_for(profile: Profile, known: dict[str, Profile]) -> str:
    for other in known.values():
        if profile.data_dir and other.data_dir == profile.data_dir:
            return other.name
    wish = profile.name
    if not wish and "default" not in known:
        wish = "default"
    if not wish:
        source = Path(profile.data_dir).name or profile.host
        wish = re.sub(r"[^A-Za-z0-9._-]+", "-", source).strip("-._")[:48] or "server"
    number, name = 1, wish
    while name in known or _path(name).exists():
        number += 1
        name = f"{wish}-{number}"
    return name


def _check(profile: Profile, source: str) -> None:
    host, _, port = profile.address.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 1 << 16:
        raise ConfigInvalid(f"address {profile.address[:80]!r} in {source} is not HOST:PORT")
    if not profile.tls and not _is_loopback(profile.host):
        raise AddressInsecure(f"{source} asks for plain TCP to {profile.host}: plain is for loopback only")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _read_ca(path: Path, source: str) -> str:
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigInvalid(f"CA file {path} of {source} cannot be read: {reason}") from None
    if "BEGIN CERTIFICATE" not in text:
        raise ConfigInvalid(f"CA file {path} of {source} holds no certificate in PEM form")
    return text


def _path(name: str) -> Path:
    if not _NAME.fullmatch(name):
        raise ConfigInvalid(f"profile name {name[:64]!r} is not allowed: use letters, digits, dot, dash, underscore")
    return config_dir() / "profiles" / f"{name}.json"


def _names() -> Iterator[str]:
    for path in (config_dir() / "profiles").glob("*.json"):
        if _NAME.fullmatch(path.stem):
            yield path.stem


def write_whole(path: Path, data: bytes) -> None:
    """Replace a file of the configuration folder whole, readable by its owner alone.

    Raises:
        ConfigInvalid: It cannot be written.
    """
    try:
        config_dir().parent.mkdir(parents=True, exist_ok=True)  # others have their folders there too
        for folder in (config_dir(), path.parent):
            folder.mkdir(mode=0o700, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".")  # made with mode 0600
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigInvalid(
            f"{path} cannot be written: {error.strerror}; set XDG_CONFIG_HOME to a folder of yours"
        ) from None
