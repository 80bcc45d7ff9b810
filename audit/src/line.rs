//! The lines of an export: JSON, one object a line, each with its `type`. The control plane writes them and the
//! [`crate::Verifier`] reads them; unknown fields are let be, since an older tool must read a newer export.

use crate::chain::ChainId;
use crate::checkpoint::Signed;
use crate::digest::Digest;
use crate::event::{Change, Decision, Withheld};
use serde::{Deserialize, Serialize};

/// One line of an export.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Line {
    /// A decision.
    Event(Box<DecisionLine>),
    /// A checkpoint of a bouncer's chain.
    Checkpoint(Signed),
    /// An administrative change.
    AdminEvent(AdminLine),
    /// A checkpoint of the control plane's own chain.
    AdminCheckpoint(Signed),
    /// What the control plane itself found wrong as it came in.
    Divergence(DivergenceLine),
    /// The last line, so that an export which was cut off shows.
    End(EndLine),
}

/// Where an event stands in a chain, and what stands in for its texts that are not shown. Absent for events from before
/// there were chains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proof {
    /// Which chain.
    pub chain: ChainId,
    /// The head behind the event.
    pub head: Digest,
    /// The head in front of the event, where retention removed the one that made it and no checkpoint stands for it. Given for
    /// a chain's first event only: what is signed behind it, if anything is, speaks for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Digest>,
    /// Commitments to texts that looked like credentials, by field.
    #[serde(default, skip_serializing_if = "Withheld::is_empty")]
    pub withheld: Withheld,
}

/// A decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "bridge.proto documents the fields")]
pub struct DecisionLine {
    #[serde(rename = "time", with = "millis")]
    pub time_ms: i64,
    pub bouncer: String,
    pub sequence: u64,
    pub id: String,
    pub outcome: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub caller: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub resource: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub logical_path: String,
    #[serde(default)]
    pub generation: u64,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub key_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub aad_sha256: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub cluster: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub destination: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authority: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub backend_request_id: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub decision_id: String,
    #[serde(default)]
    pub count: u64,
    /// When it arrived at the control plane. No part of the evidence.
    #[serde(rename = "received_at", with = "millis")]
    pub received_ms: i64,
    /// The resolver ran with `--dev`. No part of the evidence.
    #[serde(default)]
    pub dev: bool,
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

impl DecisionLine {
    /// What is chained of it.
    #[must_use]
    pub fn decision(&self) -> Decision<'_> {
        crate::decision!(self, &self.bouncer)
    }
}

/// An administrative change. `sequence` is 0 and `proof` absent where it is from before there was a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "the API's description documents the fields")]
pub struct AdminLine {
    #[serde(rename = "time", with = "millis")]
    pub time_ms: i64,
    pub sequence: u64,
    pub actor: String,
    pub action: String,
    pub subject: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    #[serde(flatten, default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
}

impl AdminLine {
    /// What is chained of it.
    #[must_use]
    pub fn change(&self) -> Change<'_> {
        let Self { time_ms, sequence, actor, action, subject, detail, proof: _ } = self;
        Change { sequence: *sequence, time_ms: *time_ms, actor, action, subject, detail }
    }
}

/// What the control plane found wrong as it came in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DivergenceLine {
    /// When it came in.
    #[serde(rename = "time", with = "millis")]
    pub time_ms: i64,
    /// From which bouncer.
    pub bouncer: String,
    /// In which chain.
    pub chain: String,
    /// At which event.
    pub sequence: u64,
    /// What: `gap`, `link`, `conflict`, `checkpoint_head`, `checkpoint_conflict`, `checkpoint_signature` or
    /// `checkpoint_identity`.
    pub kind: String,
    /// What came in, where it could not be stored as an event or a checkpoint beside what was there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub evidence: String,
}

/// The last line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndLine {
    /// How many lines are in front of it.
    pub lines: u64,
}

/// Unix milliseconds as RFC 3339, and nothing finer: what is shown is what is proven.
pub(crate) mod millis {
    use jiff::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer, de, ser};

    pub(crate) fn serialize<S: Serializer>(ms: &i64, serializer: S) -> Result<S::Ok, S::Error> {
        let time = Timestamp::from_millisecond(*ms).map_err(ser::Error::custom)?;
        serializer.collect_str(&time)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
        let time = Timestamp::deserialize(deserializer)?;
        let ms = time.as_millisecond();
        let whole = Timestamp::from_millisecond(ms).is_ok_and(|whole| whole == time);
        if whole { Ok(ms) } else { Err(de::Error::custom("finer than milliseconds")) }
    }
}

pub(crate) mod base64_text {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

pub(crate) mod base64_texts {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(crate) fn serialize<S: Serializer>(all: &[Vec<u8>], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(all.iter().map(|bytes| STANDARD.encode(bytes)))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Vec<u8>>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.into_iter().map(|text| STANDARD.decode(text).map_err(de::Error::custom)).collect()
    }
}
