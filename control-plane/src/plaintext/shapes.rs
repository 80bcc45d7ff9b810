//! The table of tokens with a known shape: a prefix, an alphabet, a length. From the documents of the services, and the
//! rules of the scanner that `tests/corpus/formats.toml` names.

use super::Kind::{self, AwsKey, OwnToken, PrivateKey, ServiceToken, VaultToken};

/// What a token is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Alphabet {
    /// `0-9`
    Digit,
    /// `0-9A-Fa-f-`
    Hex,
    /// `A-Z0-9`
    Upper,
    /// `A-Z0-9-`
    Dashed,
    /// `A-Za-z0-9`
    Alnum,
    /// `A-Za-z0-9_-`
    Word,
    /// `A-Za-z0-9_-.~`
    Dotted,
    /// `A-Za-z0-9+/`
    Base64,
}
use Alphabet::{Alnum, Base64, Dashed, Digit, Dotted, Hex, Upper, Word};

impl Alphabet {
    pub(super) fn has(self, byte: u8) -> bool {
        match self {
            Digit => byte.is_ascii_digit(),
            Hex => byte.is_ascii_hexdigit() || byte == b'-',
            Upper => byte.is_ascii_uppercase() || byte.is_ascii_digit(),
            Dashed => Upper.has(byte) || byte == b'-',
            Alnum => byte.is_ascii_alphanumeric(),
            Word => byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'),
            Dotted => Word.has(byte) || matches!(byte, b'.' | b'~'),
            Base64 => byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/'),
        }
    }

    /// What each character of it says against noise in base64, in bits: the logarithm of how many of the 64 it has not.
    pub(super) fn rarity(self) -> f64 {
        let within = (0..=u8::MAX).filter(|byte| Base64.has(*byte) && self.has(*byte)).count();
        (64.0 / within as f64).log2()
    }
}

/// A token that begins with its mark.
pub(super) struct Shape {
    pub(super) prefix: &'static str,
    pub(super) alphabet: Alphabet,
    /// How many characters follow at least, and at most.
    pub(super) length: (usize, usize),
    pub(super) kind: Kind,
}

/// A token that has its mark within: what stands before it at least, the mark, what follows at least.
pub(super) struct Inner {
    pub(super) before: (Alphabet, usize),
    pub(super) mark: &'static str,
    pub(super) after: (Alphabet, usize),
}

const fn from(prefix: &'static str, alphabet: Alphabet, least: usize, kind: Kind) -> Shape {
    Shape { prefix, alphabet, length: (least, usize::MAX), kind }
}

const fn exactly(prefix: &'static str, alphabet: Alphabet, length: usize, kind: Kind) -> Shape {
    Shape { prefix, alphabet, length: (length, length), kind }
}

pub(super) const INNER: &[Inner] = &[
    // Terraform
    Inner { before: (Alnum, 14), mark: ".atlasv1.", after: (Word, 60) },
    // MaxMind
    Inner { before: (Word, 36), mark: "_mmk", after: (Word, 0) },
    // Entra ID's client secrets
    Inner { before: (Dotted, 4), mark: "Q~", after: (Dotted, 31) },
    // Facebook, Telegram
    Inner { before: (Digit, 15), mark: "|", after: (Word, 27) },
    Inner { before: (Digit, 8), mark: ":A", after: (Word, 34) },
];

#[rustfmt::skip]
pub(super) const SHAPES: &[Shape] = &[
    exactly("AKIA", Upper, 16, AwsKey),
    exactly("ASIA", Upper, 16, AwsKey),
    exactly("ABIA", Upper, 16, AwsKey),
    exactly("ACCA", Upper, 16, AwsKey),
    exactly("A3T", Upper, 17, AwsKey),
    from("hvs.", Word, 20, VaultToken),
    from("hvb.", Word, 20, VaultToken),
    from("hvr.", Word, 20, VaultToken),
    exactly("s.", Alnum, 24, VaultToken),
    from("b.AAAA", Word, 40, VaultToken),
    from("AGE-SECRET-KEY-1", Upper, 50, PrivateKey),
    from("AGE-PLUGIN-", Dashed, 50, PrivateKey),
    // Code hosts and package registries
    from("ghp_", Alnum, 20, ServiceToken),
    from("gho_", Alnum, 20, ServiceToken),
    from("ghu_", Alnum, 20, ServiceToken),
    from("ghs_", Alnum, 20, ServiceToken),
    from("ghr_", Alnum, 20, ServiceToken),
    from("github_pat_", Word, 20, ServiceToken),
    from("glpat-", Word, 16, ServiceToken),
    from("glcbt-", Word, 20, ServiceToken),
    from("gldt-", Word, 20, ServiceToken),
    from("glffct-", Word, 20, ServiceToken),
    from("glft-", Word, 20, ServiceToken),
    from("glimt-", Word, 20, ServiceToken),
    from("glagent-", Word, 20, ServiceToken),
    from("gloas-", Word, 20, ServiceToken),
    from("glptt-", Word, 20, ServiceToken),
    from("glrt-", Word, 20, ServiceToken),
    from("glsoat-", Word, 20, ServiceToken),
    from("GR1348941", Word, 20, ServiceToken),
    from("_gitlab_session=", Alnum, 32, ServiceToken),
    from("ATATT3", Word, 100, ServiceToken),
    from("npm_", Alnum, 36, ServiceToken),
    from("pypi-", Word, 40, ServiceToken),
    from("rubygems_", Hex, 48, ServiceToken),
    from("CLOJARS_", Alnum, 60, ServiceToken),
    exactly("AKCp", Alnum, 69, ServiceToken),
    exactly("cmVmd", Alnum, 59, ServiceToken),
    from("sgp_", Word, 40, ServiceToken),
    // Messages and mail
    from("xoxa-", Word, 10, ServiceToken),
    from("xoxb-", Word, 10, ServiceToken),
    from("xoxc-", Word, 10, ServiceToken),
    from("xoxe-", Word, 10, ServiceToken),
    from("xoxo-", Word, 10, ServiceToken),
    from("xoxp-", Word, 10, ServiceToken),
    from("xoxr-", Word, 10, ServiceToken),
    from("xoxs-", Word, 10, ServiceToken),
    from("xapp-", Word, 10, ServiceToken),
    from("hooks.slack.com/services/", Base64, 40, ServiceToken),
    from("hooks.slack.com/workflows/", Base64, 40, ServiceToken),
    from("hooks.slack.com/triggers/", Base64, 40, ServiceToken),
    from("webhookb2/", Hex, 36, ServiceToken),
    from("SG.", Dotted, 60, ServiceToken),
    from("xkeysib-", Word, 60, ServiceToken),
    exactly("SK", Hex, 32, ServiceToken),
    // Payments
    from("sk_live_", Alnum, 10, ServiceToken),
    from("sk_test_", Alnum, 10, ServiceToken),
    from("sk_prod_", Alnum, 10, ServiceToken),
    from("rk_live_", Alnum, 10, ServiceToken),
    from("rk_test_", Alnum, 10, ServiceToken),
    from("rk_prod_", Alnum, 10, ServiceToken),
    from("whsec_", Alnum, 20, ServiceToken),
    from("EAAA", Word, 22, ServiceToken),
    from("sq0atp-", Word, 22, ServiceToken),
    from("sq0csp-", Word, 22, ServiceToken),
    from("FLWSECK", Word, 12, ServiceToken),
    exactly("access-sandbox-", Hex, 36, ServiceToken),
    exactly("access-development-", Hex, 36, ServiceToken),
    exactly("access-production-", Hex, 36, ServiceToken),
    from("EZAK", Alnum, 54, ServiceToken),
    from("EZTK", Alnum, 54, ServiceToken),
    from("shippo_live_", Hex, 40, ServiceToken),
    from("shippo_test_", Hex, 40, ServiceToken),
    from("shpat_", Hex, 32, ServiceToken),
    from("shpca_", Hex, 32, ServiceToken),
    from("shppa_", Hex, 32, ServiceToken),
    from("shpss_", Hex, 32, ServiceToken),
    from("duffel_live_", Word, 40, ServiceToken),
    from("duffel_test_", Word, 40, ServiceToken),
    // Clouds, hosting, databases
    exactly("AIza", Word, 35, ServiceToken),
    from("ya29.", Word, 20, ServiceToken),
    from("GOCSPX-", Word, 28, ServiceToken),
    from("1//0", Word, 40, ServiceToken),
    exactly("LTAI", Alnum, 20, ServiceToken),
    from("dop_v1_", Alnum, 64, ServiceToken),
    from("doo_v1_", Alnum, 64, ServiceToken),
    from("dor_v1_", Alnum, 64, ServiceToken),
    from("v1.0-", Hex, 171, ServiceToken),
    from("fo1_", Word, 43, ServiceToken),
    from("fm1a_", Base64, 100, ServiceToken),
    from("fm1r_", Base64, 100, ServiceToken),
    from("fm2_", Base64, 100, ServiceToken),
    from("HRKU-AA", Word, 58, ServiceToken),
    from("tk-us-", Word, 48, ServiceToken),
    from("dapi", Hex, 32, ServiceToken),
    exactly("4b1d", Alnum, 38, ServiceToken),
    from("pscale_tkn_", Dotted, 32, ServiceToken),
    from("pscale_oauth_", Dotted, 32, ServiceToken),
    from("pscale_pw_", Dotted, 32, ServiceToken),
    from("AQVN", Word, 35, ServiceToken),
    exactly("YC", Word, 38, ServiceToken),
    from("t1.", Dotted, 100, ServiceToken),
    from("sha256~", Word, 43, ServiceToken),
    // Operations
    from("ops_eyJ", Base64, 100, ServiceToken),
    from("A3-", Dashed, 34, ServiceToken),
    from("dp.pt.", Alnum, 40, ServiceToken),
    from("dnkey-", Word, 79, ServiceToken),
    from("dt0c01.", Dotted, 80, ServiceToken),
    from("glsa_", Word, 41, ServiceToken),
    from("glc_", Base64, 32, ServiceToken),
    from("eyJrIjoi", Alnum, 70, ServiceToken),
    exactly("pat.", Dotted, 68, ServiceToken),
    exactly("sat.", Dotted, 68, ServiceToken),
    exactly("ico-", Alnum, 32, ServiceToken),
    from("pul-", Hex, 40, ServiceToken),
    from("pnu_", Alnum, 36, ServiceToken),
    from("NRAK-", Upper, 27, ServiceToken),
    from("NRII-", Word, 32, ServiceToken),
    exactly("API-", Upper, 26, ServiceToken),
    from("PMAK-", Hex, 59, ServiceToken),
    from("sntryu_", Hex, 64, ServiceToken),
    from("sntrys_", Base64, 40, ServiceToken),
    from("sm_aat_", Alnum, 16, ServiceToken),
    from("sm_pat_", Alnum, 16, ServiceToken),
    from("sm_sat_", Alnum, 16, ServiceToken),
    from("s-s4t2ud-", Hex, 64, ServiceToken),
    from("s-s4t2af-", Hex, 64, ServiceToken),
    // Work and files
    from("lin_api_", Alnum, 40, ServiceToken),
    exactly("ntn_", Alnum, 46, ServiceToken),
    from("rdme_", Alnum, 70, ServiceToken),
    from("tfp_", Dotted, 59, ServiceToken),
    from("p8e-", Alnum, 32, ServiceToken),
    from("fio-u-", Word, 64, ServiceToken),
    from("sl.", Word, 130, ServiceToken),
    from("EAAC", Alnum, 100, ServiceToken),
    from("EAAM", Alnum, 100, ServiceToken),
    // Models
    from("sk-ant-", Word, 20, ServiceToken),
    from("sk-proj-", Word, 20, ServiceToken),
    from("sk-svcacct-", Word, 20, ServiceToken),
    from("sk-admin-", Word, 20, ServiceToken),
    from("sk-", Alnum, 32, ServiceToken),
    from("pplx-", Alnum, 40, ServiceToken),
    exactly("hf_", Alnum, 34, ServiceToken),
    exactly("api_org_", Alnum, 34, ServiceToken),
    exactly(crate::token::PREFIX, Word, 43, OwnToken),
];
