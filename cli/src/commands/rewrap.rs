//! `rewrap`: moves registered credentials to another KMS key, or to the newest version of their Vault transit key, one
//! after the other.
//!
//! KMS or Vault re-encrypts, this only carries ciphertext from the control plane there and back. What is registered is all the
//! state there is: whatever is not on the new key yet is moved by the next run.

mod unmovable;
mod waiting;

pub(crate) use unmovable::Unmovable;

use super::registered::{self, Registered, Unreadable};
use super::successor::{self, Content, Moving};
use super::view::View;
use crate::args::Rewrap;
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::failure::{Exit, Failure};
use crate::kms::{self, Kms};
use crate::output::{Output, Table};
use crate::progress::Progress;
use crate::vault::{TransitKey, Vault, VaultError};
use bouncer_custody::{
    CiphertextRef, EncryptionContext, Generation, KeyId, KmsKeyArn, LogicalPath, Reserved, VaultItem, VaultRef,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use waiting::Waiting;

/// So many in a row that can't be reached, and the rest is not tried.
const UNREACHABLE: usize = 3;

/// One credential, and what became of it.
struct Item {
    path: String,
    end: End,
}

enum End {
    /// Registered as this generation.
    Moved(Generation),
    /// KMS would move it.
    WouldMove(Generation),
    /// It is on the new key.
    Already(Generation),
    /// Its registration waits for a second person, as this proposal, from now on or already.
    Proposed(String),
    /// It is where it was.
    Failed(Failure),
    /// Nobody was asked.
    NotTried,
}

/// Where credentials are moved to.
enum Target<'a> {
    /// Another KMS key.
    Kms { kms: Kms, to: &'a KmsKeyArn },
    /// The newest version of the key that each is under, in a Vault.
    Vault(Vault),
}

/// A move.
struct Move<'a> {
    api: &'a ControlPlane,
    target: Target<'a>,
    /// What was proposed before.
    waiting: Waiting,
    dry_run: bool,
}

/// Moves what the options name, and tells what became of each. Ends with [`Exit::Refused`] if any is not on the new key.
///
/// # Errors
/// [`Failure`] if it can't begin: contradicting options, or a control plane that does not list what is registered.
pub(super) async fn rewrap(
    args: &Rewrap,
    connect: impl FnOnce() -> Result<ControlPlane, ControlPlaneError>,
    output: &Output,
) -> Result<Exit, Failure> {
    let endpoint = args.kms_endpoint.as_deref().map(|url| kms::endpoint(url, args.dev)).transpose()?;
    if let (Some(from), Some(to)) = (&args.from_key, &args.to_key) {
        check_keys(from, to)?;
    }
    let vault = Vault::connect(&args.vault, args.dev, output)?;
    let api = connect()?;
    let (mut items, work) = plan(args, registered::list(&api).await?);
    let target = match (vault, &args.to_key) {
        (Some(vault), _) => Target::Vault(vault),
        (None, Some(to)) => Target::Kms { kms: Kms::connect(to.region(), endpoint.as_deref(), args.dev).await, to },
        (None, None) => return Err(Failure::Usage { what: "nowhere to move to", advice: "Give --to-key or --vault." }),
    };
    let mover = Move { api: &api, target, waiting: Waiting::list(&api).await?, dry_run: args.dry_run };
    let (mut progress, mut unreachable) = (Progress::new(work.len(), output), 0);
    for secret in work {
        let path = secret.path.to_string();
        let end = if unreachable < UNREACHABLE { mover.one(&secret).await } else { End::NotTried };
        unreachable = match &end {
            End::Failed(failure) if failure.exit() == Exit::Unreachable => unreachable + 1,
            End::NotTried => unreachable,
            _ => 0,
        };
        progress.step(&format!("{}: {path}", end.word()));
        items.push(Item { path, end });
    }
    drop(progress);
    tell(&items, args, output)?;
    let waits = items.iter().any(|item| matches!(item.end, End::Proposed(_)));
    let good = items.iter().all(|item| item.end.is_good());
    Ok(if good && waits { Exit::Waits } else { Output::exit(good) })
}

/// Refuses a move that KMS does not do.
fn check_keys(from: &KmsKeyArn, to: &KmsKeyArn) -> Result<(), Unmovable> {
    if from == to {
        Err(Unmovable::SameKey)
    } else if from.region() != to.region() {
        Err(Unmovable::OtherRegion)
    } else {
        Ok(())
    }
}

/// What is settled without asking anyone, and what is to be moved.
fn plan(args: &Rewrap, listed: Vec<Result<Registered, Unreadable>>) -> (Vec<Item>, Vec<Registered>) {
    let (mut items, mut work) = (Vec::new(), Vec::new());
    let mut missing: BTreeSet<&LogicalPath> = args.paths.iter().collect();
    let wanted = |secret: &Registered| match &args.to_key {
        Some(_) => args.from_key.as_ref().is_none_or(|from| secret.key.as_str() == from.as_str()),
        None => secret.transit().is_some(),
    };
    let other = if args.to_key.is_some() { Unmovable::OtherKey } else { Unmovable::NotTransit };
    for secret in listed {
        let secret = match secret {
            Ok(secret) => secret,
            Err(Unreadable(path)) => {
                if args.all || args.paths.iter().any(|wanted| wanted.as_str() == path) {
                    missing.retain(|wanted| wanted.as_str() != path);
                    items.push(Item { path, end: End::Failed(Unmovable::Unreadable.into()) });
                }
                continue;
            }
        };
        let named = missing.remove(&secret.path);
        let on_new_key = args.to_key.as_ref().is_some_and(|to| secret.key.as_str() == to.as_str());
        if on_new_key && (named || args.all) {
            items.push(Item { path: secret.path.to_string(), end: End::Already(secret.generation) });
        } else if named && !wanted(&secret) {
            items.push(Item { path: secret.path.to_string(), end: End::Failed(other.into()) });
        } else if named || (args.all && wanted(&secret)) {
            work.push(secret);
        }
    }
    items.extend(
        missing
            .into_iter()
            .map(|path| Item { path: path.to_string(), end: End::Failed(Unmovable::NotRegistered.into()) }),
    );
    (items, work)
}

impl Move<'_> {
    async fn one(&self, secret: &Registered) -> End {
        match self.attempt(secret).await {
            Ok(end) => end,
            Err(Failure::ControlPlane(ControlPlaneError::Waits { proposal })) => {
                End::Proposed(View(&proposal).cell("id"))
            }
            Err(failure) => End::Failed(failure),
        }
    }

    async fn attempt(&self, secret: &Registered) -> Result<End, Failure> {
        match &self.target {
            Target::Kms { kms, to } => self.in_kms(secret, kms, to).await,
            Target::Vault(vault) => self.in_vault(secret, vault).await,
        }
    }

    async fn in_kms(&self, secret: &Registered, kms: &Kms, to: &KmsKeyArn) -> Result<End, Failure> {
        let KeyId::Kms(key) = &secret.key else { return Err(Unmovable::InVault.into()) };
        check_keys(key, to)?;
        let next = secret.generation.next();
        let moving = Moving::new(secret, Some(to), next)?;
        if let Some(id) = self.waiting.under(secret, to, moving.aad()) {
            return Ok(End::Proposed(id));
        }
        if self.dry_run {
            moving.rehearse(kms).await?;
            return Ok(End::WouldMove(next));
        }
        let reference = moving.carry_out(kms).await?;
        self.register(secret, &KeyId::Kms(to.clone()), &reference, moving.aad()).await
    }

    async fn in_vault(&self, secret: &Registered, vault: &Vault) -> Result<End, Failure> {
        let (namespace, VaultRef { mount, what: VaultItem::Transit(name, ciphertext) }) =
            secret.transit().ok_or(Unmovable::NotTransit)?
        else {
            return Err(Unmovable::NotTransit.into());
        };
        if secret.aad.as_ref().is_some_and(|aad| aad.get(Reserved::Generation).is_some()) {
            return Err(Unmovable::GenerationInVault.into());
        }
        let key = TransitKey { namespace, mount: &mount, name: &name };
        if self.dry_run {
            let newest = vault.newest_version(key).await?;
            return Ok(if newest <= ciphertext.version() {
                End::Already(secret.generation)
            } else {
                let proposed = self.waiting.under_version(secret, newest).map(End::Proposed);
                proposed.unwrap_or(End::WouldMove(secret.generation.next()))
            });
        }
        let moved = vault.rewrap(key, &ciphertext, secret.aad.as_ref()).await?;
        if moved.version() == ciphertext.version() {
            return Ok(End::Already(secret.generation));
        }
        if let Some(id) = self.waiting.under_version(secret, moved.version()) {
            return Ok(End::Proposed(id));
        }
        let reference = format!("transit:{mount}/{name}#{moved}");
        let reference: CiphertextRef = reference.parse().map_err(|_| VaultError::UnusableAnswer)?;
        self.register(secret, &secret.key, &reference, secret.aad.as_ref()).await
    }

    /// Registers what became of it as the generation that comes next, and as no other.
    async fn register(
        &self,
        secret: &Registered,
        key: &KeyId,
        reference: &CiphertextRef,
        aad: Option<&EncryptionContext>,
    ) -> Result<End, Failure> {
        let content = Content { key, reference, aad, chain: secret.chain.as_deref() };
        successor::register(self.api, secret, content, None).await?;
        Ok(End::Moved(secret.generation.next()))
    }
}

impl End {
    const fn word(&self) -> &'static str {
        match self {
            Self::Moved(_) => "moved",
            Self::WouldMove(_) => "would be moved",
            Self::Already(_) => "is there already",
            Self::Proposed(_) => "waits for a second person",
            Self::Failed(_) => "FAILED",
            Self::NotTried => "not tried",
        }
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::Moved(_) => "moved",
            Self::WouldMove(_) => "would_move",
            Self::Already(_) => "already",
            Self::Proposed(_) => "proposed",
            Self::Failed(_) => "failed",
            Self::NotTried => "not_tried",
        }
    }

    const fn is_good(&self) -> bool {
        matches!(self, Self::Moved(_) | Self::WouldMove(_) | Self::Already(_) | Self::Proposed(_))
    }

    const fn generation(&self) -> Option<Generation> {
        match self {
            Self::Moved(generation) | Self::WouldMove(generation) | Self::Already(generation) => Some(*generation),
            Self::Proposed(_) | Self::Failed(_) | Self::NotTried => None,
        }
    }
}

fn tell(items: &[Item], args: &Rewrap, output: &Output) -> Result<(), Failure> {
    let count = |code: &str| items.iter().filter(|item| item.end.code() == code).count();
    let codes = ["moved", "would_move", "already", "proposed", "failed", "not_tried"];
    if output.is_json() {
        let mut answer = json!({"to_key": args.to_key, "vault": args.vault.vault, "dry_run": args.dry_run});
        for code in codes {
            answer[code] = count(code).into();
        }
        answer["items"] = items.iter().map(as_json).collect();
        return output.json(&answer);
    }
    let mut table = Table::new(&["LOGICAL PATH", "GENERATION", "RESULT"]);
    for item in items.iter().filter(|item| !matches!(item.end, End::Already(_))) {
        let said = match &item.end {
            End::Failed(failure) => {
                let why = failure.why().map(|why| format!(": {}", why.trim_end_matches('.'))).unwrap_or_default();
                format!("FAILED: {failure}{why}. {}", failure.advice())
            }
            End::Proposed(id) => format!("{}: bouncerctl proposals approve {id}", item.end.word()),
            end => end.word().to_owned(),
        };
        let generation = item.end.generation().map_or_else(|| "-".to_owned(), |generation| generation.to_string());
        table.row([item.path.clone(), generation, said]);
    }
    let mut text = table.render("Nothing is left to move.");
    text.push_str("\n\n");
    let counts = ["moved", "would be moved", "there already", "proposed", "failed", "not tried"].into_iter().zip(codes);
    let counts: Vec<String> = counts
        .map(|(words, code)| (words, count(code)))
        .filter(|(words, count)| *count > 0 || *words == "failed")
        .map(|(words, count)| format!("{count} {words}"))
        .collect();
    text.push_str(&counts.join(", "));
    output.text(&text)?;
    if count("moved") > 0 {
        output.note(match &args.to_key {
            Some(_) => {
                "Leave the old key enabled until bouncerctl probe shows every bouncer in sync, and nothing hangs on it in \
                 bouncerctl inventory."
            }
            None => {
                "Leave min_decryption_version where it is until bouncerctl probe shows every bouncer in sync, and \
                 bouncerctl rewrap --dry-run has nothing left to move."
            }
        });
    }
    Ok(())
}

fn as_json(item: &Item) -> Value {
    let mut json = json!({"logical_path": item.path, "result": item.end.code()});
    if let Some(generation) = item.end.generation() {
        json["generation"] = generation.get().into();
    }
    if let End::Proposed(id) = &item.end {
        json["proposal"] = id.as_str().into();
    }
    if let End::Failed(failure) = &item.end {
        json["error"] = failure.to_string().into();
        json["why"] = failure.why().into();
        json["advice"] = failure.advice().into();
    }
    json
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser as _;

    const OLD: &str = "arn:aws:kms:ca-central-1:123456789012:key/old";
    const NEW: &str = "arn:aws:kms:ca-central-1:123456789012:key/new";
    const FAR: &str = "arn:aws:kms:eu-west-1:123456789012:key/far";

    fn listed() -> Vec<Result<Registered, Unreadable>> {
        let secret = |path: &str, key: &str| Registered {
            id: path.to_owned(),
            path: path.parse().unwrap(),
            generation: Generation::FIRST,
            key: KeyId::Kms(key.parse().unwrap()),
            reference: "AQICAHg=".parse().unwrap(),
            aad: None,
            chain: None,
            enabled: true,
            revision: None,
        };
        let in_vault = |path: &str, reference: &str| Registered {
            key: KeyId::Vault("team-a".parse().unwrap()),
            reference: reference.parse().unwrap(),
            ..secret(path, OLD)
        };
        let vault = in_vault("in/vault", "kv2:secret/x");
        vec![
            Ok(in_vault("in/transit", "transit:transit/k#vault:v1:AAAA")),
            Ok(secret("a/old", OLD)),
            Ok(secret("b/new", NEW)),
            Ok(secret("c/far", FAR)),
            Ok(vault),
            Err(Unreadable("odd".to_owned())),
        ]
    }

    fn planned(options: &[&str]) -> (Vec<String>, Vec<String>) {
        planned_to(&["--to-key", NEW], options)
    }

    fn planned_to(target: &[&str], options: &[&str]) -> (Vec<String>, Vec<String>) {
        let args = Args::try_parse_from(["bouncerctl", "rewrap"].iter().chain(target).chain(options)).unwrap();
        let Command::Rewrap(args) = args.command else { panic!("no rewrap") };
        let (items, work) = plan(&args, listed());
        let items = items.iter().map(|item| format!("{} {}", item.path, item.end.code())).collect();
        (items, work.iter().map(|secret| secret.path.to_string()).collect())
    }

    #[test]
    fn all_are_those_on_the_old_key_and_nothing_is_passed_over_in_silence() {
        let (items, work) = planned(&["--all", "--from-key", OLD]);
        assert_eq!((items, work), (vec!["b/new already".into(), "odd failed".into()], vec!["a/old".into()]));
    }

    #[test]
    fn what_is_named_is_moved_or_told() {
        let (items, work) = planned(&["a/old", "b/new", "in/vault", "no/where"]);
        assert_eq!(items, ["b/new already", "no/where failed"]);
        assert_eq!(work, ["a/old", "in/vault"]);
        let (items, work) = planned(&["--from-key", OLD, "c/far"]);
        assert_eq!((items, work), (vec!["c/far failed".to_owned()], vec![]));
    }

    #[test]
    fn in_vault_only_what_transit_encrypted_is_moved() {
        const VAULT: [&str; 2] = ["--vault", "https://vault.test:8200"];
        assert_eq!(planned_to(&VAULT, &["--all"]), (vec!["odd failed".into()], vec!["in/transit".into()]));
        let (items, work) = planned_to(&VAULT, &["in/vault", "in/transit", "a/old"]);
        assert_eq!((items, work), (vec!["a/old failed".into(), "in/vault failed".into()], vec!["in/transit".into()]));
        let parse = |options: &[&str]| Args::try_parse_from(["bouncerctl", "rewrap"].iter().chain(options));
        assert!(parse(&["a/b"]).is_err(), "nowhere to move to");
        assert!(parse(&["a/b", "--to-key", NEW, "--vault", VAULT[1]]).is_err(), "two places");
        assert!(parse(&["a/b", "--to-key", NEW, "--vault-ca-file", "x"]).is_err());
    }

    #[test]
    fn one_of_paths_and_all_is_wanted_and_all_wants_its_key() {
        let parse =
            |options: &[&str]| Args::try_parse_from(["bouncerctl", "rewrap", "--to-key", NEW].iter().chain(options));
        assert!(parse(&[]).is_err());
        assert!(parse(&["--all"]).is_err());
        assert!(parse(&["--all", "--from-key", OLD, "a/b"]).is_err());
        assert!(parse(&["a/b"]).is_ok());
    }

    #[test]
    fn keys_that_kms_does_not_move_between_are_refused_at_once() {
        let check = |from: &str, to: &str| check_keys(&from.parse().unwrap(), &to.parse().unwrap());
        assert_eq!(check(OLD, NEW), Ok(()));
        assert_eq!(check(OLD, OLD), Err(Unmovable::SameKey));
        assert_eq!(check(FAR, NEW), Err(Unmovable::OtherRegion));
    }
}
