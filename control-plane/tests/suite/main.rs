//! The control plane as its users meet it: the API through its router, the Policy Bridge over an in-process
//! connection, the binary as a process. A real SQLite file under all of them; `suite_postgres` has the same modules on a
//! real PostgreSQL server.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test, at its line")]

mod access;
mod api;
mod audit;
mod audit_chain;
mod backup;
mod binary;
mod bridge;
mod chained;
mod console;
mod crypto;
mod database;
mod deltas;
mod dependencies;
mod durability;
mod editing;
mod file;
mod forward;
mod forward_otlp;
mod guide;
mod harness;
mod lookalikes;
mod plaintext;
#[expect(unreachable_pub, reason = "it is a public module of the end-to-end harness")]
#[path = "../../../tests/src/ports.rs"]
mod ports;
mod proposals;
mod registry;
mod resolver;
mod session;
mod tokens;
mod upgrade;
