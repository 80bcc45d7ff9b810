-- How far each outlet of the audit has come, and which control plane serves it.
CREATE TABLE audit_outlets (
    name TEXT COLLATE "C" PRIMARY KEY,
    -- The last decision and the last change that are known to be there.
    decisions BIGINT NOT NULL CHECK (decisions >= 0),
    changes BIGINT NOT NULL CHECK (changes >= 0),
    holder TEXT COLLATE "C" NOT NULL,
    until_ms BIGINT NOT NULL
);
