-- Where retention cut a chain of which nothing is signed: the head that its next event follows. Where checkpoints are, they
-- tell that.
CREATE TABLE audit_cuts (
    chain TEXT COLLATE "C" PRIMARY KEY,
    sequence BIGINT NOT NULL,
    head BYTEA NOT NULL CHECK (length(head) = 32)
);
