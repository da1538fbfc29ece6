-- Operations and what became of each message. See journal.py.

CREATE TABLE IF NOT EXISTS operation (
    number       INTEGER PRIMARY KEY,  -- in the order in which they were asked for
    operation_id TEXT    NOT NULL UNIQUE,
    action       TEXT    NOT NULL,     -- delete hold release requeue expire flush restore export import confirm
    state        TEXT    NOT NULL,     -- queued running done cancelled interrupted failed
    actor        TEXT    NOT NULL,
    role         TEXT    NOT NULL,
    address      TEXT,
    request_id   TEXT,
    reason       TEXT,
    selection    TEXT    NOT NULL,     -- JSON, as it was asked for
    requested    INTEGER NOT NULL,     -- messages
    created_at   REAL    NOT NULL,     -- seconds since the epoch, like the next two
    started_at   REAL,
    finished_at  REAL,
    failure      TEXT,                 -- why the state is failed or interrupted: code, colon, sentence
    shorthand    INTEGER NOT NULL,     -- asked for by the route of one message
    keep_copy    INTEGER NOT NULL,     -- what is deleted goes into the trash first
    max_per_second   REAL,             -- the pace of a flush
    cancel_requested INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE IF NOT EXISTS item (
    operation    INTEGER NOT NULL REFERENCES operation (number),
    position     INTEGER NOT NULL,     -- from 1, in the order given
    queue_id     TEXT    NOT NULL,
    arrival_time INTEGER,              -- with sender the identity: null when not known beforehand
    sender       TEXT,
    stage        INTEGER,              -- 1: about to be touched; 2: on hold, locked, about to be acted on; 3: expired
    was_held     INTEGER,              -- whether it was on hold before, so that a restart can put it back
    outcome      TEXT,                 -- null: not yet known
    detail       TEXT,
    finished_at  REAL,
    new_queue_id TEXT,                 -- what we call it since, or are about to
    PRIMARY KEY (operation, position)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS item_unfinished ON item (operation, position) WHERE outcome IS NULL;

-- Sums of item.outcome, so that asking for progress does not cost a walk over a million rows.
CREATE TABLE IF NOT EXISTS outcome (
    operation INTEGER NOT NULL REFERENCES operation (number),
    outcome   TEXT    NOT NULL,
    messages  INTEGER NOT NULL,
    PRIMARY KEY (operation, outcome)
) WITHOUT ROWID;

-- So that a request that is sent again, for want of an answer, is not carried out again.
CREATE TABLE IF NOT EXISTS idempotency (
    key          TEXT NOT NULL,
    actor        TEXT NOT NULL,
    fingerprint  TEXT NOT NULL,
    operation_id TEXT NOT NULL,
    PRIMARY KEY (key, actor)
) WITHOUT ROWID;

-- Copies of deleted messages. See trash.py in this folder and in agent/.
CREATE TABLE IF NOT EXISTS trash (
    number        INTEGER PRIMARY KEY,
    queue_id      TEXT    NOT NULL,
    operation_id  TEXT    NOT NULL,
    state         TEXT    NOT NULL,    -- written, and with the message's outcome kept (removed) or void (it was not);
                                       -- then restoring, restored or purged
    file          TEXT    NOT NULL,    -- in the trash directory; several messages share one
    offset        INTEGER NOT NULL,
    length        INTEGER NOT NULL,
    digest        BLOB    NOT NULL,    -- BLAKE2b of the bytes
    queue_name    TEXT    NOT NULL,    -- where it was
    arrival_time  INTEGER,
    sender        TEXT,
    recipients    INTEGER NOT NULL,    -- still due
    forced_expire INTEGER NOT NULL,
    kept_at       REAL    NOT NULL,
    expires_at    REAL    NOT NULL,
    restored_as   TEXT                 -- the queue ID that it came back under
);

CREATE INDEX IF NOT EXISTS trash_queue_id ON trash (queue_id);
CREATE INDEX IF NOT EXISTS trash_operation_id ON trash (operation_id);
CREATE INDEX IF NOT EXISTS trash_kept ON trash (expires_at) WHERE state = 'kept';
CREATE INDEX IF NOT EXISTS trash_written ON trash (queue_id) WHERE state = 'written';

-- Which copies somebody else has taken over: they are not given back here any more. See moves.py.
CREATE TABLE IF NOT EXISTS exported (
    copy        INTEGER PRIMARY KEY REFERENCES trash (number),
    exported_at REAL NOT NULL
);

-- What imports brought, message by message. See moves.py.
CREATE TABLE IF NOT EXISTS imported (
    operation    INTEGER NOT NULL REFERENCES operation (number),
    position     INTEGER NOT NULL,     -- with operation the item that says what became of it
    queue_id     TEXT    NOT NULL,     -- where it comes from, as are the next three
    origin       TEXT    NOT NULL,     -- the name of that Postfix, its myhostname
    arrival_time INTEGER NOT NULL,
    digest       BLOB    NOT NULL,     -- BLAKE2b of the queue file
    copy         INTEGER REFERENCES trash (number),  -- null: none was made
    PRIMARY KEY (operation, position)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS imported_queue_id ON imported (queue_id) WHERE copy IS NOT NULL;
CREATE INDEX IF NOT EXISTS imported_copy ON imported (copy) WHERE copy IS NOT NULL;
