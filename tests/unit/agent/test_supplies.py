"""What an agent offers: found, said, or both; and what its GPUs are called."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from taskd.agent.gpus import Gpu, find_gpus, visible_to
from taskd.agent.supplies import Machine, Pool, find_machine, supplies, usable_cpus
from taskd_protocol.errors import ConfigInvalid
from taskd_protocol.resources import Supply, check_supplies

MACHINE = Machine(cpus=8_000, memory_bytes=1 << 34, gpus=[Gpu(0, "GPU-a", "h200"), Gpu(1, "GPU-b", "h200")])


def test_what_is_found_is_offered() -> None:
    offered = supplies(MACHINE, {})
    assert offered == [
        Supply("cpu", 8_000),
        Supply("memory", 1 << 34),
        Supply("gpu", 2_000, ["0", "1"], ["h200", "h200"]),
    ]
    assert check_supplies(offered) == offered


def test_what_is_said_stands_in_its_place() -> None:
    pools: dict[str, Pool] = {
        "license": "3",
        "half": 0.5,
        "fpga": "[a, b]",
        "disk": ["x:ssd", "y:hdd"],
        "gpu": "[7:a100]",
    }
    assert supplies(MACHINE, pools, cpus=1.5, memory_bytes=5 << 20) == [
        Supply("cpu", 1_500),
        Supply("memory", 5 << 20),
        Supply("gpu", 1_000, ["7"], ["a100"]),
        Supply("license", 3_000),
        Supply("half", 500),
        Supply("fpga", 2_000, ["a", "b"]),
        Supply("disk", 2_000, ["x", "y"], ["ssd", "hdd"]),
    ]


@pytest.mark.parametrize(
    ("name", "pool", "told"),
    [
        ("cpu", "3", "--cpus"),
        ("memory", "3", "--memory"),
        ("license", "many", "--resource license of 'many' is no number"),
        ("license", "-1", "out of range"),
        ("license", "[]", "each once"),
        ("license", [], "each once"),
        ("license", "[a,a]", "each once"),
        ("license", "[a:x,b]", "have a kind, or none"),
    ],
)
def test_what_is_no_pool_is_refused(name: str, pool: Pool, told: str) -> None:
    with pytest.raises(ConfigInvalid, match=told):
        supplies(MACHINE, {name: pool})


def test_this_machine_is_found() -> None:
    machine = find_machine()
    assert 0 < machine.cpus == usable_cpus()
    assert machine.memory_bytes > 1 << 26
    assert machine.host
    assert machine.python == f"{sys.version_info.major}.{sys.version_info.minor}"


class NVMLError(Exception):
    pass


class Nvml(ModuleType):
    """``pynvml`` with two devices: the functions that are used of it, as it has them."""

    NVMLError = NVMLError

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.open = 0
        self.driver = True
        self.names: list[str | bytes] = ["NVIDIA H200", b"Tesla V100-SXM2-16GB"]

    def nvmlInit(self) -> None:  # noqa: N802 - their names
        if not self.driver:
            raise NVMLError("driver not loaded")
        self.open += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.open -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self.names)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> object:  # noqa: N802
        return index

    def nvmlDeviceGetName(self, handle: object) -> str | bytes:  # noqa: N802
        assert isinstance(handle, int)
        if not self.names[handle]:
            raise NVMLError("lost")
        return self.names[handle]

    def nvmlDeviceGetUUID(self, handle: object) -> str:  # noqa: N802
        return f"GPU-{handle}aa-bb"


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> Nvml:
    module = Nvml()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    return module


def test_gpus_are_found_and_called_by_their_models(nvml: Nvml) -> None:
    assert find_gpus({}) == [Gpu(0, "GPU-0aa-bb", "h200"), Gpu(1, "GPU-1aa-bb", "tesla-v100-sxm2-16gb")]
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("visible", "numbers"),
    [
        ("", []),
        ("1", [1]),
        ("1,0", [1, 0]),
        ("0,-1,1", [0]),
        ("GPU-1", [1]),
        ("GPU-1aa-bb,0", [1, 0]),
        ("0,0,1", [0]),
        ("9", []),
    ],
)
def test_an_agent_offers_the_gpus_that_it_sees_itself(nvml: Nvml, visible: str, numbers: list[int]) -> None:
    assert [gpu.number for gpu in find_gpus({"CUDA_VISIBLE_DEVICES": visible})] == numbers
    assert nvml.open == 0


def test_without_a_driver_or_its_library_there_are_none(nvml: Nvml, monkeypatch: pytest.MonkeyPatch) -> None:
    nvml.names = ["NVIDIA H200", ""]
    assert find_gpus({}) == [], "one that does not answer: the driver is not well"
    assert nvml.open == 0
    nvml.driver = False
    assert find_gpus({}) == []
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert find_gpus({}) == []


def test_the_library_itself_has_what_is_used_of_it() -> None:
    """The extra ``gpu``; where there is no driver it says so when it is opened."""
    library = importlib.import_module("pynvml")
    used = [name for name in vars(Nvml) if name.startswith("nvml")]
    assert used
    assert all(callable(getattr(library, name)) for name in used)
    assert issubclass(library.NVMLError, Exception)
    assert [gpu.number for gpu in find_gpus({})] == list(range(len(list(Path("/proc/driver/nvidia/gpus").glob("*")))))


def test_what_a_task_sees_of_them_is_counted_as_here() -> None:
    """By bus, as the management library counts; left alone CUDA counts the fastest first."""
    assert visible_to(["1", "0"]) == {"CUDA_VISIBLE_DEVICES": "1,0", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
