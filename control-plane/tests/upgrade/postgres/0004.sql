-- What the program of this schema wrote in the tables that came with it.
INSERT INTO audit_outlets (name, decisions, changes, holder, until_ms)
    VALUES ('siem', 2, 1, '0199d7a0-0000-7000-8000-000000000051', 1769860000000);
