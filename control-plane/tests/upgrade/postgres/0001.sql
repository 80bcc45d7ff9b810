-- What the program of the first schema on PostgreSQL wrote, in every table of it; hashes and signatures are made up. The token's hash is SHA-256 of the one in upgrade.rs.
UPDATE meta SET epoch = 41;
INSERT INTO feature_flags VALUES ('flags.crypto.dual_custody_intercept', TRUE, 1769860000000, 'token:upgrade', 1);
INSERT INTO settings VALUES (1, 'kms_envelope', 'arn:aws:kms:ca-central-1:123456789012:key/abc-123', 'ours', 1769860000000, 'token:upgrade', 1);
INSERT INTO tokens (id, name, lookup, hash, created_ms, created_by, revoked_ms, role, scope, single_use) VALUES
    ('0199d7a0-0000-7000-8000-000000000001', 'upgrade', '\xbf0ca37ae7ae1185', '\xbf0ca37ae7ae118589c425e4505a208667a01b886950da4202f03341ec0fe94c', 1769860000000, 'operator', NULL, 'admin', '[]', FALSE),
    ('0199d7a0-0000-7000-8000-000000000002', 'revoked', '\x0001020304050607', '\x0000000000000000000000000000000000000000000000000000000000000000', 1769860000000, 'token:upgrade', 1769860000001, 'admin', '[]', FALSE);
INSERT INTO bouncers (name, spiffe_id, created_ms, created_by, revision) VALUES
    ('payments-east', 'spiffe://example.org/bouncer/payments-east', 1769860000000, 'token:upgrade', 1),
    ('payments-west', 'spiffe://example.org/bouncer/payments-west', 1769860000000, 'token:upgrade', 1);
INSERT INTO bouncer_sightings VALUES ('payments-east', 1769860001000, '0.1.0', 40);
INSERT INTO protected_resources VALUES
    ('payments-api', 'payments-east', 'payments', 'payments.internal:8443', 'mtls', 'protected-resources/payments-api/upstream-tls',
     '["spiffe://example.org/ns/shop/*"]', TRUE, 1769860000000, 'token:upgrade', 1769860000000, 'token:upgrade', 1);
INSERT INTO envelope_secrets (id, logical_path, latest, deleted_ms, deleted_by, revoked_through, revision) VALUES
    ('0199d7a0-0000-7000-8000-000000000011', 'protected-resources/payments-api/upstream-tls', 2, NULL, NULL, 2, 1),
    ('0199d7a0-0000-7000-8000-000000000012', 'gone/secret', 3, 1769860000002, 'token:upgrade', 3, 1);
INSERT INTO envelope_generations (secret_id, generation, provider, key_id, ciphertext_ref, aad, certificate_chain, enabled, activation,
    created_ms, created_by, changed_ms, changed_by) VALUES
    ('0199d7a0-0000-7000-8000-000000000011', 1, 'kms_envelope', 'arn:aws:kms:ca-central-1:123456789012:key/abc-123', 'AQICAHg=', NULL, NULL, TRUE, 0,
     1769860000000, 'token:upgrade', NULL, NULL),
    ('0199d7a0-0000-7000-8000-000000000011', 2, 'kms_envelope', 'arn:aws:kms:ca-central-1:123456789012:key/abc-123', 'AQICAHk=', 'env=production,bouncer=payments-east', NULL, TRUE, 1,
     1769860000000, 'token:upgrade', 1769860000001, 'token:upgrade'),
    ('0199d7a0-0000-7000-8000-000000000012', 3, 'kms_envelope', 'arn:aws:kms:ca-central-1:123456789012:key/abc-123', 'AQICAHo=', NULL, NULL, TRUE, 0,
     1769860000000, 'token:upgrade', NULL, NULL);
INSERT INTO audit_events (bouncer, id, sequence, time_ms, received_ms, caller, resource, logical_path, generation, key_id, aad_sha256, cluster,
    destination, outcome, reason, backend_request_id, count, decision_id, authority, dev) VALUES
    ('payments-east', '0199d7a0-0000-7000-8000-000000000021', 1, 1769860002000, 1769860002001, 'spiffe://example.org/ns/shop/sa/cart',
     'payments-api', 'protected-resources/payments-api/upstream-tls', 2, 'arn:aws:kms:ca-central-1:123456789012:key/abc-123', '', 'payments', 'payments.internal:8443', 'inject', '', 'r-1', 3, 'd-1', '', FALSE),
    ('payments-east', '0199d7a0-0000-7000-8000-000000000022', 2, 1769860001000, 1769860002001, 'spiffe://example.org/ns/shop/sa/web',
     'payments-api', 'protected-resources/payments-api/upstream-tls', 0, '', '', 'payments', 'payments.internal:8443', 'deny', 'caller_not_allowed', '', 1, 'd-2', '', FALSE);
INSERT INTO audit_totals VALUES ('payments-east', 'inject', 1, 1769860002000), ('payments-east', 'deny', 1, 1769860001000);
INSERT INTO admin_events (time_ms, actor, action, subject, detail) VALUES (1769860000000, 'token:upgrade', 'envelope.registered', 'protected-resources/payments-api/upstream-tls', 'generation 2');
INSERT INTO sessions (lookup, hash, token_id, actor, role, scope, created_ms, expires_ms) VALUES
    ('\xbf0ca37ae7ae1185', '\xbf0ca37ae7ae118589c425e4505a208667a01b886950da4202f03341ec0fe94c', '0199d7a0-0000-7000-8000-000000000001', 'token:upgrade', 'operator', '[]', 1769860000000, 4102444800000);
INSERT INTO idempotency_keys (actor, key, request, secret_id, generation, created_ms) VALUES
    ('token:upgrade', '\x375918cd15cbfca315f5414099f7027d34f0638657d340a357de75ac76c37827', '\xf67c5a372c8fedb31ea15f7221307b24f3ec12f8e45a02d9664cb335a7a1a8d4', '0199d7a0-0000-7000-8000-000000000011', 2, 4102444800000);
INSERT INTO audit_events (bouncer, id, sequence, time_ms, received_ms, caller, resource, logical_path, generation, key_id, aad_sha256, cluster,
    destination, outcome, reason, backend_request_id, count, decision_id, authority, dev, chain, leaf, head, withheld) VALUES
    ('payments-east', '0199d7a0-0000-7000-8000-000000000023', 1, 1769860000500, 1769860002001, 'spiffe://example.org/ns/shop/sa/cart', 'payments-api',
     'protected-resources/payments-api/upstream-tls', 2, 'arn:aws:kms:ca-central-1:123456789012:key/abc-123', '', 'payments', 'payments.internal:8443', 'inject', '', 'r-3', 1, 'd-3', '', FALSE,
     '0199d7a0-0000-7000-8000-0000000000c1', '\x0101010101010101010101010101010101010101010101010101010101010101', '\x0202020202020202020202020202020202020202020202020202020202020202', NULL);
INSERT INTO admin_events (time_ms, actor, action, subject, detail, sequence, leaf, head) VALUES
    (1769859999999, 'token:upgrade', 'flag.set', 'flags.crypto.dual_custody_intercept', 'true', 1, '\x0303030303030303030303030303030303030303030303030303030303030303', '\x0404040404040404040404040404040404040404040404040404040404040404');
INSERT INTO audit_chains (chain, owner, sequence, head) VALUES
    ('0199d7a0-0000-7000-8000-0000000000c0', 'control-plane', 1, '\x0404040404040404040404040404040404040404040404040404040404040404'), ('0199d7a0-0000-7000-8000-0000000000c1', 'bouncer:payments-east', 1, '\x0202020202020202020202020202020202020202020202020202020202020202');
INSERT INTO audit_certificates (sha256, certificates) VALUES ('\x0505050505050505050505050505050505050505050505050505050505050505', '["MAA="]');
INSERT INTO audit_checkpoints (chain, number, owner, sequence, head, time_ms, algorithm, signature, certificates_sha256, received_ms) VALUES
    ('0199d7a0-0000-7000-8000-0000000000c1', 1, 'bouncer:payments-east', 1, '\x0202020202020202020202020202020202020202020202020202020202020202', 1769860000600, 'ecdsa_p256_sha256', '\x0606060606060606060606060606060606060606060606060606060606060606', '\x0505050505050505050505050505050505050505050505050505050505050505', 1769860002001);
INSERT INTO audit_divergences (received_ms, bouncer, chain, sequence, kind, evidence) VALUES
    (1769860002002, 'payments-east', '0199d7a0-0000-7000-8000-0000000000c1', 2, 'gap', '{}');
INSERT INTO bridge_sessions (id, replica, bouncer, told_ms, view) VALUES
    ('0199d7a0-0000-7000-8000-000000000041', '0199d7a0-0000-7000-8000-000000000042', 'payments-east', 1769860000000, '{}');
