"""Define the options that commands share, each with one name, type, default and help text."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

import filterdb as fdb
from filterdb import schema
from filterdb.analysis.rules import VERDICTS
from filterdb.choices import MODE_NAMES
from filterdb.commands.numbers import Number, WholeNumber
from filterdb.commands.one_of import OneOf
from filterdb.errors import UsageError
from filterdb.models.limits import Limits

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from filterdb.store.database import Database

KEYS = (*schema.LABELS, "depth_decile", "layer", "model")
"""Keys of groups that every database has; a catalog may have more."""

Command = Callable[..., Any]
Decorator = Callable[[Command], Command]

json_option: Decorator = click.option("--json", "as_json", is_flag=True, help="Print only JSON on stdout.")
seed_option: Decorator = click.option(
    "--seed", type=WholeNumber(0), default=0, show_default=True, metavar="N", help="Seed of the random numbers."
)
threads_option: Decorator = click.option(
    "--threads", type=WholeNumber(1), help="Work in this many threads of this process."
)
raw_option: Decorator = click.option("--raw", is_flag=True, help="Raw filters instead of max-scaled ones.")
unit_option: Decorator = click.option(
    "--unit",
    metavar="COLUMN",
    help="Models with one value of this column are not independent, as checkpoints and copies are not; `related` also "
    "finds fine-tuned copies in a database of an earlier version, by a pass over all filters once.",
)
training_option: Decorator = click.option(
    "--training",
    metavar="COLUMNS",
    help="Columns that identify a training, joined with commas; else all labels but `epoch`.",
)
chunk_rows_option: Decorator = click.option(
    "--chunk-rows",
    type=WholeNumber(1),
    default=schema.CHUNK_ROWS,
    show_default=True,
    help="Filters in a chunk.",
)

commit_every_option: Decorator = click.option(
    "--commit-every",
    type=WholeNumber(1),
    metavar="N",
    help="Commit after every N new models, so that a run that stops keeps them. Default: once, at the end; every 100 "
    "if more than 100 files are remote.",
)

kernels_option: Decorator = click.option(
    "--kernels",
    default="all",
    show_default=True,
    metavar="LIST|all",
    help="Shapes of the filters to store, such as 3x3,5x5. Models that were read for fewer shapes are read again.",
)

compact_option: Decorator = click.option(
    "--no-compact",
    "compact",
    is_flag=True,
    default=True,
    help="Leave the newest segments as they are. Default: join them when there are many small ones.",
)


def gathered(name: str, kind: type[Any]) -> Decorator:
    """Return a decorator that passes the options which are fields of the dataclass `kind` as one object, as `name`."""
    names = [field.name for field in dataclasses.fields(kind)]

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            values = {field: kwargs.pop(field) for field in names}
            return command(*args, **{name: kind(**values)}, **kwargs)

        return wrapped

    return decorate


def debug_option(*, expose_value: bool = True) -> Decorator:
    """Return --debug. `main` reads it from the arguments; only a command that computes on a cluster needs its value."""
    return click.option("--debug", is_flag=True, expose_value=expose_value, help="Show the traceback of an error.")


def snapshot_option(*, hidden: bool = False) -> Decorator:
    """Return --snapshot, which chooses the snapshot to open."""
    return click.option("--snapshot", metavar="N|TAG", hidden=hidden, help="Open DB at this snapshot, not the newest.")


def complete_keys(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return the keys of groups that begin like the last of those joined with commas. The database is not opened."""
    del context, parameter
    from click.shell_completion import CompletionItem

    head, comma, last = incomplete.rpartition(",")
    return [CompletionItem(f"{head}{comma}{key}") for key in KEYS if key.startswith(last)]


def complete_folders(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Return that the shell should complete a folder, as a database is one."""
    del context, parameter
    from click.shell_completion import CompletionItem

    return [CompletionItem(incomplete, type="dir")]


def database_argument(command: Command) -> Command:
    """Add DB."""
    return click.argument("db", shell_complete=complete_folders)(command)


def by_option(*, required: bool = False, default: str | None = None) -> Decorator:
    """Return --by, which chooses the labels by which layers are grouped."""
    defaults: dict[str, Any] = {} if default is None else {"default": default, "show_default": True}
    return click.option(
        "--by",
        metavar="KEY",
        required=required,
        shell_complete=complete_keys,
        **defaults,
        help="A label, depth_decile, layer, or several joined with commas.",
    )


def catalog_option(*, required: bool = False) -> Decorator:
    """Return --catalog, which names the file with the labels of models."""
    return click.option(
        "--catalog",
        metavar="FILE",
        required=required,
        help="CSV or Parquet with a row for each model: path, name, task, visual_category, …",
    )


def reference_option(command: Command) -> Command:
    """Add --reference, which names the file with the layers that models are compared with."""
    return click.option(
        "--reference", metavar="FILE", help="Compare model files with this output of `filterdb reference` instead."
    )(command)


@dataclasses.dataclass(frozen=True)
class _Place:
    """Hold the options that choose where a command computes."""

    threads: int | None
    workers: int | None
    scheduler: str | None
    tls_ca: str | None
    tls_cert: str | None
    tls_key: str | None
    debug: bool

    def __post_init__(self) -> None:
        """Raise UsageError for options that exclude each other."""
        if self.threads is not None and (self.workers is not None or self.scheduler is not None):
            raise UsageError("--threads cannot be combined with --workers or --scheduler; leave one of them out")

    def session(self, *, quiet: bool) -> AbstractContextManager[object]:
        """Return the context in which the command computes there."""
        from filterdb import cluster

        tls = {"tls_ca_file": self.tls_ca, "tls_client_cert": self.tls_cert, "tls_client_key": self.tls_key}
        security = None
        if any(tls.values()):
            from distributed.security import Security

            security = Security(require_encryption=True, **tls)
        place = cluster.Session(self.threads, self.workers, self.scheduler, security, debug=self.debug, quiet=quiet)
        return cluster.session(place)


def place(command: Command) -> Command:
    """Add --json, --debug and the options that choose where the command computes."""
    options: list[Decorator] = [
        json_option,
        threads_option,
        click.option(
            "--workers",
            type=WholeNumber(1),
            help="Work in a local cluster of this many processes (or pods, or jobs).",
        ),
        click.option(
            "--scheduler",
            metavar="WHERE",
            help="Work on this cluster: tcp:// or tls://HOST:PORT, kubernetes:NAME|FILE.yaml, gateway:[NAME|URL], "
            "slurm, pbs, …",
        ),
        click.option("--tls-ca", type=click.Path(exists=True, dir_okay=False), help="CA file for tls://."),
        click.option("--tls-cert", type=click.Path(exists=True, dir_okay=False), help="Certificate for tls://."),
        click.option("--tls-key", type=click.Path(exists=True, dir_okay=False), help="Key for tls://."),
        debug_option(),
    ]

    @functools.wraps(command)
    def wrapped(*args: Any, place: _Place, **kwargs: Any) -> Any:
        if "db" in kwargs and kwargs["db"] is None:  # without a database there are no passes to distribute
            return command(*args, **kwargs)
        with place.session(quiet=bool(kwargs.get("as_json"))):
            return command(*args, **kwargs)

    decorated = gathered("place", _Place)(wrapped)
    for option in reversed(options):
        decorated = option(decorated)
    return decorated


def database(command: Command) -> Command:
    """Add DB and --snapshot, and pass the open database to the command."""

    @functools.wraps(command)
    def wrapped(db: str, snapshot: str | None, **kwargs: Any) -> Any:
        return command(fdb.open(db, snapshot), **kwargs)

    return place(database_argument(snapshot_option()(wrapped)))


def newest(command: Command) -> Command:
    """Add DB for a command that commits on top of the newest snapshot, and reject --snapshot."""

    @functools.wraps(command)
    def wrapped(db: str, snapshot: str | None, **kwargs: Any) -> Any:
        if snapshot is not None:
            raise UsageError("--snapshot: expected none, a change always follows the newest snapshot; leave it out")
        return command(fdb.open(db), **kwargs)

    return place(database_argument(snapshot_option(hidden=True)(wrapped)))


kernel_option: Decorator = click.option(
    "--kernel",
    metavar="AxB",
    help="Only filters of this shape, such as 5x5 or 1x9. Default: 3x3; check, nearest, reduce, report and serve: all "
    "shapes.",
)


def with_kernel(command: Command) -> Command:
    """Add --kernel, and pass the bank of this shape to the command."""

    @functools.wraps(command)
    def wrapped(db: Database, kernel: str | None, **kwargs: Any) -> Any:
        return command(db if kernel is None else db.bank(kernel), **kwargs)

    return kernel_option(wrapped)


def selection(command: Command) -> Command:
    """Add --kernel, --where and --exclude-verdict, and pass the view to the command."""
    return with_kernel(labels_and_verdicts(command))


def labels_and_verdicts(command: Command) -> Command:
    """Add --where and --exclude-verdict, and pass the view to the command."""

    @functools.wraps(command)
    def wrapped(db: Database, where: tuple[str, ...], exclude_verdict: str, **kwargs: Any) -> Any:
        for condition in where:
            name, negated, value = _condition(condition)
            db = db.where(name, [value], negate=negated)
        verdicts = [verdict.strip() for verdict in exclude_verdict.split(",") if verdict.strip()]
        if verdicts:  # else xarray need not be imported
            db = fdb.exclude_verdict(db, verdicts, mode=kwargs.get("mode") or "sound")
        return command(db, **kwargs)

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
        help=f"Leave out layers with these verdicts: {', '.join(VERDICTS)}.",
    )(wrapped)


def _condition(text: str) -> tuple[str, bool, str]:
    """Return the column, whether the condition is negated, and the value."""
    name, sign, value = text.partition("=")
    if not sign or not name.rstrip("!").strip():
        raise UsageError(f"--where: expected COLUMN=VALUE or COLUMN!=VALUE, got {text!r}")
    return name.removesuffix("!").strip(), name.endswith("!"), value.strip()


def mode_option(command: Command) -> Command:
    """Add --mode."""
    return click.option(
        "--mode",
        type=OneOf(MODE_NAMES),
        default="sound",
        show_default=True,
        help="sound: our best estimate; paper: as the CVPR 2022 paper computes it.",
    )(command)


densities_option: Decorator = click.option(
    "--densities/--no-densities",
    default=None,
    help="Add the bivariate densities of all pairs of components, which need a pass over the filters.  "
    "[default: up to 50 million filters]",
)


def limits_option(command: Command) -> Command:
    """Add the limits for reading a file, which may be hostile, and pass a Limits to the command."""

    @functools.wraps(command)
    def wrapped(model_memory: int, model_seconds: float, **kwargs: Any) -> Any:
        return command(limits=Limits(model_memory * 2**20, model_seconds), **kwargs)

    default = Limits()
    wrapped = click.option(
        "--model-seconds",
        type=Number(1),
        default=default.seconds,
        show_default=True,
        metavar="S",
        help=f"CPU time for reading a file, and 1 s more for every {default.rate / 1e6:.0f} MB.",
    )(wrapped)
    return click.option(
        "--model-memory",
        type=WholeNumber(1),
        default=default.memory // 2**20,
        show_default=True,
        metavar="MIB",
        help="Memory for reading a file; one that takes more is rejected.",
    )(wrapped)


def network_options(command: Command) -> Command:
    """Add --key and --order, which say what to read of files without a graph."""
    command = click.option(
        "--order",
        metavar="FILE",
        help="JSON list of the names of the weights in the order of execution, for files without a graph.",
    )(command)
    return click.option(
        "--key", default="", metavar="NAME", help="Which network to read of a checkpoint with several, such as ema."
    )(command)


def parse_pair(text: str) -> tuple[int, int]:
    """Parse two components, written as "0,1"."""
    try:
        first, second = map(int, text.split(","))
    except ValueError:
        raise UsageError(f"components: expected two numbers joined with a comma, such as 0,1, got {text!r}") from None
    return first, second
