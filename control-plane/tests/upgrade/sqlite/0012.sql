-- What the program of this schema wrote in the table that came with it: of a chain that nothing signs, retention left nothing.
INSERT INTO audit_chains (chain, owner, sequence, head) VALUES
    ('0199d7a0-0000-7000-8000-0000000000c2', 'bouncer:payments-role', 7, x'0707070707070707070707070707070707070707070707070707070707070707');
INSERT INTO audit_cuts (chain, sequence, head) VALUES
    ('0199d7a0-0000-7000-8000-0000000000c2', 7, x'0707070707070707070707070707070707070707070707070707070707070707');
