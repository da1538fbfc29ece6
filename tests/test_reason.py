"""Real reasons of real sites, and the group that each belongs to."""

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from postqueue_api.queue.reason import LIMIT_CHARACTERS, normalise

# The name of a group, and reasons that belong to it.
GROUPS: list[tuple[str, list[str]]] = [
    ("", ["", " ", "\t\n"]),
    (
        # Gmail pads the number behind the address with spaces. The group ends where names of groups do.
        "host gmail-smtp-in.l.google.com[IP] said: 421-4.7.28 [IP #] Our system has detected an unusual rate of"
        " 421-4.7.28 unsolicited mail originating from your IP address. 421 4.7.28 URL # - gsmtp (in reply to end of"
        " DATA command)",
        [
            "host gmail-smtp-in.l.google.com[142.250.27.26] said: 421-4.7.28 [192.0.2.55      15] Our system has"
            " detected an unusual rate of 421-4.7.28 unsolicited mail originating from your IP address. 421 4.7.28 "
            " https://support.google.com/mail/?p=UnsolicitedRateLimitError a640c23a62f3a-aa67ec9d2fbsi1234567a12.399"
            " - gsmtp (in reply to end of DATA command)",
            "host gmail-smtp-in.l.google.com[2a00:1450:4013:c14::1b] said: 421-4.7.28 [2001:db8::7       9] Our system"
            " has detected an unusual rate of 421-4.7.28 unsolicited mail originating from your IP address. 421 4.7.28"
            "  https://support.google.com/mail/?p=UnsolicitedIPError 5b1f17b1804b1-42ac4c3f9b1si16421735e9.40"
            " - gsmtp (in reply to end of DATA command)",
        ],
    ),
    (
        "host outlook-com.olc.protection.outlook.com[IP] said: 451 4.7.500 Server busy. Please try again later from"
        " [IP]. (S77719) [#.eop-EUR#.prod.protection.outlook.com # #] (in reply to MAIL FROM command)",
        [
            "host outlook-com.olc.protection.outlook.com[104.47.58.33] said: 451 4.7.500 Server busy. Please try again"
            " later from [192.0.2.55]. (S77719) [DB5EUR03FT049.eop-EUR03.prod.protection.outlook.com"
            " 2024-03-05T08:15:30.123Z 08DC3C0FDD12AB34] (in reply to MAIL FROM command)",
            "host outlook-com.olc.protection.outlook.com[104.47.51.9] said: 451 4.7.500 Server busy. Please try again"
            " later from [192.0.2.56]. (S77719) [AM6EUR05FT013.eop-EUR05.prod.protection.outlook.com"
            " 2025-11-30T23:59:00.000Z 08DDEFFFFFFFFFFF] (in reply to MAIL FROM command)",
        ],
    ),
    (
        "host mta#.am#.yahoodns.net[IP] said: 421 4.7.0 [TSS04] Messages from IP temporarily deferred due to unexpected"
        " volume or user complaints - IP; see URL (in reply to MAIL FROM command)",
        [
            "host mta7.am0.yahoodns.net[67.195.228.94] said: 421 4.7.0 [TSS04] Messages from 192.0.2.55 temporarily"
            " deferred due to unexpected volume or user complaints - 4.16.55.1; see"
            " https://postmaster.yahooinc.com/error-codes (in reply to MAIL FROM command)",
            "host mta5.am12.yahoodns.net[98.136.96.75] said: 421 4.7.0 [TSS04] Messages from 192.0.2.7 temporarily"
            " deferred due to unexpected volume or user complaints - 4.16.55.1; see"
            " https://postmaster.yahooinc.com/error-codes (in reply to MAIL FROM command)",
        ],
    ),
    (
        "host mx-ha.gmx.net[IP] refused to talk to me: 421-gmx.net (#) Nemesis ESMTP Service not available 421-Service"
        " closing transmission channel # for explanation visit URL",
        [
            "host mx-ha.gmx.net[212.227.15.9] refused to talk to me: 421-gmx.net (mxgmx017) Nemesis ESMTP Service not"
            " available 421-Service closing transmission channel 421 for explanation visit"
            " https://postmaster.gmx.net/en/error-messages?ip=192.0.2.55&c=hi",
            "host mx-ha.gmx.net[212.227.17.8] refused to talk to me: 421-gmx.net (mxgmx117) Nemesis ESMTP Service not"
            " available 421-Service closing transmission channel 421 for explanation visit"
            " https://postmaster.gmx.net/en/error-messages?ip=192.0.2.56&c=hi",
        ],
    ),
    (
        "connect to mx#.example.com[IP]:25: Connection timed out",
        [
            "connect to mx1.example.com[192.0.2.1]:25: Connection timed out",
            "connect to mx17.example.com[2001:db8::17]:25: Connection timed out",
            "connect to mx17.example.com[::1]:25: Connection timed out",
        ],
    ),
    ("connect to IP[IP]:10024: Connection refused", ["connect to 127.0.0.1[127.0.0.1]:10024: Connection refused"]),
    (
        "delivery temporarily suspended: connect to mx#.example.com[IP]:25: Connection timed out",
        ["delivery temporarily suspended: connect to mx17.example.com[192.0.2.9]:25: Connection timed out"],
    ),
    (
        "conversation with mx#.example.net[IP] timed out while receiving the initial server greeting",
        ["conversation with mx2.example.net[198.51.100.7] timed out while receiving the initial server greeting"],
    ),
    (
        "Host or domain name not found. Name service error for name=nosuch.example type=MX: Host not found, try again",
        [
            "Host or domain name not found. Name service error for name=nosuch.example type=MX: Host not found, try"
            " again"
        ],
    ),
    (
        "host mx.example.org[IP] said: 451 4.7.1 Greylisting in action, please come back in # (in reply to RCPT TO"
        " command)",
        [
            "host mx.example.org[203.0.113.4] said: 451 4.7.1 Greylisting in action, please come back in 00:04:58 (in"
            " reply to RCPT TO command)",
            "host mx.example.org[203.0.113.9] said: 451 4.7.1 Greylisting in action, please come back in 4:58 (in reply"
            " to RCPT TO command)",
        ],
    ),
    (
        "host mx.example.org[IP] said: 450 4.2.0 <ADDRESS>: Recipient address rejected: Greylisted for # seconds",
        [
            "host mx.example.org[203.0.113.4] said: 450 4.2.0 <bert@example.org>: Recipient address rejected:"
            " Greylisted for 297 seconds",
            "host mx.example.org[203.0.113.4] said: 450 4.2.0 <anna+x=y@a.example.org>: Recipient address rejected:"
            " Greylisted for 3 seconds",
        ],
    ),
    (
        "host mx.example.org[IP] said: 450 4.7.1 try again after # # Mar # # +#",
        [
            "host mx.example.org[203.0.113.4] said: 450 4.7.1 try again after Tue, 5 Mar 2024 08:15:30 +0000",
            "host mx.example.org[203.0.113.4] said: 450 4.7.1 try again after Wed, 16 Mar 2024 18:05:00 +0100",
        ],
    ),
    (
        # Queue IDs of the other side: short and long.
        "host mx.example.org[IP] said: 451 4.3.0 Error: queue file write error: # (in reply to end of DATA command)",
        [
            f"host mx.example.org[203.0.113.4] said: 451 4.3.0 Error: queue file write error: {queue_id} (in reply to"
            " end of DATA command)"
            for queue_id in ("4TqX1z2Kj9z9rxB", "7D2A91C0F3", "3F2A1B", "0C4D3E7", "123456", "4bXz9s1Kt")
        ],
    ),
    (
        "host mx.example.com[IP] said: 554 5.7.1 Service unavailable; Client host [IP] blocked using zen.spamhaus.org;"
        " URL (in reply to RCPT TO command)",
        [
            "host mx.example.com[192.0.2.1] said: 554 5.7.1 Service unavailable; Client host [192.0.2.55] blocked using"
            " zen.spamhaus.org; https://www.spamhaus.org/query/ip/192.0.2.55 (in reply to RCPT TO command)",
            "host mx.example.com[192.0.2.1] said: 554 5.7.1 Service unavailable; Client host [IPv6:2001:db8::1] blocked"
            " using zen.spamhaus.org; https://www.spamhaus.org/query/ip/2001:db8::1 (in reply to RCPT TO command)",
        ],
    ),
    (
        "host mx#.t-online.de[IP] refused to talk to me: 554 IP=IP - A problem occurred. (Ask <ADDRESS> to clarify.)",
        [
            "host mx01.t-online.de[194.25.134.8] refused to talk to me: 554 IP=192.0.2.55 - A problem occurred. (Ask"
            " tobr@rx.t-online.de to clarify.)"
        ],
    ),
    ("4.4.1 unreachable", ["4.4.1 unreachable"]),
    ("450 4.2.1 busy", ["450 4.2.1 busy"]),
    ("Server certificate not verified", ["Server certificate not verified"]),
    ("TLS is required, but was not offered by host mx#.example.com[IP]",
     ["TLS is required, but was not offered by host mx3.example.com[192.0.2.3]"]),
    ("queued for # times at ¿? \ufffd", ["queued for 5 times at\u2028¿? \ufffd"]),
]  # fmt: skip
CASES = [(name, reason) for name, reasons in GROUPS for reason in reasons]


@pytest.mark.parametrize(("name", "reason"), CASES)
def test_what_varies_goes_and_what_tells_stays(name: str, reason: str) -> None:
    assert normalise(reason) == name


def test_the_groups_of_the_table_differ_and_each_is_its_own_group() -> None:
    names = [name for name, _ in GROUPS]
    assert len(set(names)) == len(names)
    assert [normalise(name) for name in names] == names


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("421 4.7.0 no", "450 4.7.0 no"),
        ("450 4.7.0 no", "450 4.2.0 no"),
        ("450 4.7.1 no", "450 4.7.0 no"),
        ("host a.example[192.0.2.1] said: 450 no", "host a.example[192.0.2.1] said: 451 no"),
        ("connect to a.example[192.0.2.1]:25: no", "connect to b.example[192.0.2.1]:25: no"),
        ("connect to a.example[192.0.2.1]:25: no", "connect to a.example[192.0.2.1]:465: no"),
        ("said: 421 4.7.0 [TSS04] deferred", "said: 421 4.7.0 [TSS09] deferred"),
        ("said: 451 busy (S77719)", "said: 451 busy (S775)"),
        ("said: 450-4.2.1 no", "said: 451-4.2.1 no"),
        ("over quota", "greylisted"),
    ],
)
def test_reasons_that_tell_different_things_are_different_groups(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@given(st.text(max_size=300) | st.text("a1Z.:@[]()<>-# \t", max_size=300))
@settings(max_examples=300, deadline=None)
def test_whatever_a_server_says_has_a_group_with_a_bounded_name(text: str) -> None:
    name = normalise(text)
    assert len(name) <= LIMIT_CHARACTERS
    assert name == name.strip()
    assert bool(name) == bool(text.strip())
    assert normalise(text) == name


MEGABYTE = 1 << 20
HOSTILE = [
    "a",
    "1",
    " ",
    "a1 ",
    "a@",
    "@",
    "0.",
    ":",
    "1:",
    "[",
    "[1:",
    "1-a",
    "A1",
    "https://",
    "a1b2-",
    "<",
    "\u0661",
]


@pytest.mark.parametrize("part", HOSTILE)
@pytest.mark.parametrize("end", ["", "!", "@", "]"])
def test_a_megabyte_of_anything_takes_no_time(part: str, end: str) -> None:
    text = part * (MEGABYTE // len(part)) + end
    begun = time.process_time()
    assert len(normalise(text)) <= LIMIT_CHARACTERS
    for size in (190, 3900):  # what is looked at whole
        normalise(part * (size // len(part)) + end)
    assert time.process_time() - begun < 0.2
