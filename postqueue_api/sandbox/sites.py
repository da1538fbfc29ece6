"""The destinations that the sandbox knows, and why each of them delays mail.

Every name is reserved for examples and tests (RFC 2606, RFC 6761), so that none of them can ever be a
real mail server. Each site has a port of its own on 127.0.0.1; see sink.py for who listens there.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Site:
    """One destination.

    `stage` is what it says no to: CONNECT, MAIL, RCPT, or END (of the message). `reply` are the words, as bytes,
    because what a remote server says need not be text. Without a stage, it takes everything; without a reply,
    nobody listens and the connection is refused.
    """

    name: str
    stage: str = ""
    reply: bytes = b""
    delay_seconds: float = 0.0


REFUSING = "refusing.test"
SLOW = "slow.test"
UNKNOWN = "missing.invalid"
HOME = ("example.com", "example.net", "example.org")  # the senders live here, so bounces are delivered

SITES = (
    *(Site(name) for name in HOME),
    Site(REFUSING, "CONNECT"),
    Site("busy.example", "CONNECT", b"421 4.7.0 Too many connections from your address, try again later"),
    Site("limited.example", "MAIL", b"450 4.2.1 The mailbox receives mail at a rate that prevents more of it"),
    Site("greylist.example", "RCPT", b"451 4.7.1 Greylisting in action, please come back in 300 seconds"),
    Site("full.example", "RCPT", b"452 4.2.2 The mailbox is over quota, please ask its owner to make room"),
    Site("scanner.test", "END", b"451 4.7.1 The virus scanner does not answer, try again later"),
    # A cut-off UTF-8 character (Postfix 3.7 lists it as it is), a line separator, an override of the writing direction,
    # and HTML.
    Site(
        "strange.test", "RCPT", b"450 4.3.0 <script>alert(1)</script> caf\xe9\x80 \xe2\x80\xa8 \xe2\x80\xae plein & 50%"
    ),
    Site(SLOW, delay_seconds=10.0),
)
