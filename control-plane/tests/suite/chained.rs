//! A spool as the control plane sees one: chained events and checkpoints, signed under SVIDs of a trust domain of its own.

use crate::resolver::event;
use bouncer_audit::{Bundles, ChainPoint, Checkpoint, Owner, Report, Signer, Verifier};
use bouncer_proto::bridge::v1 as wire;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SanType};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::collections::BTreeMap;

/// The authority of `example.org`.
pub(crate) struct Domain {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Domain {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.subject_alt_names = vec![SanType::URI("spiffe://example.org".try_into().unwrap())];
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn svid(&self, id: &str) -> Signer {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Signer::new(&key, vec![certificate.der().to_vec()]).unwrap()
    }

    /// What comes of an export.
    pub(crate) fn verify(&self, export: &str) -> Report {
        self.verify_unsigned(export, None)
    }

    /// The same, where nothing signs the chains of this one.
    pub(crate) fn verify_unsigned(&self, export: &str, unsigned: Option<Owner>) -> Report {
        let mut bundles = Bundles::default();
        bundles.add(None, self.pem.as_bytes()).unwrap();
        let mut verifier = Verifier::new(bundles, BTreeMap::new(), Vec::new()).unsigned(unsigned);
        export.lines().for_each(|line| verifier.line(line));
        verifier.finish()
    }
}

pub(crate) struct Spool {
    pub(crate) at: ChainPoint,
    owner: Owner,
    signer: Signer,
    pub(crate) number: u64,
}

impl Spool {
    /// A new chain of the bouncer's; its name ends in this digit.
    pub(crate) fn new(domain: &Domain, bouncer: &str, digit: u8) -> Self {
        let owner = Owner::Bouncer(bouncer.to_owned());
        let chain = format!("0199d7a0-0000-7000-8000-0000000000a{digit}").parse().unwrap();
        let signer = domain.svid(&crate::harness::spiffe_id(bouncer));
        Self { at: ChainPoint::origin(chain, &owner, 0), owner, signer, number: 0 }
    }

    /// Signs as another bouncer's resolver from here on.
    pub(crate) fn sign_as(&mut self, domain: &Domain, bouncer: &str) {
        self.signer = domain.svid(&crate::harness::spiffe_id(bouncer));
    }

    /// The next event, changed before it is chained.
    pub(crate) fn next_with(&mut self, edit: impl FnOnce(&mut wire::AuditEvent)) -> wire::AuditEvent {
        let mut event = event(self.at.sequence + 1, "inject");
        edit(&mut event);
        let Owner::Bouncer(bouncer) = &self.owner else { panic!("no bouncer's chain") };
        let decision = bouncer_audit::decision!(event, bouncer);
        let head = self.at.head_with(&decision.leaf());
        self.at = ChainPoint { sequence: event.sequence, head, ..self.at.clone() };
        wire::AuditEvent { chain: self.at.chain.to_string(), head: head.as_bytes().to_vec(), ..event }
    }

    pub(crate) fn events(&mut self, count: u64) -> Vec<wire::AuditEvent> {
        (0..count).map(|_| self.next_with(|_| {})).collect()
    }

    /// A checkpoint over everything so far.
    pub(crate) fn checkpoint(&mut self) -> wire::Checkpoint {
        self.number += 1;
        let (chain, owner, number) = (self.at.chain.clone(), self.owner.clone(), self.number);
        let time_ms = jiff::Timestamp::now().as_millisecond();
        let checkpoint = Checkpoint { chain, owner, number, sequence: self.at.sequence, head: self.at.head, time_ms };
        let signed = self.signer.sign(checkpoint).unwrap();
        let Owner::Bouncer(bouncer) = self.owner.clone() else { panic!("no bouncer's chain") };
        wire::Checkpoint {
            chain: self.at.chain.to_string(),
            bouncer,
            number,
            sequence: self.at.sequence,
            head: self.at.head.as_bytes().to_vec(),
            time_ms,
            algorithm: signed.algorithm.as_str().to_owned(),
            signature: signed.signature,
            certificates: signed.certificates,
        }
    }
}
