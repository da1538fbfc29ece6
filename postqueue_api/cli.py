"""The command `postqueue-api`: start the service, ask how it is, try it on a sandbox, make credentials.

What starts the service is imported when it is started: a health check must not pay for it every few seconds.
"""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import click

from postqueue_api import __version__
from postqueue_api.config import Settings, load
from postqueue_api.errors import Error
from postqueue_api.web.credential_command import credential
from postqueue_api.web.health_command import health

log = logging.getLogger("postqueue_api")


@click.group()
@click.version_option(__version__)
def main() -> None:
    """Manage a Postfix mail queue over HTTP. Settings are environment variables: see README."""
    logging.basicConfig(stream=sys.stderr, format="postqueue-api: %(message)s", level=logging.WARNING)


@main.command()
def serve() -> None:
    """Start agent and web together; end when one of them ends."""
    from postqueue_api import server

    sys.exit(_run(server.serve))


@main.command()
def agent() -> None:
    """Start the half that runs Postfix's commands, on a unix socket. As root: postsuper insists."""
    from postqueue_api import server

    sys.exit(_run(server.run_agent))


@main.command()
def web() -> None:
    """Start the half that answers HTTP. It needs no right at all, and gives root up when it has it."""
    from postqueue_api import server

    sys.exit(_run(server.run_web))


@main.command()
@click.argument("directory", required=False, type=click.Path(path_type=Path))
@click.option("--serve", "with_service", is_flag=True, help="Start the service for it too, and print a login.")
def sandbox(directory: Path | None, with_service: bool) -> None:
    """Make a private Postfix on loopback with real mail in its queue; Ctrl-C ends and removes it."""
    from postqueue_api.sandbox import command, service

    sys.exit(_run(lambda settings: service.run(settings, directory) if with_service else command.run(directory)))


main.add_command(credential)
main.add_command(health)


def _run(run: Callable[[Settings], int | None]) -> int:
    try:
        return run(load()) or 0
    except Error as error:
        log.critical("%s", error.detail)
        return 1
