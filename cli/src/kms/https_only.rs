//! An HTTP client for the AWS SDK that sends nothing in clear, wherever its endpoint comes from.

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

/// How its refusal is told from other faults of a connection.
pub(super) const PLAIN: &str = "plain HTTP is refused";

/// Sends nothing but HTTPS.
#[derive(Debug)]
pub(super) struct HttpsOnly(pub(super) SharedHttpClient);

impl HttpClient for HttpsOnly {
    fn http_connector(&self, settings: &HttpConnectorSettings, components: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(HttpsOnlyConnector(self.0.http_connector(settings, components)))
    }
}

#[derive(Debug)]
struct HttpsOnlyConnector(SharedHttpConnector);

impl HttpConnector for HttpsOnlyConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        if request.uri().starts_with("https://") {
            return self.0.call(request);
        }
        HttpConnectorFuture::ready(Err(ConnectorError::user(PLAIN.into())))
    }
}
