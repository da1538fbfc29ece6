"""What a tar of messages that move holds: for each a file of metadata and its queue file, and a manifest at the end.

The checksum of a queue file stands in its metadata, and the manifest has the sum of the checksums of all metadata:
so a byte that changed in a queue file spoils that message, and one that is missing or changed elsewhere the tar.
"""

import re
from typing import Annotated, Final, Literal

import msgspec

from postqueue_api.agent import copy_file, tar
from postqueue_api.postfix.arguments import QUEUE_NAMES, QueueId

FORMAT: Final = "postqueue-api export 1"
METADATA_LIMIT_BYTES = 1 << 20
RECIPIENTS_SHOWN = 100
_SUM_BYTES = 32
_METADATA_NAME = re.compile(r"(?:\./)?([0-9]{1,18}-[0-9A-Za-z]{6,64})\.json", re.ASCII)
_MANIFEST_NAME = re.compile(r"(?:\./)?manifest\.json", re.ASCII)
_Checksum = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=255, pattern=r"^[!-~]+$")]


class Metadata(msgspec.Struct, frozen=True):
    """What is said of a queue file. `origin`: the Postfix that it comes from, by myhostname; `queue_name`: where it was
    there; `recipients`: the first hundred of those still due; `bytes` and `checksum` (BLAKE2b): of the queue file."""

    queue_id: str
    origin: _Name
    mail_version: str
    queue_name: str
    arrival_time: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    sender: str
    recipients: list[str]
    recipient_count: Annotated[int, msgspec.Meta(ge=0, lt=1 << 31)]
    forced_expire: bool
    bytes: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)]
    checksum: _Checksum


class Manifest(msgspec.Struct, frozen=True):
    """How much came before it; and the queue IDs of copies that were left out because they are damaged."""

    format: Literal["postqueue-api export 1"]
    messages: int
    bytes: int
    checksum: _Checksum
    left_out: list[str] = []


class Total:
    """Counts messages, bytes of their queue files, and the sum of the checksums of their metadata."""

    def __init__(self) -> None:
        self.messages = self.bytes = self._sum = 0

    def add(self, metadata: bytes, size: int) -> None:
        digest = copy_file.checksum()
        digest.update(metadata)
        self.messages += 1
        self.bytes += size
        self._sum = (self._sum + int.from_bytes(digest.digest())) % (1 << 8 * _SUM_BYTES)

    def manifest(self, left_out: list[str]) -> Manifest:
        return Manifest(FORMAT, self.messages, self.bytes, self._sum.to_bytes(_SUM_BYTES).hex(), left_out)

    def is_that_of(self, manifest: Manifest) -> bool:
        return self.manifest(manifest.left_out) == manifest


def stem(number: int, queue_id: str) -> str:
    """The beginning of the names of both files of a message; in the order of their names they stand in pairs."""
    return f"{number:09d}-{queue_id}"


def is_manifest(member: tar.Member) -> bool:
    return _MANIFEST_NAME.fullmatch(member.name) is not None


def stem_of(member: tar.Member) -> str:
    """The stem of a file of metadata. Raises InvalidArgument for whatever else."""
    found = _METADATA_NAME.fullmatch(member.name)
    if found is None:
        raise tar.refused("It has a file that no export has, or not in its place")
    return found[1]


def is_queue_file(member: tar.Member | None, stem: str) -> bool:
    return member is not None and member.name.removeprefix("./") == f"{stem}.queue"


def read_metadata(content: bytes) -> Metadata:
    """Raises InvalidArgument for what is none."""
    try:
        metadata = msgspec.json.decode(content, type=Metadata)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise tar.refused("The metadata of a message in it cannot be read") from None
    QueueId.parse(metadata.queue_id)
    if metadata.queue_name not in QUEUE_NAMES:
        raise tar.refused("The metadata of a message in it names no queue")
    return metadata


def read_manifest(content: bytes) -> Manifest:
    """Raises InvalidArgument for what is none."""
    try:
        return msgspec.json.decode(content, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise tar.refused("Its manifest cannot be read") from None
