"""Checks of torch devices by name. Knows nothing of models, Ray or jobs.

Imports torch only inside functions, so that importing this module is cheap.
"""

from __future__ import annotations

from deployments.batch_backoff import is_out_of_memory
from deployments.errors import DeviceError, ModelLoadError


def require_device(setting: str, device: str) -> None:
    """Check, before a model is loaded, that torch can compute on `device`. `setting`: the name of its config key.

    Raises ModelLoadError, which names the setting, where it cannot.
    """
    try:
        _compute(device)
    except Exception as error:  # noqa: BLE001  torch raises five classes, from AssertionError to NotImplementedError
        reason = str(error).split(". ")[0].split("\n")[0]
        raise ModelLoadError(f"{setting} is {device}, but torch cannot compute there: {reason}") from None


def check_device(device: str) -> None:
    """Check that `device` still computes: a dead CUDA context stays dead. Waits for computations that are in progress.

    Raises DeviceError where it does not. A lack of memory does not count: others may share the device.
    """
    try:
        _compute(device)
    except Exception as error:
        if not is_out_of_memory(error):
            raise DeviceError from error


def release_memory(device: str) -> None:
    """Return the memory that torch has cached to the device, for other processes that share it."""
    if device.startswith("cuda"):
        import torch

        torch.cuda.empty_cache()


def _compute(device: str) -> None:
    import torch

    torch.ones(1, device=device).sum().item()
