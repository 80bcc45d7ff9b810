-- What the program of this schema wrote in the tables that came with it.
-- The session's cookie is the token in upgrade.rs; the key is that of the call there.
INSERT INTO sessions (lookup, hash, token_id, actor, role, scope, created_ms, expires_ms) VALUES
    (x'bf0ca37ae7ae1185', x'bf0ca37ae7ae118589c425e4505a208667a01b886950da4202f03341ec0fe94c', '0199d7a0-0000-7000-8000-000000000001', 'token:upgrade', 'operator', '[]', 1769860000000, 4102444800000);
INSERT INTO idempotency_keys (actor, key, request, secret_id, generation, created_ms) VALUES
    ('token:upgrade', x'375918cd15cbfca315f5414099f7027d34f0638657d340a357de75ac76c37827', x'f67c5a372c8fedb31ea15f7221307b24f3ec12f8e45a02d9664cb335a7a1a8d4', '0199d7a0-0000-7000-8000-000000000011', 2, 4102444800000);
