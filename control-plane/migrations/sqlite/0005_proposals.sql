-- Changes of binding that wait for a second person. What was proposed stays, with what became of it.
CREATE TABLE proposals (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    state TEXT NOT NULL CHECK (state IN ('pending', 'approved', 'rejected', 'withdrawn', 'expired', 'stale')),
    -- The call, as it is made when it is approved. The body is canonical JSON, and the API found no plaintext in it.
    method TEXT NOT NULL,
    route TEXT NOT NULL,
    path TEXT NOT NULL,
    body TEXT NOT NULL,
    -- Of what it was built on; 0 where there was nothing.
    base_revision INTEGER NOT NULL CHECK (base_revision >= 0),
    subject TEXT NOT NULL,
    -- The credentials it is about: what it will be and what it was. NULL where it is about more than some.
    logical_path TEXT,
    former_path TEXT,
    -- JSON objects of metadata. NULL where there was nothing.
    before_json TEXT,
    after_json TEXT NOT NULL,
    reason TEXT,
    -- Who proposed it, and what they might do then.
    actor TEXT NOT NULL,
    token_id TEXT,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'auditor', 'operator', 'admin')),
    scope TEXT NOT NULL,
    idempotency_key BLOB,
    idempotency_request BLOB,
    created_ms INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL,
    decided_ms INTEGER,
    decided_by TEXT,
    note TEXT
) STRICT;
CREATE INDEX proposals_by_state ON proposals (state, seq);
CREATE INDEX proposals_by_key ON proposals (actor, idempotency_key) WHERE idempotency_key IS NOT NULL;
