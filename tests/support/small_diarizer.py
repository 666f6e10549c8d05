"""A small pipeline directory of pyannote.audio, built where a test wants it: real classes, real file formats.

Committed in tests/models/diarizer are its config.yaml, a PLDA and the voice encoder's only trained part. The rest is
made: the segmentation network is copied out of the whisperx package (17.7 MB), and the voice encoder (11.3 MB) is
pyannote's `XVectorMFCC` with weights that are written, not trained. Its five convolutions pass the normalised MFCC
through unchanged (a bias of `OFFSET` keeps LeakyReLU linear, and the normalisation after it takes it away again), its
pooling gives their mean and deviation, and its last layer is a linear discriminant analysis fitted on 53 synthesized
voices (tests/models/README.md). It tells synthesized voices apart, and hardly any natural ones.
"""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from deployments.speech_detector.network import package_file

if TYPE_CHECKING:
    from torch import Tensor

COMMITTED = Path(__file__).parents[1] / "models" / "diarizer"
MFCC = 40
OFFSET = 60.0
LEVEL_SHARE = 0.3
"""Weight of the first coefficient's deviation, which is loudness; its mean has none."""


def build_pipeline(directory: Path, *, narrow: bool = False) -> Path:
    """The whole pipeline in `directory`, which must not exist; for the kinds of voice encoder see `voice_encoder`."""
    shutil.copytree(COMMITTED, directory, ignore=shutil.ignore_patterns("embedding_lda.npz"))
    for part in ("segmentation", "embedding"):
        (directory / part).mkdir()
    shutil.copyfile(
        package_file("whisperx", "assets/pytorch_model.bin"), directory / "segmentation" / "pytorch_model.bin"
    )
    save_checkpoint(voice_encoder(narrow=narrow), directory / "embedding" / "pytorch_model.bin")
    return directory


def voice_encoder(*, narrow: bool) -> Any:
    """The voice encoder. A narrow one gives the same vectors in less time, to who finds its class in `tests`."""
    import deployments.diarizer.piecewise  # noqa: F401, I001 - imports pyannote without telemetry and warnings
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.embedding.xvector import XVectorMFCC

    from tests.support.narrow_encoder import NarrowXVector

    with np.load(COMMITTED / "embedding_lda.npz") as fitted:
        analysis = {name: torch.from_numpy(fitted[name]).float() for name in ("mu", "sd", "W", "b")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchaudio thinks that there are too many mel bands
        model = (NarrowXVector if narrow else XVectorMFCC)(dimension=analysis["W"].shape[1])
    model.specifications = Specifications(problem=Problem.REPRESENTATION, resolution=Resolution.CHUNK, duration=5.0)
    model.load_state_dict(written(model.state_dict(), analysis))
    return model


SMALL_LAYERS = {"lstm": {"hidden_size": 32, "num_layers": 1}, "linear": {"hidden_size": 32, "num_layers": 1}}


def save_powerset_network(path: Path, audio: Tensor, **layers: Any) -> None:
    """A segmentation network of community-1's kind: 10 s windows, powerset of three speakers, two at once at most.

    Its weights are random. On `audio`, shape (1, 1, samples), all of its classes come up.
    """
    import torch
    from pyannote.audio.core.task import Problem, Resolution, Specifications
    from pyannote.audio.models.segmentation import PyanNet

    torch.manual_seed(0)
    model = PyanNet(**SMALL_LAYERS | layers)
    model.specifications = Specifications(
        problem=Problem.MONO_LABEL_CLASSIFICATION,
        resolution=Resolution.FRAME,
        duration=10.0,
        classes=["a", "b", "c"],
        powerset_max_classes=2,
        permutation_invariant=True,
    )
    model.build()
    model.activation = torch.nn.Identity()
    with torch.inference_mode():
        logits = model.eval()(audio)[0]
    with torch.no_grad():
        model.classifier.bias -= logits.mean(dim=0)
    save_checkpoint(model, path)


def save_checkpoint(model: Any, path: Path) -> None:
    """`model` in the form that `Model.from_pretrained` reads."""
    import lightning
    import pyannote.audio
    import torch

    torch.save(
        {
            "state_dict": model.state_dict(),
            "hyper_parameters": dict(model.hparams),
            "pytorch-lightning_version": lightning.__version__,
            "pyannote.audio": {
                "versions": {"torch": torch.__version__, "pyannote.audio": pyannote.audio.__version__},
                "architecture": {"module": type(model).__module__, "class": type(model).__name__},
                "specifications": model.specifications,
            },
        },
        path,
    )


def written(weights: dict[str, Any], analysis: dict[str, Tensor]) -> dict[str, Any]:
    """`weights` of an `XVectorMFCC` so that it computes `analysis` (`mu`, `sd`: (40,); `W`: (80, n); `b`: (n,))."""
    import torch

    for name, weight in weights.items():
        if name.startswith("tdnns"):
            weight.fill_(1 - 1e-5 if name.endswith("running_var") else 0)
    same = torch.arange(MFCC)
    for layer in range(0, 15, 3):
        kernel = weights[f"tdnns.{layer}.weight"]
        kernel[same, same, kernel.shape[2] // 2] = 1 / analysis["sd"] if layer == 0 else 1.0
        shift = -analysis["mu"] / analysis["sd"] if layer == 0 else 0.0
        weights[f"tdnns.{layer}.bias"][:MFCC] = OFFSET + shift
        weights[f"tdnns.{layer + 2}.weight"][:] = 1.0
        weights[f"tdnns.{layer + 2}.running_mean"][:MFCC] = OFFSET
    last = torch.zeros_like(weights["embedding.weight"])
    means, deviations = last.chunk(2, dim=1)
    means[:, :MFCC] = analysis["W"][:MFCC].T
    deviations[:, :MFCC] = analysis["W"][MFCC:].T
    means[:, 0] = 0.0
    deviations[:, 0] *= LEVEL_SHARE
    return weights | {"embedding.weight": last, "embedding.bias": analysis["b"]}
