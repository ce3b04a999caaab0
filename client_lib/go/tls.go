package userintent

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"google.golang.org/grpc/credentials"
)

// TLS names the files (PEM) that protect the connection. They are read again for every new connection, so a
// certificate that was replaced is used without a restart. Files that cannot be used, say because only the key was
// replaced so far, leave those in force that were read before.
type TLS struct {
	// CAFile holds the authorities that the gateway's certificate is checked against; empty: the system's.
	CAFile string
	// CertFile and KeyFile are this program's certificate (with its chain) and key. The gateway asks for one. Both or none.
	CertFile, KeyFile string
	// ServerName is the name in the gateway's certificate, where it is not the host of the target.
	ServerName string
}

// Credentials reads the files and fails when they cannot be used.
func (t TLS) Credentials() (credentials.TransportCredentials, error) {
	if (t.CertFile == "") != (t.KeyFile == "") {
		return nil, errors.New("userintent: TLS.CertFile and TLS.KeyFile go together")
	}
	state := &tlsState{files: t}
	if err := state.load(); err != nil {
		return nil, err
	}
	return &tlsCredentials{state: state, serverName: t.ServerName}, nil
}

// tlsState is what was read last and could be used. Any goroutine may use it.
type tlsState struct {
	files TLS

	mu          sync.Mutex
	roots       *x509.CertPool   // nil: the system's
	certificate *tls.Certificate // nil: none
}

// load keeps what it cannot replace.
func (s *tlsState) load() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var problems []error
	if s.files.CAFile != "" {
		if roots, err := readRoots(s.files.CAFile); err != nil {
			problems = append(problems, err)
		} else {
			s.roots = roots
		}
	}
	if s.files.CertFile != "" {
		if pair, err := tls.LoadX509KeyPair(s.files.CertFile, s.files.KeyFile); err != nil {
			problems = append(problems, fmt.Errorf("userintent: %s with %s: %w", s.files.CertFile, s.files.KeyFile, err))
		} else {
			s.certificate = &pair
		}
	}
	return errors.Join(problems...)
}

func readRoots(file string) (*x509.CertPool, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("userintent: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(data) {
		return nil, fmt.Errorf("userintent: %s holds no certificate", file)
	}
	return roots, nil
}

func (s *tlsState) config(serverName string) *tls.Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: serverName, RootCAs: s.roots}
	if certificate := s.certificate; certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	return config
}

// tlsCredentials is gRPC's own TLS with a configuration made anew for each handshake.
type tlsCredentials struct {
	state      *tlsState
	serverName string
}

func (c *tlsCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	problem := c.state.load()
	secured, info, err := credentials.NewTLS(c.state.config(c.serverName)).ClientHandshake(ctx, authority, conn)
	if err != nil && problem != nil {
		err = fmt.Errorf("%w (with the files as they were before: %v)", err, problem)
	}
	return secured, info, err
}

func (c *tlsCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("userintent: these credentials are for clients")
}

func (c *tlsCredentials) Info() credentials.ProtocolInfo {
	return credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.serverName}).Info()
}

func (c *tlsCredentials) Clone() credentials.TransportCredentials {
	return &tlsCredentials{state: c.state, serverName: c.serverName}
}

func (c *tlsCredentials) OverrideServerName(name string) error {
	c.serverName = name
	return nil
}
