-- Envelope metadata, policy and audit. No column holds a plaintext credential, and the API refuses what looks like one.
-- Times are Unix milliseconds. `epoch` goes up with every change that a bouncer must see, in the same transaction.

CREATE TABLE meta (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    epoch INTEGER NOT NULL CHECK (epoch >= 0)
) STRICT;
INSERT INTO meta (singleton, epoch) VALUES (1, 1);

CREATE TABLE feature_flags (
    name TEXT PRIMARY KEY,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    updated_ms INTEGER NOT NULL,
    updated_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE settings (
    singleton INTEGER PRIMARY KEY CHECK (singleton = 1),
    provider TEXT NOT NULL,
    key_id TEXT NOT NULL,
    notes TEXT,
    updated_ms INTEGER NOT NULL,
    updated_by TEXT NOT NULL
) STRICT;

-- Only SHA-256 hashes of tokens. `lookup` is the first 8 bytes of the hash; the rest is compared in constant time.
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    name TEXT NOT NULL,
    lookup BLOB NOT NULL CHECK (length(lookup) = 8),
    hash BLOB NOT NULL UNIQUE CHECK (length(hash) = 32),
    created_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    revoked_ms INTEGER
) STRICT;
CREATE INDEX tokens_by_lookup ON tokens (lookup);

CREATE TABLE bouncers (
    name TEXT PRIMARY KEY,
    spiffe_id TEXT NOT NULL UNIQUE,
    created_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- What was last heard of a bouncer, so that status tells the truth after a restart of the control plane.
CREATE TABLE bouncer_sightings (
    bouncer TEXT PRIMARY KEY REFERENCES bouncers (name) ON DELETE CASCADE,
    seen_ms INTEGER NOT NULL,
    version TEXT NOT NULL,
    epoch_acked INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE protected_resources (
    name TEXT PRIMARY KEY,
    bouncer TEXT NOT NULL REFERENCES bouncers (name) ON DELETE RESTRICT,
    cluster TEXT NOT NULL,
    upstream TEXT NOT NULL,
    protocol TEXT NOT NULL CHECK (protocol IN ('mtls', 'https')),
    logical_path TEXT NOT NULL,
    -- A JSON array of SPIFFE IDs and patterns.
    callers TEXT NOT NULL,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    created_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    updated_ms INTEGER NOT NULL,
    updated_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX protected_resources_by_bouncer ON protected_resources (bouncer, cluster);
CREATE INDEX protected_resources_by_path ON protected_resources (logical_path);

-- A deleted secret keeps its row, so that a later registration of the path goes on counting generations.
CREATE TABLE envelope_secrets (
    id TEXT PRIMARY KEY,
    logical_path TEXT NOT NULL UNIQUE,
    latest INTEGER NOT NULL CHECK (latest >= 1),
    deleted_ms INTEGER,
    deleted_by TEXT
) STRICT, WITHOUT ROWID;

CREATE TABLE envelope_generations (
    secret_id TEXT NOT NULL REFERENCES envelope_secrets (id) ON DELETE RESTRICT,
    generation INTEGER NOT NULL CHECK (generation >= 1),
    provider TEXT NOT NULL,
    key_id TEXT NOT NULL,
    ciphertext_ref TEXT NOT NULL,
    aad TEXT,
    certificate_chain TEXT,
    enabled INTEGER NOT NULL CHECK (enabled IN (0, 1)),
    -- How often it was disabled and enabled again.
    activation INTEGER NOT NULL DEFAULT 0 CHECK (activation >= 0),
    created_ms INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    changed_ms INTEGER,
    changed_by TEXT,
    PRIMARY KEY (secret_id, generation)
) STRICT, WITHOUT ROWID;

CREATE TABLE audit_events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    bouncer TEXT NOT NULL,
    id TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    received_ms INTEGER NOT NULL,
    caller TEXT NOT NULL,
    resource TEXT NOT NULL,
    logical_path TEXT NOT NULL,
    generation INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    aad_sha256 TEXT NOT NULL,
    cluster TEXT NOT NULL,
    destination TEXT NOT NULL,
    outcome TEXT NOT NULL,
    reason TEXT NOT NULL,
    backend_request_id TEXT NOT NULL,
    count INTEGER NOT NULL,
    decision_id TEXT NOT NULL,
    authority TEXT NOT NULL,
    dev INTEGER NOT NULL CHECK (dev IN (0, 1)),
    -- At-least-once delivery; one bouncer's ids cannot shadow another's.
    UNIQUE (bouncer, id)
) STRICT;
CREATE INDEX audit_events_by_time ON audit_events (time_ms, seq);

-- Kept with each insert, since counting a long audit is slow.
CREATE TABLE audit_totals (
    outcome TEXT PRIMARY KEY,
    events INTEGER NOT NULL,
    last_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE admin_events (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    time_ms INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL
) STRICT;
