-- What lists are read by, so that a page costs the same however long the list is: indexes in the list's order of what it may
-- be filtered by, and of the trigrams of what is searched. Two spaces stand behind each text, so that its last characters
-- begin a trigram too.

-- However long it takes. It is an administrative change, and waits for others as each does.
SET LOCAL statement_timeout = 0;
SELECT singleton FROM meta FOR UPDATE;

-- A set of texts, and nothing of the text search that the type is made for.
CREATE FUNCTION trigrams(text) RETURNS tsvector LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE AS $$
    SELECT array_to_tsvector(array_agg(substr(lower($1 COLLATE "C") || '  ', at, 3))) FROM generate_series(1, length($1)) AS at
$$;

-- The newest generation of each secret that is not deleted. Kept by triggers, in the transaction of what they follow.
CREATE TABLE envelope_search (
    secret_id TEXT COLLATE "C" PRIMARY KEY REFERENCES envelope_secrets (id) ON DELETE CASCADE,
    logical_path TEXT COLLATE "C" NOT NULL,
    generation BIGINT NOT NULL,
    provider TEXT COLLATE "C" NOT NULL,
    key_id TEXT COLLATE "C" NOT NULL,
    enabled BOOLEAN NOT NULL,
    not_after_ms BIGINT
);

CREATE FUNCTION envelope_generation_added() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO envelope_search (secret_id, logical_path, generation, provider, key_id, enabled, not_after_ms)
    SELECT id, logical_path, new.generation, new.provider, new.key_id, new.enabled, new.not_after_ms
    FROM envelope_secrets WHERE id = new.secret_id AND latest = new.generation AND deleted_ms IS NULL
    ON CONFLICT (secret_id) DO UPDATE SET generation = excluded.generation, provider = excluded.provider,
        key_id = excluded.key_id, enabled = excluded.enabled, not_after_ms = excluded.not_after_ms;
    RETURN NULL;
END $$;
CREATE TRIGGER envelope_generation_added AFTER INSERT ON envelope_generations
FOR EACH ROW EXECUTE FUNCTION envelope_generation_added();

CREATE FUNCTION envelope_generation_changed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE envelope_search SET enabled = new.enabled, not_after_ms = new.not_after_ms
    WHERE secret_id = new.secret_id AND generation = new.generation;
    RETURN NULL;
END $$;
CREATE TRIGGER envelope_generation_changed AFTER UPDATE OF enabled, not_after_ms ON envelope_generations
FOR EACH ROW EXECUTE FUNCTION envelope_generation_changed();

CREATE FUNCTION envelope_secret_deleted() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    DELETE FROM envelope_search WHERE secret_id = new.id;
    RETURN NULL;
END $$;
CREATE TRIGGER envelope_secret_deleted AFTER UPDATE OF deleted_ms ON envelope_secrets
FOR EACH ROW WHEN (new.deleted_ms IS NOT NULL) EXECUTE FUNCTION envelope_secret_deleted();

INSERT INTO envelope_search (secret_id, logical_path, generation, provider, key_id, enabled, not_after_ms)
SELECT s.id, s.logical_path, g.generation, g.provider, g.key_id, g.enabled, g.not_after_ms FROM envelope_secrets s
JOIN envelope_generations g ON g.secret_id = s.id AND g.generation = s.latest WHERE s.deleted_ms IS NULL;

-- Without a list of what is pending, which every search would go through.
CREATE INDEX envelope_trigrams ON envelope_search USING gin (trigrams(logical_path)) WITH (fastupdate = off);
CREATE UNIQUE INDEX envelope_search_in_order ON envelope_search (logical_path);
CREATE INDEX envelope_search_by_provider ON envelope_search (provider, logical_path);
CREATE INDEX envelope_search_by_key ON envelope_search (key_id, logical_path);
CREATE INDEX envelope_search_by_enabled ON envelope_search (enabled, logical_path);
CREATE INDEX envelope_search_by_end ON envelope_search (not_after_ms) WHERE not_after_ms IS NOT NULL;
CREATE INDEX envelope_search_ending ON envelope_search (logical_path, not_after_ms) WHERE not_after_ms IS NOT NULL;

CREATE INDEX resource_trigrams ON protected_resources USING gin (trigrams(name)) WITH (fastupdate = off);
CREATE INDEX resource_search_by_bouncer ON protected_resources (bouncer, name);
CREATE INDEX resource_search_by_path ON protected_resources (logical_path, name);
CREATE INDEX resource_search_by_enabled ON protected_resources (enabled, name);
-- The new one has what it had.
DROP INDEX protected_resources_by_path;

CREATE INDEX bouncer_trigrams ON bouncers USING gin (trigrams(name)) WITH (fastupdate = off);
