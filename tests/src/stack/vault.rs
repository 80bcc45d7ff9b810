//! The customer's Vault of a scenario, and how its resolver comes to it.

use super::Identities;
use crate::Result;
use crate::openbao::OpenBao;
use crate::pki::Ca;
use crate::scratch::Scratch;
use crate::vault_proxy::VaultProxy;

/// How the resolver comes to Vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// Over TLS, with a JWT-SVID.
    Jwt,
    /// Over TLS, with the X.509-SVID.
    Cert,
    /// With a JWT-SVID, through a proxy in plain HTTP that counts and makes faults.
    JwtByProxy,
}

/// Starts it, if it is wanted, and the proxy in front of it, if that is.
pub(super) async fn start(
    login: Option<Login>,
    scratch: &Scratch,
    identities: &Identities,
    customer_ca: &Ca,
    server_ca: &Ca,
) -> Result<(Option<OpenBao>, Option<VaultProxy>)> {
    let Some(login) = login else { return Ok((None, None)) };
    let (roots, jwt_key) = (identities.roots_pem()?, identities.jwt_key_pem()?);
    let vault = OpenBao::start(scratch, server_ca, customer_ca, &roots, &jwt_key).await?;
    let proxy = match login {
        Login::JwtByProxy => Some(VaultProxy::start(vault.address(), server_ca.pem()).await?),
        Login::Jwt | Login::Cert => None,
    };
    Ok((Some(vault), proxy))
}
