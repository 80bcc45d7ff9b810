-- Chained audit. Events from before have no chain, and nothing but this database speaks for them.
ALTER TABLE audit_events ADD COLUMN chain TEXT;
ALTER TABLE audit_events ADD COLUMN leaf BLOB;
ALTER TABLE audit_events ADD COLUMN head BLOB;
-- A JSON object: the SHA-256 commitments to texts that are withheld, by column. NULL where none is.
ALTER TABLE audit_events ADD COLUMN withheld TEXT;
CREATE INDEX audit_events_by_chain ON audit_events (chain, sequence, seq) WHERE chain IS NOT NULL;
CREATE INDEX audit_events_unchained ON audit_events (seq) WHERE chain IS NULL;

ALTER TABLE admin_events ADD COLUMN sequence INTEGER;
ALTER TABLE admin_events ADD COLUMN leaf BLOB;
ALTER TABLE admin_events ADD COLUMN head BLOB;
CREATE UNIQUE INDEX admin_events_by_sequence ON admin_events (sequence) WHERE sequence IS NOT NULL;

-- How far each chain has come. The control plane's own has the owner 'control-plane'; bouncers' have 'bouncer:<name>'.
CREATE TABLE audit_chains (
    chain TEXT PRIMARY KEY,
    owner TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    head BLOB NOT NULL CHECK (length(head) = 32)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX audit_own_chain ON audit_chains (owner) WHERE owner = 'control-plane';

-- The certificates of SVIDs that sign checkpoints; each signs many. A JSON array of base64 DER, leaf first.
CREATE TABLE audit_certificates (
    sha256 BLOB PRIMARY KEY CHECK (length(sha256) = 32),
    certificates TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- Kept for good: they outlive the events that they cover.
CREATE TABLE audit_checkpoints (
    chain TEXT NOT NULL,
    number INTEGER NOT NULL,
    owner TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    head BLOB NOT NULL CHECK (length(head) = 32),
    time_ms INTEGER NOT NULL,
    algorithm TEXT NOT NULL,
    signature BLOB NOT NULL,
    certificates_sha256 BLOB NOT NULL REFERENCES audit_certificates (sha256),
    received_ms INTEGER NOT NULL,
    PRIMARY KEY (chain, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX audit_checkpoints_by_sequence ON audit_checkpoints (chain, sequence, number);

-- What did not fit together when it came in. Evidence is stored all the same: in its own table, or here.
CREATE TABLE audit_divergences (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    received_ms INTEGER NOT NULL,
    bouncer TEXT NOT NULL,
    chain TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    kind TEXT NOT NULL,
    evidence TEXT NOT NULL
) STRICT;
