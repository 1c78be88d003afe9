"""What a step asks for, and what follows from it for engines."""

import pytest

from refeed.core.errors import StudyError
from refeed.studies import resources
from refeed.studies.resources import Resources, refuse_without_devices


def test_a_fit_is_spread_over_its_gpus_or_over_processes():
    assert Resources().granted.count == Resources(gpus=0.5).granted.count == Resources(cpus=4).granted.count == 1
    for asked in (Resources(gpus=4), Resources(devices=4), Resources(gpus=4, devices=4)):
        assert (asked.granted.count, asked.processors, asked.granted.threads) == (4, 4, 1)
    assert Resources(devices=2, cpus=5).granted.threads == 2
    assert Resources(devices=2, cpus=5).processors == 5
    assert Resources(gpus=2, sharded=True).granted.sharded is True
    assert Resources(gpus=2).described == "2 processors and 2 GPUs"


def test_contradictions_are_refused():
    with pytest.raises(StudyError, match=r"devices = 3 and gpus = 2 contradict each other\.\n.*say gpus alone"):
        Resources(devices=3, gpus=2)
    with pytest.raises(StudyError, match="at least one device, not devices = 0"):
        Resources(devices=0)
    with pytest.raises(StudyError, match="sharded needs several devices"):
        Resources(sharded=True)


@pytest.mark.parametrize("gpus", [-1, 1.5, float("nan"), float("inf")])
def test_gpus_are_whole_or_a_share_of_one(gpus):
    with pytest.raises(StudyError, match="a whole number of GPUs or a share of one, not for gpus ="):
        Resources(gpus=gpus)


def test_devices_are_gpus_where_there_are_any(monkeypatch):
    asked = {"fit": Resources(devices=2)}
    for number in (0, 2):
        monkeypatch.setattr(resources, "visible_gpus", lambda number=number: number)
        refuse_without_devices(asked)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(resources, "visible_gpus", lambda: 0)
    with pytest.raises(StudyError, match=r"3 devices, but this machine has 2 processors\.\n.*resources\.fit\.devices=2"):
        refuse_without_devices({"fit": Resources(devices=3)})
    monkeypatch.setattr(resources, "visible_gpus", lambda: 1)
    with pytest.raises(StudyError, match=r"asks for 2 devices, but this machine has 1 GPU\.\n.*resources\.fit\.devices=1"):
        refuse_without_devices(asked)
    with pytest.raises(StudyError, match=r"asks for 2 GPUs, but this machine has 1\."):
        refuse_without_devices({"fit": Resources(gpus=2)})
