"""All settings: one class, a docstring per field, an environment name for each.

Precedence: command line (which sets environment variables, too), environment, config file, default. Names: `ML_SERVER_`
and the field, nested ones with `__`: `ML_SERVER_LIMITS__RUNNING_JOBS=4`; unknown ones are refused (`environment.py`).
Each field holds the value that is used: defaults that follow from other settings are filled in here, in the process
that builds the app, and travel from there to all others. What the server decides itself is no field.
"""

import base64
import hashlib
import json
import os
from importlib.metadata import version
from importlib.util import find_spec
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar
from urllib.parse import urlsplit

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
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
from deployments.net.policy import CallbackPolicy
from deployments.prosody.config import ProsodyConfig
from deployments.speech_detector.config import SpeechDetectorConfig
from deployments.transcriber import config as transcriber_config
from deployments.transcriber.config import TranscriberConfig
from serve_app.environment import PREFIX, unknown_names

CALLBACK_PATHS = {"1.1": "/api/upload-video/result", "1.0": "/api/v1/ml/ml-results"}
DEFAULT_STATE_DIR = Path("~/.local/state/ml-server")
UNKNOWN_NAME = "{} in the environment is no setting of this release, and nothing reads it: did you mean {}?"
SHORTEST_SECRET_BYTES = 16
_Config = TypeVar("_Config", bound=BaseModel)
NO_ENGINE_FOR_ALL = (
    "the setting `engine` (ML_SERVER_ENGINE) is gone: remove it; each stage names its own, as the transcriber's"
    " {engine: whisperx, model: base} in configs/local.yaml"
)


class Limits(BaseModel):
    """Limits of number, size and time. The defaults are those of the contract."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    running_jobs: int = Field(default=10, ge=1)
    """Jobs that are processed at once."""
    queued_jobs: int = Field(default=100, ge=0)
    """Jobs that may wait beside these; a POST beyond them is answered with 503."""
    processing_s: float = Field(default=1800, gt=0)
    """Processing time of one run, the sum of its attempts; waiting in the queue does not count."""
    request_bytes: int = 65_536
    """Largest body of a request."""
    callback_bytes: int = 50_000_000
    """Largest body of a callback; a larger result is shortened."""
    attempts: int = Field(default=3, ge=1)
    """Attempts of one run after crashes of its worker."""
    prefetches: int = Field(default=2, ge=0)
    """Waiting jobs whose videos are fetched at the same time."""
    prefetch_bytes: int = 5_000_000_000
    """Prefetching pauses while less disk than this is free."""


class Auth(BaseModel):
    """Who may use the API."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mode: Literal["none", "keys"] = "none"
    """`keys`: every route but /health and /console requires `Authorization: Bearer <key>` (`ml-server keys`)."""
    key_hashes: tuple[Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")], ...] = ()
    """SHA-256 (hex) of keys that are valid in addition to those in the database."""
    networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """The clients' networks: requests from elsewhere are refused, with a key too, except for /health. Empty: any."""
    proxies: tuple[IPv4Network | IPv6Network, ...] = ()
    """Proxies in front of the server. `X-Forwarded-For` is believed from these only."""
    hosts: tuple[str, ...] = ()
    """Host names of the server: requests for other names are refused, but for addresses and `localhost`. Empty: any
    name, except that without keys this machine's own clients may use no name (DNS rebinding)."""

    @field_validator("networks", "proxies")
    @classmethod
    def _refuse_all(cls, networks: tuple[IPv4Network | IPv6Network, ...]) -> tuple[IPv4Network | IPv6Network, ...]:
        if everybody := [str(network) for network in networks if network.prefixlen == 0]:
            raise ValueError(f"{', '.join(everybody)} is everybody: name those that you mean")
        return networks


class Tracing(BaseModel):
    """OpenTelemetry traces of jobs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    endpoint: str | None = None
    """The collector's URL for OTLP/HTTP, such as `http://127.0.0.1:4318`. None: no traces are made. A collector that
    requires credentials gets them from `OTEL_EXPORTER_OTLP_HEADERS` in the environment."""
    sampling_ratio: float = Field(default=1.0, ge=0, le=1)
    """The share of jobs that are traced. If a POST has a `traceparent`, its flag decides instead."""

    @field_validator("endpoint")
    @classmethod
    def _check_url(cls, endpoint: str | None) -> str | None:
        parts = urlsplit(endpoint or "http://none")
        if parts.scheme not in {"http", "https"} or not parts.hostname or "@" in parts.netloc or parts.query:
            raise ValueError("tracing.endpoint is a URL without credentials or query, such as http://127.0.0.1:4318")
        return endpoint

    @property
    def url(self) -> str:
        """Return the endpoint with OTLP's path, or with its own path if it has one."""
        endpoint = (self.endpoint or "").rstrip("/")
        return endpoint if urlsplit(endpoint).path else f"{endpoint}/v1/traces"


class CpuPool(BaseModel):
    """Settings of a second set of the stages that load models, on CPUs: for jobs with `enable_gpu: false`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    transcriber: TranscriberConfig
    aligner: AlignerConfig
    diarizer: DiarizerConfig
    emotion: EmotionConfig

    @model_validator(mode="after")
    def _check_devices(self) -> Self:
        if elsewhere := [name for name, stage in self if stage.device != "cpu"]:
            raise ValueError(f"cpu_pool: the device of {', '.join(elsewhere)} has to be cpu")
        return self


class Settings(BaseSettings):
    """The server's settings, which are the `args` of the application in the config files."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
        populate_by_name=True,
        hide_input_in_errors=True,
    )

    profile: Literal["local", "production"] = "production"
    """`production` refuses to start with settings that are safe on a laptop only."""
    release: str = ""
    """Any text that names the release of the code: after a change of it `serve deploy` restarts every replica."""
    contract_version: Literal["1.1", "1.0"] = "1.1"
    """Decides the wording of the response to a POST and the path of callbacks."""
    locale: Literal["ko", "en"] = "ko"
    """Language of progress and error messages."""
    state_dir: Path = DEFAULT_STATE_DIR
    """Folder of the database, scratch files and logs; made absolute."""
    database_url: SecretStr = Field(default=None, validate_default=True)
    """SQLAlchemy URL; default: SQLite in `state_dir`."""
    backend_url: str | None = Field(
        default=None, validation_alias=AliasChoices("ML_SERVER_BACKEND_URL", "FASTAPI_BASE_URL", "BACKEND_URL")
    )
    """Base of the callback URL for requests that name none; `callbacks.origins` gets its origin."""
    webhook_secrets: tuple[SecretStr, ...] = ()
    """Standard Webhooks secrets (`whsec_…`, base64 of at least 16 bytes); each callback is signed with all of them."""
    auth: Auth = Auth()
    rate_limit: str | None = None
    """Requests per client, in the notation of the `limits` library, such as `600/minute`."""
    rate_limit_store: SecretStr | None = None
    """Redis URL for counting requests over all ingress replicas; default: each counts its own. Needs the extra
    `redis`."""
    docs: bool = False
    """Whether /docs, which needs no internet, and /openapi.json are served."""
    console: bool = True
    """Whether the operators' page /console is served, to which / redirects. It shows what the reader's key allows."""
    metrics_port: int = Field(default=9464, ge=0, le=65_535)
    """Port on 127.0.0.1 of the metrics of `ml-server up`; 0, or a port that is taken: any. See docs/metrics.md."""
    heartbeat_s: float = Field(default=25, gt=0, le=30)
    """Longest time between two callbacks of a running job; the contract promises 30 s."""
    retention_days: float = Field(default=7, ge=0)
    """Ended jobs are deleted after this time, but not before their last callback is delivered or given up."""
    spare_processes: int = Field(default=1, ge=0, le=20)
    """Idle processes, of 95 MB each, that wait to become a job's actor: so many jobs at once start without delay."""
    limits: Limits = Limits()
    tracing: Tracing = Tracing()
    callbacks: CallbackPolicy = CallbackPolicy()
    """Which callback URLs are allowed."""
    models: ModelsConfig = ModelsConfig()
    """Where models are stored, and which may be used; `memory_dir` is `state_dir` by default."""

    extractor: ExtractorConfig = ExtractorConfig()
    """`scratch_url` and `temp_dir` are in `state_dir` by default."""
    speech_detector: SpeechDetectorConfig = SpeechDetectorConfig()
    transcriber: TranscriberConfig = TranscriberConfig()
    aligner: AlignerConfig = AlignerConfig()
    diarizer: DiarizerConfig = DiarizerConfig()
    prosody: ProsodyConfig = ProsodyConfig()
    emotion: EmotionConfig = EmotionConfig()
    cpu_pool: CpuPool | None = None
    """Stages for jobs with `enable_gpu: false`, as separate deployments (`TranscriberCpu`, …) that may scale to zero.
    None: every job uses the stages above."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the base class's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Give the environment precedence over what a config file passes in."""
        return env_settings, init_settings

    @model_validator(mode="before")
    @classmethod
    def _check_names(cls, fields: Any) -> Any:
        if "engine" in fields or f"{PREFIX}ENGINE" in map(str.upper, os.environ):
            raise ValueError(NO_ENGINE_FOR_ALL)
        if unknown := unknown_names(os.environ, cls):
            raise ValueError("; ".join(UNKNOWN_NAME.format(*names) for names in unknown.items()))
        return fields

    @field_validator("state_dir")
    @classmethod
    def _make_absolute(cls, state_dir: Path) -> Path:
        return state_dir.expanduser().absolute()

    @field_validator("webhook_secrets")
    @classmethod
    def _check_secrets(cls, secrets: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        """Refuse what the library would sign with a shorter key than meant, or fail at: it drops unknown characters."""
        for secret in secrets:
            try:
                key = base64.b64decode(secret.get_secret_value().removeprefix("whsec_"), validate=True)
            except ValueError:
                key = b""
            if len(key) < SHORTEST_SECRET_BYTES:
                raise ValueError(f"whsec_ and base64 of at least {SHORTEST_SECRET_BYTES} bytes are wanted")
        return secrets

    @field_validator("database_url", mode="before")
    @classmethod
    def _default_to_sqlite(cls, url: Any, others: ValidationInfo) -> Any:
        return f"sqlite:///{others.data.get('state_dir')}/ml-server.db" if url is None else url

    @model_validator(mode="after")
    def _fill_in(self) -> Self:
        places = {"scratch_url": str(self.state_dir / "scratch"), "temp_dir": self.state_dir / "tmp"}
        vars(self).update(  # the instance is frozen
            extractor=_with_defaults(self.extractor, places),
            models=_with_defaults(self.models, {"memory_dir": self.state_dir}),
            callbacks=self._callbacks_with_backend(),
        )
        return self

    def _callbacks_with_backend(self) -> CallbackPolicy:
        if self.backend_url is None:
            return self.callbacks
        parts = urlsplit(self.backend_url)
        origins = dict.fromkeys((*self.callbacks.origins, f"{parts.scheme}://{parts.netloc}".lower()))
        try:
            return CallbackPolicy(**{**dict(self.callbacks), "origins": tuple(origins)})
        except ValueError as refused:
            raise ValueError(
                "backend_url is no origin that callbacks may go to, such as http://ecg-backend:8000"
            ) from refused

    @model_validator(mode="after")
    def _check_rates(self) -> Self:
        if self.rate_limit:
            from limits import parse

            try:
                parse(self.rate_limit)
            except ValueError as wrong:
                raise ValueError("rate_limit is none; write it like 600/minute") from wrong
        if self.rate_limit_store is not None:
            if urlsplit(self.rate_limit_store.get_secret_value()).scheme not in {"redis", "rediss"}:
                raise ValueError("rate_limit_store is no Redis URL, such as redis://host:6379/0")
            if find_spec("redis") is None:
                raise ValueError("rate_limit_store wants Redis's client: pip install 'ecg-ml-server[redis]'")
        return self

    @model_validator(mode="after")
    def _check_production(self) -> Self:
        if self.profile == "production":
            videos = self.extractor.net
            if self.backend_url is None:
                raise ValueError(
                    "no callback base: set backend_url in the config, or FASTAPI_BASE_URL (or BACKEND_URL) in the"
                    " environment, to the ECG Backend's address"
                )
            if "http" in videos.schemes:
                raise ValueError("extractor.net.schemes allows http: production takes videos by https only")
            if videos.networks and not videos.names_hosts:
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

    @property
    def fetches_models(self) -> bool:
        """Return whether `ml-server up` and `demo` fetch missing models. Production never does."""
        return self.profile == "local" and not self.models.offline

    @property
    def wanted_models(self) -> tuple[Wanted, ...]:
        """Return the models that the stages' engines load, those of the CPU pool included."""
        return tuple(dict.fromkeys((*_wanted(self), *self.pool_models)))

    @property
    def pool_models(self) -> tuple[Wanted, ...]:
        """Return the models that the CPU pool's engines load; none if there is no pool."""
        return () if self.cpu_pool is None else _wanted(self.cpu_pool)

    def on(self, *, enable_gpu: bool) -> "Settings":
        """Return the settings of a job: with the CPU pool's stages, if it asks for no GPU and there is a pool."""
        if enable_gpu or self.cpu_pool is None:
            return self
        return self.model_copy(update=dict(self.cpu_pool))

    @property
    def model_version(self) -> str:
        """Return the result's `model_version`: the names of the engines, joined by "+"."""
        return "+".join(
            (
                transcriber_config.model_version(self.transcriber),
                aligner_config.model_version(self.aligner),
                diarizer_config.model_version(self.diarizer),
                emotion_config.model_version(self.emotion),
            )
        )

    @property
    def identity(self) -> str:
        """Return a digest of the package's version and of all settings, the same in every process."""
        content = json.dumps(self.model_dump(), default=_for_json, sort_keys=True)
        return hashlib.sha256(f"{version('ecg-ml-server')} {content}".encode()).hexdigest()[:16]

    @property
    def callback_path(self) -> str:
        """Return the path of callbacks in this contract version."""
        return CALLBACK_PATHS[self.contract_version]

    def prepare(self) -> None:
        """Create the state directory, readable by this user only."""
        self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


def _wanted(stages: Settings | CpuPool) -> tuple[Wanted, ...]:
    return wanted_by(
        {"asr": stages.transcriber, "aligner": stages.aligner, "diarizer": stages.diarizer, "emotion": stages.emotion}
    )


def in_words(invalid: ValidationError) -> str:
    """Return what is wrong with the settings as one line without their values."""
    return "; ".join(
        ".".join(str(part) for part in error["loc"]) + ": " * bool(error["loc"]) + error["msg"]
        for error in invalid.errors()
    )


def _with_defaults(config: _Config, defaults: dict[str, Any]) -> _Config:
    """Return `config` with those of `defaults` that it was not given."""
    unset = {name: value for name, value in defaults.items() if name not in config.model_fields_set}
    return config.model_copy(update=unset)


def _for_json(value: object) -> object:
    """Return sets as sorted lists, since their order differs between processes, and secrets in clear, to be hashed."""
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    return sorted(value) if isinstance(value, frozenset) else str(value)
