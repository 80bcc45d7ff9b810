-- What came with this schema in a table of before.
INSERT INTO bouncers (name, identity, created_ms, created_by, revision)
    VALUES ('payments-role', 'arn:aws:iam::123456789012:role/payments', 1769860000000, 'token:upgrade', 1);
