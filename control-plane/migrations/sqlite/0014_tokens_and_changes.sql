-- What pages of tokens and of administrative changes are found by: whatever they may be filtered by, in the list's order.
CREATE INDEX tokens_by_name ON tokens (name, id);
CREATE INDEX tokens_by_role ON tokens (role, id);
CREATE INDEX tokens_not_revoked ON tokens (id, expires_ms) WHERE revoked_ms IS NULL;
CREATE INDEX tokens_revoked ON tokens (id, revoked_ms) WHERE revoked_ms IS NOT NULL;

CREATE INDEX admin_events_by_time ON admin_events (time_ms, seq);
CREATE INDEX admin_events_by_actor ON admin_events (actor, time_ms, seq);
CREATE INDEX admin_events_by_action ON admin_events (action, time_ms, seq);
CREATE INDEX admin_events_by_subject ON admin_events (subject, time_ms, seq);
