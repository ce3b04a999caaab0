package userintent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc/credentials"
)

type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (a *authority) issue(t *testing.T, serial int64) (certificate, key []byte) {
	t.Helper()
	private := newKey(t)
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"gateway.test"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, private.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

func write(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// handshake gives the serial number of the client's certificate as a server sees it; 0: none was sent.
func handshake(t *testing.T, creds credentials.TransportCredentials, server *authority, clients *authority) (int64, error) {
	t.Helper()
	certificate, key := server.issue(t, 999)
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(clients.certificate)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	serial := make(chan int64, 1)
	go func() {
		conn, err := listener.Accept()
		if err != nil {
			serial <- -1
			return
		}
		defer func() { _ = conn.Close() }()
		secured := tls.Server(conn, &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.VerifyClientCertIfGiven, NextProtos: []string{"h2"}})
		if secured.Handshake() != nil {
			serial <- -1
		} else if peers := secured.ConnectionState().PeerCertificates; len(peers) == 0 {
			serial <- 0
		} else {
			serial <- peers[0].SerialNumber.Int64()
		}
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	authority := creds.Info().ServerName // as gRPC chooses it
	if authority == "" {
		authority = "127.0.0.1"
	}
	_, _, err = creds.Clone().ClientHandshake(ctx, authority, conn)
	return <-serial, err
}

func TestCertificatesAreReadAgain(t *testing.T) {
	dir := t.TempDir()
	files := TLS{CAFile: filepath.Join(dir, "ca"), CertFile: filepath.Join(dir, "cert"), KeyFile: filepath.Join(dir, "key"), ServerName: "gateway.test"}
	old, clients := newAuthority(t), newAuthority(t)
	certificate, key := clients.issue(t, 11)
	write(t, files.CAFile, old.pem)
	write(t, files.CertFile, certificate)
	write(t, files.KeyFile, key)
	creds, err := files.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	expect := func(when string, server *authority, want int64) {
		t.Helper()
		if got, err := handshake(t, creds, server, clients); err != nil || got != want {
			t.Errorf("%s: the server saw certificate %d, want %d (%v)", when, got, want, err)
		}
	}
	expect("at first", old, 11)
	certificate, key = clients.issue(t, 22)
	write(t, files.KeyFile, key)
	expect("only the key replaced", old, 11)
	write(t, files.CertFile, certificate)
	expect("both replaced", old, 22)

	fresh := newAuthority(t)
	if _, err := handshake(t, creds, fresh, clients); err == nil {
		t.Error("a server of an unknown authority was trusted")
	}
	write(t, files.CAFile, fresh.pem)
	expect("CA replaced", fresh, 22)
	if _, err := handshake(t, creds, old, clients); err == nil {
		t.Error("the old authority is still trusted")
	}
	write(t, files.CAFile, []byte("half a fi"))
	expect("CA file damaged", fresh, 22)
	if err := os.Remove(files.CertFile); err != nil {
		t.Fatal(err)
	}
	expect("certificate gone", fresh, 22)
}

func TestTLSWithoutClientCertificate(t *testing.T) {
	server := newAuthority(t)
	ca := filepath.Join(t.TempDir(), "ca")
	write(t, ca, server.pem)
	creds, err := TLS{CAFile: ca, ServerName: "gateway.test"}.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := handshake(t, creds, server, server); err != nil || got != 0 {
		t.Errorf("certificate %d (%v)", got, err)
	}
	wrong, err := TLS{CAFile: ca}.Credentials()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := handshake(t, wrong, server, server); err == nil {
		t.Error("a certificate for another name was accepted")
	}
	if name := creds.Info().ServerName; name != "gateway.test" {
		t.Errorf("the authority would be %q", name)
	}
}

func TestUnusableFilesFailAtOnce(t *testing.T) {
	dir, a := t.TempDir(), newAuthority(t)
	certificate, _ := a.issue(t, 1)
	_, other := a.issue(t, 2)
	cert, key, empty := filepath.Join(dir, "cert"), filepath.Join(dir, "key"), filepath.Join(dir, "empty")
	write(t, cert, certificate)
	write(t, key, other)
	write(t, empty, nil)
	for name, files := range map[string]TLS{
		"no key": {CertFile: cert}, "no certificate": {KeyFile: key}, "of different pairs": {CertFile: cert, KeyFile: key},
		"missing": {CAFile: filepath.Join(dir, "none")}, "empty": {CAFile: empty},
	} {
		if _, err := files.Credentials(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
