-- Envelope metadata, policy and audit. No column holds a plaintext credential, and the API refuses what looks like one.
-- Times are Unix milliseconds. Texts that are sorted by or looked up have the order of their bytes, whatever the locale.

-- The one row is the lock that makes administrative changes one after the other. `epoch` goes up with every change that a
-- bouncer must see, `revision` with every one that an administrator makes, in the same transaction.
CREATE TABLE meta (
    singleton BIGINT PRIMARY KEY CHECK (singleton = 1),
    epoch BIGINT NOT NULL CHECK (epoch >= 0),
    revision BIGINT NOT NULL CHECK (revision >= 1)
);
INSERT INTO meta (singleton, epoch, revision) VALUES (1, 1, 1);

CREATE TABLE feature_flags (
    name TEXT COLLATE "C" PRIMARY KEY,
    enabled BOOLEAN NOT NULL,
    updated_ms BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    revision BIGINT NOT NULL
);

CREATE TABLE settings (
    singleton BIGINT PRIMARY KEY CHECK (singleton = 1),
    provider TEXT NOT NULL,
    key_id TEXT NOT NULL,
    notes TEXT,
    updated_ms BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    revision BIGINT NOT NULL
);

-- Only SHA-256 hashes of tokens. `lookup` is the first 8 bytes of the hash; the rest is compared in constant time.
CREATE TABLE tokens (
    id TEXT COLLATE "C" PRIMARY KEY,
    name TEXT COLLATE "C" NOT NULL,
    lookup BYTEA NOT NULL CHECK (length(lookup) = 8),
    hash BYTEA NOT NULL UNIQUE CHECK (length(hash) = 32),
    role TEXT NOT NULL CHECK (role IN ('viewer', 'auditor', 'operator', 'admin')),
    -- A JSON array of logical paths and patterns; empty for everything.
    scope TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    expires_ms BIGINT,
    revoked_ms BIGINT,
    single_use BOOLEAN NOT NULL
);
CREATE INDEX tokens_by_lookup ON tokens (lookup);

-- Only SHA-256 hashes of cookies, looked up as tokens are.
CREATE TABLE sessions (
    lookup BYTEA NOT NULL CHECK (length(lookup) = 8),
    hash BYTEA PRIMARY KEY CHECK (length(hash) = 32),
    -- The session ends with its token. NULL where there is none, or it was good for this use only.
    token_id TEXT COLLATE "C" REFERENCES tokens (id) ON DELETE CASCADE,
    actor TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'auditor', 'operator', 'admin')),
    scope TEXT NOT NULL,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL
);
CREATE INDEX sessions_by_lookup ON sessions (lookup);

CREATE TABLE bouncers (
    name TEXT COLLATE "C" PRIMARY KEY,
    spiffe_id TEXT COLLATE "C" NOT NULL UNIQUE,
    created_ms BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    updated_ms BIGINT,
    updated_by TEXT,
    revision BIGINT NOT NULL
);

-- What was last heard of a bouncer, so that status tells the truth after a restart of the control plane.
CREATE TABLE bouncer_sightings (
    bouncer TEXT COLLATE "C" PRIMARY KEY REFERENCES bouncers (name) ON DELETE CASCADE,
    seen_ms BIGINT NOT NULL,
    version TEXT NOT NULL,
    epoch_acked BIGINT NOT NULL
);

CREATE TABLE protected_resources (
    name TEXT COLLATE "C" PRIMARY KEY,
    bouncer TEXT COLLATE "C" NOT NULL REFERENCES bouncers (name) ON DELETE RESTRICT,
    cluster TEXT COLLATE "C" NOT NULL,
    upstream TEXT NOT NULL,
    protocol TEXT NOT NULL CHECK (protocol IN ('mtls', 'https')),
    logical_path TEXT COLLATE "C" NOT NULL,
    -- A JSON array of SPIFFE IDs and patterns.
    callers TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    created_ms BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    updated_ms BIGINT NOT NULL,
    updated_by TEXT NOT NULL,
    revision BIGINT NOT NULL
);
CREATE INDEX protected_resources_by_bouncer ON protected_resources (bouncer, cluster);
CREATE INDEX protected_resources_by_path ON protected_resources (logical_path);

-- A deleted secret keeps its row, so that a later registration of the path goes on counting generations.
CREATE TABLE envelope_secrets (
    id TEXT COLLATE "C" PRIMARY KEY,
    logical_path TEXT COLLATE "C" NOT NULL UNIQUE,
    latest BIGINT NOT NULL CHECK (latest >= 1),
    -- The newest generation that was disabled or deleted: a bouncer that missed it must end what uses that generation or
    -- an older one, and not take a later registration for a rotation.
    revoked_through BIGINT NOT NULL DEFAULT 0 CHECK (revoked_through >= 0),
    deleted_ms BIGINT,
    deleted_by TEXT,
    revision BIGINT NOT NULL
);

CREATE TABLE envelope_generations (
    secret_id TEXT COLLATE "C" NOT NULL REFERENCES envelope_secrets (id) ON DELETE RESTRICT,
    generation BIGINT NOT NULL CHECK (generation >= 1),
    provider TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    ciphertext_ref TEXT NOT NULL,
    aad TEXT,
    certificate_chain TEXT,
    -- When the registered chain's leaf ends; NULL without a chain.
    not_after_ms BIGINT,
    enabled BOOLEAN NOT NULL,
    -- How often it was disabled and enabled again.
    activation BIGINT NOT NULL DEFAULT 0 CHECK (activation >= 0),
    created_ms BIGINT NOT NULL,
    created_by TEXT NOT NULL,
    changed_ms BIGINT,
    changed_by TEXT,
    reason TEXT,
    PRIMARY KEY (secret_id, generation)
);

CREATE TABLE idempotency_keys (
    actor TEXT COLLATE "C" NOT NULL,
    key BYTEA NOT NULL CHECK (length(key) = 32),
    request BYTEA NOT NULL CHECK (length(request) = 32),
    -- What the call registered, where another call would register another generation.
    secret_id TEXT COLLATE "C" REFERENCES envelope_secrets (id),
    generation BIGINT,
    created_ms BIGINT NOT NULL,
    PRIMARY KEY (actor, key)
);
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_ms);

CREATE TABLE audit_events (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    bouncer TEXT COLLATE "C" NOT NULL,
    id TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    time_ms BIGINT NOT NULL,
    received_ms BIGINT NOT NULL,
    caller TEXT COLLATE "C" NOT NULL,
    resource TEXT NOT NULL,
    logical_path TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    key_id TEXT NOT NULL,
    aad_sha256 TEXT NOT NULL,
    cluster TEXT NOT NULL,
    destination TEXT NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    reason TEXT COLLATE "C" NOT NULL,
    backend_request_id TEXT NOT NULL,
    count BIGINT NOT NULL,
    decision_id TEXT NOT NULL,
    authority TEXT NOT NULL,
    dev BOOLEAN NOT NULL,
    -- Absent where an event is in no chain.
    chain TEXT COLLATE "C",
    leaf BYTEA,
    head BYTEA,
    -- A JSON object: the SHA-256 commitments to texts that are withheld, by column. NULL where none is.
    withheld TEXT,
    -- At-least-once delivery; one bouncer's ids cannot shadow another's.
    UNIQUE (bouncer, id)
);
CREATE INDEX audit_events_by_time ON audit_events (time_ms, seq);
CREATE INDEX audit_events_by_chain ON audit_events (chain, sequence, seq) WHERE chain IS NOT NULL;
CREATE INDEX audit_events_unchained ON audit_events (seq) WHERE chain IS NULL;

-- Kept with each insert, since counting a long audit is slow; by bouncer, so that no two bouncers wait for one row.
CREATE TABLE audit_totals (
    bouncer TEXT COLLATE "C" NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    events BIGINT NOT NULL,
    last_ms BIGINT NOT NULL,
    PRIMARY KEY (bouncer, outcome)
);

CREATE TABLE admin_events (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    time_ms BIGINT NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    detail TEXT NOT NULL,
    sequence BIGINT,
    leaf BYTEA,
    head BYTEA
);
CREATE UNIQUE INDEX admin_events_by_sequence ON admin_events (sequence) WHERE sequence IS NOT NULL;

-- How far each chain has come. The control plane's own has the owner 'control-plane'; bouncers' have 'bouncer:<name>'.
CREATE TABLE audit_chains (
    chain TEXT COLLATE "C" PRIMARY KEY,
    owner TEXT COLLATE "C" NOT NULL,
    sequence BIGINT NOT NULL,
    head BYTEA NOT NULL CHECK (length(head) = 32)
);
CREATE UNIQUE INDEX audit_own_chain ON audit_chains (owner) WHERE owner = 'control-plane';

-- The certificates of SVIDs that sign checkpoints; each signs many. A JSON array of base64 DER, leaf first.
CREATE TABLE audit_certificates (
    sha256 BYTEA PRIMARY KEY CHECK (length(sha256) = 32),
    certificates TEXT NOT NULL
);

-- Kept for good: they outlive the events that they cover.
CREATE TABLE audit_checkpoints (
    chain TEXT COLLATE "C" NOT NULL,
    number BIGINT NOT NULL,
    owner TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    head BYTEA NOT NULL CHECK (length(head) = 32),
    time_ms BIGINT NOT NULL,
    algorithm TEXT NOT NULL,
    signature BYTEA NOT NULL,
    certificates_sha256 BYTEA NOT NULL REFERENCES audit_certificates (sha256),
    received_ms BIGINT NOT NULL,
    PRIMARY KEY (chain, number)
);
CREATE INDEX audit_checkpoints_by_sequence ON audit_checkpoints (chain, sequence, number);

-- What did not fit together when it came in. Evidence is stored all the same: in its own table, or here.
CREATE TABLE audit_divergences (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    received_ms BIGINT NOT NULL,
    bouncer TEXT COLLATE "C" NOT NULL,
    chain TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    kind TEXT NOT NULL,
    evidence TEXT NOT NULL
);

-- Which resolvers are connected, as the control plane that each is connected to tells the others. What one has not told of
-- for 30 seconds, by the server's clock, counts no more.
CREATE TABLE bridge_sessions (
    id TEXT COLLATE "C" PRIMARY KEY,
    replica TEXT COLLATE "C" NOT NULL,
    bouncer TEXT COLLATE "C" NOT NULL,
    told_ms BIGINT NOT NULL,
    -- A JSON object: what the session's resolver said of itself, bounded when it came in.
    view TEXT NOT NULL
);
CREATE INDEX bridge_sessions_by_replica ON bridge_sessions (replica);
