-- What the audit holds of each credential, in numbers, for those who may see a part of it; by bouncer, so that no two
-- bouncers wait for one row. Kept by a trigger, in the transaction of the events. Events that retention removed before this
-- are not in it.

-- However long it takes. Events that come in meanwhile wait, or are sent again.
SET LOCAL statement_timeout = 0;

CREATE TABLE audit_path_totals (
    logical_path TEXT COLLATE "C" NOT NULL,
    bouncer TEXT COLLATE "C" NOT NULL,
    outcome TEXT COLLATE "C" NOT NULL,
    events BIGINT NOT NULL,
    last_ms BIGINT NOT NULL,
    PRIMARY KEY (logical_path, bouncer, outcome)
);

-- In the order of the key, so that no two wait for each other.
CREATE FUNCTION audit_events_counted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO audit_path_totals AS t (logical_path, bouncer, outcome, events, last_ms)
    SELECT logical_path, bouncer, outcome, count(*), max(time_ms) FROM added WHERE logical_path <> ''
    GROUP BY logical_path, bouncer, outcome ORDER BY logical_path, bouncer, outcome
    ON CONFLICT (logical_path, bouncer, outcome) DO UPDATE
    SET events = t.events + excluded.events, last_ms = greatest(t.last_ms, excluded.last_ms);
    RETURN NULL;
END $$;
CREATE TRIGGER audit_events_counted AFTER INSERT ON audit_events REFERENCING NEW TABLE AS added
FOR EACH STATEMENT EXECUTE FUNCTION audit_events_counted();

INSERT INTO audit_path_totals (logical_path, bouncer, outcome, events, last_ms)
SELECT logical_path, bouncer, outcome, count(*), max(time_ms) FROM audit_events WHERE logical_path <> ''
GROUP BY logical_path, bouncer, outcome;
