-- Changes of binding that wait for a second person. What was proposed stays, with what became of it.
CREATE TABLE proposals (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT COLLATE "C" NOT NULL UNIQUE,
    state TEXT COLLATE "C" NOT NULL CHECK (state IN ('pending', 'approved', 'rejected', 'withdrawn', 'expired', 'stale')),
    -- The call, as it is made when it is approved. The body is canonical JSON, and the API found no plaintext in it.
    method TEXT NOT NULL,
    route TEXT NOT NULL,
    path TEXT NOT NULL,
    body TEXT NOT NULL,
    -- Of what it was built on; 0 where there was nothing.
    base_revision BIGINT NOT NULL CHECK (base_revision >= 0),
    subject TEXT NOT NULL,
    -- The credentials it is about: what it will be and what it was. NULL where it is about more than some.
    logical_path TEXT COLLATE "C",
    former_path TEXT COLLATE "C",
    -- JSON objects of metadata. NULL where there was nothing.
    before_json TEXT,
    after_json TEXT NOT NULL,
    reason TEXT,
    -- Who proposed it, and what they might do then.
    actor TEXT COLLATE "C" NOT NULL,
    token_id TEXT,
    role TEXT NOT NULL CHECK (role IN ('viewer', 'auditor', 'operator', 'admin')),
    scope TEXT NOT NULL,
    idempotency_key BYTEA,
    idempotency_request BYTEA,
    created_ms BIGINT NOT NULL,
    expires_ms BIGINT NOT NULL,
    decided_ms BIGINT,
    decided_by TEXT,
    note TEXT
);
CREATE INDEX proposals_by_state ON proposals (state, seq);
CREATE INDEX proposals_by_key ON proposals (actor, idempotency_key) WHERE idempotency_key IS NOT NULL;
