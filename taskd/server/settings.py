"""Settings: flags over environment over ``taskd.toml``, read into a Struct that says what there is.

A field ``retention_age`` of the section ``server`` is ``--retention-age``, ``TASKD_RETENTION_AGE``, or
``retention_age`` under ``[server]``; where a field holds several values its flag is singular and repeated.

Invariants:
- All is checked before anything is returned: every mistake is told at once, each with its source.
- A key of the file that nobody reads is a mistake, not a comment.

Knows no setting's meaning.
"""

import difflib
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple, NewType, TypeVar, get_args, get_origin

import msgspec

from taskd.server.addresses import Address, parse_address
from taskd_protocol.errors import ConfigInvalid

S = TypeVar("S", bound=msgspec.Struct)

Milliseconds = NewType("Milliseconds", int)
"""Written with its unit: ``500ms``, ``90s``, ``15m``, ``1.5h``, ``7d``, ``2w``."""

ByteCount = NewType("ByteCount", int)
"""Written as a number of bytes or with its unit: ``512KiB``, ``16MiB``, ``4GiB``, ``1TiB``."""

FILE_NAME: Final = "taskd.toml"
_SECTIONS: Final = ("server", "agent")

_MILLISECONDS: Final = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
_BYTES: Final = {"": 1, "b": 1, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40}
_QUANTITY: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?)\s*([A-Za-z]*)")


class _Given(NamedTuple):
    """A value and where it was found."""

    value: object
    source: str
    folder: Path
    """What a relative path in it is relative to."""


def load_settings(
    kind: type[S],
    section: str,
    *,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: Path | None = None,
    defaults: Mapping[str, object] | None = None,
) -> S:
    """Read every field of a Struct from the first source that has it.

    Args:
        kind: The Struct; a field without a default must be found.
        section: Of the file.
        flags: By field; None and the empty tuple mean that it was not given.
        environ: The process's environment.
        file: What ``--config`` names; None: ``TASKD_CONFIG``, else ``taskd.toml`` in the working directory if there
            is one.
        defaults: Below all sources, for what a Struct cannot know.

    Raises:
        ConfigInvalid: Something is wrong; the message names every mistake.
    """
    from_file, mistakes = _read_file(file, environ, section, [_key(field) for field in msgspec.structs.fields(kind)])
    values: dict[str, object] = {}
    for field in msgspec.structs.fields(kind):
        given = _find(field, flags, environ, from_file, defaults or {})
        if given is None:
            if field.required:
                mistakes.append(f"{_flag(field)} is missing")
            continue
        try:
            values[field.name] = _read(given, field.type)
        except ConfigInvalid as error:
            mistakes.append(error.message)
    if mistakes:
        raise ConfigInvalid("; ".join(mistakes))
    return kind(**values)


def _find(
    field: msgspec.structs.FieldInfo,
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    from_file: Mapping[str, _Given],
    defaults: Mapping[str, object],
) -> _Given | None:
    key, here = _key(field), Path()
    value = flags.get(key)
    if value is not None and value != ():
        return _Given(value, _flag(field), here)
    variable = f"TASKD_{key.upper()}"
    if variable in environ and get_origin(field.type) is not dict:  # TASKD_RESOURCES tells a command what it holds
        text = environ[variable]
        several = get_origin(field.type) is tuple
        return _Given([part for part in text.split(",") if part] if several else text, variable, here)
    if key in from_file:
        return from_file[key]
    if key in defaults:
        return _Given(defaults[key], _flag(field), here)
    return None


def _read_file(
    file: Path | None, environ: Mapping[str, str], section: str, keys: Iterable[str]
) -> tuple[dict[str, _Given], list[str]]:
    """Return what the file says in our section, and what is wrong with it as a whole."""
    asked = file or (Path(environ["TASKD_CONFIG"]) if environ.get("TASKD_CONFIG") else None)
    path = asked or Path(FILE_NAME)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, [] if asked is None else [f"--config {path}: no such file"]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        return {}, [f"{path}: {getattr(error, 'strerror', None) or error}"]
    known = sorted(keys)
    mistakes = [
        f"{path}: [{name}] is no section{_perhaps(name, _SECTIONS)}" for name in document if name not in _SECTIONS
    ]
    table = document.get(section, {})
    if not isinstance(table, dict):
        return {}, [*mistakes, f"{path}: {section} is no section; write [{section}] above its settings"]
    mistakes += [f"{path}: [{section}] has no {key!r}{_perhaps(key, known)}" for key in table if key not in known]
    return {key: _Given(value, f"{path}: [{section}] {key}", path.parent) for key, value in table.items()}, mistakes


def _read(given: _Given, wanted: object) -> object:
    """Turn what was given into what the field wants.

    Raises:
        ConfigInvalid: It is something else, or out of range; the source is named.
    """
    if get_origin(wanted) is Annotated:
        base, *metas = get_args(wanted)
        value = _read(given, base)
        for meta in metas:
            _check_range(given, value, meta)
        return value
    if get_origin(wanted) is Literal:
        if given.value not in get_args(wanted):
            raise ConfigInvalid(f"{given.source} {given.value!r} is none of {', '.join(get_args(wanted))}")
        return given.value
    reader = _READERS.get(wanted)
    if reader is not None:
        return reader(given)
    try:
        return msgspec.convert(given.value, wanted, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigInvalid(f"{given.source} {given.value!r}: {str(error).lower()}") from None


def _check_range(given: _Given, value: object, meta: object) -> None:
    if isinstance(meta, msgspec.Meta) and isinstance(value, int | float):
        low, high = meta.ge, meta.le
        if (low is not None and not value >= low) or (high is not None and not value <= high):  # nan is neither
            raise ConfigInvalid(f"{given.source} {given.value!r} is out of range; {meta.description}")


def _read_path(given: _Given) -> Path:
    if not isinstance(given.value, str | Path) or not str(given.value):
        raise ConfigInvalid(f"{given.source} {given.value!r} is no path")
    try:
        return given.folder / Path(given.value).expanduser()
    except RuntimeError:
        raise ConfigInvalid(
            f"{given.source} {str(given.value)!r}: nobody knows that home; write the whole path"
        ) from None


def _read_address(given: _Given) -> Address:
    return parse_address(str(given.value), given.source)


def _read_milliseconds(given: _Given) -> int:
    return _quantity(given, _MILLISECONDS, "no duration; write it as 500ms, 90s, 15m, 1.5h or 7d")


def _read_bytes(given: _Given) -> int:
    return _quantity(given, _BYTES, "no size; write it as 65536, 512KiB, 16MiB or 4GiB")


def _quantity(given: _Given, units: Mapping[str, int], complaint: str) -> int:
    found = _QUANTITY.fullmatch(str(given.value).strip())
    unit = units.get(str(found[2]).lower()) if found is not None else None
    if found is None or unit is None:
        raise ConfigInvalid(f"{given.source} {given.value!r} is {complaint}")
    return round(float(found[1]) * unit)


_READERS: Final[dict[object, Callable[[_Given], object]]] = {
    Path: _read_path,
    Address: _read_address,
    Milliseconds: _read_milliseconds,
    ByteCount: _read_bytes,
}


def _key(field: msgspec.structs.FieldInfo) -> str:
    return field.encode_name


def _flag(field: msgspec.structs.FieldInfo) -> str:
    key = _key(field).replace("_", "-")
    return f"--{key.removesuffix('s') if get_origin(field.type) is tuple else key}"


def _perhaps(word: str, known: Iterable[str]) -> str:
    """Offer the word that was probably meant."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(known)}"
