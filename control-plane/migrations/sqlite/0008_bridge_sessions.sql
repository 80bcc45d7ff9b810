-- Which resolvers are connected, as the control plane that each is connected to tells the others. What one has not told of
-- for 30 seconds counts no more.
CREATE TABLE bridge_sessions (
    id TEXT PRIMARY KEY,
    replica TEXT NOT NULL,
    bouncer TEXT NOT NULL,
    told_ms INTEGER NOT NULL,
    -- A JSON object: what the session's resolver said of itself, bounded when it came in.
    view TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX bridge_sessions_by_replica ON bridge_sessions (replica);
