"""The GPUs of this machine, as NVIDIA's management library tells them: the extra ``gpu`` installs its Python face.

Without it, without a driver, or where the driver does not answer, there are none.
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple, Protocol, cast

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
ORDER: Final = "CUDA_DEVICE_ORDER"
BY_BUS: Final = "PCI_BUS_ID"
"""Of ``CUDA_DEVICE_ORDER``: devices have the numbers by which the management library counts them."""


class Gpu(NamedTuple):
    """One device."""

    number: int
    """As ``nvidia-smi`` counts."""
    uuid: str
    kind: str
    """Its model in small letters and dashes, without the maker: ``h200``, ``a100-sxm4-80gb``."""


class _Nvml(Protocol):
    """What is used of ``pynvml``."""

    NVMLError: type[Exception]

    def nvmlInit(self) -> None: ...  # noqa: N802 - their names
    def nvmlShutdown(self) -> None: ...  # noqa: N802
    def nvmlDeviceGetCount(self) -> int: ...  # noqa: N802
    def nvmlDeviceGetHandleByIndex(self, index: int) -> object: ...  # noqa: N802
    def nvmlDeviceGetName(self, handle: object) -> str | bytes: ...  # noqa: N802
    def nvmlDeviceGetUUID(self, handle: object) -> str | bytes: ...  # noqa: N802


def find_gpus(environ: Mapping[str, str]) -> list[Gpu]:
    """Return the devices that a process with that environment may use."""
    try:
        nvml = cast("_Nvml", importlib.import_module("pynvml"))
    except ImportError:
        return []
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # no driver, or none that answers
        return []
    try:
        gpus = [_gpu(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
    except nvml.NVMLError:
        return []
    finally:
        nvml.nvmlShutdown()
    return gpus if environ.get(VISIBLE) is None else _visible(gpus, environ[VISIBLE])


def visible_to(items: Sequence[str]) -> dict[str, str]:
    """Return what is to stand in the environment of a process that may use these devices, and no others."""
    return {VISIBLE: ",".join(items), ORDER: BY_BUS}


def _gpu(nvml: _Nvml, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    return Gpu(index, _text(nvml.nvmlDeviceGetUUID(handle)), slug(_text(nvml.nvmlDeviceGetName(handle))))


def _visible(gpus: Sequence[Gpu], chosen: str) -> list[Gpu]:
    """Return those that are chosen, by number or by the beginning of their id; as CUDA does, up to one that is none."""
    found: list[Gpu] = []
    for word in [word.strip() for word in chosen.split(",")]:
        by_id = word.startswith("GPU-")
        able = [gpu for gpu in gpus if (gpu.uuid.startswith(word) if by_id else word == str(gpu.number))]
        if len(able) != 1 or able[0] in found:
            break
        found += able
    return found


def slug(name: str) -> str:
    """Return a model's name as a kind."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-").removeprefix("nvidia-")


def _text(value: str | bytes) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else value
