-- What lists are read by, so that a page costs the same however long the list is. Kept by triggers, in the transaction of
-- what they follow. Each list has a table of what it may be filtered by, with indexes in the list's order, and the
-- trigrams of what is searched: two spaces stand behind each text, so that its last characters begin a trigram too.

-- The newest generation of each secret that is not deleted.
CREATE TABLE envelope_search (
    id INTEGER PRIMARY KEY,
    secret_id TEXT NOT NULL UNIQUE REFERENCES envelope_secrets (id) ON DELETE CASCADE,
    logical_path TEXT NOT NULL,
    generation INTEGER NOT NULL,
    provider TEXT NOT NULL,
    key_id TEXT NOT NULL,
    enabled INTEGER NOT NULL,
    not_after_ms INTEGER
) STRICT;
CREATE UNIQUE INDEX envelope_search_in_order ON envelope_search (logical_path);
CREATE INDEX envelope_search_by_provider ON envelope_search (provider, logical_path);
CREATE INDEX envelope_search_by_key ON envelope_search (key_id, logical_path);
CREATE INDEX envelope_search_by_enabled ON envelope_search (enabled, logical_path);
CREATE INDEX envelope_search_by_end ON envelope_search (not_after_ms) WHERE not_after_ms IS NOT NULL;
CREATE INDEX envelope_search_ending ON envelope_search (logical_path, not_after_ms) WHERE not_after_ms IS NOT NULL;
CREATE VIRTUAL TABLE envelope_trigrams USING
    fts5 (text, tokenize = 'trigram', detail = 'none', content = '', contentless_delete = 1);
CREATE VIRTUAL TABLE envelope_vocabulary USING fts5vocab (envelope_trigrams, 'instance');

CREATE TRIGGER envelope_search_added AFTER INSERT ON envelope_search BEGIN
    INSERT INTO envelope_trigrams (rowid, text) VALUES (new.id, new.logical_path || '  ');
END;
CREATE TRIGGER envelope_search_gone AFTER DELETE ON envelope_search BEGIN
    DELETE FROM envelope_trigrams WHERE rowid = old.id;
END;
CREATE TRIGGER envelope_generation_added AFTER INSERT ON envelope_generations BEGIN
    INSERT INTO envelope_search (secret_id, logical_path, generation, provider, key_id, enabled, not_after_ms)
    SELECT id, logical_path, new.generation, new.provider, new.key_id, new.enabled, new.not_after_ms
    FROM envelope_secrets WHERE id = new.secret_id AND latest = new.generation AND deleted_ms IS NULL
    ON CONFLICT (secret_id) DO UPDATE SET generation = excluded.generation, provider = excluded.provider,
        key_id = excluded.key_id, enabled = excluded.enabled, not_after_ms = excluded.not_after_ms;
END;
CREATE TRIGGER envelope_generation_changed AFTER UPDATE OF enabled, not_after_ms ON envelope_generations BEGIN
    UPDATE envelope_search SET enabled = new.enabled, not_after_ms = new.not_after_ms
    WHERE secret_id = new.secret_id AND generation = new.generation;
END;
CREATE TRIGGER envelope_secret_deleted AFTER UPDATE OF deleted_ms ON envelope_secrets
WHEN new.deleted_ms IS NOT NULL BEGIN
    DELETE FROM envelope_search WHERE secret_id = new.id;
END;

INSERT INTO envelope_search (secret_id, logical_path, generation, provider, key_id, enabled, not_after_ms)
SELECT s.id, s.logical_path, g.generation, g.provider, g.key_id, g.enabled, g.not_after_ms FROM envelope_secrets s
JOIN envelope_generations g ON g.secret_id = s.id AND g.generation = s.latest WHERE s.deleted_ms IS NULL;

CREATE TABLE resource_search (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL REFERENCES protected_resources (name) ON DELETE CASCADE,
    bouncer TEXT NOT NULL,
    logical_path TEXT NOT NULL,
    enabled INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX resource_search_in_order ON resource_search (name);
CREATE INDEX resource_search_by_bouncer ON resource_search (bouncer, name);
CREATE INDEX resource_search_by_path ON resource_search (logical_path, name);
CREATE INDEX resource_search_by_enabled ON resource_search (enabled, name);
CREATE VIRTUAL TABLE resource_trigrams USING
    fts5 (text, tokenize = 'trigram', detail = 'none', content = '', contentless_delete = 1);
CREATE VIRTUAL TABLE resource_vocabulary USING fts5vocab (resource_trigrams, 'instance');

CREATE TRIGGER resource_search_added AFTER INSERT ON resource_search BEGIN
    INSERT INTO resource_trigrams (rowid, text) VALUES (new.id, new.name || '  ');
END;
CREATE TRIGGER resource_search_gone AFTER DELETE ON resource_search BEGIN
    DELETE FROM resource_trigrams WHERE rowid = old.id;
END;
CREATE TRIGGER resource_added AFTER INSERT ON protected_resources BEGIN
    INSERT INTO resource_search (name, bouncer, logical_path, enabled)
    VALUES (new.name, new.bouncer, new.logical_path, new.enabled);
END;
CREATE TRIGGER resource_changed AFTER UPDATE ON protected_resources BEGIN
    UPDATE resource_search SET bouncer = new.bouncer, logical_path = new.logical_path, enabled = new.enabled
    WHERE name = new.name;
END;
CREATE TRIGGER resource_gone BEFORE DELETE ON protected_resources BEGIN
    DELETE FROM resource_search WHERE name = old.name;
END;

INSERT INTO resource_search (name, bouncer, logical_path, enabled)
SELECT name, bouncer, logical_path, enabled FROM protected_resources;

CREATE TABLE bouncer_search (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL REFERENCES bouncers (name) ON DELETE CASCADE
) STRICT;
CREATE UNIQUE INDEX bouncer_search_in_order ON bouncer_search (name);
CREATE VIRTUAL TABLE bouncer_trigrams USING
    fts5 (text, tokenize = 'trigram', detail = 'none', content = '', contentless_delete = 1);
CREATE VIRTUAL TABLE bouncer_vocabulary USING fts5vocab (bouncer_trigrams, 'instance');

CREATE TRIGGER bouncer_search_added AFTER INSERT ON bouncer_search BEGIN
    INSERT INTO bouncer_trigrams (rowid, text) VALUES (new.id, new.name || '  ');
END;
CREATE TRIGGER bouncer_search_gone AFTER DELETE ON bouncer_search BEGIN
    DELETE FROM bouncer_trigrams WHERE rowid = old.id;
END;
CREATE TRIGGER bouncer_added AFTER INSERT ON bouncers BEGIN
    INSERT INTO bouncer_search (name) VALUES (new.name);
END;
CREATE TRIGGER bouncer_gone BEFORE DELETE ON bouncers BEGIN
    DELETE FROM bouncer_search WHERE name = old.name;
END;

INSERT INTO bouncer_search (name) SELECT name FROM bouncers;
