-- What the first released program wrote, in every table of its schema. The token's hash is SHA-256 of the one in upgrade.rs.
UPDATE meta SET epoch = 41;
INSERT INTO feature_flags VALUES ('flags.crypto.dual_custody_intercept', 1, 1769860000000, 'token:upgrade');
INSERT INTO settings VALUES (1, 'kms_envelope', 'arn:aws:kms:ca-central-1:123456789012:key/abc-123', 'ours', 1769860000000, 'token:upgrade');
INSERT INTO tokens VALUES
    ('0199d7a0-0000-7000-8000-000000000001', 'upgrade', x'bf0ca37ae7ae1185', x'bf0ca37ae7ae118589c425e4505a208667a01b886950da4202f03341ec0fe94c', 1769860000000, 'operator', NULL),
    ('0199d7a0-0000-7000-8000-000000000002', 'revoked', x'0001020304050607', x'0000000000000000000000000000000000000000000000000000000000000000', 1769860000000, 'token:upgrade', 1769860000001);
INSERT INTO bouncers VALUES
    ('payments-east', 'spiffe://example.org/bouncer/payments-east', 1769860000000, 'token:upgrade'),
    ('payments-west', 'spiffe://example.org/bouncer/payments-west', 1769860000000, 'token:upgrade');
INSERT INTO bouncer_sightings VALUES ('payments-east', 1769860001000, '0.1.0', 40);
INSERT INTO protected_resources VALUES
    ('payments-api', 'payments-east', 'payments', 'payments.internal:8443', 'mtls', 'protected-resources/payments-api/upstream-tls',
     '["spiffe://example.org/ns/shop/*"]', 1, 1769860000000, 'token:upgrade', 1769860000000, 'token:upgrade');
INSERT INTO envelope_secrets VALUES
    ('0199d7a0-0000-7000-8000-000000000011', 'protected-resources/payments-api/upstream-tls', 2, NULL, NULL),
    ('0199d7a0-0000-7000-8000-000000000012', 'gone/secret', 3, 1769860000002, 'token:upgrade');
INSERT INTO envelope_generations VALUES
    ('0199d7a0-0000-7000-8000-000000000011', 1, 'kms_envelope', 'arn:aws:kms:ca-central-1:123456789012:key/abc-123', 'AQICAHg=', NULL, NULL, 1, 0,
     1769860000000, 'token:upgrade', NULL, NULL),
    ('0199d7a0-0000-7000-8000-000000000011', 2, 'kms_envelope', 'arn:aws:kms:ca-central-1:123456789012:key/abc-123', 'AQICAHk=', 'env=production,bouncer=payments-east', NULL, 1, 1,
     1769860000000, 'token:upgrade', 1769860000001, 'token:upgrade'),
    ('0199d7a0-0000-7000-8000-000000000012', 3, 'kms_envelope', 'arn:aws:kms:ca-central-1:123456789012:key/abc-123', 'AQICAHo=', NULL, NULL, 1, 0,
     1769860000000, 'token:upgrade', NULL, NULL);
INSERT INTO audit_events VALUES
    (1, 'payments-east', '0199d7a0-0000-7000-8000-000000000021', 1, 1769860002000, 1769860002001, 'spiffe://example.org/ns/shop/sa/cart',
     'payments-api', 'protected-resources/payments-api/upstream-tls', 2, 'arn:aws:kms:ca-central-1:123456789012:key/abc-123', '', 'payments', 'payments.internal:8443', 'inject', '', 'r-1', 3, 'd-1', '', 0),
    (2, 'payments-east', '0199d7a0-0000-7000-8000-000000000022', 2, 1769860001000, 1769860002001, 'spiffe://example.org/ns/shop/sa/web',
     'payments-api', 'protected-resources/payments-api/upstream-tls', 0, '', '', 'payments', 'payments.internal:8443', 'deny', 'caller_not_allowed', '', 1, 'd-2', '', 0);
INSERT INTO audit_totals VALUES ('inject', 1, 1769860002000), ('deny', 1, 1769860001000);
INSERT INTO admin_events VALUES (1, 1769860000000, 'token:upgrade', 'envelope.registered', 'protected-resources/payments-api/upstream-tls', 'generation 2');
