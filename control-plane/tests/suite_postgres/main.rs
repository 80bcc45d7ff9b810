//! The same suite as on SQLite, on PostgreSQL: what a store must do it must do on both. What is about the file itself (its
//! backup, its locks) is there only; what is about a server, here only.

#![expect(clippy::unwrap_used, reason = "what fails here fails a test, at its line")]

#[path = "../suite/access.rs"]
mod access;
#[path = "../suite/api.rs"]
mod api;
#[path = "../suite/audit.rs"]
mod audit;
#[path = "../suite/audit_chain.rs"]
mod audit_chain;
#[path = "../suite/binary.rs"]
mod binary;
#[path = "../suite/bridge.rs"]
mod bridge;
#[path = "../suite/chained.rs"]
mod chained;
#[path = "../suite/crypto.rs"]
mod crypto;
mod database;
#[path = "../suite/deltas.rs"]
mod deltas;
#[path = "../suite/durability.rs"]
mod durability;
#[path = "../suite/editing.rs"]
mod editing;
#[path = "../suite/forward.rs"]
mod forward;
#[path = "../suite/forward_otlp.rs"]
mod forward_otlp;
#[path = "../suite/guide.rs"]
mod guide;
#[path = "../suite/harness.rs"]
mod harness;
#[path = "../suite/lookalikes"]
#[expect(dead_code, reason = "the other users of it have no database")]
mod lookalikes {
    pub(crate) mod everyday;
}
#[path = "../suite/plaintext.rs"]
mod plaintext;
#[expect(unreachable_pub, reason = "it is a public module of the end-to-end harness")]
#[path = "../../../tests/src/ports.rs"]
mod ports;
#[path = "../suite/proposals.rs"]
mod proposals;
#[path = "../suite/registry.rs"]
mod registry;
mod replicas;
#[path = "../suite/resolver.rs"]
mod resolver;
#[expect(unreachable_pub, reason = "it is a public module of the end-to-end harness")]
#[path = "../../../tests/src/postgres.rs"]
mod server;
#[path = "../suite/session.rs"]
mod session;
#[path = "../suite/tokens.rs"]
mod tokens;
#[path = "../suite/upgrade.rs"]
mod upgrade;
mod way_back;
