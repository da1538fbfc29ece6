"""The errors that a caller can meet, and what HTTP makes of each.

    Error
    ├── InvalidArgument          400  a value that is not accepted; names the field
    ├── Unauthorized             401  no credential, or a wrong one
    ├── Forbidden                403  a good credential without the role
    ├── NotFound                 404
    │   ├── NoSuchMessage             no message of that queue ID
    │   └── NoSuchOperation           no operation of that identifier
    ├── Conflict                 409  the message or the operation is not in a state for that
    ├── Gone                     410  it was there once: a snapshot that pages no more
    ├── PayloadTooLarge          413
    ├── UnsupportedMediaType     415
    ├── TooManyRequests          429  carries retry_after, in seconds
    ├── SetupError               500  the operator must change something; asking again does not help
    │   ├── NotInstalled              a Postfix command is not where it should be
    │   ├── NotPermitted              Postfix refuses this user
    │   └── Misconfigured             Postfix cannot read its configuration, or settings are wrong
    ├── CommandFailed            502  Postfix's command said no in a way that has no name here
    ├── UnexpectedOutput         502  Postfix's command said something unreadable
    ├── MailSystemDown           503  Postfix does not run
    ├── AgentUnavailable         503  our own privileged half does not answer
    │   └── AgentLost                 it had been asked for a change: that may be done, or may be done yet
    ├── CommandTimeout           504  Postfix's command did not end in time
    └── StorageFull              507  no room for the journal, the snapshot or the trash

The message of each is for the one who asked: it says what is wrong and what to do, and holds neither a
secret nor a path of the machine. The `code` in a problem document is the class name in snake case.
"""

import re


class Error(Exception):
    """Root of the tree. `status` is the HTTP status, `code` the stable name in a problem document."""

    status = 500
    title = "The service failed"
    code = "error"

    def __init_subclass__(cls) -> None:
        cls.code = re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()

    def __init__(self, detail: str, **members: object) -> None:
        """Keep the sentence for the caller, and further members for the problem document."""
        super().__init__(detail)
        self.detail = detail
        self.members = {name: value for name, value in members.items() if value is not None}


class InvalidArgument(Error):
    """A value that is not accepted: `field` names it, `accepted` says what would be."""

    status, title = 400, "A value is not accepted"

    def __init__(self, detail: str, *, field: str | None = None, accepted: str | None = None) -> None:
        super().__init__(detail, field=field, accepted=accepted)


class Unauthorized(Error):
    status, title = 401, "A valid credential is needed"


class Forbidden(Error):
    status, title = 403, "The credential lacks the role for this"


class NotFound(Error):
    status, title = 404, "There is no such thing"


class NoSuchMessage(NotFound):
    title = "There is no such message in the queue"


class NoSuchOperation(NotFound):
    title = "There is no such operation"


class Conflict(Error):
    status, title = 409, "The present state does not allow this"


class Gone(Error):
    status, title = 410, "This was there once and is no more"


class PayloadTooLarge(Error):
    status, title = 413, "The request is too large"


class UnsupportedMediaType(Error):
    status, title = 415, "The body is not of an accepted media type"


class TooManyRequests(Error):
    """`retry_after`: seconds until the next request makes sense."""

    status, title = 429, "Too many requests"

    def __init__(self, detail: str, *, retry_after: int) -> None:
        super().__init__(detail, retry_after=retry_after)
        self.retry_after = retry_after


class SetupError(Error):
    title = "The service is not set up correctly"


class NotInstalled(SetupError):
    title = "A Postfix command is missing"


class NotPermitted(SetupError):
    title = "Postfix does not permit this to the service"


class Misconfigured(SetupError):
    title = "A configuration cannot be used"


class CommandFailed(Error):
    status, title = 502, "A Postfix command failed"


class UnexpectedOutput(Error):
    status, title = 502, "A Postfix command said something unreadable"


class MailSystemDown(Error):
    status, title = 503, "Postfix is not running"


class AgentUnavailable(Error):
    status, title = 503, "The agent does not answer"


class AgentLost(AgentUnavailable):
    title = "The agent was lost before it answered"


class CommandTimeout(Error):
    status, title = 504, "A Postfix command did not end in time"


class StorageFull(Error):
    status, title = 507, "No room left to keep records"


def by_code() -> dict[str, type[Error]]:
    """Every error class by its code, so that one process can raise what another one reported."""
    found: dict[str, type[Error]] = {}
    pending: list[type[Error]] = [Error]
    while pending:
        cls = pending.pop()
        found[cls.code] = cls
        pending.extend(cls.__subclasses__())
    return found
