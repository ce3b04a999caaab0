package main

import (
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
	"time"
)

const certLife = 365 * 24 * time.Hour

// selfSigned returns a server certificate whose CA is dir/ca.crt. Files of an earlier run are used again while they are good, so that
// a restart does not invalidate a CA file that others have read already. The CA's own key is thrown away.
func selfSigned(dir string) (cert tls.Certificate, caFile string, err error) {
	caFile = filepath.Join(dir, "ca.crt")
	certFile, keyFile := filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	if cert, err = tls.LoadX509KeyPair(certFile, keyFile); err == nil && stillGood(cert, caFile) {
		return cert, caFile, nil
	}
	if err = os.MkdirAll(dir, 0o755); err != nil {
		return cert, caFile, err
	}
	now := time.Now()
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, caFile, err
	}
	ca := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: "astra-sandbox test CA"}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(certLife), IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, &caKey.PublicKey, caKey)
	if err != nil {
		return cert, caFile, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return cert, caFile, err
	}
	leaf := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: "astra-sandbox"}, NotBefore: now.Add(-time.Hour),
		NotAfter: now.Add(certLife), KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, DNSNames: []string{"localhost", "astra-sandbox"},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}}
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, &key.PublicKey, caKey)
	if err != nil {
		return cert, caFile, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return cert, caFile, err
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: leafDER})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	caPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: caDER})
	for _, file := range []struct {
		path string
		text []byte
		mode os.FileMode
	}{{keyFile, keyPEM, 0o600}, {certFile, certPEM, 0o644}, {caFile, caPEM, 0o644}} { // ca.crt last: who waits for it finds all
		if err = writeWhole(file.path, file.text, file.mode); err != nil {
			return cert, caFile, err
		}
	}
	cert, err = tls.X509KeyPair(certPEM, keyPEM)
	return cert, caFile, err
}

// stillGood checks that the certificate belongs to the CA file and lasts another day.
func stillGood(cert tls.Certificate, caFile string) bool {
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		return false
	}
	text, err := os.ReadFile(caFile)
	if err != nil {
		return false
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return false
	}
	for _, name := range []string{"localhost", "astra-sandbox", "127.0.0.1", "::1"} {
		if leaf.VerifyHostname(name) != nil {
			return false
		}
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: time.Now().Add(24 * time.Hour)})
	return err == nil
}

func serial() *big.Int {
	n, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic("no random numbers: " + err.Error())
	}
	return n
}

func writeWhole(path string, text []byte, mode os.FileMode) error {
	temporary := path + ".new"
	_ = os.Remove(temporary)
	if err := os.WriteFile(temporary, text, mode); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}
