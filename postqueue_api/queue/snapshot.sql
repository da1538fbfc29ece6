-- One listing of the queue, written once and never changed: see snapshot_writer.py and snapshot.py.

CREATE TABLE snapshot (
    snapshot_id   TEXT    NOT NULL,  -- names the file too
    taken_at      REAL    NOT NULL,  -- when the listing began, seconds since the epoch
    duration      REAL    NOT NULL,  -- seconds until it was readable
    complete      INTEGER NOT NULL,  -- 0: the listing broke off, so messages may be missing
    skipped_lines INTEGER NOT NULL,  -- lines that could not be read
    mail_system   TEXT,              -- running or down; null when a listing that broke off did not tell
    messages      INTEGER NOT NULL,
    problem       TEXT,              -- the code of the error that broke the listing off
    last_complete TEXT,              -- then: the last snapshot that is complete
    cursor_key    BLOB    NOT NULL   -- signs the cursors that page through this snapshot
);

-- Narrow, because indexes are made from it: the text of a message is in `document`.
CREATE TABLE message (
    row               INTEGER PRIMARY KEY,
    queue_id          TEXT    NOT NULL,
    queue_name        TEXT    NOT NULL,
    arrival_time      INTEGER NOT NULL,  -- seconds since the epoch
    message_size      INTEGER NOT NULL,  -- bytes
    sender            TEXT    NOT NULL,  -- in lower case; mailer-daemon is the null sender
    sender_domain     TEXT    NOT NULL,  -- in lower case; empty when there is none
    recipients        INTEGER NOT NULL,
    forced_expire     INTEGER NOT NULL,
    next_attempt_time INTEGER NOT NULL   -- seconds since the epoch; -1 when unknown
);

CREATE TABLE document (
    row  INTEGER PRIMARY KEY,            -- message.row
    json BLOB    NOT NULL                -- the line as postqueue printed it, in valid UTF-8
);

-- The addresses that a message is for, each once, in the order of the messages.
CREATE TABLE recipient (
    row     INTEGER PRIMARY KEY,         -- message.row << 20 | position: so an index tells the message too
    address TEXT    NOT NULL             -- in lower case
);

-- The recipients of a message that share domain and reason: a message to a hundred of one site has one row. `firsts`
-- marks one row per message and value, so that counting these counts messages: 1, the first of its domain in the
-- message; 2, of its reason group. arrival_time and message_size are the message's, so that sums need no look-up.
CREATE TABLE destination (
    row          INTEGER PRIMARY KEY,    -- message.row << 20 | position
    domain       INTEGER NOT NULL,       -- domain.row
    reason       INTEGER NOT NULL,       -- reason.row
    reason_group INTEGER NOT NULL,       -- reason_group.row
    firsts       INTEGER NOT NULL,
    recipients   INTEGER NOT NULL,       -- how many, one that is listed twice counted twice
    arrival_time INTEGER NOT NULL,
    message_size INTEGER NOT NULL
);

-- The same text may stand in several rows of these three: the writer remembers only so many.
CREATE TABLE domain (
    row  INTEGER PRIMARY KEY,
    name TEXT NOT NULL                   -- in lower case; empty when the address has none
);

CREATE TABLE reason (
    row    INTEGER PRIMARY KEY,
    folded TEXT NOT NULL                 -- in lower case; empty when not delayed
);

CREATE TABLE reason_group (
    row  INTEGER PRIMARY KEY,
    name TEXT NOT NULL                   -- reason.py; empty when not delayed
);

-- What pollers ask for, summed up once.
CREATE TABLE queue (
    queue_name          TEXT    NOT NULL,
    messages            INTEGER NOT NULL,
    bytes               INTEGER NOT NULL,
    recipients          INTEGER NOT NULL,
    oldest_arrival_time INTEGER          -- null when the queue is empty
);

-- The largest groups over all (snapshot_sums.py), and so how many messages fit most of the conditions that are asked for.
CREATE TABLE largest (
    grouping TEXT    NOT NULL,           -- of grouping.py
    key      TEXT    NOT NULL,
    messages INTEGER NOT NULL,
    bytes    INTEGER,                    -- this and what follows is null for recipients: see grouping.py
    oldest   INTEGER,                    -- arrival_time
    newest   INTEGER,
    PRIMARY KEY (grouping, key)
) WITHOUT ROWID;

CREATE TABLE histogram (
    queue_name TEXT    NOT NULL,
    measure    TEXT    NOT NULL,         -- size and age, and their sums: size_sum, age_sum
    bound      REAL    NOT NULL,         -- bytes, or seconds: the upper bound of the bucket
    messages   REAL    NOT NULL          -- not above the bound; of size_sum and age_sum: bytes and seconds
);
