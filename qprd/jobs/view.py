"""``qprd view``: the results of a project in a browser, until it is stopped."""

from __future__ import annotations

import getpass
import secrets
import socket
from collections.abc import Callable
from contextlib import closing

from qprd.errors import QprdError
from qprd.given_settings import some_settings
from qprd.qupath.project import Project
from qprd.settings import PredictConfig

#: The only address that is listened on: of this computer, and seen by it alone.
_ADDRESS = "127.0.0.1"


def view_results(
    project: Project,
    *,
    port: int = 8765,
    announce: Callable[[str], object] = print,
    assume_mpp: float | None = None,
) -> None:
    """Show a project in a browser of this computer, until it is interrupted.

    Args:
        project: Only read, but for the judgments of a review.
        port: Where to listen; 0 takes a free one.
        announce: Gets the address, a line at a time.
        assume_mpp: Resolution of slides that do not state theirs, micrometers per pixel.

    Raises:
        QprdError: ``qprd[view]`` is not installed, or the port is taken.
    """
    try:
        import uvicorn

        from qprd.view.server import make_app
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("uvicorn", "starlette"):
            raise
        raise QprdError(
            "The viewer needs Starlette and uvicorn, which are not installed.",
            fix='pip install "qprd[view]"',
        ) from error
    from qprd.view.content import Content

    checked = some_settings(PredictConfig, {"assume_mpp": assume_mpp})
    content = Content(project, **checked)
    token = secrets.token_urlsafe(24)
    with closing(content), _listen(port) as listening:
        port = listening.getsockname()[1]
        announce(f"Open http://{_ADDRESS}:{port}/?token={token}")
        announce(f"From another computer, first: ssh -L {port}:{_ADDRESS}:{port} THIS_COMPUTER")
        announce("Ctrl-C ends it. Whoever has the address can see the slides and review them.")
        config = uvicorn.Config(
            make_app(content, token, reviewer=_user()),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            announce("Ended.")


def _listen(port: int) -> socket.socket:
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((_ADDRESS, port))
    except (OSError, OverflowError) as error:
        listening.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise QprdError(
            f"Nothing can be served at port {port}: {reason}.",
            where="--port",
            fix="Name another one, or 0 for one that is free.",
        ) from error
    return listening


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return ""
