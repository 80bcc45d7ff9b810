//! Vault tokens for a SPIFFE identity: one session for each namespace that the resolver logs in to.
//!
//! A token is renewed after two thirds of its life, or replaced by a new login where it can't be. One that Vault refuses
//! is replaced once; a failed login is remembered for a moment, so that nothing here ever loops.

use super::VaultError;
use super::answer::{self, Auth};
use super::client::{Call, Client};
use crate::clock::Instant;
use crate::config::{VaultLogin, VaultLoginMethod};
use crate::identity::Identity;
use bouncer_custody::{Reason, VaultNamespace};
use reqwest::Method;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use zeroize::Zeroizing;

/// For how long a failed login is shared with those who ask at once, and no token is replaced for being refused after
/// another was: what Vault's policy denies costs no more logins than this.
const PAUSE: Duration = Duration::from_millis(500);

/// All sessions of one Vault.
#[derive(Debug)]
pub(super) struct Sessions {
    identity: Arc<Identity>,
    login: VaultLogin,
    by_namespace: Mutex<HashMap<Option<Box<str>>, Arc<Session>>>,
}

/// One namespace's.
#[derive(Debug)]
pub(super) struct Session {
    namespace: Option<Box<str>>,
    current: RwLock<Option<Arc<Token>>>,
    /// One login at a time; the others wait for its result.
    turn: tokio::sync::Mutex<Turn>,
}

/// What is remembered of logins.
#[derive(Debug, Default)]
struct Turn {
    /// The last one failed.
    failed: Option<(Reason, Instant)>,
    /// The last one that a refused token caused.
    replaced: Option<Instant>,
}

/// A token, and its times.
pub(super) struct Token {
    secret: Zeroizing<String>,
    made: Instant,
    /// `None` for one that never ends.
    life: Option<Duration>,
    renewable: bool,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Token({:?})", self.life)
    }
}

impl Token {
    fn new(auth: Auth) -> Self {
        let life = (auth.lease_duration > 0).then(|| Duration::from_secs(auth.lease_duration));
        Self { secret: auth.client_token.into_inner(), made: Instant::now(), life, renewable: auth.renewable }
    }

    pub(super) fn secret(&self) -> &str {
        &self.secret
    }

    fn is_young(&self) -> bool {
        self.life.is_none_or(|life| self.made.elapsed() < life * 2 / 3)
    }

    fn holds(&self) -> bool {
        self.life.is_none_or(|life| self.made.elapsed() < life)
    }
}

impl Sessions {
    pub(super) fn new(identity: Arc<Identity>, login: VaultLogin) -> Self {
        Self { identity, login, by_namespace: Mutex::default() }
    }

    /// The session that reads secrets of `namespace`.
    pub(super) fn of(&self, namespace: &VaultNamespace) -> Arc<Session> {
        let namespace: Option<Box<str>> = self.login.namespace.as_ref().unwrap_or(namespace).path().map(Box::from);
        let mut sessions = self.by_namespace.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            let (current, turn) = (RwLock::default(), tokio::sync::Mutex::default());
            Arc::new(Session { namespace: namespace.clone(), current, turn })
        };
        Arc::clone(sessions.entry(namespace.clone()).or_insert_with(new))
    }

    /// A token that holds. The second value says whether it was made for this very call.
    pub(super) async fn token(&self, client: &Client, session: &Session) -> Result<(Arc<Token>, bool), Reason> {
        if let Some(token) = session.current().filter(|token| token.is_young()) {
            return Ok((token, false));
        }
        let mut turn = session.turn.lock().await;
        let before = session.current();
        if let Some(token) = before.clone().filter(|token| token.is_young()) {
            return Ok((token, false));
        }
        let outcome = match &before {
            Some(token) if token.renewable && token.holds() => match self.renew(client, session, token).await {
                Some(renewed) => Ok((renewed, false)),
                None => self.log_in(client, session, &mut turn).await.map(|token| (token, true)),
            },
            _ => self.log_in(client, session, &mut turn).await.map(|token| (token, true)),
        };
        match (outcome, before) {
            // Renewal is ahead of time, so that an outage costs nothing while the old token holds.
            (Err(reason), Some(token)) if reason.is_transient() && token.holds() => Ok((token, false)),
            (outcome, _) => outcome,
        }
    }

    /// Another token than the one that was refused: another's new one, or that of a new login.
    ///
    /// # Errors
    /// [`Reason::VaultDenied`] where another one was replaced just now, else why there is none.
    pub(super) async fn replace(
        &self,
        client: &Client,
        session: &Session,
        refused: &Arc<Token>,
    ) -> Result<Arc<Token>, Reason> {
        let mut turn = session.turn.lock().await;
        match session.current() {
            Some(token) if !Arc::ptr_eq(&token, refused) => Ok(token),
            _ if turn.replaced.is_some_and(|at| at.elapsed() < PAUSE) => Err(Reason::VaultDenied),
            _ => {
                turn.replaced = Some(Instant::now());
                self.log_in(client, session, &mut turn).await
            }
        }
    }

    async fn log_in(&self, client: &Client, session: &Session, turn: &mut Turn) -> Result<Arc<Token>, Reason> {
        if let Some((reason, at)) = turn.failed
            && at.elapsed() < PAUSE
        {
            return Err(reason);
        }
        match self.ask_for_token(client, session).await {
            Ok(auth) => {
                turn.failed = None;
                Ok(session.keep(Token::new(auth)))
            }
            Err(reason) => {
                turn.failed = Some((reason, Instant::now()));
                Err(reason)
            }
        }
    }

    async fn ask_for_token(&self, client: &Client, session: &Session) -> Result<Auth, Reason> {
        // Not with an identity that has ended, even if Vault's clock would let it.
        self.identity.spiffe_id()?;
        let role = self.login.role.as_str();
        let (http, body) = match &self.login.method {
            VaultLoginMethod::Jwt { audience } => {
                let jwt = self.identity.jwt_svid(audience).await?;
                (None, answer::body(&[("role", role), ("jwt", jwt.as_str())])?)
            }
            VaultLoginMethod::Cert => {
                let with_svid = client.with_svid(self.identity.x509_svid()?);
                let http =
                    with_svid.inspect_err(|error| tracing::warn!(%error, "the X.509-SVID can't be shown to Vault"));
                (Some(http.map_err(|_: VaultError| Reason::IdentityUnavailable)?), answer::body(&[("name", role)])?)
            }
        };
        let call = session.call(format!("auth/{}/login", self.login.mount), body);
        let answer = match &http {
            Some(http) => client.send_by(http, &call, None).await?,
            None => client.send(&call, None).await?,
        };
        match answer.status.as_u16() {
            200 => answer::auth(&answer.body),
            status => {
                tracing::warn!(
                    status,
                    namespace = session.namespace.as_deref().unwrap_or("root"),
                    "Vault refused the login; the role must allow this SPIFFE ID, and the auth method trust its issuer"
                );
                Err(Reason::VaultLoginFailed)
            }
        }
    }

    /// `None` where only a new login helps: refused, or close to the token's last end.
    async fn renew(&self, client: &Client, session: &Session, token: &Token) -> Option<Arc<Token>> {
        let call = session.call("auth/token/renew-self".to_owned(), answer::body(&[]).ok()?);
        let answer = client.send(&call, Some(token.secret())).await.ok()?;
        let auth = answer::auth(&answer.body).ok().filter(|_| answer.status.as_u16() == 200)?;
        let renewed = Token::new(auth);
        (renewed.life >= token.life.map(|life| life / 2)).then(|| session.keep(renewed))
    }

    /// See [`crate::unwrap::Unwrap::prepare`].
    pub(super) async fn prepare(&self, client: &Client, namespaces: &[&VaultNamespace]) {
        let mut sessions: Vec<_> = namespaces.iter().map(|namespace| self.of(namespace)).collect();
        sessions.sort_by(|a, b| a.namespace.cmp(&b.namespace));
        sessions.dedup_by(|a, b| Arc::ptr_eq(a, b));
        for session in sessions {
            // A failure shows when a stream needs it.
            let _ = self.token(client, &session).await;
        }
    }
}

impl Session {
    fn current(&self) -> Option<Arc<Token>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn keep(&self, token: Token) -> Arc<Token> {
        let token = Arc::new(token);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(&token));
        token
    }

    fn call(&self, path: String, body: Zeroizing<Vec<u8>>) -> Call<'_> {
        Call { method: Method::POST, namespace: self.namespace.as_deref(), path, body: Some(body) }
    }
}
