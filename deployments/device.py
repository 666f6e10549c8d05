"""A torch device by the name that a setting gives it: whether it is there, whether it still computes, its spare memory.

Knows nothing of models, Ray or jobs. torch is imported when it is asked for, so that importing this costs nothing.
"""

from __future__ import annotations

from deployments.batch_backoff import is_out_of_memory
from deployments.errors import DeviceError, ModelLoadError


def require_device(setting: str, device: str) -> None:
    """Make sure, before anything is loaded, that torch can compute on `device`, which `setting` names.

    Raises:
        ModelLoadError: It cannot. The sentence names the setting; torch's own traceback tells the operator nothing.
    """
    try:
        _compute(device)
    except Exception as error:  # noqa: BLE001  torch raises five classes, from AssertionError to NotImplementedError
        reason = str(error).split(". ")[0].split("\n")[0]
        raise ModelLoadError(f"{setting} is {device}, but torch cannot compute there: {reason}") from None


def check_device(device: str) -> None:
    """For a health check: a dead CUDA context stays dead. Waits for what the device is computing.

    Raises:
        DeviceError: It computes no longer. A lack of memory is no death: others may share the device.
    """
    try:
        _compute(device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise DeviceError from error


def release_memory(device: str) -> None:
    """Give memory that torch keeps for later back to the device, for others who share it."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def _compute(device: str) -> None:
    import torch

    torch.ones(1, device=device).sum().item()
