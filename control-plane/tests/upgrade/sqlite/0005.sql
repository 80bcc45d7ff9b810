-- What the program of this schema wrote in the tables that came with it.
INSERT INTO proposals (id, state, method, route, path, body, base_revision, subject, after_json, actor, token_id, role, scope, created_ms,
    expires_ms) VALUES ('0199d7a0-0000-7000-8000-000000000031', 'pending', 'PUT', '/v1/feature-flags/{name}',
    '/v1/feature-flags/flags.crypto.dual_custody_intercept', '{"enabled":false}', 1, 'flags.crypto.dual_custody_intercept', '{"enabled":false}',
    'token:upgrade', '0199d7a0-0000-7000-8000-000000000001', 'admin', '[]', 1769860000000, 4102444800000);
