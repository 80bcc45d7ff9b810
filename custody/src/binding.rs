//! The binding: what a credential may be used for, as the customer wrote it into the AAD and the operator into the
//! rails. The one place where both are compared with a stream.

use crate::{
    BouncerName, CallerPattern, EncryptionContext, Environment, Generation, KmsKeyArn, LogicalPath, PathPattern,
    Reason, Reserved, SpiffeId, Upstream, UpstreamPattern,
};

/// What the resolver knows of a stream for certain. Nothing here can be chosen by the client or the control plane.
#[derive(Debug, Clone, Copy)]
pub struct StreamFacts<'a> {
    /// This bouncer's own name, from the resolver's configuration.
    pub bouncer: &'a BouncerName,
    /// This resolver's own environment.
    pub env: Option<&'a Environment>,
    /// The verified caller.
    pub caller: &'a SpiffeId,
}

/// What the operator allows on one cluster, from the resolver's own configuration. No control plane can lift it.
#[derive(Debug, Clone)]
pub struct ClusterRail {
    /// Where the cluster leads: the only destination that an `upstream=` is ever compared with.
    pub upstream: Upstream,
    /// Who may call. Empty binds no caller, and then the AAD must.
    pub callers: Vec<CallerPattern>,
    /// Which credentials may be used here. Empty binds none, and then the AAD must name the upstream.
    pub logical_paths: Vec<PathPattern>,
    /// Which keys may wrap them. Empty allows every key of the resolver's general list.
    pub kms_keys: Vec<KmsKeyArn>,
}

/// What an envelope says of itself, to be held against a stream and a rail.
#[derive(Debug, Clone, Copy)]
pub struct Binding<'a> {
    /// The credential's path.
    pub path: &'a LogicalPath,
    /// Its registration.
    pub generation: Generation,
    /// Its AAD, if it has one.
    pub aad: Option<&'a EncryptionContext>,
    /// Whether the key is dedicated to this bouncer by the operator's word, which binds the bouncer without the AAD.
    pub key_is_dedicated: bool,
}

impl Binding<'_> {
    /// Whether the stream may have the credential, as far as AAD and rail say. The provider proves the AAD afterwards.
    ///
    /// # Errors
    /// The first [`Reason`] that speaks against it. Where AAD and rail both name something, both must agree.
    pub fn check(&self, stream: &StreamFacts<'_>, rail: &ClusterRail) -> Result<(), Reason> {
        let (bouncer_bound, upstream_bound) = self.check_place(stream.bouncer, stream.env, rail)?;
        let pair = |key| self.aad.and_then(|aad| aad.get(key));
        let caller_in_aad = match pair(Reserved::Caller).map(str::parse::<CallerPattern>) {
            Some(Ok(pattern)) if pattern.matches(stream.caller) => true,
            Some(_) => return Err(Reason::BindingCaller),
            None => false,
        };
        if !rail.callers.is_empty() && !rail.callers.iter().any(|pattern| pattern.matches(stream.caller)) {
            return Err(Reason::CallerNotAllowed);
        }

        let caller_bound = caller_in_aad || !rail.callers.is_empty();
        if bouncer_bound && upstream_bound && caller_bound { Ok(()) } else { Err(Reason::BindingIncomplete) }
    }

    /// The part of [`Binding::check`] that no caller changes: whether the credential may be used by this bouncer on this
    /// cluster at all. Says whether bouncer and upstream are bound.
    ///
    /// # Errors
    /// As [`Binding::check`].
    pub fn check_place(
        &self,
        bouncer: &BouncerName,
        env: Option<&Environment>,
        rail: &ClusterRail,
    ) -> Result<(bool, bool), Reason> {
        let pair = |key| self.aad.and_then(|aad| aad.get(key));
        let bouncer_bound = match pair(Reserved::Bouncer) {
            Some(name) if name == bouncer.as_str() => true,
            Some(_) => return Err(Reason::BindingBouncer),
            None => self.key_is_dedicated,
        };
        if pair(Reserved::Env).is_some_and(|named| env.is_none_or(|own| own.as_str() != named)) {
            return Err(Reason::BindingEnv);
        }
        if pair(Reserved::Generation).is_some_and(|text| text != self.generation.to_string()) {
            return Err(Reason::BindingGeneration);
        }
        let upstream_in_aad = match pair(Reserved::Upstream).map(str::parse::<UpstreamPattern>) {
            Some(Ok(pattern)) if pattern.matches(&rail.upstream) => true,
            Some(_) => return Err(Reason::BindingUpstream),
            None => false,
        };
        if !rail.logical_paths.is_empty() && !rail.logical_paths.iter().any(|pattern| pattern.matches(self.path)) {
            return Err(Reason::PathNotAllowed);
        }
        Ok((bouncer_bound, upstream_in_aad || !rail.logical_paths.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "protected-resources/payments-api/upstream-tls";

    struct Case {
        aad: &'static str,
        callers: &'static [&'static str],
        paths: &'static [&'static str],
        dedicated: bool,
    }

    const ALL_IN_AAD: &str = "bouncer=payments-east,upstream=payments.internal:8443,caller=spiffe://example.org/ns/shop/*,env=production,generation=3";

    fn check(case: &Case) -> Result<(), Reason> {
        let aad = (!case.aad.is_empty()).then(|| case.aad.parse::<EncryptionContext>().unwrap());
        let rail = ClusterRail {
            upstream: "payments.internal:8443".parse().unwrap(),
            callers: case.callers.iter().map(|text| text.parse().unwrap()).collect(),
            logical_paths: case.paths.iter().map(|text| PathPattern::try_from((*text).to_owned()).unwrap()).collect(),
            kms_keys: vec![],
        };
        let (bouncer, env) = ("payments-east".parse().unwrap(), "production".parse().unwrap());
        let (caller, path) = ("spiffe://example.org/ns/shop/sa/cart".parse().unwrap(), PATH.parse().unwrap());
        let facts = StreamFacts { bouncer: &bouncer, env: Some(&env), caller: &caller };
        let generation = Generation::new(3).unwrap();
        Binding { path: &path, generation, aad: aad.as_ref(), key_is_dedicated: case.dedicated }.check(&facts, &rail)
    }

    fn aad(aad: &'static str) -> Result<(), Reason> {
        check(&Case { aad, callers: &["spiffe://example.org/*"], paths: &[PATH], dedicated: false })
    }

    #[test]
    fn the_aad_alone_can_bind() {
        assert_eq!(check(&Case { aad: ALL_IN_AAD, callers: &[], paths: &[], dedicated: false }), Ok(()));
    }

    #[test]
    fn the_guides_aad_works_with_rails_for_the_other_two() {
        assert_eq!(aad("env=production,bouncer=payments-east"), Ok(()));
    }

    #[test]
    fn each_of_the_three_must_be_bound() {
        let incomplete = Err(Reason::BindingIncomplete);
        let guide = "env=production,bouncer=payments-east";
        let callers: &[_] = &["spiffe://example.org/*"];
        assert_eq!(check(&Case { aad: guide, callers: &[], paths: &[PATH], dedicated: false }), incomplete);
        assert_eq!(check(&Case { aad: guide, callers, paths: &[], dedicated: false }), incomplete);
        assert_eq!(check(&Case { aad: "env=production", callers, paths: &[PATH], dedicated: false }), incomplete);
        assert_eq!(check(&Case { aad: "", callers, paths: &[PATH], dedicated: false }), incomplete);
        assert_eq!(check(&Case { aad: "", callers, paths: &[PATH], dedicated: true }), Ok(()));
    }

    #[test]
    fn every_reserved_pair_is_held_against_the_stream() {
        assert_eq!(aad("bouncer=other"), Err(Reason::BindingBouncer));
        assert_eq!(aad("bouncer=payments-east,env=staging"), Err(Reason::BindingEnv));
        assert_eq!(aad("bouncer=payments-east,generation=2"), Err(Reason::BindingGeneration));
        assert_eq!(aad("bouncer=payments-east,generation=03"), Err(Reason::BindingGeneration));
        assert_eq!(aad("bouncer=payments-east,upstream=evil.internal:8443"), Err(Reason::BindingUpstream));
        assert_eq!(aad("bouncer=payments-east,upstream=nonsense"), Err(Reason::BindingUpstream));
        assert_eq!(aad("bouncer=payments-east,caller=spiffe://example.org/ns/other/*"), Err(Reason::BindingCaller));
    }

    #[test]
    fn a_rail_stands_even_where_the_aad_would_allow() {
        let other: &[_] = &["spiffe://example.org/ns/other/*"];
        assert_eq!(
            check(&Case { aad: ALL_IN_AAD, callers: other, paths: &[], dedicated: false }),
            Err(Reason::CallerNotAllowed)
        );
        assert_eq!(
            check(&Case { aad: ALL_IN_AAD, callers: &[], paths: &["other/*"], dedicated: false }),
            Err(Reason::PathNotAllowed)
        );
    }
}
