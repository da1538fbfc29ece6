-- Made after the rows are in, which is faster, and after the index over queue_id: see snapshot_writer.py.

-- One per sort order (page.py); those over a queue or sender serve groups and ages too, and so hold what these sum up.
-- Each has the messages of one queue or sender in the order of arrival: of time, size and row.
CREATE INDEX message_arrival_time ON message (arrival_time, message_size);
CREATE INDEX message_message_size ON message (message_size);
CREATE INDEX message_queue_name ON message (queue_name, arrival_time, message_size, row, recipients);
CREATE INDEX message_recipients ON message (recipients);
CREATE INDEX message_next_attempt_time ON message (next_attempt_time);
CREATE INDEX message_sender ON message (sender, arrival_time, message_size);
CREATE INDEX message_sender_domain ON message (sender_domain, arrival_time, message_size);

-- Addresses are many, and few rows have the same: what is summed up of these is looked up, and their index is made sooner.
CREATE INDEX recipient_address ON recipient (address);

-- The marks stand in the columns too: only then does SQLite answer from the index alone. Ages need the rows without a
-- mark as well.
CREATE INDEX destination_domain ON destination (domain, arrival_time, message_size, firsts, recipients);
CREATE INDEX destination_reason_group ON destination (reason_group, arrival_time, message_size, firsts)
    WHERE firsts & 2;
CREATE INDEX domain_name ON domain (name);
CREATE INDEX reason_group_name ON reason_group (name);
