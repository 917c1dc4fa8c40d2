"""The group of commands, and the options that they share."""

from __future__ import annotations

import functools
import pkgutil
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

import filterdb as fdb
from filterdb import answers
from filterdb.analysis.rules import VERDICTS
from filterdb.cli import streams
from filterdb.errors import UsageError
from filterdb.models.sandbox import Limits

if TYPE_CHECKING:
    from filterdb.store.database import Database


class _Commands(click.Group):
    """The commands of this package's modules; one that has a module of its name is imported alone.

    What the analyses import takes seconds, which a check of one file need not wait for.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name.isidentifier() and find_spec(f"{__package__}.{cmd_name}"):
            import_module(f"{__package__}.{cmd_name}")
        if cmd_name not in self.commands:
            self._import_all()
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: click.Context) -> list[str]:
        self._import_all()
        return super().list_commands(ctx)

    @staticmethod
    def _import_all() -> None:
        package = import_module(str(__package__))
        for module in pkgutil.iter_modules(package.__path__):
            import_module(f"{__package__}.{module.name}")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(fdb.__version__, prog_name="filterdb")
def commands() -> None:
    """The 3×3 filters of trained CNNs as a database, and what they tell.

    DB is a folder or a URL such as s3://bucket/db; S3 settings come from the environment (AWS_*).
    """


Command = Callable[..., Any]


def place(command: Command) -> Command:
    """The options that every command takes, and where it computes."""
    options = [
        click.option("--json", "as_json", is_flag=True, help="Machine output on stdout, nothing else there."),
        click.option("--threads", type=click.IntRange(1), help="Work in this many threads of this process."),
        click.option(
            "--workers",
            type=click.IntRange(1),
            help="Work in a local cluster of this many processes (or pods, or jobs).",
        ),
        click.option(
            "--scheduler",
            metavar="WHERE",
            help="Work on this cluster: tcp:// or tls://HOST:PORT, kubernetes:NAME|FILE.yaml, slurm, pbs, …",
        ),
        click.option("--tls-ca", type=click.Path(exists=True, dir_okay=False), help="CA file for tls://."),
        click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False), help="Certificate for tls://."),
        click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Key for tls://."),
        click.option("--debug", is_flag=True, help="Show the traceback of an error."),
    ]

    @functools.wraps(command)
    def wrapped(
        *args: Any,
        threads: int | None,
        workers: int | None,
        scheduler: str | None,
        tls_ca: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        debug: bool,
        **kwargs: Any,
    ) -> Any:
        if threads is not None and (workers is not None or scheduler is not None):
            raise UsageError("--threads: expected neither --workers nor --scheduler beside it, got several")
        if "db" in kwargs and kwargs["db"] is None:  # no database, no passes: nothing to start
            return command(*args, **kwargs)
        from distributed.security import Security

        from filterdb import cluster

        tls = {"tls_ca_file": tls_ca, "tls_client_cert": tls_cert, "tls_client_key": tls_key}
        security = Security(require_encryption=True, **tls) if any(tls.values()) else None
        with cluster.session(cluster.Session(threads, workers, scheduler, security, debug=debug)):
            return command(*args, **kwargs)

    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped


def database(command: Command) -> Command:
    """DB and --snapshot; the command gets the open database."""

    @functools.wraps(command)
    def wrapped(db: str, snapshot: str | None, **kwargs: Any) -> Any:
        return command(fdb.open(db, snapshot), **kwargs)

    wrapped = click.option("--snapshot", metavar="N|TAG", help="Open at this snapshot, not the newest.")(wrapped)
    return place(click.argument("db")(wrapped))


def newest(command: Command) -> Command:
    """As `database`, for what makes a new snapshot: that goes on top of the newest, and --snapshot is refused."""

    @functools.wraps(command)
    def wrapped(db: str, snapshot: str | None, **kwargs: Any) -> Any:
        if snapshot is not None:
            raise UsageError("--snapshot: expected none, a change goes on top of the newest snapshot; leave it out")
        return command(fdb.open(db), **kwargs)

    wrapped = click.option("--snapshot", metavar="N|TAG", hidden=True)(wrapped)
    return place(click.argument("db")(wrapped))


def selection(command: Command) -> Command:
    """--where and --exclude-verdict; the command gets the view."""

    @functools.wraps(command)
    def wrapped(db: Database, where: tuple[str, ...], exclude_verdict: str, **kwargs: Any) -> Any:
        for condition in where:
            name, negated, value = _condition(condition)
            db = db.where(name, [value], negate=negated)
        verdicts = [verdict.strip() for verdict in exclude_verdict.split(",") if verdict.strip()]
        return command(fdb.exclude_verdict(db, verdicts, kwargs.get("mode") or "sound"), **kwargs)

    wrapped = click.option(
        "--where",
        multiple=True,
        metavar="'COLUMN=VALUE'",
        help="Only layers with this label (!= too; repeatable).",
    )(wrapped)
    return click.option(
        "--exclude-verdict",
        default="",
        metavar="LIST",
        help=f"Without layers that are {', '.join(VERDICTS)}.",
    )(wrapped)


def _condition(text: str) -> tuple[str, bool, str]:
    name, sign, value = text.partition("=")
    if not sign or not name.rstrip("!").strip():
        raise UsageError(f"--where: expected COLUMN=VALUE or COLUMN!=VALUE, got {text!r}")
    return name.removesuffix("!").strip(), name.endswith("!"), value.strip()


def mode_option(command: Command) -> Command:
    from filterdb.numerics.modes import MODES

    return click.option(
        "--mode",
        type=click.Choice(list(MODES)),
        default="sound",
        show_default=True,
        help="sound: the best answer; paper: the CVPR 2022 paper's.",
    )(command)


def limits_option(command: Command) -> Command:
    """What reading a stranger's file may take; the command gets the Limits."""

    @functools.wraps(command)
    def wrapped(model_memory: int, model_seconds: float, **kwargs: Any) -> Any:
        return command(limits=Limits(model_memory * 2**20, model_seconds), **kwargs)

    default = Limits()
    wrapped = click.option(
        "--model-seconds",
        type=click.FloatRange(1),
        default=default.seconds,
        show_default=True,
        metavar="S",
        help=f"CPU time for reading a file, and 1 s more for every {default.rate / 1e6:.0f} MB.",
    )(wrapped)
    return click.option(
        "--model-memory",
        type=click.IntRange(1),
        default=default.memory // 2**20,
        show_default=True,
        metavar="MIB",
        help="Memory for reading a file; one that takes more is rejected.",
    )(wrapped)


def answer_with(answer: answers.Answer, as_json: bool, table: Callable[[answers.Answer], None]) -> None:
    if as_json:
        click.echo(streams.ascii_json(answers.to_json(answer)))
    else:
        table(answer)
