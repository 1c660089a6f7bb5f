"""Specs by their fields, whether these stand in the spec itself or among its rules."""

from msgspec import structs

from taskd_protocol.task import Rules, TaskSpec


def changed(spec: TaskSpec, **fields: object) -> TaskSpec:
    """Return the spec with these fields; it has rules only if one of them is not at its default."""
    rules = {name: fields.pop(name) for name in Rules.__struct_fields__ if name in fields}
    given = structs.replace(spec.rules, **rules)
    return structs.replace(spec, given=None if given == Rules() else given, **fields)
