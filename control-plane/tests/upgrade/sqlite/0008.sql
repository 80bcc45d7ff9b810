-- What the program of this schema wrote in the tables that came with it.
INSERT INTO bridge_sessions (id, replica, bouncer, told_ms, view) VALUES
    ('0199d7a0-0000-7000-8000-000000000041', '0199d7a0-0000-7000-8000-000000000042', 'payments-east', 1769860000000, '{}');
