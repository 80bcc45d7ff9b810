-- The newest generation of a secret that was disabled or deleted: a bouncer that missed it must end what uses that
-- generation or an older one, and not take a later registration for a rotation.
ALTER TABLE envelope_secrets ADD COLUMN revoked_through INTEGER NOT NULL DEFAULT 0 CHECK (revoked_through >= 0);
UPDATE envelope_secrets SET revoked_through = max(
    CASE WHEN deleted_ms IS NULL THEN 0 ELSE latest END,
    coalesce((SELECT max(generation) FROM envelope_generations g
              WHERE g.secret_id = envelope_secrets.id AND (g.enabled = 0 OR g.activation > 0)), 0));
