"""What clients send and get, as the OpenAPI document shows it. Inputs are checked by these; outputs are not
re-encoded through them, and a test holds real answers against them.
"""

import re
from collections.abc import Iterable
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from postqueue_api.errors import InvalidArgument
from postqueue_api.postfix.arguments import QUEUE_NAMES, QueueId
from postqueue_api.queue.ages import BY as AGES_BY
from postqueue_api.queue.groups import GROUPINGS
from postqueue_api.queue.operation import ACTIONS, OUTCOMES
from postqueue_api.queue.page import SORTS as SORT_FIELDS
from postqueue_api.queue.selection import Selection
from postqueue_api.web.validation import Input

TEXT_LIMIT = 1000
SORTS = (*SORT_FIELDS, *(f"-{field}" for field in SORT_FIELDS))
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _queue_name(text: str) -> str:
    if text not in QUEUE_NAMES:
        raise ValueError("one of " + ", ".join(QUEUE_NAMES))
    return text


def _sort(text: str) -> str:
    if text not in SORTS:
        raise ValueError("one of " + ", ".join(SORTS))
    return text


def _whole(value: Any) -> int:
    if isinstance(value, bool) or re.fullmatch(r"[0-9]{1,15}", str(value), re.ASCII) is None:
        raise ValueError("a whole number without a sign")
    return int(value)


def _number(least: int, most: int) -> Any:
    def parse(value: Any) -> int:
        number = _whole(value)
        if not least <= number <= most:
            raise ValueError(f"a whole number from {least} to {most}")
        return number

    return Annotated[int, BeforeValidator(parse, json_schema_input_type=Annotated[int, Field(ge=least, le=most)])]


def _duration(value: Any) -> int:
    found = re.fullmatch(r"([0-9]{1,9})([smhd])", str(value), re.ASCII)
    if found is None:
        raise ValueError("a duration: 90s, 15m, 2h or 3d")
    return int(found[1]) * _SECONDS[found[2]]


def _yes_or_no(value: Any) -> bool:
    if value not in ("true", "false", True, False):
        raise ValueError("true or false")
    return value in ("true", True)


def _plain(text: str) -> str:
    if re.search(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]", text) is not None:
        raise ValueError("a text without control characters")
    return text


def _no_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("a text without NUL")
    return text


def _one_of(names: Iterable[str]) -> Any:
    def check(text: str) -> str:
        if text not in names:
            raise ValueError("one of " + ", ".join(names))
        return text

    return Annotated[str, AfterValidator(check), Field(json_schema_extra={"enum": list(names)})]


# As ECMA 262 writes it, for the document; _plain is what checks.
_PLAIN = {"pattern": r"^[^\u0000-\u001f\u007f-\u009f\u2028\u2029]*$"}
Text = Annotated[str, Field(min_length=1, max_length=TEXT_LIMIT, json_schema_extra=_PLAIN), AfterValidator(_plain)]
Duration = Annotated[
    int, BeforeValidator(_duration, json_schema_input_type=Annotated[str, Field(pattern=r"^[0-9]{1,9}[smhd]$")])
]
YesOrNo = Annotated[bool, BeforeValidator(_yes_or_no, json_schema_input_type=bool)]
TextOrNone = Annotated[str, Field(max_length=TEXT_LIMIT, json_schema_extra=_PLAIN), AfterValidator(_plain)]
AnyText = Annotated[
    str, Field(max_length=TEXT_LIMIT, json_schema_extra={"pattern": r"^[^\u0000]*$"}), AfterValidator(_no_nul)
]
QueueNameField = Annotated[str, AfterValidator(_queue_name), Field(json_schema_extra={"enum": list(QUEUE_NAMES)})]


class SelectionInput(Input):
    """Which messages are meant. All that is given must hold."""

    queue_name: Annotated[tuple[QueueNameField, ...], Field(max_length=5)] = ()
    sender: Text | None = None
    sender_domain: TextOrNone | None = None
    recipient: Text | None = None
    recipient_domain: TextOrNone | None = None
    reason: Annotated[Text | None, Field(description="a literal part of a delay reason, without case")] = None
    reason_group: Annotated[
        AnyText | None, Field(description="a normalised reason, as groups and status have it; empty: not delayed")
    ] = None
    min_age: Duration | None = None
    max_age: Duration | None = None
    min_size: _number(0, 10**15 - 1) | None = None  # type: ignore[valid-type]
    max_size: _number(0, 10**15 - 1) | None = None  # type: ignore[valid-type]
    forced_expire: YesOrNo | None = None

    @model_validator(mode="after")
    def _not_contradictory(self) -> Self:
        for least, most in (("min_age", "max_age"), ("min_size", "max_size")):
            low, high = getattr(self, least), getattr(self, most)
            if low is not None and high is not None and low > high:
                raise InvalidArgument(f"{least} is above {most}.", field=least, accepted=f"not more than {most}")
        return self

    def selection(self) -> Selection:
        """The same conditions, as the queue's own half understands them."""
        return Selection(**self.model_dump(include=set(Selection.__struct_fields__), exclude_none=True))


class MessagesQuery(SelectionInput):
    """A page of messages, or with Accept: application/x-ndjson or text/csv all of them: which, in what order."""

    sort: Annotated[str, AfterValidator(_sort), Field(json_schema_extra={"enum": list(SORTS)})] = "arrival_time"
    limit: Annotated[
        _number(1, 1000) | None, Field(description="100 when left out; not for a stream")  # type: ignore[valid-type]
    ] = None
    next: Annotated[AnyText | None, Field(description="the cursor of the page before; not for a stream")] = None
    snapshot_id: Annotated[AnyText | None, Field(description="a certain listing, as long as it is kept")] = None


class GroupsQuery(SelectionInput):
    """Which messages, counted by what."""

    by: _one_of(GROUPINGS)  # type: ignore[valid-type]
    limit: _number(1, 1000) = 20  # type: ignore[valid-type]


class AgesQuery(SelectionInput):
    """Which messages, by which domain, in which columns: as qshape's -s, -b, -t and -l."""

    by: _one_of(AGES_BY) = "recipient_domain"  # type: ignore[valid-type]
    columns: _number(2, 32) = 10  # type: ignore[valid-type]
    first: Annotated[
        Duration, Field(validate_default=True, json_schema_extra={"default": "5m"}, description="of the first column")
    ] = "5m"  # type: ignore[assignment]
    linear: YesOrNo = False
    limit: _number(1, 1000) = 20  # type: ignore[valid-type]

    @model_validator(mode="after")
    def _bounded(self) -> Self:
        if self.first < 1:
            raise InvalidArgument("first is no time at all.", field="first", accepted="1s or more")
        return self


class NoQuery(Input):
    """No query parameter at all."""


class ChangeInput(Input):
    """Why a change is made; it goes into the audit and the journal."""

    reason: Text | None = None


def _queue_id(text: str) -> str:
    try:
        return str(QueueId.parse(text))
    except InvalidArgument:
        raise ValueError("6 to 64 ASCII letters and digits") from None


class ChosenInput(SelectionInput):
    """Which messages an operation is about: conditions, or a list of queue IDs, or everything."""

    queue_ids: Annotated[tuple[Annotated[str, AfterValidator(_queue_id)], ...] | None, Field(min_length=1)] = None
    everything: YesOrNo = False

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        ways = [not self.selection().is_empty, self.queue_ids is not None, self.everything]
        if sum(ways) != 1:
            accepted = "conditions, or queue_ids, or everything: true; one of the three"
            raise InvalidArgument("selection does not say which messages.", field="selection", accepted=accepted)
        return self


class OperationInput(Input):
    """What to do to which messages. With dry_run nothing is done, and the answer says what would be."""

    action: _one_of((*ACTIONS, "export"))  # type: ignore[valid-type]
    selection: ChosenInput
    reason: Text | None = None
    dry_run: Annotated[bool, Field(strict=True)] = False
    expected_count: Annotated[
        int | None, Field(strict=True, ge=0, description="refuse when another number of messages fits by now")
    ] = None
    keep_copy: Annotated[bool, Field(strict=True, description="false: a delete keeps no copy in the trash")] = True
    max_per_second: Annotated[
        float | None,
        Field(strict=True, gt=0, le=10_000, description="the pace of a flush, which else may slow all other mail"),
    ] = None

    @model_validator(mode="after")
    def _accountable(self) -> Self:
        several = self.selection.queue_ids is None or len(set(self.selection.queue_ids)) > 1
        if self.action in ("delete", "expire", "export") and several and self.reason is None and not self.dry_run:
            raise InvalidArgument("A reason is needed.", field="reason", accepted="why more than one message goes")
        if self.action == "export" and not self.keep_copy:
            raise InvalidArgument("An export is a copy.", field="keep_copy", accepted="no value, or true")
        if self.max_per_second is not None and self.action != "flush":
            raise InvalidArgument("max_per_second is for flush.", field="max_per_second", accepted="no value")
        return self


class RestoreInput(Input):
    """Where a restored message goes: to be delivered again, or on hold; left out: where it was."""

    to: _one_of(("deferred", "hold")) | None = None  # type: ignore[valid-type]
    although_exported: Annotated[
        bool, Field(strict=True, description="also what somebody else has taken over: it may be delivered twice")
    ] = False
    reason: Text | None = None


def _operation_id(text: str) -> str:
    if re.fullmatch(r"op-[0-9a-f]{16}", text, re.ASCII) is None:
        raise ValueError("what the operation's answer said")
    return text


class ExportQuery(Input):
    """Left out: all that waits to be moved; else what that operation, also a delete, put into the trash."""

    operation_id: Annotated[str, AfterValidator(_operation_id)] | None = None


class ImportQuery(Input):
    """Why, for the record; and whether to take in what was imported before."""

    reason: Text | None = None
    although_imported: Annotated[
        YesOrNo, Field(description="also what was imported before: it may be delivered twice")
    ] = False


def _checksum(text: str) -> str:
    if re.fullmatch(r"[0-9a-f]{64}", text, re.ASCII) is None:
        raise ValueError("64 hexadecimal digits in small letters")
    return text


class ReceiptInput(Input):
    """A message that somebody else has: its queue ID here, and the BLAKE2b checksum (256 bits) of its queue file."""

    queue_id: Annotated[str, AfterValidator(_queue_id)]
    checksum: Annotated[str, AfterValidator(_checksum)]
    outcome: Annotated[Text, Field(description="of the import; only imported and no_change are confirmed")] = "imported"


class ExportedInput(Input):
    """What somebody else has taken over: the answer of their import, as it is."""

    copies: Annotated[tuple[ReceiptInput, ...], Field(min_length=1)]
    reason: Text | None = None
    operation_id: Annotated[Text | None, Field(description="of the import; not needed")] = None
    outcomes: Annotated[dict[str, int] | None, Field(description="of the import; not needed")] = None


class DrainInput(Input):
    """For how long, in seconds, and why."""

    seconds: Annotated[int, Field(strict=True, ge=1, le=86400)]
    reason: Text | None = None


class NewestFirstQuery(Input):
    """How many, and behind which one: `next` of the page before."""

    limit: _number(1, 1000) = 100  # type: ignore[valid-type]
    next: _number(1, 10**15) | None = None  # type: ignore[valid-type]


class SamplesQuery(Input):
    """Only what was taken after that time, in seconds since the epoch."""

    since: _number(0, 10**12) = 0  # type: ignore[valid-type]


class ResultsQuery(Input):
    """Which rows, how many, and behind which one: `next` of the page before."""

    outcome: Annotated[tuple[_one_of(OUTCOMES), ...], Field(description="all when left out")] = ()  # type: ignore[valid-type]
    limit: _number(1, 1000) = 100  # type: ignore[valid-type]
    next: _number(0, 10**15) = 0  # type: ignore[valid-type]


class Output(BaseModel):
    """What all answers have in common: Postfix may add members of its own to messages."""

    model_config = ConfigDict(extra="allow")


class SnapshotOutput(Output):
    """The listing that an answer was made from. Times in seconds since the epoch, durations in seconds."""

    snapshot_id: str
    taken_at: float
    age: float
    complete: bool = Field(description="false: the listing broke off, so messages may be missing; problem says why")
    skipped_lines: int
    mail_system: str | None = Field(description="running, down, or null when it could not be told")
    messages: int
    duration: float
    problem: str | None
    last_complete: str | None = Field(description="of a listing that broke off: the last one that did not")


class RecipientOutput(Output):
    address: str
    delay_reason: str | None = None


class MessageOutput(Output):
    """One message as `postqueue -j` lists it, members that we do not know included."""

    queue_name: str
    queue_id: str
    arrival_time: int
    message_size: int
    sender: str
    recipients: list[RecipientOutput]
    forced_expire: bool = False
    next_attempt_time: int | None = None


class MessagesOutput(Output):
    snapshot: SnapshotOutput
    total: int
    messages: list[MessageOutput]
    next: str | None


class MessageRowOutput(Output):
    snapshot: SnapshotOutput
    message: MessageOutput


class EnvelopeRecipientOutput(Output):
    address: str
    original_address: str | None
    orcpt: str | None
    notify: list[str]


class EnvelopeOutput(Output):
    """The envelope as the queue file's records have it; trusted: the records form an unbroken whole."""

    queue_id: str
    queue_name: str
    forced_expire: bool
    trusted: bool
    arrival_time: int | None
    create_time: int | None
    sender: str | None
    recipients: list[EnvelopeRecipientOutput]
    done_recipients: list[EnvelopeRecipientOutput]
    cancelled_recipients: list[EnvelopeRecipientOutput]
    message_size: int | None
    content_size: int | None
    dsn_envid: str | None
    dsn_ret: str | None
    content_filter: str | None
    redirect_address: str | None
    attributes: dict[str, str]


class HeaderOutput(Output):
    name: str
    value: str


class HeadersOutput(Output):
    headers: list[HeaderOutput]
    truncated: bool


class TextPartOutput(Output):
    content_type: str
    charset: str | None
    text: str
    truncated: bool


class AttachmentOutput(Output):
    filename: str | None
    content_type: str
    size: int
    content_id: str | None


class BodyOutput(Output):
    """Text parts as text, HTML among them as its source; other parts by name and size, after transfer decoding."""

    texts: list[TextPartOutput]
    attachments: list[AttachmentOutput]
    truncated: bool


class ChangeOutput(Output):
    """What became of one message."""

    operation_id: str
    action: str = Field(json_schema_extra={"enum": list(ACTIONS)})
    queue_id: str
    outcome: str | None = Field(json_schema_extra={"enum": [*OUTCOMES, None]})
    detail: str | None
    new_queue_id: str | None = Field(description="what it is called since, if that is another name")


class FlushOutput(Output):
    outcome: str


class QueueOutput(Output):
    queue_name: str
    messages: int
    bytes: int
    recipients: int
    oldest_arrival_time: int | None


class QueuesOutput(Output):
    snapshot: SnapshotOutput
    queues: list[QueueOutput]


class LiveOutput(Output):
    status: str


class CheckOutput(Output):
    ok: bool
    code: str | None
    detail: str | None


class ReadyOutput(Output):
    """ready: all checks are well. Reasons are told to those with a credential only."""

    ready: bool
    checks: dict[str, CheckOutput] | None = None


class GroupOutput(Output):
    """Messages that have the key in common; an empty key: no domain, or not delayed."""

    key: str
    messages: int
    bytes: int
    oldest_arrival_time: int
    newest_arrival_time: int
    sample_queue_ids: list[str]
    selection: dict[str, Any] = Field(description="finds exactly these again")


class GroupsOutput(Output):
    snapshot: SnapshotOutput
    by: str
    groups: list[GroupOutput]
    more: bool


class AgesRowOutput(Output):
    key: str
    total: int
    counts: list[int]


class AgesOutput(Output):
    """counts[i] is younger than bounds[i], the last column has the rest; by recipient domain recipients are counted."""

    snapshot: SnapshotOutput
    by: str
    bounds: list[int]
    total: AgesRowOutput
    rows: list[AgesRowOutput]


class TopReasonOutput(Output):
    name: str
    messages: int
    bytes: int
    oldest_arrival_time: int
    newest_arrival_time: int


class StatusProblemOutput(Output):
    code: str
    detail: str


class StatusOutput(Output):
    """All that a dashboard polls. What could not be found out is null, and problem says why."""

    mail_system: str | None
    instance: dict[str, Any] | None
    problem: StatusProblemOutput | None
    snapshot: SnapshotOutput | None
    queues: list[QueueOutput] | None
    oldest_arrival_time: int | None
    top_reasons: list[TopReasonOutput] | None
    operations: list[dict[str, Any]] | None


class OperationOutput(Output):
    """An operation as it stands. rate in messages a second; seconds_left is an estimate."""

    operation_id: str
    action: str
    state: str = Field(description="queued, running, done, cancelled, interrupted or failed")
    cancel_requested: bool
    requested: int
    finished: int
    outcomes: dict[str, int]
    rate: float | None
    seconds_left: float | None
    actor: str
    role: str
    address: str | None
    request_id: str | None
    reason: str | None
    selection: dict[str, Any]
    keep_copy: bool
    max_per_second: float | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    failure: str | None


class OperationsOutput(Output):
    operations: list[OperationOutput]
    next: int | None


class ResultOutput(Output):
    position: int
    queue_id: str
    arrival_time: int | None
    sender: str | None
    outcome: str | None
    detail: str | None
    new_queue_id: str | None = Field(description="what it is called since, if that is another name")
    finished_at: float | None


class ResultsOutput(Output):
    results: list[ResultOutput]
    next: int | None


class CopyOutput(Output):
    """A copy of a message that was deleted, or moves; state: kept, restoring, restored, exported or purged."""

    queue_id: str
    operation_id: str
    state: str
    queue_name: str
    arrival_time: int | None
    sender: str | None
    recipients: int
    queue_file_bytes: int
    forced_expire: bool
    kept_at: float
    expires_at: float | None = Field(description="null: it waits to be moved, or to be restored after an import")
    restored_as: str | None
    origin: str | None = Field(description="the Postfix that an import brought it from")
    exported_at: float | None = Field(description="when it was confirmed that somebody else has it")


class ReceiptOutput(Output):
    queue_id: str
    checksum: str
    outcome: str = Field(json_schema_extra={"enum": ["imported", "no_change", "changed", "failed"]})


class ImportOutput(Output):
    """What became of each message; sent to /v1/trash/exported where it came from, it confirms the import."""

    operation_id: str
    outcomes: dict[str, int]
    copies: list[ReceiptOutput]


class TrashOutput(Output):
    messages: int
    bytes: int
    copies: list[CopyOutput]
    next: int | None


class DrainReasonOutput(Output):
    reason: str
    messages: int


class DrainOutput(Output):
    """The last drain, and what is in the queue. What is not known is null, and problem says why."""

    state: str = Field(
        json_schema_extra={"enum": ["idle", "draining", "drained", "left"]},
        description="drained: nothing but held mail was left; left: the time was over, or Postfix did not run",
    )
    seconds: int | None
    actor: str | None
    since: float | None
    ends_at: float | None
    ended_at: float | None
    before: int | None = Field(description="messages when it began, without held ones")
    gone: int | None = Field(description="of these: delivered, returned to the sender, or deleted")
    left: int | None = Field(description="messages now, without held ones")
    queues: dict[str, int] | None
    held: int | None
    reasons: list[DrainReasonOutput] | None = Field(description="of what was left when it ended; else null")
    problem: StatusProblemOutput | None


class SampleOutput(Output):
    """The queue at one time; a queue that is not named was empty or unknown to Postfix."""

    taken_at: float
    queues: dict[str, int] = Field(description="messages by queue name")
    bytes: int
    oldest_arrival_time: int | None
    arrived: int | None = Field(description="messages since the sample before; null when that cannot be told")
    removed: int | None = Field(description="likewise: delivered, returned to the sender, or deleted")


class SamplesOutput(Output):
    """Samples of complete listings, oldest first; where one is missing the queue could not be listed."""

    interval_seconds: int | None = Field(description="how far apart they are meant to be; null: none are taken")
    samples: list[SampleOutput]
