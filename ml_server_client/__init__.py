"""The backend's side of the ML Server's contract: submit videos, and receive the callbacks.

Needs httpx and pydantic; `ml_server_client.router` needs FastAPI, too. Knows nothing of the server's own packages.
"""

from ml_server_client.client import MLServer
from ml_server_client.errors import (
    BadCallbackError,
    BusyError,
    CallbackError,
    CallbackTooLargeError,
    ConnectionFailedError,
    ForgedCallbackError,
    JobFailedError,
    MLServerError,
    NoAnswerError,
    RefusedError,
)
from ml_server_client.memory import CallbackMemory, InMemory, Outcome
from ml_server_client.messages import failure_message
from ml_server_client.models import (
    Accepted,
    Callback,
    Emotion,
    JobStatus,
    Metadata,
    Quality,
    Result,
    ResultWarning,
    Segment,
    Speaker,
    Word,
)
from ml_server_client.receiver import Receiver

__all__ = [
    "Accepted",
    "BadCallbackError",
    "BusyError",
    "Callback",
    "CallbackError",
    "CallbackMemory",
    "CallbackTooLargeError",
    "ConnectionFailedError",
    "Emotion",
    "ForgedCallbackError",
    "InMemory",
    "JobFailedError",
    "JobStatus",
    "MLServer",
    "MLServerError",
    "Metadata",
    "NoAnswerError",
    "Outcome",
    "Quality",
    "Receiver",
    "RefusedError",
    "Result",
    "ResultWarning",
    "Segment",
    "Speaker",
    "Word",
    "failure_message",
]
