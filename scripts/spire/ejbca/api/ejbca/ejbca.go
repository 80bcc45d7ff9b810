// Package ejbca stands in for Keyfactor's EJBCA client when SPIRE is built for
// Bouncer's tests.
//
// spire-server links every built-in plugin, so it needs this package to
// compile, but the tests never configure the "ejbca" upstream authority, and
// module proxies do not all serve the real client. It holds just the names that
// SPIRE's plugin uses. Every call that would reach an EJBCA server returns
// ErrNotBuiltIn, so a server that is configured for EJBCA refuses to start.
package ejbca

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
)

// ErrNotBuiltIn is what every call of this stand-in returns.
var ErrNotBuiltIn = errors.New("this SPIRE build has no EJBCA client")

// Authenticator would add credentials to a request; no value of it exists.
type Authenticator interface {
	GetHTTPClient() (*http.Client, error)
}

// MTLSAuthenticatorBuilder takes the client's options and builds nothing.
type MTLSAuthenticatorBuilder struct{}

func NewMTLSAuthenticatorBuilder() *MTLSAuthenticatorBuilder { return &MTLSAuthenticatorBuilder{} }

func (b *MTLSAuthenticatorBuilder) WithClientCertificate(*tls.Certificate) *MTLSAuthenticatorBuilder {
	return b
}

func (b *MTLSAuthenticatorBuilder) WithCaCertificates([]*x509.Certificate) *MTLSAuthenticatorBuilder {
	return b
}

func (b *MTLSAuthenticatorBuilder) Build() (Authenticator, error) { return nil, ErrNotBuiltIn }

// Configuration names the server; only the fields SPIRE sets are here.
type Configuration struct {
	Host string
}

func NewConfiguration() *Configuration { return &Configuration{} }

func (c *Configuration) SetAuthenticator(Authenticator) {}

// APIClient would hold the REST services.
type APIClient struct {
	V1CertificateApi *V1CertificateApiService
}

func NewAPIClient(*Configuration) (*APIClient, error) { return nil, ErrNotBuiltIn }

// V1CertificateApiService would enroll certificates.
type V1CertificateApiService struct{}

func (s *V1CertificateApiService) EnrollPkcs10Certificate(context.Context) ApiEnrollPkcs10CertificateRequest {
	return ApiEnrollPkcs10CertificateRequest{}
}

// ApiEnrollPkcs10CertificateRequest is one enrollment call being prepared.
type ApiEnrollPkcs10CertificateRequest struct{}

func (r ApiEnrollPkcs10CertificateRequest) EnrollCertificateRestRequest(EnrollCertificateRestRequest) ApiEnrollPkcs10CertificateRequest {
	return r
}

func (r ApiEnrollPkcs10CertificateRequest) Execute() (*CertificateRestResponse, *http.Response, error) {
	return nil, nil, ErrNotBuiltIn
}

// EnrollCertificateRestRequest drops what it is given.
type EnrollCertificateRestRequest struct{}

func NewEnrollCertificateRestRequest() *EnrollCertificateRestRequest {
	return &EnrollCertificateRestRequest{}
}

func (r *EnrollCertificateRestRequest) SetUsername(string)                 {}
func (r *EnrollCertificateRestRequest) SetPassword(string)                 {}
func (r *EnrollCertificateRestRequest) SetCertificateRequest(string)       {}
func (r *EnrollCertificateRestRequest) SetCertificateAuthorityName(string) {}
func (r *EnrollCertificateRestRequest) SetCertificateProfileName(string)   {}
func (r *EnrollCertificateRestRequest) SetEndEntityProfileName(string)     {}
func (r *EnrollCertificateRestRequest) SetIncludeChain(bool)               {}
func (r *EnrollCertificateRestRequest) SetAccountBindingId(string)         {}

// CertificateRestResponse would carry the certificate; it is always empty.
type CertificateRestResponse struct {
	CertificateChain []string
}

func (r *CertificateRestResponse) GetResponseFormat() string { return "" }
func (r *CertificateRestResponse) GetCertificate() string    { return "" }

// GenericOpenAPIError is the error type SPIRE looks for; none is ever made.
type GenericOpenAPIError struct{}

func (e *GenericOpenAPIError) Error() string { return ErrNotBuiltIn.Error() }
func (e *GenericOpenAPIError) Body() []byte  { return nil }
