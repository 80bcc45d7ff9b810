-- Where retention cut a chain of which nothing is signed: the head that its next event follows. Where checkpoints are, they
-- tell that.
CREATE TABLE audit_cuts (
    chain TEXT PRIMARY KEY,
    sequence INTEGER NOT NULL,
    head BLOB NOT NULL CHECK (length(head) = 32)
) STRICT, WITHOUT ROWID;
