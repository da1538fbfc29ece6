"""What Postfix's commands say when they fail, and the error that each sentence means.

Exit statuses do not tell (postqueue has one for everything), so the words are matched. The words themselves
may hold paths and are therefore logged by the agent and never repeated to a client.
"""

from postqueue_api.errors import CommandFailed, Error, MailSystemDown, Misconfigured, NotPermitted
from postqueue_api.postfix.process import Finished

_REFUSED_PARAMETER = (
    b"parameter",
    b" configuration: ",
    b"bad string length",
    b"fatal: unknown ",
    b"fatal: malformed c",
)

_MEANINGS: tuple[tuple[bytes, type[Error], str], ...] = (
    (b"mail system is down", MailSystemDown, "Postfix is not running: start it, then ask again."),
    (
        b"not allowed to",
        NotPermitted,
        "Postfix refuses this user: see its parameters authorized_mailq_users and authorized_flush_users.",
    ),
    (b"superuser", NotPermitted, "postsuper works for root only: the agent must run as root."),
    (b"Permission denied", NotPermitted, "The agent may not reach Postfix: run it as root, or in the group postdrop."),
    (
        b"alternate_config_directories",
        Misconfigured,
        "The default main.cf must list this instance in its parameter alternate_config_directories.",
    ),
    (b"main.cf", Misconfigured, "Postfix cannot read its main.cf: check POSTQUEUE_API_CONFIG_DIRECTORY."),
    (b"master.cf", Misconfigured, "Postfix cannot read its master.cf: check POSTQUEUE_API_CONFIG_DIRECTORY."),
    *(
        (words, Misconfigured, "Postfix does not accept one of its parameters: run `postfix check`.")
        for words in _REFUSED_PARAMETER
    ),
    (b"fatal: chdir ", Misconfigured, "Postfix cannot use its queue directory: run `postfix check`."),
)


def complaint(finished: Finished) -> Error:
    """The error that a failed command means; CommandFailed when its words have no meaning known here."""
    for words, error, sentence in _MEANINGS:
        if words in finished.stderr:
            return error(sentence)
    return CommandFailed(
        f"{finished.command} failed with exit status {finished.returncode}; the agent's log has its words."
    )
