-- How far each outlet of the audit has come, and which control plane serves it.
CREATE TABLE audit_outlets (
    name TEXT PRIMARY KEY,
    -- The last decision and the last change that are known to be there.
    decisions INTEGER NOT NULL CHECK (decisions >= 0),
    changes INTEGER NOT NULL CHECK (changes >= 0),
    holder TEXT NOT NULL,
    until_ms INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
