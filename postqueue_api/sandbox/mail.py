"""What the sandbox is filled with: mail that is worth looking at.

The same list every time, but for dates. Every sender and recipient is at a reserved name.
"""

import base64
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import EmailMessage
from email.utils import formataddr, formatdate

from postqueue_api.sandbox.configuration import HELD_SENDER
from postqueue_api.sandbox.sites import REFUSING, UNKNOWN

_PARAGRAPH = "Thank you for your order. It leaves our warehouse tomorrow and reaches you within three days.\n\n"
_GERMAN = "Grüße aus Köln! Die Rechnung für März liegt bei; bitte überweisen Sie bis zum Fünfzehnten.\n"
_JAPANESE = "お世話になっております。三月分の請求書をお送りいたします。ご確認をお願いいたします。\n"


@dataclass(frozen=True)
class Mail:
    """One message to send: envelope, content with LF line ends, and the options of its MAIL command."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    mail_options: tuple[str, ...] = ()


def everything() -> list[Mail]:
    """All messages of a full sandbox, in the order in which they are sent."""
    return [*_orders(), *_newsletters(), *_alerts(), *_held(), *_special()]


def message(sender: str, recipients: tuple[str, ...], subject: str, text: str) -> EmailMessage:
    """A plain message with the headers that real mail has; the caller adds what is special about it."""
    made = EmailMessage()
    made["From"] = sender
    made["To"] = ", ".join(recipients[:5])
    made["Subject"] = subject
    made["Date"] = formatdate()
    made["Message-ID"] = f"<{zlib.crc32((subject + made['To']).encode()):08x}@relay.example.com>"
    made.set_content(text)
    return made


def _orders() -> Iterator[Mail]:
    sites = ("full.example", "greylist.example", REFUSING, "limited.example", "busy.example")
    names = ("anna", "bert", "chloe", "dmitri", "erik")
    for number in range(20):
        site = sites[number % len(sites)]
        recipients = (f"{names[number // 4]}@{site}",)
        text = _PARAGRAPH * (1 + number**2 // 2)
        made = message("orders@example.com", recipients, f"Your order {4711 + number} is on its way", text)
        yield Mail("orders@example.com", recipients, made.as_bytes())


def _newsletters() -> Iterator[Mail]:
    page = "<html><body><h1>Spring sale</h1><p>Everything is <b>half price</b> &amp; more.</p>{}</body></html>"
    for number in range(8):
        site = ("full.example", "limited.example", "scanner.test", "busy.example")[number % 4]
        recipients = (f"reader{number}@{site}",)
        made = message("news@example.net", recipients, "Spring sale: half price until Sunday", "Look at our page.\n")
        made.add_alternative(page.format("<p>One more offer.</p>" * 50 * (number + 1)), subtype="html")
        made["List-Unsubscribe"] = "<https://example.net/unsubscribe>"
        yield Mail(f"bounces+{number}@example.net", recipients, made.as_bytes())


def _alerts() -> Iterator[Mail]:
    for number in range(8):
        recipients = (("oncall@" + (UNKNOWN, REFUSING)[number % 2]),)
        made = message(
            "monitor@example.org", recipients, f"ALERT disk of db{number} is {90 + number}% full", "See it.\n"
        )
        yield Mail("monitor@example.org", recipients, made.as_bytes())


def _held() -> Iterator[Mail]:
    for name in ("anna", "bert", "chloe", "erik"):
        recipients = (f"{name}@full.example",)
        made = message(HELD_SENDER, recipients, "Your payslip", "It is attached.\n")
        made.add_attachment(_noise(30_000), maintype="application", subtype="pdf", filename="payslip.pdf")
        yield Mail(HELD_SENDER, recipients, made.as_bytes())


def _special() -> Iterator[Mail]:
    yield from (_german(), _japanese(), _large(), _many_recipients(), _mixed_sites(), _bounce(), _utf8(), _broken())
    for name in ("anna", "zoë"):
        recipients = ("guest@strange.test",)
        made = message("orders@example.com", recipients, f"A table for {name} <b>tonight</b>", "See you soon.\n")
        yield Mail("orders@example.com", recipients, made.as_bytes())


def _german() -> Mail:
    recipients = ("buchhaltung@scanner.test",)
    made = message("orders@example.com", recipients, "Rechnung für März: 1.234,50 € fällig", _GERMAN)
    made.replace_header("From", formataddr(("Jürgen Müßig", "orders@example.com")))
    made.add_attachment(_noise(90_000), maintype="application", subtype="pdf", filename="Rechnung März.pdf")
    return Mail("orders@example.com", recipients, made.as_bytes())


def _japanese() -> Mail:
    recipients = ("keiri@greylist.example",)
    made = message("tanaka@example.org", recipients, "三月分の請求書について", _JAPANESE * 20)
    made.replace_header("From", formataddr(("田中花子", "tanaka@example.org")))
    return Mail("tanaka@example.org", recipients, made.as_bytes())


def _large() -> Mail:
    recipients = ("archive@full.example",)
    made = message("tanaka@example.org", recipients, "The drawings, all of them", "Two files.\n")
    made.add_attachment(_noise(250_000), maintype="image", subtype="png", filename="図面.png")
    made.add_attachment(_noise(110_000), maintype="application", subtype="zip", filename="drawings.zip")
    return Mail("tanaka@example.org", recipients, made.as_bytes())


def _many_recipients() -> Mail:
    recipients = tuple(f"member{number:02d}@full.example" for number in range(80))
    made = message("club@example.net", recipients, "Invitation to the general meeting", _PARAGRAPH * 3)
    return Mail("club@example.net", recipients, made.as_bytes())


def _mixed_sites() -> Mail:
    recipients = (f"a@{REFUSING}", "b@greylist.example", "c@full.example", f"d@{UNKNOWN}", "e@strange.test")
    made = message("club@example.net", recipients, "One mail, five reasons to wait", _PARAGRAPH)
    return Mail("club@example.net", recipients, made.as_bytes())


def _bounce() -> Mail:
    recipients = ("lists@busy.example",)
    made = message("MAILER-DAEMON@relay.example.com", recipients, "Undelivered Mail Returned to Sender", "Sorry.\n")
    made["Auto-Submitted"] = "auto-replied"
    return Mail("", recipients, made.as_bytes())


def _utf8() -> Mail:
    """Raw UTF-8 in headers and addresses, which needs SMTPUTF8 (RFC 6531)."""
    recipients = ("josé@greylist.example",)
    text = f"From: Zoë <zoë@example.com>\nTo: José <{recipients[0]}>\nSubject: ¿Mañana? 明日 завтра\n\nHasta mañana.\n"
    return Mail("zoë@example.com", recipients, text.encode(), ("SMTPUTF8", "BODY=8BITMIME"))


def _broken() -> Mail:
    """What careless programs send: a raw Latin-1 header, lines that begin with a dot, no Date, no last newline."""
    text = "From: fax@example.net\nSubject: Télécopie reçue\n\n.\n..\nPage 1 sur 1 : déjà vu\nFin"
    return Mail("fax@example.net", ("bureau@limited.example",), text.encode("latin-1"))


def _noise(size: int) -> bytes:
    """Bytes that look like a compressed file and are the same every time."""
    return base64.b85decode((b"postqueueapi*sandbox" * (size // 16 + 1))[: size // 4 * 5])
