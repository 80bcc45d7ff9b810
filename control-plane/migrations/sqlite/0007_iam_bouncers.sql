-- Who a bouncer is: a SPIFFE ID, or the ARN of an IAM role, told apart by how they begin. One column, so that a bouncer
-- has exactly one identity, and an identity one bouncer.
ALTER TABLE bouncers RENAME COLUMN spiffe_id TO identity;
