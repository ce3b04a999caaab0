// bench-peer-go is the gateway that a good team would write in Go instead: grpc-go in front, net/http with HTTP/2 over TLS
// behind, encoding/json between. The benchmark compares the real gateway with it, in the same run against the same upstream.
//
// It checks the same field rules and sends the same POST, so that the work compared is the same work. What it does not have is
// what sets the real gateway apart: no ledger, no idempotency, no joining of repeats, no proof of what was sent, no e-mail
// budget, no error details, no metrics and no log. Every one of these would add to its cost, so it is a peer that errs in Go's
// favour. With --ledger it keeps the same promise (ledger.go), and still lacks the rest.
//
// Tuning. GOGC and GOMAXPROCS are Go's defaults, as nearly every service runs. The rest was chosen by measuring
// (docs/benchmark.md has the numbers):
//   - MaxConnsPerHost: without it net/http dials a new connection for every call that finds the others full, hundreds of
//     them under load. Spreading calls over many transports of one connection each costs more, because each connection then
//     sends its frames alone;
//   - stream workers, one a core, and a write buffer that idle connections give back;
//   - RoundTrip without http.Client, because redirects and cookies are not wanted;
//   - header values that are the same for each request are built once, rules are tables, regular expressions run only on
//     lines that look like a PO box.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"

	pb "example.com/userintent/userintentv1"
)

const (
	maxMessage           = 64 << 10
	maxConcurrentStreams = 1 << 20 // of one caller's connection; the benchmark keeps thousands of calls in flight on a few
	stopWithin           = 5 * time.Second
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench-peer-go:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	flags := flag.NewFlagSet("bench-peer-go", flag.ContinueOnError)
	listen := flags.String("listen", "127.0.0.1:0", "gRPC address; the real one is printed as one line of JSON")
	upstream := flags.String("astra_base_url", "", "https://HOST:PORT")
	caFile := flags.String("astra_ca_file", "", "authorities of the upstream's certificate (PEM)")
	idFile := flags.String("astra_client_id_file", "", "client id for HTTP Basic")
	secretFile := flags.String("astra_client_secret_file", "", "client secret for HTTP Basic")
	connections := flags.Int("upstream_connections", 32, "HTTP/2 connections to the upstream, at most")
	place := flags.String("ledger", "", "file of a ledger; empty: nothing is kept")
	if err := flags.Parse(args); err != nil {
		return err
	}
	id, err := readSecret(*idFile)
	if err != nil {
		return err
	}
	secret, err := readSecret(*secretFile)
	if err != nil {
		return err
	}
	tlsConfig, err := upstreamTLS(*caFile)
	if err != nil {
		return err
	}
	astra, err := newAstraClient(*upstream, id, secret, tlsConfig, *connections)
	if err != nil {
		return err
	}

	served := &gateway{astra: astra, now: time.Now}
	if *place != "" {
		if served.ledger, err = openLedger(*place); err != nil {
			return err
		}
		defer served.ledger.close()
	}

	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return err
	}
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage),
		grpc.MaxConcurrentStreams(maxConcurrentStreams),
		grpc.NumStreamWorkers(uint32(runtime.GOMAXPROCS(0))),
		grpc.SharedWriteBuffer(true),
	)
	pb.RegisterUserIntentServiceServer(server, served)

	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	go func() {
		<-ctx.Done()
		time.AfterFunc(stopWithin, server.Stop)
		server.GracefulStop()
	}()
	fmt.Printf("{\"address\":%q,\"go\":%q,\"grpc\":%q}\n", listener.Addr(), runtime.Version(), grpc.Version)
	if err := server.Serve(listener); !errors.Is(err, grpc.ErrServerStopped) {
		return err // nil after a signal, too
	}
	return nil
}

func readSecret(name string) (string, error) {
	text, err := os.ReadFile(name)
	return strings.TrimSuffix(string(text), "\n"), err
}

func upstreamTLS(caFile string) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	if caFile != "" {
		pem, err := os.ReadFile(caFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, errors.New("no certificate in --astra_ca_file")
		}
	}
	return config, nil
}
