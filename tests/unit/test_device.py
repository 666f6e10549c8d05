from __future__ import annotations

import pytest
import torch

from deployments.device import check_device, release_memory, require_device
from deployments.errors import DeviceError, ModelLoadError


@pytest.mark.parametrize("device", ["cuda:77", "mps", "nonsense", ""])
def test_a_device_that_is_not_there_is_one_sentence(device: str) -> None:
    """Whatever torch says of it, in whatever class: setting, value and reason in one line, and no traceback below."""
    with pytest.raises(
        ModelLoadError, match=f"^stage.device is {device}, but torch cannot compute there: .+$"
    ) as failure:
        require_device("stage.device", device)
    assert "\n" not in str(failure.value)
    assert failure.value.__cause__ is None
    assert failure.value.__suppress_context__


def test_a_device_that_is_there_passes() -> None:
    """A CPU is everywhere, and keeps no memory back."""
    require_device("stage.device", "cpu")
    check_device("cpu")
    release_memory("cpu")


@pytest.mark.parametrize(
    ("text", "dead"),
    [("CUDA error: an illegal memory access was encountered", True), ("CUDA error: out of memory", False)],
)
def test_a_dead_device_fails_the_check(monkeypatch: pytest.MonkeyPatch, text: str, *, dead: bool) -> None:
    """A context that answers nothing is found without any work; a device that is full for a moment is not dead."""

    def fails(*_: object, **__: object) -> None:
        raise RuntimeError(text)

    monkeypatch.setattr(torch, "ones", fails)
    if dead:
        with pytest.raises(DeviceError):
            check_device("cuda")
    else:
        check_device("cuda")
