-- What the program of this schema wrote in the tables that came with it.
-- Hashes and signatures are made up.
INSERT INTO audit_events (bouncer, id, sequence, time_ms, received_ms, caller, resource, logical_path, generation, key_id, aad_sha256, cluster,
    destination, outcome, reason, backend_request_id, count, decision_id, authority, dev, chain, leaf, head, withheld) VALUES
    ('payments-east', '0199d7a0-0000-7000-8000-000000000023', 1, 1769860000500, 1769860002001, 'spiffe://example.org/ns/shop/sa/cart', 'payments-api',
     'protected-resources/payments-api/upstream-tls', 2, 'arn:aws:kms:ca-central-1:123456789012:key/abc-123', '', 'payments', 'payments.internal:8443', 'inject', '', 'r-3', 1, 'd-3', '', 0,
     '0199d7a0-0000-7000-8000-0000000000c1', x'0101010101010101010101010101010101010101010101010101010101010101', x'0202020202020202020202020202020202020202020202020202020202020202', NULL);
INSERT INTO admin_events (time_ms, actor, action, subject, detail, sequence, leaf, head) VALUES
    (1769859999999, 'token:upgrade', 'flag.set', 'flags.crypto.dual_custody_intercept', 'true', 1, x'0303030303030303030303030303030303030303030303030303030303030303', x'0404040404040404040404040404040404040404040404040404040404040404');
INSERT INTO audit_chains (chain, owner, sequence, head) VALUES
    ('0199d7a0-0000-7000-8000-0000000000c0', 'control-plane', 1, x'0404040404040404040404040404040404040404040404040404040404040404'), ('0199d7a0-0000-7000-8000-0000000000c1', 'bouncer:payments-east', 1, x'0202020202020202020202020202020202020202020202020202020202020202');
INSERT INTO audit_certificates (sha256, certificates) VALUES (x'0505050505050505050505050505050505050505050505050505050505050505', '["MAA="]');
INSERT INTO audit_checkpoints (chain, number, owner, sequence, head, time_ms, algorithm, signature, certificates_sha256, received_ms) VALUES
    ('0199d7a0-0000-7000-8000-0000000000c1', 1, 'bouncer:payments-east', 1, x'0202020202020202020202020202020202020202020202020202020202020202', 1769860000600, 'ecdsa_p256_sha256', x'0606060606060606060606060606060606060606060606060606060606060606', x'0505050505050505050505050505050505050505050505050505050505050505', 1769860002001);
INSERT INTO audit_divergences (received_ms, bouncer, chain, sequence, kind, evidence) VALUES
    (1769860002002, 'payments-east', '0199d7a0-0000-7000-8000-0000000000c1', 2, 'gap', '{}');
