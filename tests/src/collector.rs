//! A collector of traces: takes spans by OTLP, and keeps them.

use crate::Result;
use crate::pki::Identity;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// A running collector, and what it was told.
#[derive(Clone, Default)]
pub struct Collector {
    received: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
}

impl Collector {
    /// Starts one on a free port of loopback, over plain HTTP/2.
    ///
    /// # Errors
    /// If no port is free.
    pub async fn start() -> Result<(Self, SocketAddr)> {
        Self::serve(Server::builder()).await
    }

    /// The same, over TLS.
    ///
    /// # Errors
    /// If no port is free, or the identity can't be used.
    pub async fn start_tls(identity: &Identity) -> Result<(Self, SocketAddr)> {
        let identity = tonic::transport::Identity::from_pem(identity.bundle(), &identity.key_pem);
        Self::serve(Server::builder().tls_config(ServerTlsConfig::new().identity(identity))?).await
    }

    async fn serve(mut server: Server) -> Result<(Self, SocketAddr)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, collector) = (listener.local_addr()?, Self::default());
        let service = TraceServiceServer::new(collector.clone());
        let server = server.add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Ok((collector, address))
    }

    /// Everything that was received, as it came.
    #[must_use]
    pub fn received(&self) -> Vec<ExportTraceServiceRequest> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The spans of a name so far.
    #[must_use]
    pub fn spans(&self, name: &str) -> Vec<Span> {
        let mut spans = self.all();
        spans.retain(|span| span.name == name);
        spans
    }

    /// All spans so far.
    #[must_use]
    pub fn all(&self) -> Vec<Span> {
        let resources = self.received().into_iter().flat_map(|request| request.resource_spans);
        resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans).collect()
    }
}

/// An attribute of a span; empty where it has none such.
#[must_use]
pub fn attribute<'a>(span: &'a Span, key: &str) -> &'a str {
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key);
    match attribute.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
        Some(Value::StringValue(text)) => text,
        _ => "",
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> std::result::Result<Response<ExportTraceServiceResponse>, Status> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner).push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
