"""Define the group of commands, which imports a command when it is run, because importing all takes seconds."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from importlib.util import find_spec

import click

import filterdb as fdb


class _Commands(click.Group):
    """Find each command in the module of this package with its name, `_` for `-`."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = f"{__package__}.{cmd_name.replace('-', '_')}"
        if cmd_name.replace("-", "_").isidentifier() and find_spec(module):
            import_module(module)
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
    """Store and analyse the 3×3 filters of trained CNNs.

    DB is a folder or a URL such as s3://bucket/db; S3 settings come from the environment (AWS_*).
    """
