"""All settings: one class, a docstring per field, an environment name for each.

Precedence: command line, environment, config file, default. The command line speaks through the environment too.
Names: `ML_SERVER_` + the field, nested ones with `__`: `ML_SERVER_LIMITS__RUNNING_JOBS=4`.
"""

import hashlib
import json
import os
from functools import cached_property
from importlib.metadata import version
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from deployments.aligner import config as aligner_config
from deployments.aligner.config import AlignerConfig
from deployments.diarizer import config as diarizer_config
from deployments.diarizer.config import DiarizerConfig
from deployments.emotion import config as emotion_config
from deployments.emotion.config import EmotionConfig
from deployments.extraction.config import ExtractorConfig
from deployments.models.config import ModelsConfig
from deployments.models.names import Wanted, wanted_by
from deployments.net.policy import CallbackPolicy, VideoPolicy
from deployments.prosody.config import ProsodyConfig
from deployments.speech_detector.config import SpeechDetectorConfig
from deployments.transcriber import config as transcriber_config
from deployments.transcriber.config import TranscriberConfig

CALLBACK_PATHS = {"1.1": "/api/upload-video/result", "1.0": "/api/v1/ml/ml-results"}
DEFAULT_STATE_DIR = Path("~/.local/state/ml-server")
NO_ENGINE_FOR_ALL = (
    "the setting `engine` (ML_SERVER_ENGINE) is gone: remove it; each stage names its own, as the transcriber's"
    " {engine: whisperx, model: base} in configs/local.yaml"
)


class Limits(BaseModel):
    """How much at once, how large, how long. The contract's numbers are the defaults."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    running_jobs: int = Field(default=10, ge=1)
    """Jobs that are worked on at once."""
    queued_jobs: int = Field(default=100, ge=0)
    """Jobs that wait beyond these; more get 503."""
    processing_s: float = Field(default=1800, gt=0)
    """Processing time of one run, its attempts added up; waiting in the queue does not count."""
    request_bytes: int = 65_536
    """Body of a request."""
    callback_bytes: int = 50_000_000
    """Body of a callback; over it the result is shortened."""
    attempts: int = Field(default=3, ge=1)
    """Tries of one run after crashes of the worker."""
    prefetches: int = Field(default=2, ge=0)
    """Waiting jobs whose video is fetched at the same time."""
    prefetch_bytes: int = 5_000_000_000
    """Prefetching pauses while less disk than this is free."""


class Auth(BaseModel):
    """Who may ask."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["none", "keys"] = "none"
    """`keys`: every route but /health and /console wants `Authorization: Bearer <key>` (`ml-server keys`)."""
    key_hashes: tuple[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    """SHA-256 of keys that are valid beside those in the database, hex."""
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """The clients' networks: who asks from elsewhere is refused, key or not, but for /health. Empty: from anywhere."""
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Proxies in front of the server: what they say in `X-Forwarded-For` is believed, and nobody else."""

    @field_validator("networks", "proxies")
    @classmethod
    def _not_everybody(cls, networks: tuple[IPv4Network | IPv6Network, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
        if everybody := [str(network) for network in networks if network.prefixlen == 0]:
            raise ValueError(f"{', '.join(everybody)} is everybody: name those that you mean")
        return networks


class Tracing(BaseModel):
    """Whether jobs leave traces, by OpenTelemetry."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str | None = None
    """Where they go by OTLP/HTTP, such as `http://127.0.0.1:4318`. None: nowhere, there are none. What a collector
    wants to be told of who sends is `OTEL_EXPORTER_OTLP_HEADERS` in the environment."""
    sampling_ratio: float = Field(default=1.0, ge=0, le=1)
    """The share of jobs that are traced. Where a POST has a `traceparent`, its flag decides."""

    @field_validator("endpoint")
    @classmethod
    def _is_a_url(cls, endpoint: str | None) -> str | None:
        parts = urlsplit(endpoint or "http://none")
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.query:
            raise ValueError("tracing.endpoint is a URL without credentials or query, such as http://127.0.0.1:4318")
        return endpoint

    @property
    def url(self) -> str:
        """The endpoint with the protocol's path, unless it has one of its own."""
        endpoint = (self.endpoint or "").rstrip("/")
        return endpoint if urlsplit(endpoint).path else f"{endpoint}/v1/traces"


class CpuPool(BaseModel):
    """The stages that load models, a second time and on CPUs: for jobs that ask for no GPU."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transcriber: TranscriberConfig
    aligner: AlignerConfig
    diarizer: DiarizerConfig
    emotion: EmotionConfig

    @model_validator(mode="after")
    def _on_cpus(self) -> "CpuPool":
        if elsewhere := [name for name, stage in self if stage.device != "cpu"]:
            raise ValueError(f"cpu_pool: the device of {', '.join(elsewhere)} has to be cpu")
        return self


class Settings(BaseSettings):
    """The server's settings; also the `args` of the application in the config files."""

    model_config = SettingsConfigDict(
        env_prefix="ML_SERVER_",
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    profile: Literal["local", "production"] = "production"
    """`production` refuses to start with settings that only a laptop may have."""
    release: str = ""
    """Changes with the code: a new value restarts every replica on `serve deploy`."""
    contract_version: Literal["1.1", "1.0"] = "1.1"
    """Chooses the words of the answer to a POST and the path of the callbacks."""
    locale: Literal["ko", "en"] = "ko"
    """Language of progress and error messages."""
    state_dir: Path = DEFAULT_STATE_DIR
    """Database, scratch and logs lie here."""
    database_url: SecretStr | None = None
    """SQLAlchemy URL; default: SQLite in `state_dir`."""
    backend_url: str | None = Field(
        default=None, validation_alias=AliasChoices("ML_SERVER_BACKEND_URL", "FASTAPI_BASE_URL", "BACKEND_URL")
    )
    """Base of the callback URL where a request names none; on the whitelist by itself."""
    webhook_secrets: tuple[SecretStr, ...] = ()
    """Standard Webhooks secrets (`whsec_…`); callbacks are signed with each."""
    auth: Auth = Auth()
    rate_limit: str | None = None
    """Per client, in the notation of the `limits` library, such as `600/minute`."""
    rate_limit_store: SecretStr | None = None
    """Redis URL where all ingress replicas count together; default: each for itself. Wants the extra `redis`."""
    docs: bool = False
    """Whether there is a page at /docs, which needs no internet, and a document at /openapi.json."""
    console: bool = True
    """Whether there is a page for operators at /console, where / leads; it shows what its reader's key may ask for."""
    metrics_port: int = Field(default=9464, ge=0, le=65_535)
    """Where `ml-server up` lets Prometheus look, on 127.0.0.1; 0, or one that is taken: any. See docs/metrics.md."""
    heartbeat_s: float = Field(default=25, gt=0, le=30)
    """A job's backend hears of it at least this often; the contract promises 30."""
    retention_days: float = Field(default=7, ge=0)
    """Ended jobs are kept this long, and longer while their end could not be told."""
    limits: Limits = Limits()
    tracing: Tracing = Tracing()
    callbacks: CallbackPolicy = CallbackPolicy()
    """Where callbacks may go."""
    models: ModelsConfig = ModelsConfig()
    """Where the models of the stages lie."""

    extractor: ExtractorConfig = ExtractorConfig()
    speech_detector: SpeechDetectorConfig = SpeechDetectorConfig()
    transcriber: TranscriberConfig = TranscriberConfig()
    aligner: AlignerConfig = AlignerConfig()
    diarizer: DiarizerConfig = DiarizerConfig()
    prosody: ProsodyConfig = ProsodyConfig()
    emotion: EmotionConfig = EmotionConfig()
    cpu_pool: CpuPool | None = None
    """Where jobs with `enable_gpu: false` go, as deployments of their own (`TranscriberCpu`, …) that may scale to zero.
    None: every job goes to the stages above."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the base class's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over what a config file passes in."""
        return env_settings, init_settings

    @model_validator(mode="before")
    @classmethod
    def _names_no_engine_for_all(cls, fields: Any) -> Any:
        if "engine" in fields or "ML_SERVER_ENGINE" in map(str.upper, os.environ):
            raise ValueError(NO_ENGINE_FOR_ALL)
        return fields

    @model_validator(mode="after")
    def _backend_is_allowed(self) -> "Settings":
        try:
            _ = self.callback_policy
        except ValueError as refused:
            raise ValueError(
                "backend_url is no origin that callbacks may go to, such as http://ecg-backend:8000"
            ) from refused
        return self

    @model_validator(mode="after")
    def _rates_can_be_counted(self) -> "Settings":
        if self.rate_limit:
            from limits import parse

            try:
                parse(self.rate_limit)
            except ValueError as wrong:
                raise ValueError("rate_limit is none; write it like 600/minute") from wrong
        if self.rate_storage is not None:
            if urlsplit(self.rate_storage).scheme not in {"redis", "rediss"}:
                raise ValueError("rate_limit_store is no Redis URL, such as redis://host:6379/0")
            if find_spec("redis") is None:
                raise ValueError("rate_limit_store wants Redis's client: pip install 'ecg-ml-server[redis]'")
        return self

    @model_validator(mode="after")
    def _safe_in_production(self) -> "Settings":
        if self.profile == "production":
            if self.backend_url is None:
                raise ValueError(
                    "no callback base: set backend_url in the config, or FASTAPI_BASE_URL (or BACKEND_URL) in the"
                    " environment, to the ECG Backend's address"
                )
            if "http" in self.videos.schemes:
                raise ValueError("extractor.net.schemes allows http: production takes videos by https only")
            if self.videos.networks and not self.videos.names_hosts:
                raise ValueError(
                    "extractor.net.networks opens private networks to every name that somebody lets lead there: name"
                    " the hosts in extractor.net.hosts"
                )
            if loose := [origin for origin in self.callbacks.origins if origin.rstrip("/").endswith(":*")]:
                raise ValueError(
                    f"callbacks.origins has {', '.join(loose)}: production calls back to exact origins only"
                )
            if self.models.allow_unpinned:
                raise ValueError("models.allow_unpinned: production loads models only as the model lock pins them")
        return self

    @cached_property
    def directory(self) -> Path:
        """`state_dir`, absolute."""
        return self.state_dir.expanduser().absolute()

    @property
    def database(self) -> str:
        """The database's URL."""
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.directory / 'ml-server.db'}"

    @property
    def rate_storage(self) -> str | None:
        """Where rates are counted together."""
        return None if self.rate_limit_store is None else self.rate_limit_store.get_secret_value()

    @property
    def videos(self) -> VideoPolicy:
        """Where videos may come from."""
        return self.extractor.net

    @property
    def extraction(self) -> ExtractorConfig:
        """The extractor's settings, with a place in the state directory where the config names none."""
        places = {"scratch_url": str(self.directory / "scratch"), "temp_dir": self.directory / "tmp"}
        unset = {name: place for name, place in places.items() if name not in self.extractor.model_fields_set}
        return self.extractor.model_copy(update=unset)

    @property
    def model_store(self) -> ModelsConfig:
        """The store's settings, with its memory in the state directory where the config names no place."""
        unset = {} if "memory_dir" in self.models.model_fields_set else {"memory_dir": self.directory}
        return self.models.model_copy(update=unset)

    @property
    def fetches_models(self) -> bool:
        """Whether `ml-server up` and `demo` fetch what is missing. Production never does."""
        return self.profile == "local" and not self.models.offline

    @property
    def wanted_models(self) -> tuple[Wanted, ...]:
        """The models that the stages' engines load, those of the CPU pool among them."""
        return tuple(dict.fromkeys((*_wanted(self), *self.pool_models)))

    @property
    def pool_models(self) -> tuple[Wanted, ...]:
        """The models that the CPU pool's engines load; none where there is no pool."""
        return () if self.cpu_pool is None else _wanted(self.cpu_pool)

    def on(self, *, enable_gpu: bool) -> "Settings":
        """What a job works by: the CPU pool's stages in their places, where it asks for no GPU and there is a pool."""
        if enable_gpu or self.cpu_pool is None:
            return self
        return self.model_copy(update=dict(self.cpu_pool))

    @property
    def model_version(self) -> str:
        """What the result says of the engines that made it."""
        return "+".join(
            (
                transcriber_config.model_version(self.transcriber),
                aligner_config.model_version(self.aligner),
                diarizer_config.model_version(self.diarizer),
                emotion_config.model_version(self.emotion),
            )
        )

    @property
    def device(self) -> str:
        """Where the recogniser is meant to compute."""
        return self.transcriber.device

    @property
    def identity(self) -> str:
        """Changes with the code's version and with every setting."""
        content = json.dumps(self.model_dump(), default=_in_order, sort_keys=True)
        return hashlib.sha256(f"{version('ecg-ml-server')} {content}".encode()).hexdigest()[:16]

    @property
    def callback_path(self) -> str:
        """The contract version's own."""
        return CALLBACK_PATHS[self.contract_version]

    @property
    def callback_policy(self) -> CallbackPolicy:
        """The whitelist, the configured default included."""
        if self.backend_url is None:
            return self.callbacks
        parts = urlsplit(self.backend_url)
        origins = (*self.callbacks.origins, f"{parts.scheme}://{parts.netloc}".lower())
        return CallbackPolicy(**{**dict(self.callbacks), "origins": origins})

    def prepare(self) -> None:
        """Make the state directory, for nobody else to read."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _wanted(stages: Settings | CpuPool) -> tuple[Wanted, ...]:
    return wanted_by(
        {"asr": stages.transcriber, "aligner": stages.aligner, "diarizer": stages.diarizer, "emotion": stages.emotion}
    )


def _in_order(value: object) -> object:
    """Sets in an order that is the same in every process, whatever its hash seed; secrets as they are, to be hashed."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return sorted(value) if isinstance(value, frozenset) else str(value)
