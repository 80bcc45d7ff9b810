-- Who a bouncer is: a SPIFFE ID, or the ARN of an IAM role, told apart by how they begin. One column, so that a bouncer
-- has exactly one identity, and an identity one bouncer. It keeps its order and its unique constraint, which gets the
-- column's name too.
ALTER TABLE bouncers RENAME COLUMN spiffe_id TO identity;
ALTER TABLE bouncers RENAME CONSTRAINT bouncers_spiffe_id_key TO bouncers_identity_key;
