-- What the audit holds of each credential, in numbers, for those who may see a part of it. Kept by a trigger, in the
-- transaction of the events. Events that retention removed before this are not in it.
CREATE TABLE audit_path_totals (
    logical_path TEXT NOT NULL,
    outcome TEXT NOT NULL,
    events INTEGER NOT NULL,
    last_ms INTEGER NOT NULL,
    PRIMARY KEY (logical_path, outcome)
) STRICT, WITHOUT ROWID;

INSERT INTO audit_path_totals (logical_path, outcome, events, last_ms)
SELECT logical_path, outcome, count(*), max(time_ms) FROM audit_events WHERE logical_path <> ''
GROUP BY logical_path, outcome;

CREATE TRIGGER audit_event_counted AFTER INSERT ON audit_events WHEN new.logical_path <> '' BEGIN
    INSERT INTO audit_path_totals (logical_path, outcome, events, last_ms)
    VALUES (new.logical_path, new.outcome, 1, new.time_ms)
    ON CONFLICT (logical_path, outcome) DO UPDATE SET events = events + 1, last_ms = max(last_ms, excluded.last_ms);
END;
