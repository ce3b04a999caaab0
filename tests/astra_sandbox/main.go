// astra-sandbox stands in for Astra in tests, demos and benchmarks. README.md says what it does.
package main

import (
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func basicAuthorization(id, secret string) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return
		}
		fmt.Fprintln(os.Stderr, "astra-sandbox:", err)
		os.Exit(1)
	}
}

type options struct {
	cfg                                      config
	listen, adminListen                      string
	selfSignedDir, certFile, keyFile         string
	clientIDFile, clientSecretFile, limitErr string
	healthcheck                              bool
}

func parseOptions(args []string) (*options, error) {
	o := &options{}
	var maxStreams uint
	flags := flag.NewFlagSet("astra-sandbox", flag.ContinueOnError)
	flags.StringVar(&o.listen, "listen", "127.0.0.1:8443", "HTTPS address; port 0 allowed")
	flags.StringVar(&o.adminListen, "admin_listen", "127.0.0.1:8444", "plain-HTTP admin address; port 0 allowed")
	flags.StringVar(&o.selfSignedDir, "self_signed_dir", "", "make ca.crt, server.crt and server.key in this directory, or use them again")
	flags.StringVar(&o.certFile, "tls_cert_file", "", "certificate, instead of --self_signed_dir")
	flags.StringVar(&o.keyFile, "tls_key_file", "", "its key")
	flags.StringVar(&o.cfg.clientID, "client_id", "sandbox-client", "accepted Basic user")
	flags.StringVar(&o.cfg.clientSecret, "client_secret", "sandbox-secret", "accepted Basic password")
	flags.StringVar(&o.clientIDFile, "client_id_file", "", "file with the accepted Basic user")
	flags.StringVar(&o.clientSecretFile, "client_secret_file", "", "file with the accepted Basic password")
	flags.StringVar(&o.cfg.http, "http", "auto", "auto: HTTP/2 and HTTP/1.1, 1: HTTP/1.1 only, 2: HTTP/2 only")
	flags.DurationVar(&o.cfg.delay, "delay", 0, "answer every POST after this long")
	flags.IntVar(&o.cfg.attemptLimit, "attempt_limit", 3, "intents per e-mail address; 0: no limit")
	flags.StringVar(&o.limitErr, "limit_error", "400:Maximum number of user intents reached for this email", "STATUS:TEXT of the answer past the limit")
	flags.StringVar(&o.cfg.errorShape, "error_shape", "generic", "generic, validation, oauth or html")
	flags.BoolVar(&o.cfg.accessLog, "access_log", false, "one JSON line per POST and GET on stderr, without personal data")
	flags.BoolVar(&o.cfg.keepBodies, "keep_bodies", true, "keep bodies and headers in the account; false for benchmarks")
	flags.BoolVar(&o.cfg.kycDelegation, "kyc_delegation", false, "ssn is optional for verified, too")
	flags.DurationVar(&o.cfg.pendingFor, "pending_for", 2*time.Second, "how long GET answers pending after the creation")
	flags.DurationVar(&o.cfg.getDelay, "get_delay", 0, "answer every GET after this long")
	flags.StringVar(&o.cfg.webhookURL, "webhook_url", "", "where webhooks go; POST /webhooks changes it")
	flags.StringVar(&o.cfg.webhookCA, "webhook_ca_file", "", "CA bundle for an https --webhook_url")
	flags.DurationVar(&o.cfg.webhookRetry, "webhook_retry", time.Second, "until a webhook is sent again, doubled for each further try")
	flags.UintVar(&maxStreams, "max_concurrent_streams", 250, "HTTP/2 streams per connection; more are refused (REFUSED_STREAM)")
	flags.BoolVar(&o.healthcheck, "healthcheck", false, "ask the sandbox at --admin_listen whether it serves, and exit 0 or 1")
	flags.SetOutput(io.Discard) // main prints the error, in one line
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			flags.SetOutput(os.Stdout)
			flags.PrintDefaults()
		}
		return nil, err
	}
	if flags.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	}
	for _, file := range []struct {
		path string
		into *string
	}{{o.clientIDFile, &o.cfg.clientID}, {o.clientSecretFile, &o.cfg.clientSecret}} {
		if file.path != "" {
			text, err := os.ReadFile(file.path)
			if err != nil {
				return nil, err
			}
			*file.into = strings.TrimSuffix(string(text), "\n")
		}
	}
	switch o.cfg.http {
	case "auto", "1", "2":
	default:
		return nil, errors.New("--http is not auto, 1 or 2")
	}
	switch o.cfg.errorShape {
	case "generic", "validation", "oauth", "html":
	default:
		return nil, errors.New("--error_shape is not generic, validation, oauth or html")
	}
	status, text, found := strings.Cut(o.limitErr, ":")
	number, err := strconv.Atoi(status)
	if !found || err != nil || number < 200 || number > 999 {
		return nil, errors.New("--limit_error is not STATUS:TEXT")
	}
	o.cfg.limitStatus, o.cfg.limitText = number, text
	if o.cfg.delay < 0 || o.cfg.getDelay < 0 || o.cfg.attemptLimit < 0 || o.cfg.pendingFor < 0 || o.cfg.webhookRetry < 0 || maxStreams < 1 || maxStreams > 1<<30 {
		return nil, errors.New("a number is out of range")
	}
	o.cfg.maxStreams = uint32(maxStreams)
	return o, nil
}

func (o *options) certificate() (tls.Certificate, string, error) {
	switch {
	case (o.certFile == "") != (o.keyFile == ""):
		return tls.Certificate{}, "", errors.New("--tls_cert_file and --tls_key_file go together")
	case o.certFile != "" && o.selfSignedDir != "":
		return tls.Certificate{}, "", errors.New("--tls_cert_file and --self_signed_dir exclude each other")
	case o.certFile != "":
		cert, err := tls.LoadX509KeyPair(o.certFile, o.keyFile)
		return cert, "", err
	case o.selfSignedDir != "":
		return selfSigned(o.selfSignedDir)
	}
	return tls.Certificate{}, "", errors.New("--self_signed_dir, or --tls_cert_file and --tls_key_file, is required")
}

// server is a running sandbox.
type server struct {
	sb     *sandbox
	front  *front
	admin  *http.Server
	errors chan error
	Line   struct {
		URL    string `json:"url"`
		Admin  string `json:"admin"`
		CAFile string `json:"ca_file"`
	}
}

func start(o *options) (*server, error) {
	cert, caFile, err := o.certificate()
	if err != nil {
		return nil, err
	}
	protocols := map[string][]string{"auto": {"h2", "http/1.1"}, "1": {"http/1.1"}, "2": {"h2"}}[o.cfg.http]
	sb, err := newSandbox(o.cfg)
	if err != nil {
		return nil, err
	}
	s := &server{sb: sb, errors: make(chan error, 1)}
	s.front, err = listenFront(s.sb, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: protocols, MinVersion: tls.VersionTLS12}, o.listen)
	if err != nil {
		return nil, err
	}
	admin, err := net.Listen("tcp", o.adminListen)
	if err != nil {
		s.front.close()
		return nil, err
	}
	s.admin = &http.Server{Handler: adminHandler(s.sb, s.front), ReadHeaderTimeout: 10 * time.Second}
	go func() { s.errors <- s.admin.Serve(admin) }()
	s.Line.URL = "https://" + reachable(s.front.address)
	s.Line.Admin = "http://" + reachable(admin.Addr().String())
	s.Line.CAFile = caFile
	return s, nil
}

func (s *server) stop() {
	_ = s.admin.Close()
	s.front.close()
	s.sb.webhooks.stop()
}

// reachable turns a wildcard address into one that can be called from this machine.
func reachable(address string) string {
	host, port, err := net.SplitHostPort(address)
	if ip := net.ParseIP(host); err == nil && ip != nil && ip.IsUnspecified() {
		return net.JoinHostPort("localhost", port)
	}
	return address
}

func run(args []string, stdout io.Writer) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if o.healthcheck {
		client := &http.Client{Timeout: 5 * time.Second}
		answer, err := client.Get("http://" + reachable(o.adminListen) + "/healthz")
		if err != nil {
			return err
		}
		_ = answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			return fmt.Errorf("health check answered %d", answer.StatusCode)
		}
		return nil
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	s, err := start(o)
	if err != nil {
		return err
	}
	line, _ := json.Marshal(s.Line)
	if _, err := fmt.Fprintf(stdout, "%s\n", line); err != nil {
		return err
	}
	select {
	case <-signals:
		s.stop()
		return nil
	case err := <-s.errors:
		return err
	}
}
