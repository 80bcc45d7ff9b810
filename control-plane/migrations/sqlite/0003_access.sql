-- Roles and scopes of tokens, sessions of browsers, revisions by which two operators do not overwrite each other, and
-- keys by which a call that was sent twice happens once.

-- Goes up with every change an administrator makes; what was changed keeps the number.
ALTER TABLE meta ADD COLUMN revision INTEGER NOT NULL DEFAULT 1 CHECK (revision >= 1);
ALTER TABLE feature_flags ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE settings ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE protected_resources ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE envelope_secrets ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE bouncers ADD COLUMN revision INTEGER NOT NULL DEFAULT 1;
ALTER TABLE bouncers ADD COLUMN updated_ms INTEGER;
ALTER TABLE bouncers ADD COLUMN updated_by TEXT;

ALTER TABLE envelope_generations ADD COLUMN reason TEXT;
-- When the registered chain's leaf ends; NULL without a chain.
ALTER TABLE envelope_generations ADD COLUMN not_after_ms INTEGER;

-- Tokens of before there were roles could do everything, and go on.
ALTER TABLE tokens ADD COLUMN role TEXT NOT NULL DEFAULT 'admin'
    CHECK (role IN ('viewer', 'auditor', 'operator', 'admin'));
-- A JSON array of logical paths and patterns; empty for everything.
ALTER TABLE tokens ADD COLUMN scope TEXT NOT NULL DEFAULT '[]';
ALTER TABLE tokens ADD COLUMN expires_ms INTEGER;
ALTER TABLE tokens ADD COLUMN single_use INTEGER NOT NULL DEFAULT 0 CHECK (single_use IN (0, 1));

-- Only SHA-256 hashes of cookies, looked up as tokens are.
CREATE TABLE sessions (
    lookup BLOB NOT NULL CHECK (length(lookup) = 8),
    hash BLOB PRIMARY KEY CHECK (length(hash) = 32),
    -- The session ends with its token. NULL where there is none, or it was good for this use only.
    token_id TEXT REFERENCES tokens (id) ON DELETE CASCADE,
    actor TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'auditor', 'operator', 'admin')),
    scope TEXT NOT NULL,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_lookup ON sessions (lookup);

CREATE TABLE idempotency_keys (
    actor TEXT NOT NULL,
    key BLOB NOT NULL CHECK (length(key) = 32),
    request BLOB NOT NULL CHECK (length(request) = 32),
    -- What the call registered, where another call would register another generation.
    secret_id TEXT REFERENCES envelope_secrets (id),
    generation INTEGER,
    created_ms INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_keys_by_time ON idempotency_keys (created_ms);
