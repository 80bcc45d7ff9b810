//! Whether two callers can be one person: by who handed whom which token.
//!
//! Someone whom the identity provider vouches for is their subject. The bearer of a token might be whoever made the token,
//! and whoever made that one's. Two lines of makers that meet belong to one person, with one exception: the first token
//! of a database hands out one token to each person, and is itself one person with all of them.

use crate::access::TokenRecord;
use crate::model::Actor;
use uuid::Uuid;

/// Who somebody might be, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ancestor<'a> {
    /// The bearer of a token.
    Token(Uuid),
    /// Someone who needs none: a subject of the identity provider, or who has the database file.
    Other(&'a str),
}

/// A caller, as far as a proposal or a call knows them.
#[derive(Debug, Clone, Copy)]
pub struct Party<'a> {
    /// Who.
    pub actor: &'a Actor,
    /// The token that they presented, if one was.
    pub token: Option<Uuid>,
}

/// Whether they can be the same person. `tokens` are all that there ever were, oldest first.
#[must_use]
pub fn may_be_the_same(one: Party<'_>, other: Party<'_>, tokens: &[TokenRecord]) -> bool {
    let (one, other) = (line(one, tokens), line(other, tokens));
    match one.iter().find(|ancestor| other.contains(ancestor)) {
        None => false,
        Some(meeting) => {
            one.first() == Some(meeting) || other.first() == Some(meeting) || !hands_out_to_others(*meeting, tokens)
        }
    }
}

/// From a caller up to whoever began: each was handed their token by the next.
fn line<'a>(party: Party<'a>, tokens: &'a [TokenRecord]) -> Vec<Ancestor<'a>> {
    let mut line = Vec::new();
    // Makers are older than what they made, so that this ends.
    let mut older = tokens;
    let mut by = party.actor.as_str();
    let mut known = party.token;
    loop {
        let found = match known.take() {
            Some(id) => older.iter().rposition(|token| token.id == id),
            None => by.strip_prefix("token:").and_then(|name| older.iter().rposition(|token| token.name == name)),
        };
        let Some(token) = found.and_then(|index| older.get(index)) else {
            line.push(Ancestor::Other(by));
            return line;
        };
        line.push(Ancestor::Token(token.id));
        older = &older[..found.unwrap_or_default()];
        by = &token.created.by;
    }
}

/// Whether different people may have been handed tokens here: by who has the database file, by the token for one use that
/// they made, and by the first token, for which that was exchanged.
fn hands_out_to_others(ancestor: Ancestor<'_>, tokens: &[TokenRecord]) -> bool {
    let Ancestor::Token(id) = ancestor else { return ancestor == Ancestor::Other(Actor::operator().as_str()) };
    let Some(at) = tokens.iter().position(|token| token.id == id) else { return false };
    let token = &tokens[at];
    // Tokens of before there was one for one use were made by who has the file, too.
    if token.single_use || token.created.by == Actor::operator().as_str() {
        return true;
    }
    let maker = token.created.by.strip_prefix("token:");
    let Some(maker_at) = maker.and_then(|name| tokens[..at].iter().rposition(|token| token.name == name)) else {
        return false;
    };
    // A browser that signed in with the token for one use may have made several: then none of them is the first.
    let siblings = tokens[maker_at + 1..].iter().filter(|other| other.created.by == token.created.by).count();
    tokens[maker_at].single_use && siblings == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Role, Scope};
    use crate::model::Change;
    use jiff::Timestamp;

    fn tokens(made: &[(&str, &str)]) -> Vec<TokenRecord> {
        let record = |(index, (name, by)): (usize, &(&str, &str))| TokenRecord {
            id: Uuid::from_u128(index as u128 + 1),
            name: (*name).to_owned(),
            role: Role::Admin,
            scope: Scope::default(),
            created: Change { at: Timestamp::UNIX_EPOCH, by: (*by).to_owned() },
            expires: None,
            revoked: None,
            single_use: *by == "operator",
        };
        made.iter().enumerate().map(record).collect()
    }

    const MADE: &[(&str, &str)] = &[
        ("bootstrap", "operator"),
        ("first", "token:bootstrap"),
        ("alice", "token:first"),
        ("bob", "token:first"),
        ("alice-2", "token:alice"),
        ("alice-3", "token:alice"),
        ("alice-4", "token:alice-3"),
        ("bob-2", "token:bob"),
        ("carol-1", "oidc:carol"),
        ("carol-2", "oidc:carol"),
    ];

    fn same(tokens: &[TokenRecord], one: &str, other: &str) -> bool {
        let (one, other) = (Actor::stored(one), Actor::stored(other));
        let (one, other) = (Party { actor: &one, token: None }, Party { actor: &other, token: None });
        let answer = may_be_the_same(one, other, tokens);
        assert_eq!(answer, may_be_the_same(other, one, tokens), "whoever comes first");
        answer
    }

    #[test]
    fn who_handed_somebody_their_token_may_be_them() {
        let tokens = tokens(MADE);
        for (one, other) in [
            ("token:alice", "token:alice"),
            ("token:alice", "token:alice-2"),
            ("token:alice", "token:alice-4"),
            ("token:alice-2", "token:alice-3"),
            ("token:alice-2", "token:alice-4"),
            ("token:first", "token:alice"),
            ("token:first", "token:bob-2"),
            ("token:bootstrap", "token:alice"),
            ("oidc:carol", "oidc:carol"),
            ("oidc:carol", "token:carol-1"),
            ("token:carol-1", "token:carol-2"),
        ] {
            assert!(same(&tokens, one, other), "{one} {other}");
        }
        for (one, other) in [
            ("token:alice", "token:bob"),
            ("token:alice-4", "token:bob-2"),
            ("oidc:carol", "oidc:dan"),
            ("oidc:carol", "token:alice"),
            ("token:carol-1", "token:alice-2"),
        ] {
            assert!(!same(&tokens, one, other), "{one} {other}");
        }
    }

    #[test]
    fn of_several_that_a_browser_made_none_is_the_first() {
        let tokens = tokens(&[
            ("bootstrap", "operator"),
            ("alice", "token:bootstrap"),
            ("bob", "token:bootstrap"),
            ("alice-2", "token:alice"),
            ("alice-3", "token:alice"),
        ]);
        assert!(!same(&tokens, "token:alice", "token:bob"));
        assert!(same(&tokens, "token:alice-2", "token:alice-3"));
        assert!(same(&tokens, "token:bootstrap", "token:alice"));
    }

    #[test]
    fn a_name_that_is_used_again_is_another_token() {
        let tokens = tokens(&[
            ("bootstrap", "operator"),
            ("first", "token:bootstrap"),
            ("ci", "token:first"),
            ("child", "token:ci"),
            ("ci", "token:first"),
        ]);
        assert!(!same(&tokens, "token:child", "token:ci"), "the later one did not make it");
        let child = Actor::stored("token:child");
        let ci = Actor::stored("token:ci");
        let made_it = Party { actor: &ci, token: Some(tokens[2].id) };
        assert!(may_be_the_same(Party { actor: &child, token: None }, made_it, &tokens));
    }
}
